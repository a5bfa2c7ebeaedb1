"""What each adaptation step does to errors: of the test span, or of one asset."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.data import as_bars
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.learning.adapt import (
    Bars,
    Rows,
    adapt_params,
    batch_of,
    predict_rows,
    read_rows,
)
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.tasks import tested_windows
from maml_jax.experiment.learning.train import initial_params, make_learner
from maml_jax.experiment.preparation.bars import reading_options
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.preparation.requirements import target_of
from maml_jax.features.targets import trailing_volatility
from maml_jax.meta import Batch, MetaLearner, Prediction, Task
from maml_jax.meta.types import Params
from maml_jax.tasks import Layout, market_sampler

TASKS = 512
"""The most tasks that errors are means of, spread evenly over those of the test span."""

COUNTS = 7
"""The most numbers of steps that are tried."""


class StepErrors(NamedTuple):
    """Mean squared errors of the query rows of tasks, before and after adaptation steps.

    Attributes:
        table: one row per number of `steps`, one column per method that takes steps, in the units
            that learners are trained in (targets of order one); empty where no method takes steps,
            or where the test span has no room for a task.
        tasks: how many tasks errors are means of.
    """

    table: pd.DataFrame
    tasks: int


def adaptation_errors(prepared: Prepared, trained: Mapping[str, Params]) -> StepErrors:
    """Measure errors on tasks of the test span before and after each adaptation step.

    Tasks are cut from the test span as meta-training cuts its own: support rows, then query rows
    that come after the support's labels are complete.

    Args:
        prepared: settings and panel.
        trained: meta-parameters of each method.
    """
    takes = [method for method in trained if METHODS[method].takes_steps]
    if not takes:
        return _empty()
    try:
        windows = tested_windows(prepared)
    except DataError:
        return _empty()
    chosen = np.unique(np.linspace(0, len(windows.asset) - 1, TASKS).astype(int))
    sampler = market_sampler(prepared.panel, windows, meta_batch=1)
    tasks = jax.jit(jax.vmap(sampler.task))(jnp.asarray(chosen))
    weight = Layout(windows.sizes, forget=prepared.config.task.forget).weights(())
    if weight is not None:
        weight = jnp.broadcast_to(weight, (len(chosen), len(weight)))
        tasks = tasks._replace(support=tasks.support._replace(weight=weight))
    errors = {}
    for method in takes:
        counts = _counts(prepared, method)
        learner = make_learner(prepared.config, method)
        found = _errors(learner, trained[method], tasks, counts)
        errors[method] = pd.Series(np.asarray(found, float), index=list(counts))
    return StepErrors(pd.DataFrame(errors).rename_axis("steps"), len(chosen))


def _empty() -> StepErrors:
    return StepErrors(pd.DataFrame(index=pd.Index([], name="steps", dtype="int64")), 0)


def _counts(prepared: Prepared, method: str) -> tuple[int, ...]:
    """Return the numbers of steps to try, from 0 to that of the walk-forward."""
    config = prepared.config
    given = (config.backtest.inner_steps, config.learner.inner_steps)
    most = next((each for each in given if each is not None), METHODS[method].usual_steps)
    return tuple(np.unique(np.linspace(0, most, COUNTS).round().astype(int)).tolist())


def _errors(
    learner: MetaLearner, params: Params, tasks: Task, counts: tuple[int, ...]
) -> list[float]:
    return _measure_errors(learner, counts, params, tasks).tolist()


@partial(jax.jit, static_argnums=(0, 1))
def _measure_errors(learner: MetaLearner, counts: tuple[int, ...], params: Params, tasks: Task):
    def of_one(task: Task):
        return jnp.stack([_error(learner, params, task, steps) for steps in counts])

    return jax.lax.map(of_one, tasks, batch_size=8).mean(axis=0)


def _error(learner: MetaLearner, params: Params, task: Task, steps: int):
    predicted = learner.predict(learner.adapt(params, task.support, steps=steps), task.query.x)
    mean = predicted.mean if isinstance(predicted, Prediction) else predicted
    return jnp.mean((mean - task.query.y) ** 2)


class RowSpan(NamedTuple):
    """Where some rows of an asset lie: the first bar, the last one, and how many rows."""

    first: pd.Timestamp
    last: pd.Timestamp
    rows: int


class AdaptationTable(NamedTuple):
    """What adapting to an asset is worth, on its last labelled rows.

    Attributes:
        table: one row per number of steps, 0 to the most; of methods that take none, the rows
            `before` (the prior; NaN where there is none that predicts) and `after`. Columns: the
            mean squared error of the query rows in units of the target, and the correlation of
            prediction and target, of the meta-learned start (`error`, `correlation`) and of the
            untrained network of the same seed, adapted in the same way (`scratch_error`,
            `scratch_correlation`).
        asset: its name.
        method: what was adapted.
        support: where the rows lie that were adapted on.
        query: where the rows lie that were predicted.
        trailing_error: of a target of kind volatility, the mean squared error of the trailing
            volatility over `target.volatility_window` bars as a forecast of the query rows; else
            NaN.
    """

    table: pd.DataFrame
    asset: str
    method: str
    support: RowSpan
    query: RowSpan
    trailing_error: float = np.nan


def adaptation_table(
    checkpoint: Checkpoint, bars: Bars, *, steps: int | None = None
) -> AdaptationTable:
    """Judge adapting to an asset on its last labelled rows, against training from scratch.

    The query set is the last `task.query` labelled rows. The support set is the `task.support` rows
    before whose labels are complete at the first of them, minus the embargo, as in meta-training.

    Args:
        checkpoint: a trained method.
        bars: of one asset, in any layout that `maml_jax.data.to_bars` reads.
        steps: the most adaptation steps; default as in its walk-forward. None for methods that take
            none.

    Raises:
        ConfigError: if the method cannot take so many steps.
        DataError: if the bars will not do, or are too few; the message says how many are needed.
    """
    rows, config = read_rows(checkpoint, bars), checkpoint.config
    learner, takes = make_learner(config, checkpoint.method), METHODS[checkpoint.method].takes_steps
    if steps is not None and not takes:
        raise ConfigError(f"--steps: {checkpoint.method} fits its support set without steps")
    if steps is not None and steps < 0:
        raise ConfigError(f"--steps: must not be negative, got {steps}")
    support, query = _split(checkpoint, rows)
    batch = batch_of(rows, support, config.task.forget)
    asked = rows.inputs[query]
    restore = checkpoint.scaler.restore_target
    truth = np.asarray(restore(rows.table["target"].to_numpy()[query]), float)

    def judge(params: Any) -> list[float]:
        if params is None:
            return [np.nan, np.nan]
        result = predict_rows(learner, params, asked)
        mean = result.mean if isinstance(result, Prediction) else result
        predicted = np.asarray(restore(np.asarray(mean, float)), float).reshape(-1)
        varies = predicted.std() > 0 and truth.std() > 0
        correlation = np.corrcoef(predicted, truth)[0, 1] if varies else np.nan
        return [float(np.mean((predicted - truth) ** 2)), float(correlation)]

    untrained = initial_params(config, learner, len(checkpoint.scaler.mean))
    if takes:
        most = _steps_of(checkpoint) if steps is None else steps
        counts = {count: (batch, count) for count in range(most + 1)}
    else:
        nothing = Batch(batch.x[:0], batch.y[:0]) if learner.update is not None else None
        counts = {"before": (nothing, None), "after": (batch, None)}
    table = {
        name: [
            figure
            for start in (checkpoint.params, untrained)
            for figure in judge(
                None if given is None else adapt_params(learner, checkpoint, start, given, count)
            )
        ]
        for name, (given, count) in counts.items()
    }
    columns = ["error", "correlation", "scratch_error", "scratch_correlation"]
    judged = pd.DataFrame.from_dict(table, orient="index", columns=columns)
    judged = judged.rename_axis("steps" if takes else "adaptation")
    times: Any = rows.table.index
    taught, asked_for = (
        RowSpan(times[part[0]], times[part[-1]], len(part)) for part in (support, query)
    )
    trailing = _trailing_error(config, bars, times[query], truth)
    return AdaptationTable(judged, rows.asset, checkpoint.method, taught, asked_for, trailing)


def _trailing_error(
    config: Config, bars: Bars, times: pd.DatetimeIndex, truth: np.ndarray
) -> float:
    """Return the mean squared error of the trailing volatility at some bars; NaN of other kinds."""
    target = target_of(config)
    if target.kind != "volatility":
        return np.nan
    [frame] = as_bars(bars, **reading_options(config)).values()
    trailing = trailing_volatility(frame, target).reindex(times)
    error = np.log(trailing.where(trailing > 0).to_numpy(float)) - truth
    return float(np.mean(error[np.isfinite(error)] ** 2)) if np.isfinite(error).any() else np.nan


def _split(checkpoint: Checkpoint, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the support and of the query rows, purged of each other."""
    config, delay = checkpoint.config, target_of(checkpoint.config).label_delay
    task, labelled = config.task, np.flatnonzero(rows.table["target"].notna())
    query = labelled[-task.query :]
    support = labelled[: -task.query]
    if len(query):
        support = support[rows.place[support] + delay <= rows.place[query[0]]]
    support = support[: len(support) - task.embargo]
    if config.backtest.window == "rolling":
        support = support[-task.support :]
    if len(query) < task.query or len(support) < task.support:
        gap = delay + task.embargo - 1
        needed = rows.before.bars + task.support + gap + task.query + delay
        raise DataError(
            f"{rows.asset}: judging adaptation needs at least {needed} bars ({rows.before.terms} + "
            f"support {task.support} + gap {gap} + query {task.query} + label delay {delay}), and "
            f"there are {rows.bars}, of which {len(labelled)} give a row with a label"
        )
    return support, query


def _steps_of(checkpoint: Checkpoint) -> int:
    """Return the steps of the walk-forward, or those of training, or the usual ones."""
    given = (checkpoint.config.backtest.inner_steps, checkpoint.config.learner.inner_steps)
    usual = METHODS[checkpoint.method].usual_steps
    return next((steps for steps in given if steps is not None), usual)
