"""Walk-forward over windows that only grow: each asset is walked through once, row by row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Int

from maml_jax.backtest.walk_forward.supports import Supports
from maml_jax.meta.types import Batch, MetaLearner, Params
from maml_jax.parallel.map import plan_tasks
from maml_jax.parallel.placement import put_on_mesh, to_numpy
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.rows import (
    LabelledRows,
    bars_back,
    number_valid_rows,
    pad,
    row_table,
)

_FEWEST_CHUNKS = 2
"""A walk is as long for many assets as for one, so few chunks; two, to skip the padding."""

_NOTHING = -1


def walk_growing(
    learner: MetaLearner,
    params: Params,
    panel: Panel,
    supports: Supports,
    *,
    steps: int | None = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> Any:
    """Predict after taking in all rows of the asset whose labels are complete by then.

    Args:
        learner: an algorithm with an `update`.
        params: its meta-parameters.
        panel: the bars.
        supports: where predictions are due, and the labelled rows.
        steps: None; or 0, which takes in nothing and leaves the meta-learned start.
        chunk: how many assets are vectorised together.
        devices: over how many devices assets are spread.

    Returns:
        What the learner predicts, arrays `[asset, time]`; NaN where no prediction is due.

    Raises:
        ValueError: if the learner has no `update`, or `steps` is neither None nor 0.
    """
    if learner.update is None:
        raise ValueError(
            "growing windows need a learner that takes in one row after the other, and this one "
            "has no `update`; walk forward on supports found with growing=False"
        )
    if steps not in (None, 0):
        raise ValueError(
            f"with growing windows each row is taken in once; steps must be None, or 0 to take in "
            f"none, got {steps}"
        )
    supports.require(panel)
    due, rows = supports.due, supports.rows
    asset, time = np.nonzero(due)
    assets, walk = np.unique(asset, return_inverse=True)
    # The bars to walk through are one range for all assets, so that no walk waits for another.
    bounds = np.array([time.min(initial=due.shape[1]), time.max(initial=-1) + 1], np.int32)
    events, table = _events(panel, rows, due, assets), row_table(panel, rows)
    plan = plan_tasks(
        *(_walk, (learner, steps == 0, rows.length), events, params, table, bounds),
        chunk=chunk,
        devices=devices,
        fewest=_FEWEST_CHUNKS,
    )
    given = events, (params, table, bounds), np.int32(len(assets))
    result = plan.compiled(*put_on_mesh(plan.schedule.mesh, *given))

    def lay_out(values):
        full = np.full(due.shape, np.nan, np.float32)
        full[due] = values[walk, time].astype(np.float32).reshape(-1)
        return full

    return jax.tree.map(lay_out, to_numpy(result))


def _events(
    panel: Panel, rows: LabelledRows, due: np.ndarray, assets: np.ndarray
) -> Int[np.ndarray, "asset time 2"]:
    """List what happens at each bar of each asset: the row to take in, the row to predict.

    Rows are counted as in a `RowTable`. One label at most is completed by a bar, since an asset's
    labels all take equally many of its own bars.
    """
    numbers = number_valid_rows(panel)
    events = np.full((len(assets), due.shape[1], 2), _NOTHING, np.int32)
    for walk, asset in enumerate(assets):
        count = rows.count[asset]
        events[walk, rows.label_end[asset, :count], 0] = numbers[asset, rows.time[asset, :count]]
        events[walk, due[asset], 1] = numbers[asset, due[asset]]
    return pad(np.swapaxes(pad(np.swapaxes(events, 0, 1)), 0, 1), least=1)


def _walk(learner, keeps_prior, length):
    back = bars_back(length)

    def walk(events, meta_params, table, bounds):
        def batch(row):
            return Batch(table.inputs(row, back), table.targets[row][:, None])

        def take_in(adapted, event):
            row = event[:1]
            if keeps_prior:
                return adapted
            updated = learner.update(adapted, batch(row))
            return jax.tree.map(
                # What a learner hands on untouched, such as its features, stays one for all assets.
                lambda old, new: (
                    old if new is old else jnp.where(row[0] >= 0, new, old).astype(old.dtype)
                ),
                adapted,
                updated,
            )

        def predict(adapted, event):
            return learner.predict(adapted, table.inputs(event[1:], back))

        prior = _prior(learner, meta_params, batch)
        shapes = jax.eval_shape(predict, prior, events[0])

        def nothing():
            return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def before(adapted, event):
            return take_in(adapted, event), nothing()

        def within(adapted, event):
            adapted = take_in(adapted, event)
            return adapted, predict(adapted, event)

        def after(adapted, event):
            return adapted, nothing()

        def step(adapted, timed):
            time, event = timed
            phase = (time >= bounds[0]).astype(jnp.int32) + (time >= bounds[1])
            return lax.switch(phase, (before, within, after), adapted, event)

        return lax.scan(step, prior, (jnp.arange(len(events)), events))[1]

    return walk


def _prior(learner, meta_params, batch):
    """Adapt to no row; without weak types, which a scan would not find again after an update."""
    prior = learner.adapt(meta_params, batch(jnp.zeros(0, jnp.int32)))
    return jax.tree.map(lambda leaf: lax.convert_element_type(leaf, jnp.result_type(leaf)), prior)
