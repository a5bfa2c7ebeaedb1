"""Walk-forward: at every bar, adapt on the latest complete labels, predict the next outcome."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from maml_jax.backtest.walk_forward.growing import walk_growing
from maml_jax.meta.types import Batch, MetaLearner, Params
from maml_jax.parallel.map import map_tasks, plan_tasks
from maml_jax.parallel.placement import fetched, placed
from maml_jax.tasks.families import asset_numbers
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.pools import Origin, make_pool, support_parts
from maml_jax.tasks.rows import (
    LabelledRows,
    RowTable,
    bars_back,
    labelled_rows,
    readable_rows,
    row_table,
    valid_places,
    with_room,
)

_FEWEST_CHUNKS = 32
"""The list of predictions has room to spare; chunks are made small enough to leave it out."""


def walk_forward(
    learner: MetaLearner,
    meta_params: Params,
    panel: Panel,
    *,
    window: int,
    first: int = 0,
    last: int | None = None,
    assets: Sequence[str] | None = None,
    steps: int | None = None,
    length: int | None = None,
    support_from: Origin = "asset",
    labels: Int[np.ndarray, "asset time"] | None = None,
    classes: Int[np.ndarray, " asset"] | None = None,
    growing: bool = False,
    chunk: int | None = None,
    devices: int | None = None,
) -> Any:
    """Predict at every (asset, bar) after adapting to rows complete by then.

    At bar t the support set is the last `window` rows of the same asset whose labels are complete
    at the close of t (`label_end <= t`); or of all assets, or of both, as `support_from` says. Rows
    are gathered window by window; no array of all windows is ever made.

    With `labels`, such as regimes, the support set is made of past bars that have the label in
    force at t, so that adaptation changes at once when the label does. Where there are not yet
    enough of them, or no label is in force, it is made of the last rows whatever their labels.

    With `growing` the support set is all rows complete by then since the panel begins, `window` of
    them at least. Each asset is walked through once: the learner adapts to no row at all, takes in
    each row at the bar that completes its label, and predicts. That costs the same at every bar.

    Args:
        learner: the algorithm.
        meta_params: meta-parameters, trained on labels complete before bar `first`.
        panel: the bars.
        window: rows to adapt on.
        first: place on the time axis of the first bar to predict at.
        last: place of the last one; default the end.
        assets: names of the assets to predict; default all.
        steps: adaptation steps; default as the learner was made. 0 leaves the meta-learned start.
        length: how many bars a sequence model reads at a row, itself last; None for models that
            read the row's features alone.
        support_from: whose rows a support set holds, as `support_parts` has it.
        labels: of each bar of each asset, known at that bar; -1 for none. None: no labels.
        classes: number of the class of each asset; a cross-section is of one class.
        growing: adapt on all complete rows of an asset, by a learner that can `update`.
        chunk: how many windows (with `growing`: assets) are vectorised together; by default as many
            as the cache (CPU) or the memory holds. The result depends on neither chunk nor devices.
        devices: over how many devices windows are spread; by default the amount of work decides.

    Returns:
        What the learner predicts, as numpy arrays `[asset, time]` aligned with the panel: an array,
        or a `Prediction` of two. NaN where there is no row of features (or no whole sequence),
        where fewer than `window` labels are complete, and outside `first..last` and `assets`.

    Raises:
        DataError: if an asset is unknown.
        ValueError: if `window` or `length` is below 1, or `support_from` unknown; with `growing`
            also if the learner has no `update`, or is asked for `steps` other than 0, or supports
            are other than an asset's own rows.
    """
    supports = find_supports(
        panel,
        window=window,
        first=first,
        last=last,
        assets=assets,
        length=length,
        support_from=support_from,
        labels=labels,
        classes=classes,
    )
    if growing:
        if support_from != "asset" or labels is not None:
            raise ValueError("growing windows take in an asset's own rows, all of them")
        return walk_growing(
            learner,
            meta_params,
            panel,
            supports.due,
            steps=steps,
            length=length,
            chunk=chunk,
            devices=devices,
        )
    asks, table = supports.asks(), supports.table(panel)
    plan = plan_tasks(
        *(prediction_at, (learner, supports.sizes, steps, length), asks, meta_params, table),
        chunk=chunk,
        devices=devices,
        fewest=_FEWEST_CHUNKS,
    )
    count = np.int32(supports.due.sum())
    result = _predict_all(plan, *placed(plan.schedule.mesh, meta_params, table, asks, count))
    return jax.tree.map(supports.placed, fetched(result))


class Supports(NamedTuple):
    """Where predictions are due, and what is adapted on there.

    Attributes:
        due: `[asset, time]`.
        place: of the row to predict, in a `RowTable`, `[asset, time]`.
        stops: place past the last support row of each part in the list of entries,
            `[asset, time, part]`.
        sizes: rows of each part.
        entries: numbers of labelled rows, as `row_table` takes them.
        rows: the labelled rows.
    """

    due: Bool[np.ndarray, "asset time"]
    place: Int[np.ndarray, "asset time"]
    stops: Int[np.ndarray, "asset time part"]
    sizes: tuple[int, ...]
    entries: Int[np.ndarray, " entry"]
    rows: LabelledRows

    def asks(self) -> Int[np.ndarray, "ask places"]:
        """List the predictions: the row to predict, the first rows too late to adapt on."""
        asks = np.concatenate([self.place[self.due][:, None], self.stops[self.due]], axis=1)
        return with_room(asks.astype(np.int32))

    def table(self, panel: Panel) -> RowTable:
        """Lay out the panel as predictions count its rows."""
        return row_table(panel, self.rows, self.entries)

    def placed(self, values: np.ndarray) -> np.ndarray:
        """Lay out predictions `[ask, ...]` as `[asset, time]`, NaN where none is due."""
        full = np.full(self.due.shape, np.nan, np.float32)
        full[self.due] = values[: self.due.sum()].astype(np.float32).reshape(-1)
        return full


def find_supports(
    panel: Panel,
    *,
    window: int,
    first: int = 0,
    last: int | None = None,
    assets: Sequence[str] | None = None,
    length: int | None = None,
    support_from: Origin = "asset",
    labels: Int[np.ndarray, "asset time"] | None = None,
    classes: Int[np.ndarray, " asset"] | None = None,
) -> Supports:
    """Say where `walk_forward` predicts and what it adapts on; arguments and errors are its own."""
    if window < 1:
        raise ValueError(f"walk-forward needs a window of at least 1 row, got {window}")
    rows, readable = labelled_rows(panel, length), readable_rows(panel, length)
    wanted = np.zeros(readable.shape, bool)
    stop = readable.shape[1] if last is None else last + 1
    wanted[asset_numbers(panel, assets), first:stop] = True
    wanted &= readable
    times = np.broadcast_to(np.arange(readable.shape[1]), readable.shape)
    stops, entries, sizes, offset = [], [], [], 0
    options: Any = {"classes": classes}
    plain = support_parts(panel, window, support_from, **options)
    labelled = (
        plain
        if labels is None
        else support_parts(panel, window, support_from, labels=labels, **options)
    )
    for preferred, otherwise in zip(labelled, plain, strict=True):
        found = np.full(readable.shape, -1)
        for part in (preferred,) if preferred is otherwise else (preferred, otherwise):
            pool = make_pool(rows, part.lanes)
            complete = pool.complete(part.lanes, times)
            enough = (part.lanes >= 0) & (complete - pool.begin(part.lanes) >= part.rows)
            found = np.where((found < 0) & enough, complete + offset, found)
            entries.append(pool.row)
            offset += len(pool.row)
        stops.append(found)
        sizes.append(preferred.rows)
        wanted &= found >= 0
    return Supports(
        wanted,
        valid_places(panel),
        np.stack(stops, axis=-1),
        tuple(sizes),
        np.concatenate(entries),
        rows,
    )


def due_predictions(panel: Panel, **options) -> Bool[np.ndarray, "asset time"]:
    """Say where `walk_forward` predicts; takes what `find_supports` takes."""
    return find_supports(panel, **options).due


def prediction_at(
    learner: MetaLearner, sizes: tuple[int, ...], steps: int | None, length: int | None = None
) -> Callable:
    """Make the function of one ask, the meta-parameters and the table: adapt, then predict."""
    parts, back = [jnp.arange(-rows, 0) for rows in sizes], bars_back(length)

    def predict(ask, meta_params, table):
        rows = [late + part for late, part in zip(ask[1:], parts, strict=True)]
        support = table.place[rows[0] if len(rows) == 1 else jnp.concatenate(rows)]
        batch = Batch(table.inputs(support, back), table.targets[support][:, None])
        adapted = learner.adapt(meta_params, batch, steps=steps)
        return learner.predict(adapted, table.inputs(ask[:1], back))

    return predict


@partial(jax.jit, static_argnums=0)
def _predict_all(plan, meta_params, table, asks, count):
    return map_tasks(plan, asks, meta_params, table, count=count)
