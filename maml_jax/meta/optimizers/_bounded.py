"""Inner optimizers that see gradients of a bounded norm."""

import jax
import jax.numpy as jnp
import optax

from maml_jax.meta.types import InnerOptimizer, LearnedOptimizer


def bounded(optimizer: InnerOptimizer, max_norm: float) -> InnerOptimizer:
    r"""Bound the norm of the gradients that an inner optimizer sees.

    $$g \leftarrow g \min\Bigl(1, \frac{m}{\lVert g \rVert}\Bigr)$$

    As `optax.clip_by_global_norm`, with a derivative at zero, and for learned optimizers too, whose
    settings stay what they are.

    Args:
        optimizer: an optax transformation or a learned optimizer.
        max_norm: $m$, of all gradients of a step together.

    Raises:
        ValueError: if `max_norm` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    if isinstance(optimizer, LearnedOptimizer):
        return LearnedOptimizer(optimizer.init, _bound(optimizer.transform, max_norm))
    return _bound(optimizer, max_norm)


def _bound(
    optimizer: optax.GradientTransformation, max_norm: float
) -> optax.GradientTransformationExtraArgs:
    inner = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra):
        square = optax.tree.norm(updates, squared=True)
        # Inside of the root, which has no derivative at zero.
        scale = max_norm * jax.lax.rsqrt(jnp.maximum(square, max_norm**2))
        updates = jax.tree.map(lambda leaf: (scale * leaf).astype(leaf.dtype), updates)
        return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)
