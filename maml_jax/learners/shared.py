"""What several learners need."""

from collections.abc import Mapping

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Params


def require_plain_params(params: Params) -> Params:
    """Return the parameters of a fresh network, unless some of them are running state.

    A `flax.linen` module returns its collections side by side; only `params` is learned. Running
    averages (`batch_stats`) would be taken for parameters and changed by gradient descent.

    Raises:
        ShapeError: naming the other collections.
    """
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = sorted(set(params) - {"params"})
        raise ShapeError(
            f"the module holds collections beside its parameters: {others}; an (init, apply) pair "
            "cannot carry them. Use layers without running state, such as LayerNorm"
        )
    return params
