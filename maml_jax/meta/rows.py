"""Rows that count: what weights mean, and how tasks of different sizes become arrays."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Batch, LossFn, Params, Scalar, Task


def weighted_mean(values: Float[Array, "n ..."], weight: Float[Array, " n"] | None) -> Scalar:
    r"""Return the mean over rows, $\sum_i w_i v_i / \sum_i w_i$, and over what each row holds.

    Args:
        values: of each row, `[n, ...]`.
        weight: of each row, `[n]`; values at weight 0 are not looked at. None: all count alike.

    Returns:
        The mean, `[]`; 0 where no row counts.
    """
    if weight is None:
        return jnp.mean(values)
    rows = jnp.mean(values.reshape(len(values), math.prod(values.shape[1:])), axis=1)
    wide = jnp.promote_types(rows.dtype, jnp.float32)  # weights overflow half precision
    weight = require_weight(weight, len(values)).astype(wide)
    total = jnp.sum(weight)
    weighted = jnp.sum(jnp.where(weight > 0, weight * rows.astype(wide), 0))
    return (weighted / jnp.where(total > 0, total, 1)).astype(rows.dtype)


def require_weight(weight: Any, rows: int) -> Array:
    """Return the weights of rows as an array; what is not positive is 0.

    Raises:
        ShapeError: if there is not one for each row.
    """
    found = jnp.asarray(weight)
    if found.shape != (rows,):
        raise ShapeError(
            f"weights have shape {found.shape}, and {rows} rows need one each, [{rows}]"
        )
    found = found.astype(jnp.promote_types(found.dtype, jnp.float32))
    return jnp.maximum(jnp.nan_to_num(found), 0)


def fill_absent(batch: Batch) -> Batch:
    """Put the first row that counts in the place of those that do not; they may hold anything.

    A function that is finite on rows that count is then finite, derivatives included, on all.
    """
    if batch.weight is None or not len(batch.y):
        return batch
    weight = require_weight(batch.weight, len(batch.y))
    counts = weight > 0
    first, some = jnp.argmax(counts), jnp.any(counts)

    def fill(leaf: Any) -> Array:
        leaf = jnp.asarray(leaf)
        row: Any = jnp.where(some, leaf[first], jnp.zeros_like(leaf[0]))
        return jnp.where(counts.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, row)

    return Batch(fill(batch.x), fill(batch.y), weight)


def never_empty(batch: Batch) -> Batch:
    """Return a batch without rows as one of a single row that does not count."""
    if len(batch.y):
        return batch
    x, y = (jnp.zeros((1, *leaf.shape[1:]), leaf.dtype) for leaf in batch[:2])
    return Batch(x, y, jnp.zeros(1))


def weights_of(batch: Batch) -> Float[Array, " n"]:
    """Return the weight of each row, `[n]`."""
    return jnp.ones(len(batch.y)) if batch.weight is None else batch.weight


def count_rows(batch: Batch) -> Scalar | int:
    """Return how many rows there are, those with weights counted by them."""
    if batch.weight is None:
        return len(batch.y)
    return jnp.sum(require_weight(batch.weight, len(batch.y)))


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Return the rows of several batches in one; with weights if one of them has weights."""
    if all(batch.weight is None for batch in batches):
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)
    weighted = [batch._replace(weight=weights_of(batch)) for batch in batches]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *weighted)


def batch_loss(
    loss: LossFn,
    predict: Callable[[Params, Any], Any],
    adapted: Params,
    batch: Batch,
    key: Key[Array, ""] | None = None,
) -> Scalar:
    """Return the loss of what is predicted of a batch; 0 of no rows.

    Args:
        loss: compares outputs with targets. Where rows have weights and it takes none, it is
            computed row by row.
        predict: `(adapted, x [n, *features]) -> y_hat`.
        adapted: parameters.
        batch: the rows, with weights or without.
        key: handed to a loss that takes one.

    Raises:
        ShapeError: if the loss is not one number.
    """
    value = _loss_of_rows(loss, predict, adapted, fill_absent(never_empty(batch)), key)
    if jnp.shape(value):
        raise ShapeError(
            f"a loss returns one number, the mean over rows, and this one returned shape "
            f"{jnp.shape(value)}: end it in jnp.mean"
        )
    return value


def _loss_of_rows(loss, predict, adapted, batch, key):
    x, y, weight = batch
    y_hat = predict(adapted, x)
    more: dict[str, Any] = {"key": key} if key is not None and takes(loss, "key") else {}
    if weight is None:
        return loss(y_hat, y, **more)
    if takes(loss, "weight"):
        return loss(y_hat, y, **more, **{"weight": weight})

    def of_row(y_hat, y):
        return loss(jax.tree.map(lambda leaf: leaf[None], y_hat), y[None], **more)

    return weighted_mean(jax.vmap(of_row)(y_hat, y), weight)


def takes(function: Callable, name: str) -> bool:
    """Say whether a function has a parameter of this name."""
    return name in _parameters(function)


@lru_cache(maxsize=256)
def _parameters(function: Callable) -> frozenset[str]:
    try:
        return frozenset(signature(function).parameters)
    except (TypeError, ValueError):  # some functions in C have none
        return frozenset()


def stack_tasks(tasks: Iterable[Any], *, rows: tuple[int, int] | None = None) -> Task:
    """Stack tasks whose sets differ in their numbers of rows into one meta-batch.

    Shorter sets are filled up with rows of weight 0, which every learner treats as absent, so that
    one compiled program serves tasks of all sizes. Done on the host, with NumPy.

    Args:
        tasks: one or more; each array without a task axis. A weight that only some of them have
            is 1 for the others.
        rows: how many rows support and query are filled up to; default: as many as the largest
            of these tasks has. Give it where meta-batches are made one after the other, which must
            all have the same shapes.

    Returns:
        A task whose arrays have a leading task axis. Its sets have weights; without `rows` only if
        tasks differ in their numbers of rows, or one has weights.

    Raises:
        ShapeError: if there is no task, shapes other than the numbers of rows differ, a set has
            more than `rows`, or only some tasks have a key.
        TypeError: if something is no `Task`.

    >>> import numpy as np
    >>> from maml_jax import Batch, Task, stack_tasks
    >>> def rows(n):
    ...     return Batch(np.ones((n, 3)), np.ones((n, 1)))
    >>> tasks = stack_tasks([Task(rows(2), rows(5)), Task(rows(4), rows(5))])
    >>> tasks.support.x.shape, tasks.support.weight.tolist(), tasks.query.weight is None
    ((2, 4, 3), [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], True)
    """
    tasks = list(tasks)
    if not tasks:
        raise ShapeError("there is no task to stack")
    for number, task in enumerate(tasks):
        if not isinstance(task, Task):
            raise TypeError(f"item {number} of the tasks is no Task, but {type(task).__name__}")
        if np.ndim(0 if task.weight is None else task.weight):
            raise ShapeError(f"task {number}: its weight is one number, got {task.weight!r:.60}")
    weight: Any = None
    if any(task.weight is not None for task in tasks):
        weight = np.asarray([1.0 if task.weight is None else task.weight for task in tasks])
        weight = weight.astype(np.float32)
    keys = [task.key for task in tasks if task.key is not None]
    if len(keys) not in (0, len(tasks)):
        raise ShapeError(f"{len(keys)} of {len(tasks)} tasks have a key: give all of them one")
    return Task(
        _stack_batches([task.support for task in tasks], "support", rows and rows[0]),
        _stack_batches([task.query for task in tasks], "query", rows and rows[1]),
        weight,
        jnp.stack(keys) if keys else None,
    )


def _stack_batches(batches: list[Batch], name: str, rows: int | None) -> Batch:
    parts: list[Any] = []
    for part in ("x", "y"):
        arrays = [np.asarray(getattr(batch, part)) for batch in batches]
        shapes = {(array.shape[1:], array.dtype) for array in arrays}
        if len(shapes) > 1:
            each = ", ".join(f"{shape} {dtype}" for shape, dtype in sorted(shapes, key=str))
            raise ShapeError(
                f"{name}.{part} of the tasks differ in more than their number of rows: rows of "
                f"shape {each}"
            )
        parts.append(arrays)
    counts = [len(y) for y in parts[1]]
    for number, (x, count) in enumerate(zip(parts[0], counts, strict=True)):
        if len(x) != count:
            raise ShapeError(f"{name} of task {number}: {len(x)} rows of x and {count} of y")
    most = max(counts) if rows is None else rows
    if max(counts) > most:
        number = counts.index(max(counts))
        raise ShapeError(f"{name} of task {number}: {max(counts)} rows, more than rows={most}")
    stack: Any = np.stack
    x, y = (stack([_pad(array, most) for array in arrays]) for arrays in parts)
    if rows is None and len({*counts}) == 1 and all(batch.weight is None for batch in batches):
        return Batch(x, y)
    weights = [
        np.ones(count) if batch.weight is None else np.asarray(batch.weight)
        for batch, count in zip(batches, counts, strict=True)
    ]
    for number, (weight, count) in enumerate(zip(weights, counts, strict=True)):
        if weight.shape != (count,):
            raise ShapeError(
                f"{name} of task {number}: {count} rows and weights of shape {weight.shape}"
            )
    return Batch(x, y, stack([_pad(weight, most) for weight in weights]).astype(np.float32))


def _pad(array: Any, rows: int) -> Any:
    missing = rows - len(array)
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
