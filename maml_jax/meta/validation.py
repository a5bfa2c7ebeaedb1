"""Validation while a learner is trained: its loss, and metrics, on tasks set apart."""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from maml_jax.errors import ShapeError
from maml_jax.meta.evaluation import MetricFn, require_weights
from maml_jax.meta.rows import batch_loss
from maml_jax.meta.types import MetaLearner, Params, Task
from maml_jax.parallel.map import map_tasks
from maml_jax.parallel.placement import to_numpy


def validate_params(
    learner: MetaLearner,
    params: Params,
    tasks: Task,
    metrics: Mapping[str, MetricFn],
    step: Int[Array, ""] | int = 0,
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
        **options: `chunk` and `devices`, as for `map_tasks`.

    Returns:
        `"loss"`, which is the learner's own, and what `metrics` names.

    Raises:
        ShapeError: if a metric does not return a number.
        TypeError: if rows have weights that a metric does not take.
    """
    score = _validator(learner, tuple(metrics.items()))
    scores = to_numpy(map_tasks(score, tasks, params, jnp.asarray(step), **options))
    weight = np.ones(len(scores["loss"])) if tasks.weight is None else to_numpy(tasks.weight)
    counts = weight > 0
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
