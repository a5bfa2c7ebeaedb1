"""Draws meta-batches from a Panel on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from maml_jax.meta.types import Batch, Task
from maml_jax.tasks.families import Windows
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.pools import SupportRows
from maml_jax.tasks.rows import RowTable, bars_back, pad, row_table


class MarketSampler(NamedTuple):
    """A sampler `(key) -> Task` over windows of a Panel; a pytree of arrays, as `fit` likes it.

    Its arrays are padded: other assets or a longer history need no new program.

    Attributes:
        table: the rows that tasks are gathered from.
        windows: past the last support row of each part, then the first query row,
            `[window, part + 1]`, sorted by group, then by the bar that completes a window.
        group_start: first window of each group, `[group]`.
        group_size: windows of each group, `[group]`.
        groups: how many groups there are.
        support: of each part of a support set, -rows .. -1.
        query: 0 .. query rows - 1.
        slots: 0 .. tasks of a meta-batch - 1.
        back: from a row to the bars of its sequence, `1 - length .. 0`; None for single rows.
        upto: sum of the groups' weights up to each one, `[group]`; None: all are as likely.
        fewest: rows that a support set has at least, `[]`: how many of its last part each task
            keeps, the newest ones, is drawn; None: all.
        forget: weight of a support row in units of that of the next newer one; None: all alike.
    """

    table: RowTable
    windows: Int[Array, "window index"]
    group_start: Int[Array, " group"]
    group_size: Int[Array, " group"]
    groups: Int[Array, ""]
    support: tuple[Int[Array, " support"], ...]
    query: Int[Array, " query"]
    slots: Int[Array, " task"]
    back: Int[Array, " bar"] | None = None
    upto: Float[Array, " group"] | None = None
    fewest: Int[Array, ""] | None = None
    forget: Float[Array, ""] | None = None

    def __call__(self, key: Key[Array, ""]) -> Task:
        """Draw a meta-batch: x `[task, row, feature]`, y `[task, row, 1]`.

        Windows of rows that read sequences give x `[task, row, bar, feature]`.
        """
        tasks = jax.vmap(self.task)(self.draw(key))
        weight = self.weights(jax.random.fold_in(key, 2))  # 0 and 1 are what `split` makes of it
        return tasks._replace(support=tasks.support._replace(weight=weight))

    def weights(self, key: Key[Array, ""]) -> Float[Array, "task support"] | None:
        """Draw how many rows each support set has, and weigh them; None where all count alike."""
        if self.fewest is None and self.forget is None:
            return None
        shape = self.slots.shape
        ages = [jnp.arange(len(part) - 1, -1, -1) for part in self.support]
        age = jnp.broadcast_to(jnp.concatenate(ages), (*shape, sum(map(len, ages))))
        weight = jnp.ones(age.shape) if self.forget is None else self.forget**age
        if self.fewest is None:
            return weight
        own, others = len(ages[-1]), age.shape[1] - len(ages[-1])
        least = jnp.maximum(self.fewest - others, 0)
        count = jax.random.randint(key, (*shape, 1), least, own + 1)
        last = jnp.arange(age.shape[1]) >= others
        return jnp.where(last & (age >= count), 0, weight)

    def draw(self, key: Key[Array, ""]) -> Int[Array, " task"]:
        """Draw windows: a group, each as likely or as weights say, then a window in it."""
        group_key, window_key = jax.random.split(key)
        if self.upto is None:
            group = jax.random.randint(group_key, self.slots.shape, 0, self.groups)
        else:
            group = draw_in_proportion(group_key, self.upto, self.slots.shape)
        size = self.group_size[group]
        return self.group_start[group] + jax.random.randint(window_key, size.shape, 0, size)

    def task(self, window: Int[Array, ""]) -> Task:
        """Gather the support and the query set of one window."""
        entries = self.windows[window]
        rows = [stop + part for stop, part in zip(entries[:-1], self.support, strict=True)]
        support = rows[0] if len(rows) == 1 else jnp.concatenate(rows)
        return Task(self._rows(support), self._rows(entries[-1] + self.query))

    def _rows(self, entries: Int[Array, " entry"]) -> Batch:
        row = self.table.entries[entries]
        return Batch(self.table.inputs(row, self.back), self.table.targets[row][:, None])


def draw_in_proportion(
    key: Key[Array, ""], upto: Float[Array, " n"], shape: tuple[int, ...]
) -> Int[Array, "..."]:
    """Draw numbers 0 .. n - 1 in proportion to weights, given the sum of those up to each."""
    point = jax.random.uniform(key, shape) * upto[-1]
    return jnp.searchsorted(upto, point, side="right").clip(0, len(upto) - 1)


def market_sampler(
    panel: Panel,
    windows: Windows,
    *,
    meta_batch: int,
    fewest: int | None = None,
    forget: float = 1.0,
) -> MarketSampler:
    """Make a sampler of meta-batches.

    Args:
        panel: where rows are gathered from.
        windows: the table to draw from, of any family.
        meta_batch: tasks per meta-step.
        fewest: as of `SupportRows`: tasks have so many support rows at least, drawn evenly, so that
            adapting is learned on fewer rows too. None: all have all.
        forget: as of `SupportRows`.

    Raises:
        ValueError: if a number is out of bounds.
    """
    SupportRows(sum(windows.sizes), fewest=fewest, forget=forget).layout()
    if meta_batch < 1:
        raise ValueError(f"a meta-batch needs at least 1 task, got {meta_batch}")
    order = np.argsort(windows.group, kind="stable")
    _, start, size = np.unique(windows.group[order], return_index=True, return_counts=True)
    table = np.concatenate([windows.stop, windows.query[:, None]], axis=1)[order]

    def to_int(values):
        return jnp.asarray(pad(values.astype(np.int32)))

    upto = None
    if windows.weight is not None:
        weight = pad(np.asarray(windows.weight, np.float32))
        upto = jnp.cumsum(jnp.asarray(weight))
    return MarketSampler(
        row_table(panel, windows.rows, windows.entries),
        to_int(table),
        to_int(start),
        to_int(size),
        jnp.asarray(len(size), jnp.int32),
        tuple(jnp.arange(-rows, 0) for rows in windows.sizes),
        jnp.arange(windows.query_size),
        jnp.arange(meta_batch),
        bars_back(windows.rows.length),
        upto,
        None if fewest is None else jnp.asarray(fewest, jnp.int32),
        None if forget == 1 else jnp.asarray(forget, jnp.float32),
    )
