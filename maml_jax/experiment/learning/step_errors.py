"""What each adaptation step does to the errors of the test span."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.tasks import tested_windows
from maml_jax.experiment.learning.train import make_learner
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.meta import MetaLearner, Prediction, Task
from maml_jax.meta.types import Params
from maml_jax.tasks import market_sampler

TASKS = 512
"""The most tasks that errors are means of, spread evenly over those of the test span."""

COUNTS = 7
"""The most numbers of steps that are tried."""


def adaptation_errors(prepared: Prepared, trained: Mapping[str, Params]) -> pd.DataFrame:
    """Measure errors on tasks of the test span before and after each adaptation step.

    Tasks are cut from the test span as meta-training cuts its own: support rows, then query rows
    that come after the support's labels are complete.

    Args:
        prepared: settings and panel.
        trained: meta-parameters of each method.

    Returns:
        Mean squared error of the query rows, in the units that learners are trained in (targets of
        order one): one row per number of `steps`, one column per method that takes steps. Empty
        where no method does, or where the test span has no room for a task. `attrs["tasks"]` is
        the number of tasks.
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
    errors = {}
    for method in takes:
        counts = _counts(prepared, method)
        learner = make_learner(prepared.config, method)
        found = _errors(learner, trained[method], tasks, counts)
        errors[method] = pd.Series(np.asarray(found, float), index=list(counts))
    table = pd.DataFrame(errors).rename_axis("steps")
    table.attrs["tasks"] = len(chosen)
    return table


def _empty() -> pd.DataFrame:
    return pd.DataFrame(index=pd.Index([], name="steps", dtype="int64"))


def _counts(prepared: Prepared, method: str) -> tuple[int, ...]:
    """Return the numbers of steps to try, from 0 to that of the walk-forward."""
    config = prepared.config
    given = (config.backtest.inner_steps, config.learner.inner_steps)
    most = next((each for each in given if each is not None), METHODS[method].usual_steps)
    return tuple(np.unique(np.linspace(0, most, COUNTS).round().astype(int)).tolist())


def _errors(
    learner: MetaLearner, params: Params, tasks: Task, counts: tuple[int, ...]
) -> list[float]:
    return _measured(learner, counts, params, tasks).tolist()


@partial(jax.jit, static_argnums=(0, 1))
def _measured(learner: MetaLearner, counts: tuple[int, ...], params: Params, tasks: Task):
    def of_one(task: Task):
        return jnp.stack([_error(learner, params, task, steps) for steps in counts])

    return jax.lax.map(of_one, tasks, batch_size=8).mean(axis=0)


def _error(learner: MetaLearner, params: Params, task: Task, steps: int):
    predicted = learner.predict(learner.adapt(params, task.support, steps=steps), task.query.x)
    mean = predicted.mean if isinstance(predicted, Prediction) else predicted
    return jnp.mean((mean - task.query.y) ** 2)
