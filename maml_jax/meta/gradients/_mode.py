"""What a gradient mode is."""

from typing import Any, Protocol, runtime_checkable

import optax
from jaxtyping import Array, Float

from maml_jax.meta.inner_loop import Objective
from maml_jax.meta.types import Params


@runtime_checkable
class GradientMode(Protocol):
    """Descends like `descend`, and decides how the result is differentiated.

    Attributes:
        differentiates_start: whether the result has a derivative in `params`, where the descent
            began. Learners whose only meta-parameters are a start need it.
    """

    @property
    def differentiates_start(self) -> bool: ...

    def __call__(
        self,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        params: Params,
        context: Any,
        steps: int,
        settings: Any = None,
        /,
    ) -> tuple[Params, Float[Array, " steps"]]:
        """Take `steps` steps of an optax optimizer.

        Args:
            objective: `(params, context) -> scalar`.
            optimizer: any optax transformation.
            params: the start, any pytree of arrays.
            context: any pytree; what else the objective depends on.
            steps: how many steps to take, >= 0.
            settings: any pytree; handed to the optimizer's update as `settings`, unless None.

        Returns:
            The parameters after the last step, shaped like `params`, and the objective before each
            step, `[steps]`.
        """
        ...
