"""Validation while a learner is trained: its loss, and metrics, on tasks set apart."""

import logging
import math
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from maml_jax.errors import ShapeError, TrainingError
from maml_jax.meta.evaluation import MetricFn, require_metrics, require_weights
from maml_jax.meta.rows import batch_loss
from maml_jax.meta.types import MetaLearner, Params, Task
from maml_jax.parallel.map import map_tasks
from maml_jax.parallel.placement import to_numpy

OnBad: TypeAlias = Literal["raise", "skip"]
"""What is done about tasks whose loss or gradient is not finite."""

_log = logging.getLogger("maml_jax")


def validate_params(
    learner: MetaLearner,
    params: Params,
    tasks: Task,
    metrics: Mapping[str, MetricFn],
    step: Int[Array, ""] | int = 0,
    *,
    on_bad: OnBad = "raise",
    **options: Any,
) -> dict[str, float]:
    """Return the mean loss and the mean of each metric over tasks.

    Args:
        learner: the algorithm.
        params: its meta-parameters.
        tasks: every array has a leading task axis. Those with weights are weighted; of weight 0
            they count for nothing.
        metrics: by name; each returns a number.
        step: number of the meta-step, handed to the learner's loss.
        on_bad: "skip" leaves tasks whose loss is not finite out of the means, and logs which.
        **options: `chunk` and `devices`, as for `map_tasks`.

    Returns:
        `"loss"`, which is the learner's own, and what `metrics` names.

    Raises:
        ShapeError: if a metric does not return a number.
        TrainingError: if the loss of a task is not finite and none is skipped, naming the tasks.
        TypeError: if rows have weights that a metric does not take, or metrics are no dict.
    """
    require_metrics(metrics)
    score = _validator(learner, tuple(metrics.items()))
    scores = to_numpy(map_tasks(score, tasks, params, jnp.asarray(step), **options))
    weight = np.ones(len(scores["loss"])) if tasks.weight is None else to_numpy(tasks.weight)
    counts = weight > 0
    bad = np.flatnonzero(counts & ~np.isfinite(scores["loss"])).tolist()
    if bad:
        text = (
            f"after step {int(step)}, validation: the loss of task {', '.join(map(str, bad[:5]))}"
        )
        text += f"{' and others' if len(bad) > 5 else ''} of {len(counts)} is not finite"
        if on_bad != "skip":
            raise TrainingError(
                f"{text}. Look for extreme values, or classes that do not exist, in that task's "
                "data; or leave such tasks out with on_bad='skip'",
                step=int(step),
                tasks=bad,
            )
        _log.warning("%s: left out", text)
        counts = counts & np.isfinite(scores["loss"])
    total = weight[counts].sum(dtype=float)
    return {
        name: float(np.sum(weight[counts] * values[counts].astype(float)) / total)
        if total
        else math.nan
        for name, values in scores.items()
    }


@lru_cache(maxsize=64)
def _validator(learner: MetaLearner, metrics: tuple[tuple[str, MetricFn], ...]) -> Callable:
    def validate(task: Task, params: Params, step) -> dict[str, Any]:
        loss, _ = learner.loss(params, task, step)
        return {"loss": loss} | score_query(learner, metrics, task, params)

    return validate


def score_query(
    learner: MetaLearner, metrics: tuple[tuple[str, MetricFn], ...], task: Task, params: Params
) -> dict[str, Float[Array, ""]]:
    """Adapt to the support set of one task and score the predictions of its query set.

    Raises:
        ShapeError: if a metric does not return a number.
        TypeError: if rows have weights that a metric does not take.
    """
    if not metrics:
        return {}
    if task.query.weight is not None:
        require_weights(dict(metrics))
    options: dict[str, Any] = {} if task.key is None else {"key": task.key}
    adapted = learner.adapt(params, task.support, **options)
    return {
        name: batch_loss(_require_number(name, metric), learner.predict, adapted, task.query)
        for name, metric in metrics
    }


def _require_number(name: str, metric: MetricFn) -> MetricFn:
    @wraps(metric)
    def checked(*arguments, **more):
        score = metric(*arguments, **more)
        shapes = jax.tree.map(jnp.shape, score)
        if shapes != ():
            raise ShapeError(f"metric {name!r} must return one number, got shape {shapes}")
        return jnp.asarray(score, jnp.promote_types(jnp.result_type(score), jnp.float32))

    return checked
