"""Walk-forward: at every bar, adapt on the latest complete labels, predict the next outcome."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maml_jax.backtest.walk_forward.growing import walk_growing
from maml_jax.backtest.walk_forward.supports import Supports
from maml_jax.meta.types import Batch, MetaLearner, Params
from maml_jax.parallel.map import plan_tasks
from maml_jax.parallel.placement import put_on_mesh, to_numpy
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.pools import Layout
from maml_jax.tasks.rows import bars_back, pad

_FEWEST_CHUNKS = 32
"""The list of predictions is padded; chunks are made small enough to skip the padding."""


def walk_forward(
    learner: MetaLearner,
    params: Params,
    panel: Panel,
    supports: Supports,
    *,
    steps: int | None = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> Any:
    """Predict at every (asset, bar) after adapting to rows complete by then.

    Rows are gathered window by window; no array of all windows is ever made. Where supports grow,
    each asset is walked through once: the learner adapts to no row at all, takes in each row at the
    bar that completes its label, and predicts. That costs the same at every bar.

    Args:
        learner: the algorithm.
        params: meta-parameters, trained on labels complete before bar `supports.first`.
        panel: the bars.
        supports: where to predict and what to adapt on, as `find_supports` found it in this panel.
        steps: adaptation steps; default as the learner was made. 0 leaves the meta-learned start.
        chunk: how many windows (where they grow: assets) are vectorised together; by default as
            many as the cache (CPU) or the memory holds. The result depends on neither chunk nor
            devices.
        devices: over how many devices windows are spread; by default the amount of work decides.

    Returns:
        What the learner predicts, as numpy arrays `[asset, time]` aligned with the panel: an array,
        or a `Prediction` of two. NaN where no prediction is due.

    Raises:
        ValueError: if supports are of another panel; where they grow, if the learner has no
            `update`, or is asked for `steps` other than 0.
    """
    if supports.growing:
        return walk_growing(
            learner, params, panel, supports, steps=steps, chunk=chunk, devices=devices
        )
    requests, table = pad(supports.requests()), supports.table(panel)
    plan = plan_tasks(
        *(prediction_at, (learner, supports.layout, steps, supports.rows.length)),
        *(requests, params, table),
        chunk=chunk,
        devices=devices,
        fewest=_FEWEST_CHUNKS,
    )
    count = np.int32(supports.due.sum())
    result = plan.compiled(*put_on_mesh(plan.schedule.mesh, requests, (params, table), count))
    return jax.tree.map(supports.lay_out, to_numpy(result))


def prediction_at(
    learner: MetaLearner, layout: Layout, steps: int | None, length: int | None = None
) -> Callable:
    """Make the function of one request, the meta-parameters and the table: adapt, then predict."""
    parts, back = [jnp.arange(-rows, 0) for rows in layout.sizes], bars_back(length)

    def predict(request, params, table):
        stops, counts = jnp.split(request[1:], [len(parts)])
        rows = [late + part for late, part in zip(stops, parts, strict=True)]
        support = table.entries[rows[0] if len(rows) == 1 else jnp.concatenate(rows)]
        weight = layout.weights(counts)
        batch = Batch(table.inputs(support, back), table.targets[support][:, None], weight)
        adapted = learner.adapt(params, batch, steps=steps)
        return learner.predict(adapted, table.inputs(request[:1], back))

    return predict
