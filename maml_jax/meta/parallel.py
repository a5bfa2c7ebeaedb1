"""Many tasks: vectorised in chunks, used by meta-training and by walk-forward alike.

A chunk of tasks is vectorised, chunks follow one another. On a CPU a chunk that stays in the cache
is faster than the whole meta-batch at once, and everywhere it bounds the memory.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def default_chunk() -> int:
    """The number of tasks that are vectorised together where the caller names none."""
    return 8 if jax.default_backend() == "cpu" else 4096


def map_tasks(function: Callable[[Any], Any], tasks: Any, *, chunk: int | None = None) -> Any:
    """Apply `function` to every task.

    Args:
        function: takes one task.
        tasks: a pytree of arrays with a leading task axis.
        chunk: how many tasks are vectorised together; the result does not depend on it.

    Returns:
        The results, with a leading task axis.
    """
    count, size = _sizes(tasks, chunk)
    padding = -count % size

    def to_chunks(leaf):
        # Whole chunks only, so that one body is compiled and no task's result depends on its place.
        leaf = jnp.concatenate([leaf, jnp.repeat(leaf[-1:], padding, axis=0)])
        return leaf.reshape(-1, size, *leaf.shape[1:])

    results = lax.map(jax.vmap(function), jax.tree.map(to_chunks, tasks))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], results)


def average_tasks(
    function: Callable[[Any], tuple[Any, Any]], tasks: Any, *, chunk: int | None = None
) -> tuple[Any, Any]:
    """Apply `function` to every task and average its first result without ever storing all of them.

    Args:
        function: takes one task, returns `(summed, kept)`, two pytrees of arrays.
        tasks: a pytree of arrays with a leading task axis.
        chunk: how many tasks are vectorised together.

    Returns:
        The mean of `summed` over tasks, and `kept` with a leading task axis.
    """
    count, size = _sizes(tasks, chunk)
    if count == 0:
        raise ValueError("there is no average over no tasks")
    whole = count - count % size

    def add_chunk(total, part):
        summed, kept = jax.vmap(function)(part)
        total = jax.tree.map(lambda t, s: t + jnp.sum(s, axis=0, dtype=t.dtype), total, summed)
        return total, kept

    shapes, _ = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], tasks))
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, _wide(s.dtype)), shapes)
    chunks = jax.tree.map(
        lambda leaf: leaf[:whole].reshape(whole // size, size, *leaf.shape[1:]), tasks
    )
    total, kept = lax.scan(add_chunk, total, chunks)
    kept = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), kept)
    if whole < count:
        total, rest = add_chunk(total, jax.tree.map(lambda leaf: leaf[whole:], tasks))
        kept = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), kept, rest)
    return jax.tree.map(lambda t, s: (t / count).astype(s.dtype), total, shapes), kept


def _sizes(tasks: Any, chunk: int | None) -> tuple[int, int]:
    if chunk is not None and chunk < 1:
        raise ValueError(f"a chunk needs at least 1 task, got {chunk}")
    count = jax.tree.leaves(tasks)[0].shape[0]
    return count, max(1, min(chunk or default_chunk(), count))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """Sums of half-precision numbers are kept in single precision."""
    return jnp.promote_types(dtype, jnp.float32)
