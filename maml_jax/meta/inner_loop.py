"""Adaptation by gradient descent, with any optax transformation, as one scan."""

from typing import Any, Protocol, runtime_checkable

import jax
import optax
from jax import lax
from jaxtyping import Array, Float

from maml_jax.meta.types import Params, Scalar

UNROLL = 5
"""Inner steps that one iteration of the compiled loop holds: the time of full unrolling at the
compile time of a loop."""


@runtime_checkable
class Objective(Protocol):
    """What the inner loop descends: a scalar function of the parameters that adapt.

    `context` is everything else that it depends on (the support set, meta-learned settings).
    """

    def __call__(self, params: Params, context: Any, /) -> Scalar: ...


def descend(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    params: Params,
    context: Any,
    steps: int,
    *,
    remat: bool = False,
) -> tuple[Params, Float[Array, " steps"]]:
    r"""Take `steps` steps of an optax optimizer from `params`.

    $$\theta_{k+1} = \theta_k + u_k(\nabla_\theta L(\theta_k)), \quad k = 0 \dots K-1$$

    where $u$ is the optimizer's update, for SGD $u(g) = -\alpha g$ (Finn et al., 2017,
    arXiv:1703.03400, equation 1).

    Args:
        objective: `(params, context) -> scalar`.
        optimizer: any optax transformation; line searches receive the value and the function.
        params: the start, any pytree of arrays.
        context: passed to `objective` at every step.
        steps: how many steps to take, >= 0.
        remat: recompute each step on the way back instead of storing its intermediate values.

    Returns:
        The parameters after the last step, and the objective before each step.

    Raises:
        ValueError: if `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"the number of inner steps must not be negative, got {steps}")
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, _):
        params, opt_state = carry
        value, grad = jax.value_and_grad(objective)(params, context)
        updates, opt_state = optimizer.update(
            grad,
            opt_state,
            params,
            value=value,
            grad=grad,
            value_fn=lambda candidate: objective(candidate, context),
        )
        return (optax.apply_updates(params, updates), opt_state), value

    # Steps that share one iteration would be merged again, and nothing saved by recomputing.
    unroll = 1 if remat else max(1, min(steps, UNROLL))
    if remat:
        step = jax.checkpoint(step, prevent_cse=False)
    start = (params, optimizer.init(params))
    (params, _), values = lax.scan(step, start, None, length=steps, unroll=unroll)
    return params, values
