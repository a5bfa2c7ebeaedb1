"""A learned optimizer with settings of its own for each inner step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maml_jax.meta.types import LearnedOptimizer


class _State(NamedTuple):
    count: jax.Array
    optimizer: Any


def per_step(optimizer: LearnedOptimizer, steps: int) -> LearnedOptimizer:
    """Let a learned optimizer have other settings at each inner step.

    Args:
        optimizer: any `LearnedOptimizer`.
        steps: how many steps have settings of their own; later ones use the last.

    Returns:
        A `LearnedOptimizer` whose settings are those of `optimizer`, stacked: `[step, ...]`.

    Raises:
        ValueError: if `steps` is less than 1.
    """
    if steps < 1:
        raise ValueError(f"settings for each step need at least 1 step, got {steps}")

    def init(key, params, /):
        each = [optimizer.init(own, params) for own in jax.random.split(key, steps)]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

    def update(updates, state, params=None, **extra):
        index = jnp.minimum(state.count, steps - 1)
        settings = jax.tree.map(lambda leaf: leaf[index], extra.pop("settings"))
        updates, inner = optimizer.transform.update(
            updates, state.optimizer, params, settings=settings, **extra
        )
        return updates, _State(state.count + 1, inner)

    def begin(params) -> _State:
        return _State(jnp.zeros((), jnp.int32), optimizer.transform.init(params))

    return LearnedOptimizer(init, optax.GradientTransformationExtraArgs(begin, update))
