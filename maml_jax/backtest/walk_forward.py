"""Walk-forward: at every bar, adapt on the latest complete labels, predict the next outcome."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maml_jax.meta.parallel import map_tasks
from maml_jax.meta.types import Batch, MetaLearner, Params
from maml_jax.tasks.families import asset_numbers
from maml_jax.tasks.panel import Panel, labelled_rows


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
    chunk: int | None = None,
) -> Any:
    """Predict at every (asset, bar) after adapting to that asset's rows complete by then.

    At bar t the support set is the last `window` rows of the same asset whose labels are complete
    at the close of t (`label_end <= t`). Rows are gathered window by window; no array of all
    windows is ever made.

    Args:
        learner: the algorithm.
        meta_params: meta-parameters, trained on labels complete before bar `first`.
        panel: the bars.
        window: rows to adapt on.
        first: place on the time axis of the first bar to predict at.
        last: place of the last one; default the end.
        assets: names of the assets to predict; default all.
        steps: adaptation steps; default as the learner was made. 0 leaves the meta-learned start.
        chunk: how many windows are vectorised together; bounds the memory, not the result.

    Returns:
        What the learner predicts, as numpy arrays `[asset, time]` aligned with the panel: an array,
        or a `Prediction` of two. NaN where there is no row of features, where fewer than `window`
        labels are complete, and outside `first..last` and `assets`.
    """
    if window < 1:
        raise ValueError(f"walk-forward needs a window of at least 1 row, got {window}")
    due, complete = due_predictions(panel, window=window, first=first, last=last, assets=assets)
    asset, time = np.nonzero(due)
    asks = np.stack([asset, time, complete[due]], axis=1).astype(np.int32)
    rows = labelled_rows(panel)
    result = _predict_all(
        learner, window, steps, chunk, meta_params, panel.features, panel.targets, rows.time, asks
    )

    def place(values):
        full = np.full(due.shape, np.nan, np.float32)
        full[asks[:, 0], asks[:, 1]] = np.asarray(values, np.float32).reshape(len(asks))
        return full

    return jax.tree.map(place, result)


def due_predictions(
    panel: Panel,
    *,
    window: int,
    first: int = 0,
    last: int | None = None,
    assets: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Say where `walk_forward` predicts.

    Args:
        panel: the bars.
        window: rows to adapt on.
        first: as for `walk_forward`.
        last: as for `walk_forward`.
        assets: as for `walk_forward`.

    Returns:
        Whether a prediction is due, and how many labels are complete, both `[asset, time]`.
    """
    rows, valid = labelled_rows(panel), np.asarray(panel.valid)
    wanted = np.zeros(valid.shape, bool)
    stop = valid.shape[1] if last is None else last + 1
    wanted[asset_numbers(panel, assets), first:stop] = True
    times = np.arange(valid.shape[1])
    complete = np.stack(
        [
            np.searchsorted(ends[:count], times, side="right")
            for ends, count in zip(rows.label_end, rows.count, strict=True)
        ]
    )
    return wanted & valid & (complete >= window), complete


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _predict_all(learner, window, steps, chunk, meta_params, features, targets, row_time, asks):
    back = jnp.arange(-window, 0)

    def predict_one(ask):
        asset, time, complete = ask
        support_time = row_time[asset, complete + back]
        x, y = features[asset, support_time], targets[asset, support_time][:, None]
        adapted = learner.adapt(meta_params, Batch(x, y), steps=steps)
        return learner.predict(adapted, features[asset, time][None])

    return map_tasks(predict_one, asks, chunk=chunk)
