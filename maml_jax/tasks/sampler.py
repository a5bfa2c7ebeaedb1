"""Draws meta-batches from a Panel on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from maml_jax.meta.types import Batch, Task
from maml_jax.tasks.families import Windows
from maml_jax.tasks.panel import Panel


class MarketSampler(NamedTuple):
    """A sampler `(key) -> Task` over windows of a Panel; a pytree of arrays, as `fit` likes it.

    Attributes:
        features: `[asset, time, feature]`.
        targets: `[asset, time]`.
        time: place on the time axis of an asset's labelled rows, `[asset, row]`.
        windows: asset, first support row and first query row, `[window, 3]`, sorted by group.
        group_start: first window of each group, `[group]`.
        group_size: windows of each group, `[group]`.
        support: 0 .. support rows - 1.
        query: 0 .. query rows - 1.
        slots: 0 .. tasks of a meta-batch - 1.
    """

    features: Float[Array, "asset time feature"]
    targets: Float[Array, "asset time"]
    time: Int[Array, "asset row"]
    windows: Int[Array, "window 3"]
    group_start: Int[Array, " group"]
    group_size: Int[Array, " group"]
    support: Int[Array, " support"]
    query: Int[Array, " query"]
    slots: Int[Array, " task"]

    def __call__(self, key: Key[Array, ""]) -> Task:
        """Draw a meta-batch: x `[task, row, feature]`, y `[task, row, 1]`."""
        return jax.vmap(self.task)(self.draw(key))

    def draw(self, key: Key[Array, ""]) -> Int[Array, " task"]:
        """Draw windows: a group, each as likely, then a window in it, each as likely."""
        group_key, window_key = jax.random.split(key)
        group = jax.random.randint(group_key, self.slots.shape, 0, self.group_size.shape[0])
        size = self.group_size[group]
        return self.group_start[group] + jax.random.randint(window_key, size.shape, 0, size)

    def task(self, window: Int[Array, ""]) -> Task:
        """Gather the support and the query set of one window."""
        asset, support, query = self.windows[window]
        return Task(
            self._rows(asset, support + self.support), self._rows(asset, query + self.query)
        )

    def _rows(self, asset: Int[Array, ""], rows: Int[Array, " row"]) -> Batch:
        time = self.time[asset, rows]
        return Batch(self.features[asset, time], self.targets[asset, time][:, None])


def market_sampler(panel: Panel, windows: Windows, *, meta_batch: int) -> MarketSampler:
    """Make a sampler of meta-batches.

    Args:
        panel: where rows are gathered from.
        windows: the table to draw from, of any family.
        meta_batch: tasks per meta-step.
    """
    if meta_batch < 1:
        raise ValueError(f"a meta-batch needs at least 1 task, got {meta_batch}")
    order = np.argsort(windows.group, kind="stable")
    _, start, size = np.unique(windows.group[order], return_index=True, return_counts=True)
    table = np.stack([windows.asset, windows.support, windows.query], axis=1)[order]

    def to_int(values):
        return jnp.asarray(values, jnp.int32)

    return MarketSampler(
        panel.features,
        panel.targets,
        to_int(windows.rows.time),
        to_int(table),
        to_int(start),
        to_int(size),
        jnp.arange(windows.support_size),
        jnp.arange(windows.query_size),
        jnp.arange(meta_batch),
    )
