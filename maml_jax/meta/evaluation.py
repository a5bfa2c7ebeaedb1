"""Evaluation: adapt to many tasks, predict their query sets, and score the predictions."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.meta.types import MetaLearner, Params, Task
from maml_jax.parallel.map import map_tasks

Steps: TypeAlias = int | None
"""Adaptation steps; None for as many as the learner was made with."""


@runtime_checkable
class MetricFn(Protocol):
    """Scores the predictions of one task, or returns whatever else is wanted of them.

    `y_hat` is what the learner predicts of the query set, `[n, *targets]` or a `Prediction`; `y`
    are its targets. Returns a number, or any pytree of arrays.
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


def _keep(y_hat: Any, y: Array) -> Any:
    del y
    return y_hat


@lru_cache(maxsize=64)
def _scorer(learner: MetaLearner, metrics: tuple, steps: Steps | tuple[Steps, ...]) -> Callable:
    """Make the function of one task; the same one each time, because programs belong to it."""

    def score_after(count: Steps, task: Task, params: Params) -> dict[str, Any]:
        # Learners that take no steps refuse the argument, and an own learner may not have it.
        adapted = learner.adapt(params, task.support, **({} if count is None else {"steps": count}))
        y_hat = learner.predict(adapted, task.query.x)
        return {name: metric(y_hat, task.query.y) for name, metric in metrics}

    def score(task: Task, params: Params) -> dict[str, Any]:
        if not isinstance(steps, tuple):
            return score_after(steps, task, params)
        each = [score_after(count, task, params) for count in steps]
        return jax.tree.map(lambda *values: jnp.stack(values), *each)

    return score
