"""Walk-forward: at every bar, adapt on the latest complete labels, predict the next outcome."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maml_jax.backtest.growing import walk_growing
from maml_jax.meta.parallel import map_tasks, plan_tasks
from maml_jax.meta.placement import fetched, placed
from maml_jax.meta.types import Batch, MetaLearner, Params
from maml_jax.tasks.families import asset_numbers
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.rows import (
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
    growing: bool = False,
    chunk: int | None = None,
    devices: int | None = None,
) -> Any:
    """Predict at every (asset, bar) after adapting to that asset's rows complete by then.

    At bar t the support set is the last `window` rows of the same asset whose labels are complete
    at the close of t (`label_end <= t`). Rows are gathered window by window; no array of all
    windows is ever made.

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
        growing: adapt on all complete rows, by a learner that can `update`.
        chunk: how many windows (with `growing`: assets) are vectorised together; by default as many
            as the cache (CPU) or the memory holds. The result depends on neither chunk nor devices.
        devices: over how many devices windows are spread; by default the amount of work decides.

    Returns:
        What the learner predicts, as numpy arrays `[asset, time]` aligned with the panel: an array,
        or a `Prediction` of two. NaN where there is no row of features (or no whole sequence),
        where fewer than `window` labels are complete, and outside `first..last` and `assets`.

    Raises:
        DataError: if an asset is unknown.
        ValueError: if `window` or `length` is below 1; with `growing` also if the learner has no
            `update`, or is asked for `steps` other than 0.
    """
    if window < 1:
        raise ValueError(f"walk-forward needs a window of at least 1 row, got {window}")
    span: Any = {"first": first, "last": last, "assets": assets, "length": length}
    due, complete = due_predictions(panel, window=window, **span)
    if growing:
        return walk_growing(
            learner,
            meta_params,
            panel,
            due,
            steps=steps,
            length=length,
            chunk=chunk,
            devices=devices,
        )
    rows = labelled_rows(panel, length)
    # One ask per prediction: the place of the row to predict, the first row too late to adapt on.
    asks = np.stack([valid_places(panel)[due], (rows.first[:, None] + complete)[due]], axis=1)
    asks, table = with_room(asks.astype(np.int32)), row_table(panel, rows)
    plan = plan_tasks(
        *(_prediction, (learner, window, steps, length), asks, meta_params, table),
        chunk=chunk,
        devices=devices,
        fewest=_FEWEST_CHUNKS,
    )
    result = _predict_all(
        plan, *placed(plan.schedule.mesh, meta_params, table, asks, np.int32(due.sum()))
    )

    def place(values):
        full = np.full(due.shape, np.nan, np.float32)
        full[due] = values[: due.sum()].astype(np.float32).reshape(-1)
        return full

    return jax.tree.map(place, fetched(result))


def due_predictions(
    panel: Panel,
    *,
    window: int,
    first: int = 0,
    last: int | None = None,
    assets: Sequence[str] | None = None,
    length: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Say where `walk_forward` predicts.

    Args:
        panel: the bars.
        window: rows to adapt on.
        first: as for `walk_forward`.
        last: as for `walk_forward`.
        assets: as for `walk_forward`.
        length: as for `walk_forward`.

    Returns:
        Whether a prediction is due, and how many labels are complete, both `[asset, time]`.
    """
    rows, readable = labelled_rows(panel, length), readable_rows(panel, length)
    wanted = np.zeros(readable.shape, bool)
    stop = readable.shape[1] if last is None else last + 1
    wanted[asset_numbers(panel, assets), first:stop] = True
    times = np.arange(readable.shape[1])
    complete = np.stack(
        [
            np.searchsorted(ends[:count], times, side="right")
            for ends, count in zip(rows.label_end, rows.count, strict=True)
        ]
    )
    return wanted & readable & (complete >= window), complete


def _prediction(learner, window, steps, length=None):
    last_rows, back = jnp.arange(-window, 0), bars_back(length)

    def predict(ask, meta_params, table):
        place, late = ask
        support = table.place[late + last_rows]
        batch = Batch(table.inputs(support, back), table.targets[support][:, None])
        adapted = learner.adapt(meta_params, batch, steps=steps)
        return learner.predict(adapted, table.inputs(place[None], back))

    return predict


@partial(jax.jit, static_argnums=0)
def _predict_all(plan, meta_params, table, asks, count):
    return map_tasks(plan, asks, meta_params, table, count=count)
