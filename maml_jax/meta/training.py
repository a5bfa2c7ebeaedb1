"""Meta-training in calls: progress, validation, checkpoints, an early end."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import accumulate
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from maml_jax.errors import RunError, TrainingError
from maml_jax.meta.arguments import require_learner, require_outer_optimizer
from maml_jax.meta.checkpoints import KEEP, Checkpoints, Record
from maml_jax.meta.evaluation import MetricFn, require_metrics
from maml_jax.meta.scan import Sampler, StepOptions, begin, split_steps
from maml_jax.meta.sources import Source, open_source
from maml_jax.meta.steps import MetaInfo, MetaState
from maml_jax.meta.task_checks import require_tasks
from maml_jax.meta.types import MetaLearner, Task
from maml_jax.meta.validation import validate_params

_VALIDATION = 2**32 - 1
"""Folded into the key of a training it gives that of its validation tasks: no step has it."""


class Best(NamedTuple):
    """The state of the lowest validation loss so far, the earliest of equals.

    Attributes:
        step: meta-steps that it has taken.
        loss: its validation loss.
        state: the state.
    """

    step: int
    loss: float
    state: MetaState


class TrainingProgress(NamedTuple):
    """Where `training` stands.

    Attributes:
        step: meta-steps taken so far, those of the state that it started from included.
        state: the state after them.
        history: what the steps since the last progress measured, leading axis `[steps]`.
        validation: means over the validation tasks: of the learner's `"loss"`, and of each metric
            by name; empty without validation tasks.
        best: the best state on validation; None without validation tasks.
        waited: validations since the best one.
        seconds: that the steps since the last progress took, their validation included.
    """

    step: int
    state: MetaState
    history: MetaInfo
    validation: dict[str, float]
    best: Best | None
    waited: int
    seconds: float


class TrainingOptions(StepOptions, total=False):
    """How `training` goes, beside what `StepOptions` says.

    Attributes:
        donate: let each state take the memory of the one before (or of the copy that was made to
            spread it over devices), the first `state` included; a state must then not be used once
            the loop goes on. `progress.best` stays good. Numbers may change by rounding.
        checkpoints: a folder that a checkpoint is written to before each progress; or the
            `Checkpoints` that write them.
        resume: go on from the latest checkpoint, if there is one.
        keep: how many of the latest checkpoints are kept, 3 by default, beside the best one.
        retry: from a bad task to the end of its call, skip bad tasks as `on_bad="skip"` does.
            Where there is none, numbers and speed are those of "raise".
    """

    donate: bool
    checkpoints: str | os.PathLike | Checkpoints
    resume: bool
    keep: int
    retry: bool


def training(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    tasks: Sampler | Iterable[Task],
    key: Key[Array, ""],
    *,
    steps: int,
    every: int = 100,
    state: MetaState | None = None,
    validate: Sampler | Task | None = None,
    patience: int | None = None,
    **options: Unpack[TrainingOptions],
) -> Iterator[TrainingProgress]:
    """Meta-train in several calls of `fit`, yielding after each, which equals one call.

    The body of the loop is the callback: it shows or logs progress, and ends the training by
    leaving the loop. The same key and settings give the same numbers, interrupted or not.

    A training with `checkpoints` that was killed, at whatever moment, goes on with `resume=True`
    as if it was not. Its first progress is that of the latest checkpoint once more, because the
    body may not have seen it; those that follow are equal to those of an undisturbed training.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        tasks: a sampler, as for `fit`; or an iterator (anything that can be iterated over) of
            meta-batches, one a step, of NumPy arrays or others. These are fetched ahead by a
            thread. `key` then only decides the initial meta-parameters. On `resume` give it from
            its beginning: what was used before is passed over.
        key: as for `fit`.
        steps: how many meta-steps to take in total, from `state` on.
        every: the most meta-steps of one call. Calls are of one length, which needs one compiled
            program, where a divisor of `steps` allows it.
        state: where to go on from; None begins afresh. A checkpoint that is further goes first.
        validate: a sampler, which is called once with a key of its own, or tasks with a leading
            axis: the same ones are validated on after each call.
        patience: stop after so many validations in a row without a lower loss.
        **options: `max_grad_norm`, `on_bad`, `chunk`, `devices`: see `StepOptions`; `metrics`, of
            the validation tasks, or without these as for `fit`; `donate`, `checkpoints`, `resume`,
            `keep`, `retry`: see `TrainingOptions`.

    Returns:
        An iterator over the progress after each call.

    Raises:
        ValueError: if `steps` is negative or `every` is less than 1, or there is nothing to be
            patient about.
        RunError: if the folder holds checkpoints and `resume` is not set, or those of another
            training.
        TypeError: if `learner` or `optimizer` is none of the kind.
        ShapeError, TypeError: while iterating, as `fit`; and if an iterator gives what is no
            meta-batch.
        TaskError: while iterating, if a sampler ignores its key, or an iterator ends early.
        TrainingError: while iterating, if a loss or a gradient is not finite and nothing is
            skipped. It holds the last good state, whose step is past the bad one: going on from it
            meets other tasks. It also holds what the steps since the last progress measured. A
            training that is resumed meets the same tasks again, unless `on_bad="skip"`.

    >>> import jax, optax
    >>> from maml_jax import maml
    >>> from maml_jax.models import mlp
    >>> from maml_jax.worlds.sinusoid import sinusoid_sampler
    >>> learner, sampler = maml(mlp((8, 1))), sinusoid_sampler(meta_batch=4, shots=5)
    >>> key = jax.random.key(0)
    >>> for progress in training(learner, optax.adam(1e-3), sampler, key, steps=6, every=3):
    ...     print(progress.step, progress.history.loss.shape)
    3 (3,)
    6 (3,)
    """
    require_learner(learner)
    require_outer_optimizer(optimizer)
    if steps < 0 or every < 1:
        raise ValueError(f"steps must be at least 0 and every at least 1, got {steps=}, {every=}")
    if patience is not None and (validate is None or patience < 1):
        raise ValueError(
            f"patience counts validations without a lower loss: give validate=, and at least 1; "
            f"got {patience}"
        )
    job = _job(learner, optimizer, key, options)
    if job.folder is not None and not job.resume and job.folder.steps():
        raise RunError(
            f"{job.folder.folder}: holds checkpoints: go on from them with resume=True, or give "
            "another folder"
        )
    return _train(job, tasks, (steps, every), state, validate, patience)


class _Job(NamedTuple):
    """What stays the same during a training."""

    learner: MetaLearner
    optimizer: optax.GradientTransformation
    key: Any
    metrics: Mapping[str, MetricFn]
    donate: bool
    folder: Checkpoints | None
    resume: bool
    how: dict[str, Any]


def _job(learner, optimizer, key, options: TrainingOptions) -> _Job:
    how = dict(options)
    metrics: Any = how.pop("metrics", None) or {}
    require_metrics(metrics)
    donate, resume = bool(how.get("donate", False)), bool(how.pop("resume", False))
    where, keep = how.pop("checkpoints", None), how.pop("keep", KEEP)
    known = sorted(TrainingOptions.__annotations__)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"training has no option {unknown[0]!r}; it has {', '.join(known)}")
    if resume and where is None:
        raise ValueError("resume=True goes on from checkpoints: give checkpoints=, their folder")
    if "loss" in metrics:
        raise ValueError('"loss" is the learner\'s own: give this metric another name')
    if how.get("retry") and "on_bad" in how:
        raise ValueError("retry=True decides what is done about bad tasks: leave out on_bad")
    if where is None or isinstance(where, Checkpoints):
        folder = where
    else:
        folder = Checkpoints(where, key, keep)  # pyright: ignore[reportArgumentType]
    return _Job(learner, optimizer, key, metrics, donate, folder, resume, how)


def _train(job: _Job, tasks, count, state, validate, patience) -> Iterator[TrainingProgress]:
    how = job.how | {"metrics": {} if validate is not None else job.metrics}
    with closing(open_source(job.learner, job.optimizer, tasks, job.key, how)) as source:
        fresh = state is None
        state = begin(job.learner, job.optimizer, job.key, source.shapes, state)
        if fresh and job.donate:  # it may hold arrays of the optimizer's own
            state = _copy(state)
        measure = _validation(job, validate)
        first, calls = int(state.step), split_steps(*count)
        best, waited = None, 0
        saved = _load(job, source, state, calls)
        if saved is not None:
            best, waited = saved.best, saved.waited
            if saved.step > first:
                state = saved.state
                yield saved
                if patience is not None and waited >= patience:
                    return
        step = int(state.step)
        calls = _calls_after(step - first, calls, *count)
        source.start(calls, step - first)
        for length in calls:
            began = time.perf_counter()
            state, history = source.take(length, state)
            validation = measure(state)
            best, waited = _compare(best, waited, validation, state, job.donate)
            seconds = time.perf_counter() - began
            progress = TrainingProgress(
                int(state.step), state, history, validation, best, waited, seconds
            )
            _save(job, progress)
            yield progress
            if patience is not None and waited >= patience:
                return
        source.require_all()


def _validation(job: _Job, validate: Sampler | Task | None) -> Callable[[MetaState], dict]:
    if validate is None:
        return lambda state: {}
    tasks = validate
    if not isinstance(validate, Task):
        if not callable(validate):
            raise TypeError(
                "validate must be a sampler, (key) -> Task, or one Task whose arrays have a leading"
                f" task axis; got {type(validate).__name__}"
            )
        tasks = validate(jax.random.fold_in(job.key, _VALIDATION))
    assert isinstance(tasks, Task)
    require_tasks(tasks, job.learner)
    how = {name: job.how[name] for name in ("chunk", "devices", "on_bad") if name in job.how}
    if job.how.get("retry"):
        how["on_bad"] = "skip"

    def measure(state: MetaState) -> dict[str, float]:
        try:
            step = state.step
            return validate_params(job.learner, state.params, tasks, job.metrics, step, **how)
        except TrainingError as error:
            error.state = state
            raise

    return measure


def _compare(
    best: Best | None, waited: int, validation: dict[str, float], state: MetaState, donate: bool
) -> tuple[Best | None, int]:
    """Return the best state and how many validations ago it was."""
    if not validation:
        return best, waited
    loss = validation["loss"]
    if loss < (float("inf") if best is None else best.loss):
        return Best(int(state.step), loss, _copy(state) if donate else state), 0
    return best, waited + 1


def _copy(state: MetaState) -> MetaState:
    return jax.tree.map(jnp.copy, state)


def _calls_after(used: int, calls: list[int], steps: int, every: int) -> list[int]:
    """Return the calls that are left after some meta-steps."""
    bounds = [0, *accumulate(calls)]
    if used in bounds:
        return calls[bounds.index(used) :]
    return split_steps(max(steps - used, 0), every)


def _save(job: _Job, progress: TrainingProgress) -> None:
    if job.folder is None:
        return
    best = None if progress.best is None else (progress.best.step, progress.best.loss)
    more = progress.validation, best, progress.waited, progress.seconds
    job.folder.save(Record(progress.step, *more), progress.state, progress.history)


def _load(job: _Job, source: Source, state: MetaState, calls: list[int]) -> TrainingProgress | None:
    """Read the progress of the latest checkpoint."""
    if job.folder is None or not job.folder.steps():
        return None
    found = job.folder.load(state, source.history_structure(max([1, *calls[:1]]), state))
    if found is None:
        return None
    record, saved, history = found
    best = None
    if record.best is not None:
        step, loss = record.best
        same = saved if step == record.step else job.folder.load_state(step, state)
        best = Best(step, loss, _copy(same) if job.donate else same)
    return TrainingProgress(
        *(record.step, saved, history, record.validation, best, record.waited, record.seconds)
    )
