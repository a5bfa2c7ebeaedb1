"""Where the tasks of a training come from: drawn on the device, or fetched on the host."""

from collections.abc import Iterable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from maml_jax.errors import TaskError, TrainingError
from maml_jax.meta.host_tasks import HostTasks
from maml_jax.meta.retry import retry_steps
from maml_jax.meta.scan import Drawn, Given, Sampler, as_pytree, take_steps
from maml_jax.meta.steps import MetaInfo, MetaState, plan_meta_step
from maml_jax.meta.task_checks import sampled_shapes
from maml_jax.meta.types import MetaLearner, Task


class Source:
    """Trains on the tasks of one source.

    Attributes:
        shapes: of the tasks of one meta-step.
    """

    shapes: Task

    def __init__(
        self, learner: MetaLearner, optimizer: optax.GradientTransformation, how: dict[str, Any]
    ):
        """Name what is trained, and how: the options of `take_steps`."""
        self.learner, self.optimizer, self.how = learner, optimizer, dict(how)
        self._take_steps = retry_steps if self.how.pop("retry", False) else take_steps

    def history_structure(self, steps: int, state: MetaState) -> Any:
        """Return the tree structure of what `take` measures."""
        how = {k: v for k, v in self.how.items() if k not in ("max_grad_norm", "donate")}
        plan = plan_meta_step(self.learner, state, self.shapes, repeats=steps, **how)
        return plan.history_structure

    def start(self, calls: list[int], used: int) -> None:
        """Prepare for calls of so many steps each, after steps that were taken before."""

    def take(self, steps: int, state: MetaState) -> tuple[MetaState, MetaInfo]:
        """Take the steps of the next call, or fewer where tasks have ended.

        Raises:
            TrainingError: as `fit`.
            TaskError: if there are no more tasks.
        """
        raise NotImplementedError  # of samplers and of iterators, below

    def require_all(self) -> None:
        """Refuse to have ended before all steps were taken.

        Raises:
            TaskError: saying how many were.
        """

    def close(self) -> None:
        """Release what the source holds."""


def open_source(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    tasks: Any,
    key: Any,
    how: dict[str, Any],
) -> Source:
    """Return the source of a sampler or an iterator of meta-batches.

    Raises:
        TypeError: if it is neither.
        ShapeError, TaskError: as `sampled_shapes` and `HostTasks`.
    """
    if callable(tasks):
        return _Sampled(learner, optimizer, how, cast("Sampler", tasks), key)
    if isinstance(tasks, Task):
        raise TypeError(
            "tasks is one meta-batch: give a sampler, (key) -> Task, or an iterator of meta-batches"
            ", such as itertools.repeat(tasks)"
        )
    if not isinstance(tasks, Iterable):
        raise TypeError(
            "tasks must be a sampler, (key) -> Task, or an iterator of meta-batches; got "
            f"{type(tasks).__name__}"
        )
    return _Host(learner, optimizer, how, tasks)


class _Sampled(Source):
    """Tasks that a sampler draws on the device."""

    def __init__(self, learner, optimizer, how, sampler: Sampler, key: Any):
        super().__init__(learner, optimizer, how)
        self._drawn = Drawn(as_pytree(sampler), key)
        self.shapes = sampled_shapes(self._drawn.sampler, key)

    def take(self, steps: int, state: MetaState) -> tuple[MetaState, MetaInfo]:
        what = self.learner, self.optimizer, self._drawn, self.shapes
        return self._take_steps(*what, steps, state, **self.how)


class _Host(Source):
    """Tasks that an iterator gives on the host."""

    def __init__(self, learner, optimizer, how, tasks: Iterable[Task]):
        super().__init__(learner, optimizer, how)
        self._tasks = HostTasks(tasks, learner)
        self.shapes = self._tasks.shapes
        self._taken = self._wanted = 0
        self._ended = False

    def start(self, calls: list[int], used: int) -> None:
        self._taken, self._wanted = used, used + sum(calls)
        self._tasks.start(calls, used)

    def take(self, steps: int, state: MetaState) -> tuple[MetaState, MetaInfo]:
        if self._ended:
            self.require_all()
        histories = []
        for size in self._tasks.sizes(steps):
            tasks, found = self._tasks.take()
            if tasks is not None:
                what = self.learner, self.optimizer, Given(tasks), self.shapes
                try:
                    state, history = self._take_steps(*what, found, state, **self.how)
                except TrainingError as error:
                    error.history = _concatenate([*histories, error.history])
                    raise
                histories.append(history)
                self._taken += found
            if found < size:
                self._ended = True
                break
        if not histories:
            self.require_all()
        return state, _concatenate(histories)

    def require_all(self) -> None:
        if self._taken < self._wanted:
            raise TaskError(
                f"the iterator of tasks ended after {self._taken} of {self._wanted} meta-batches: "
                "take fewer steps, or let it begin again, as itertools.cycle does"
            )

    def close(self) -> None:
        self._tasks.close()


def _concatenate(histories: list[MetaInfo]) -> MetaInfo:
    if len(histories) == 1:
        return histories[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *histories)
