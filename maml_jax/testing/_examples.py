"""Small tasks and networks to check learners with."""

from typing import Any

import jax
import jax.numpy as jnp

from maml_jax.meta import Batch, Model, Task
from maml_jax.models import gru, temporal_convolution, transformer

_ROWS = 6
_HALVES = (slice(_ROWS), slice(_ROWS, None))


def sequence_models(outputs: int) -> dict[str, Model]:
    """Return a small sequence model of each kind."""
    return {
        "gru": gru(3, outputs),
        "temporal_convolution": temporal_convolution((3, 3), 2, outputs),
        "transformer": transformer(4, layers=1, outputs=outputs),
    }


def tuple_model(outputs: int) -> Model:
    """Return a network whose parameters are tuples and lists, no dict anywhere."""

    def init(key, x):
        first, second = jax.random.split(key)
        w = jax.random.normal(first, (x.shape[-1], 8)) / x.shape[-1] ** 0.5
        v = jax.random.normal(second, (8, outputs)) / 8**0.5
        return [w, jnp.zeros(8)], (v, jnp.zeros(outputs))

    def apply(params, x):
        (w, b), (v, c) = params
        return jnp.tanh(x @ w + b) @ v + c

    return Model(init, apply)


def number_task(seed: int) -> Task:
    """Return a sinusoid of random amplitude and phase, six rows in support and in query."""
    keys = jax.random.split(jax.random.key(seed), 3)
    amplitude = jax.random.uniform(keys[0], (1, 1, 1), minval=0.1, maxval=5.0)
    phase = jax.random.uniform(keys[1], (1, 1, 1), maxval=jnp.pi)
    x = jax.random.uniform(keys[2], (1, 2 * _ROWS, 1), minval=-5.0, maxval=5.0)
    rows = Batch(x[0], (amplitude * jnp.sin(x - phase))[0])
    support, query = (jax.tree.map(lambda leaf, s=s: leaf[s], rows) for s in _HALVES)
    return Task(support, query)


def class_task(seed: int) -> Task:
    """Return three clouds of points in the plane, two rows of each in support and in query."""
    keys = jax.random.split(jax.random.key(seed), 3)
    y = jnp.arange(_ROWS) % 3
    centres = jax.random.normal(keys[0], (3, 2))

    def draw(key):
        return Batch(centres[y] + 0.1 * jax.random.normal(key, (_ROWS, 2)), y)

    return Task(draw(keys[1]), draw(keys[2]))


def in_sequences(task: Task) -> Task:
    """Return rows as they are, at the end of three bars that grow to them."""
    growth = jnp.array([0.2, 0.5, 1.0], task.support.x.dtype)[:, None]
    support, query = (rows._replace(x=rows.x[:, None] * growth) for rows in task[:2])
    return Task(support, query)


def spoil(rows: Batch) -> Batch:
    """Put NaN into the rows of weight 0, where it can stand."""
    weight = rows.weight
    if weight is None:
        return rows

    def fill(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        absent = (weight == 0).reshape(*weight.shape, *(1,) * (leaf.ndim - 2))
        return jnp.where(absent, jnp.nan, leaf)

    return Batch(fill(rows.x), fill(rows.y), weight)


def cast(tree: Any, dtype: Any) -> Any:
    """Return a pytree with its floating leaves in a precision."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )
