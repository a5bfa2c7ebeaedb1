"""Find, before it is differentiated, an inner optimizer whose derivative would be NaN."""

import math
from functools import lru_cache
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from maml_jax.errors import GradientError
from maml_jax.meta.types import Params

_PROBED_UPDATES = 3
"""Updates that are differentiated to find a NaN; some optimizers take their root late."""


def require_differentiable(
    optimizer: optax.GradientTransformation, params: Params, settings: Any = None
) -> None:
    """Refuse an inner optimizer whose update has no derivative where a gradient entry is zero.

    Adam divides by the square root of a running mean of squared gradients. At zero the root has an
    infinite slope, and one parameter that receives no gradient (a dead unit, a zero input) turns
    the whole meta-gradient into NaN.

    Args:
        optimizer: the inner optimizer.
        params: parameters of the shapes that it will update.
        settings: learned settings of the optimizer; only their shapes matter.

    Raises:
        GradientError: if the derivative of a few updates is NaN at a gradient that holds zeros.
    """
    if _is_nan_at_zero(optimizer, *_shapes(params), *_shapes(settings)):
        raise GradientError(
            "the inner optimizer cannot be differentiated where a gradient entry is zero: the "
            "meta-gradient would be NaN. It holds a square root; if it takes an eps_root, make "
            "that positive, as in optax.adam(0.01, eps_root=1e-8); else use another optimizer, or "
            "gradient=first_order()"
        )


def _shapes(tree: Any) -> tuple:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


@lru_cache(maxsize=16)
def _is_nan_at_zero(optimizer, structure, shapes, settings_structure, settings_shapes) -> bool:
    optimizer = optax.with_extra_args_support(optimizer)

    def half_zero(shape, dtype):
        return (jnp.arange(math.prod(shape)) % 2).reshape(shape).astype(dtype)

    with jax.ensure_compile_time_eval():
        params = jax.tree.unflatten(structure, [jnp.zeros(*shape) for shape in shapes])
        grad = jax.tree.unflatten(structure, [half_zero(*shape) for shape in shapes])
        settings = jax.tree.unflatten(
            settings_structure, [jnp.zeros(*shape) for shape in settings_shapes]
        )
        learned = {} if settings is None else {"settings": settings}

        def updates(grad):
            # Line searches need the objective; any smooth one shows whether they differentiate.
            extra = {"value": jnp.zeros(()), "grad": grad, "value_fn": _squared_norm, **learned}
            state, total = optimizer.init(params), params
            for _ in range(_PROBED_UPDATES):
                update, state = optimizer.update(grad, state, params, **extra)
                total = optax.apply_updates(total, update)
            return total

        def pull_back(grad):
            total, back = jax.vjp(updates, grad)
            return back(jax.tree.map(jnp.ones_like, total))[0]

        try:
            slope = jax.jit(pull_back)(grad)
        except (TypeError, ValueError):
            return False  # no derivative at all: taking it will say why
    leaves = jax.tree.leaves(slope)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False  # the optimizer holds values that are only known later, such as learned rates
    return any(bool(np.isnan(leaf).any()) for leaf in leaves)


def _squared_norm(params: Params) -> Float[Array, ""]:
    return optax.tree.norm(params, squared=True)
