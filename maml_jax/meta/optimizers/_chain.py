"""Inner optimizers one after another, of which some or all are learned."""

from typing import Any

import jax
import optax

from maml_jax.meta.types import InnerOptimizer, LearnedOptimizer


def chain(*optimizers: InnerOptimizer) -> LearnedOptimizer:
    """Apply inner optimizers one after another, as `optax.chain` does.

    Args:
        *optimizers: optax transformations and learned optimizers; each receives the updates of the
            one before it.

    Returns:
        A `LearnedOptimizer` whose settings are a tuple with an entry for each, `()` for those that
        are not learned.

    >>> import jax, jax.numpy as jnp, optax
    >>> from maml_jax.meta.optimizers import chain, learned_rates
    >>> optimizer = chain(optax.clip_by_global_norm(1.0), learned_rates(0.01))
    >>> clip, rate = optimizer.init(jax.random.key(0), jnp.zeros(3))
    >>> clip, round(float(jnp.exp(rate)), 4)
    ((), 0.01)
    """

    def init(key, params, /) -> tuple:
        keys = jax.random.split(key, len(optimizers))
        return tuple(
            each.init(own, params) if isinstance(each, LearnedOptimizer) else ()
            for own, each in zip(keys, optimizers, strict=True)
        )

    def begin(params) -> tuple:
        return tuple(_transform(each).init(params) for each in optimizers)

    def update(updates, state, params=None, **extra):
        each_settings, states = extra.pop("settings"), []
        for each, settings, old in zip(optimizers, each_settings, state, strict=True):
            learned = {"settings": settings} if isinstance(each, LearnedOptimizer) else {}
            updates, new = _transform(each).update(updates, old, params, **extra, **learned)
            states.append(new)
        return updates, tuple(states)

    return LearnedOptimizer(init, optax.GradientTransformationExtraArgs(begin, update))


def _transform(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    learned = isinstance(optimizer, LearnedOptimizer)
    return optax.with_extra_args_support(optimizer.transform if learned else optimizer)
