"""Evaluation: adapt to many tasks, predict their query sets, and score the predictions."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from maml_jax.errors import ShapeError
from maml_jax.meta.rows import batch_loss, fill_absent, takes
from maml_jax.meta.types import MetaLearner, Params, Task
from maml_jax.parallel.map import map_tasks
from maml_jax.parallel.placement import to_numpy

Steps: TypeAlias = int | None
"""Adaptation steps; None for as many as the learner was made with."""


@runtime_checkable
class MetricFn(Protocol):
    """Scores the predictions of one task, or returns whatever else is wanted of them.

    `y_hat` is what the learner predicts of the query set, `[n, *targets]` or a `Prediction`; `y`
    are its targets. Returns a number, or any pytree of arrays. Where rows have weights, one that
    has a parameter `weight` receives them, `[n]`.
    """

    def __call__(self, y_hat: Any, y: Float[Array, "n *targets"], /) -> Any: ...


def evaluate(
    learner: MetaLearner,
    params: Params,
    tasks: Task,
    metrics: Mapping[str, MetricFn],
    *,
    steps: Steps | Sequence[Steps] = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> dict[str, Any]:
    """Adapt to the support set of every task, predict its query set, and score the predictions.

    Args:
        learner: the algorithm.
        params: its meta-parameters.
        tasks: every array has a leading task axis.
        metrics: by name. Compiled programs belong to the learner and these functions: make each
            once, outside of loops.
        steps: adaptation steps; None for as many as the learner was made with. Several numbers
            score every one of them in one program.
        chunk: as for `map_tasks`.
        devices: as for `map_tasks`.

    Returns:
        What each metric returns, `[task, ...]`; `[task, step, ...]` where `steps` is a sequence.

    >>> import jax
    >>> from maml_jax import maml
    >>> from maml_jax.models import mlp
    >>> from maml_jax.worlds.sinusoid import sinusoid_sampler
    >>> learner, key = maml(mlp((8, 1))), jax.random.key(0)
    >>> tasks = sinusoid_sampler(meta_batch=4, shots=5)(key)
    >>> params = learner.init(key, tasks.support.x[0])
    >>> metrics = {"largest error": lambda y_hat, y: abs(y_hat - y).max()}
    >>> evaluate(learner, params, tasks, metrics, steps=(0, 1, 5))["largest error"].shape
    (4, 3)
    """
    steps = tuple(steps) if isinstance(steps, Sequence) else steps
    score = _scorer(learner, tuple(metrics.items()), steps)
    return map_tasks(score, tasks, params, chunk=chunk, devices=devices)


def predict_tasks(
    learner: MetaLearner,
    params: Params,
    tasks: Task,
    *,
    steps: Steps = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> Any:
    """Adapt to the support set of every task and predict its query set.

    Args:
        learner: the algorithm.
        params: its meta-parameters.
        tasks: every array has a leading task axis; y of the query sets is not looked at.
        steps: adaptation steps; None for as many as the learner was made with.
        chunk: as for `map_tasks`.
        devices: as for `map_tasks`.

    Returns:
        What the learner predicts, `[task, n, *targets]` or a `Prediction` of such arrays.
    """
    options = {"steps": steps, "chunk": chunk, "devices": devices}
    return evaluate(learner, params, tasks, {"y_hat": _keep}, **options)["y_hat"]


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
        metrics: by name; each returns a number. Where rows have weights, a metric without a
            parameter `weight` must be a mean over rows.
        step: number of the meta-step, handed to the learner's loss.
        **options: `chunk` and `devices`, as for `map_tasks`.

    Returns:
        `"loss"`, which is the learner's own, and what `metrics` names.

    Raises:
        ShapeError: if a metric does not return a number.
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
    """
    if not metrics:
        return {}
    adapted = learner.adapt(params, task.support, **_key_of(task))
    return {
        name: batch_loss(_returning_number(name, metric), learner.predict, adapted, task.query)
        for name, metric in metrics
    }


def _returning_number(name: str, metric: MetricFn) -> MetricFn:
    @wraps(metric)
    def checked(*arguments, **more):
        score = metric(*arguments, **more)
        shapes = jax.tree.map(jnp.shape, score)
        if shapes != ():
            raise ShapeError(f"metric {name!r} must return one number, got shape {shapes}")
        return jnp.asarray(score, jnp.promote_types(jnp.result_type(score), jnp.float32))

    return checked


def _key_of(task: Task) -> dict[str, Any]:
    """Return the argument `key` of `adapt`, where a task has one."""
    return {} if task.key is None else {"key": task.key}


def _keep(y_hat: Any, y: Array) -> Any:
    del y
    return y_hat


@lru_cache(maxsize=64)
def _scorer(learner: MetaLearner, metrics: tuple, steps: Steps | tuple[Steps, ...]) -> Callable:
    """Make the function of one task; the same one each time, because programs belong to it."""

    def score_after(count: Steps, task: Task, params: Params) -> dict[str, Any]:
        # Learners that take no steps refuse the argument, and an own learner may not have it.
        more: dict[str, Any] = _key_of(task) | ({} if count is None else {"steps": count})
        adapted = learner.adapt(params, task.support, **more)
        query = fill_absent(task.query)
        y_hat = learner.predict(adapted, query.x)
        scores = {}
        for name, metric in metrics:
            weighted = query.weight is not None and takes(metric, "weight")
            scores[name] = metric(y_hat, query.y, **({"weight": query.weight} if weighted else {}))
        return scores

    def score(task: Task, params: Params) -> dict[str, Any]:
        if not isinstance(steps, tuple):
            return score_after(steps, task, params)
        each = [score_after(count, task, params) for count in steps]
        return jax.tree.map(lambda *values: jnp.stack(values), *each)

    return score
