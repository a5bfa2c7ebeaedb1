"""Gradient descent whose learning rates are meta-learned."""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from maml_jax.meta.types import LearnedOptimizer

Share: TypeAlias = Literal["all", "leaf", "entry"]


class _Counter(NamedTuple):
    count: jax.Array


def learned_rates(
    initial: float | tuple[float, float] = 0.005,
    *,
    per: Share = "leaf",
    steps: int | None = None,
    positive: bool = True,
    speed: float = 1.0,
) -> LearnedOptimizer:
    r"""Gradient descent with meta-learned rates.

    $$\theta_{k+1} = \theta_k - \alpha_k \circ \nabla L(\theta_k), \qquad
      \alpha_k = e^{s \beta_k}\ \text{(kept positive) or}\ \alpha_k = s \beta_k$$

    where $\beta$ are meta-parameters, learned $s$ times as fast as others.

    Args:
        initial: the rate that all begin with, or the two ends of a uniform distribution that each
            is drawn from.
        per: what shares a rate: "all" parameters, the entries of one "leaf" of the parameter tree
            (a layer's weights, a layer's biases), or nothing: one for each "entry" (Meta-SGD).
        steps: gives each of the first `steps` steps rates of its own; later steps use the last
            ones. None: all steps share theirs.
        positive: learn logarithms, so that rates stay positive. Otherwise a rate may change its
            sign, as in Meta-SGD's paper.
        speed: $s$. The steps of an outer optimizer such as Adam are of one size for all parameters;
            a rate that must become many times larger or smaller, as where one level of several is
            to be left out, finds its way in hundreds of meta-steps instead of thousands.

    Returns:
        A `LearnedOptimizer`.

    Raises:
        ValueError: if `initial` is not positive although rates are, or its range not ascending, or
            `steps` is less than 1, or `per` is unknown, or `speed` is not positive.

    Reference:
        Li, Zhou, Chen, Li (2017), Meta-SGD, arXiv:1707.09835 (an entry each); Antoniou, Edwards,
        Storkey (2019), How to train your MAML, arXiv:1810.09502, section 4 (a layer and a step
        each).
    """
    low, high = initial if isinstance(initial, tuple) else (initial, initial)
    if low > high or (positive and low <= 0):
        rule = "must be positive; a range is" if positive else "range must be"
        raise ValueError(f"initial {rule} (low, high), got {initial}")
    if steps is not None and steps < 1:
        raise ValueError(f"per-step rates need steps of at least 1, got {steps}")
    if not speed > 0:
        raise ValueError(f"speed must be positive, got {speed}")
    if per not in ("all", "leaf", "entry"):
        raise ValueError(f'per is "all", "leaf" or "entry", not {per!r}')

    def init(key, params, /):
        leaves, structure = jax.tree.flatten(params)
        lead = () if steps is None else (steps,)
        dtype = jnp.result_type(*leaves)
        if per == "all":
            return start(key, lead, dtype)
        keys = jax.random.split(key, len(leaves))
        shapes = [leaf.shape if per == "entry" else () for leaf in leaves]
        drawn = [start(k, lead + s, dtype) for k, s in zip(keys, shapes, strict=True)]
        return jax.tree.unflatten(structure, drawn)

    def start(key, shape, dtype):
        rates = jax.random.uniform(key, shape, dtype, minval=low, maxval=high)
        return (jnp.log(rates) if positive else rates) / speed

    def update(updates, state, params=None, **extra):
        del params
        settings = extra["settings"]
        if steps is not None:
            now = jnp.minimum(state.count, steps - 1)
            settings = jax.tree.map(lambda leaf: leaf[now], settings)
            state = _Counter(state.count + 1)
        rates = jax.tree.map(lambda leaf: speed * leaf, settings)
        rates = jax.tree.map(jnp.exp, rates) if positive else rates
        if per == "all":
            return jax.tree.map(lambda g: -rates.astype(g.dtype) * g, updates), state
        return jax.tree.map(lambda r, g: -r.astype(g.dtype) * g, rates, updates), state

    def no_state(params):
        del params
        return optax.EmptyState() if steps is None else _Counter(jnp.zeros((), jnp.int32))

    return LearnedOptimizer(init, optax.GradientTransformationExtraArgs(no_state, update))
