"""Evaluation: adapt to many tasks, predict their query sets, and score the predictions."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num
from scipy.special import stdtrit

from maml_jax.meta.rows import fill_absent, takes
from maml_jax.meta.task_checks import require_tasks
from maml_jax.meta.types import Batch, MetaLearner, Params, Task
from maml_jax.parallel.map import map_tasks

Steps: TypeAlias = int | None
"""Adaptation steps; None for as many as the learner was made with."""

LEVEL = 0.95
"""Of the intervals of mean scores."""


@runtime_checkable
class MetricFn(Protocol):
    """Scores the predictions of one task, or returns whatever else is wanted of them.

    `y_hat` is what the learner predicts of the query set, `[n, *targets]` or a `Prediction`; `y`
    are its targets. A metric with an argument `weight` receives the weights of the rows, `[n]`,
    where they have weights; what stands in rows of weight 0 is then arbitrary. Returns a number, or
    any pytree of arrays. All losses are metrics.
    """

    def __call__(self, y_hat: Any, y: Num[Array, "n *targets"], /) -> Any: ...


class Interval(NamedTuple):
    """Bounds between which the mean over all tasks of the kind lies, at a level of 95 %."""

    low: Any
    high: Any


class Scores(dict[str, Any]):
    """What each metric returned for each task, `[task, ...]`, by name.

    Attributes:
        weight: of the tasks, `[task]`, in the mean; None: all count alike.
    """

    def __init__(self, scores: Mapping[str, Any], weight: Any = None):
        super().__init__(scores)
        self.weight = weight

    @property
    def mean(self) -> dict[str, Any]:
        """The mean over tasks of each metric, `[...]`."""
        return jax.tree.map(lambda leaf: self._moments(leaf)[0], dict(self))

    @property
    def interval(self) -> dict[str, Any]:
        r"""The interval of each mean, an `Interval` of `[...]`.

        $$\bar s \pm t_{0.975}(T - 1)\,\frac{s}{\sqrt T}$$

        with $s$ the standard deviation of the $T$ scores and Student's $t$, which is 2.05 for 30
        tasks; papers on few-shot learning put 1.96. Tasks with weights count as
        $T = (\sum w)^2 / \sum w^2$. NaN where that is 1.
        """
        return jax.tree.map(self._bounds, dict(self))

    def _bounds(self, leaf: Any) -> Interval:
        mean, error, count = self._moments(leaf)
        half = stdtrit(count - 1, (1 + LEVEL) / 2) * error if count > 1 else np.nan * error
        return Interval(mean - half, mean + half)

    def _moments(self, leaf: Any) -> tuple[Any, Any, float]:
        """Return the mean, its standard error, and how many tasks it is made of."""
        values = np.asarray(leaf, float)
        weight = np.ones(len(values)) if self.weight is None else np.asarray(self.weight, float)
        values, weight = values[weight > 0], weight[weight > 0]
        if not len(values):
            nothing = np.full(values.shape[1:], np.nan)
            return nothing, nothing, 0.0
        share = weight / weight.sum()
        mean = np.tensordot(share, values, axes=1)
        count = float(1 / np.square(share).sum())
        squares = np.tensordot(np.square(share), np.square(values - mean), axes=1)
        return mean, np.sqrt(squares * count / max(count - 1, 1e-9)), count


jax.tree_util.register_pytree_node(
    Scores,
    lambda scores: ((dict(scores), scores.weight), None),
    lambda _, children: Scores(*children),
)


def evaluate(
    learner: MetaLearner,
    params: Params,
    tasks: Task,
    metrics: Mapping[str, MetricFn],
    *,
    steps: Steps | Sequence[Steps] = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> Scores:
    """Adapt to the support set of every task, predict its query set, and score the predictions.

    Args:
        learner: the algorithm.
        params: its meta-parameters.
        tasks: every array has a leading task axis. Where tasks have keys, `adapt` receives them.
        metrics: by name. Compiled programs belong to the learner and these functions: make each
            once, outside of loops.
        steps: adaptation steps; None for as many as the learner was made with. Several numbers
            score every one of them in one program.
        chunk: as for `map_tasks`.
        devices: as for `map_tasks`.

    Returns:
        What each metric returns, by name, `[task, ...]`; `[task, step, ...]` where `steps` is a
        sequence. Its `mean` and `interval` are over tasks.

    Raises:
        ShapeError: if the task axis is missing, or `tasks` are a list.
        TypeError: if `tasks` are no `Task`, or rows have weights that a metric does not take.

    >>> import jax
    >>> from maml_jax import maml, mean_squared_error
    >>> from maml_jax.models import mlp
    >>> from maml_jax.worlds.sinusoid import sinusoid_sampler
    >>> learner, key = maml(mlp((8, 1))), jax.random.key(0)
    >>> tasks = sinusoid_sampler(meta_batch=4, shots=5)(key)
    >>> params = learner.init(key, tasks.support.x[0])
    >>> scores = evaluate(learner, params, tasks, {"mse": mean_squared_error}, steps=(0, 1, 5))
    >>> scores["mse"].shape, scores.mean["mse"].shape, scores.interval["mse"].high.shape
    ((4, 3), (3,), (3,))
    """
    require_tasks(tasks, learner)
    require_metrics(metrics)
    if tasks.query.weight is not None:
        require_weights(metrics)
    steps = tuple(steps) if isinstance(steps, Sequence) else steps
    score = _scorer(learner, tuple(metrics.items()), steps)
    found = map_tasks(score, tasks, params, chunk=chunk, devices=devices)
    return Scores(found, tasks.weight)


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
        tasks: every array has a leading task axis; y of the query sets is not looked at. Where
            tasks have keys, `adapt` receives them.
        steps: adaptation steps; None for as many as the learner was made with.
        chunk: as for `map_tasks`.
        devices: as for `map_tasks`.

    Returns:
        What the learner predicts, `[task, n, *targets]` or a `Prediction` of such arrays; of rows
        of weight 0 it is arbitrary.
    """
    options = {"steps": steps, "chunk": chunk, "devices": devices}
    return evaluate(learner, params, tasks, {"y_hat": _keep}, **options)["y_hat"]


def _keep(y_hat: Any, y: Array, weight: Any = None) -> Any:
    del y, weight
    return y_hat


def require_metrics(metrics: Any) -> None:
    """Refuse what are no named functions.

    Raises:
        TypeError: saying what to write.
    """
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise TypeError(
            'metrics are functions by name, such as {"accuracy": accuracy}; got '
            f"{type(metrics).__name__}"
        )


def require_weights(metrics: Mapping[str, Callable]) -> None:
    """Refuse metrics that would look at rows of weight 0.

    Raises:
        TypeError: naming the metric.
    """
    for name, metric in metrics.items():
        if not takes(metric, "weight"):
            raise TypeError(
                f"rows of the query sets have weights, which the metric {name!r} does not take: "
                "give it an argument, (y_hat, y, weight=None), in which rows of weight 0 do not "
                "count"
            )


def _apply_metric(metric: Callable, y_hat: Any, query: Batch) -> Any:
    if query.weight is None:
        return metric(y_hat, query.y)
    return metric(y_hat, query.y, weight=query.weight)


@lru_cache(maxsize=64)
def _scorer(learner: MetaLearner, metrics: tuple, steps: Steps | tuple[Steps, ...]) -> Callable:
    """Make the function of one task; the same one each time, because programs belong to it."""

    def score_after(count: Steps, task: Task, params: Params) -> dict[str, Any]:
        # Learners that take no steps refuse the argument, and an own learner may have neither.
        options: dict[str, Any] = {} if count is None else {"steps": count}
        if task.key is not None:
            options["key"] = task.key
        adapted = learner.adapt(params, task.support, **options)
        query = fill_absent(task.query)
        y_hat = learner.predict(adapted, query.x)
        return {name: _apply_metric(metric, y_hat, query) for name, metric in metrics}

    def score(task: Task, params: Params) -> dict[str, Any]:
        if not isinstance(steps, tuple):
            return score_after(steps, task, params)
        each = [score_after(count, task, params) for count in steps]
        return jax.tree.map(lambda *values: jnp.stack(values), *each)

    return score
