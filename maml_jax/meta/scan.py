"""Many meta-steps as one compiled scan."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict, Unpack

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Int, Key

from maml_jax.errors import TrainingError
from maml_jax.meta.arguments import (
    require_learner,
    require_outer_optimizer,
    require_sampler,
)
from maml_jax.meta.evaluation import MetricFn
from maml_jax.meta.programs import Programs
from maml_jax.meta.steps import (
    MAX_GRAD_NORM,
    MetaInfo,
    MetaState,
    OnBad,
    StepPlan,
    guarded_meta_step,
    meta_init,
    plan_meta_step,
)
from maml_jax.meta.task_checks import require_state, require_tasks, sampled_shapes
from maml_jax.meta.types import MetaLearner, Task
from maml_jax.parallel.placement import bring_back, put_on_mesh, to_numpy

_PROGRAMS = Programs()

Sampler = Callable[[Key[Array, ""]], Task]
"""A pure function of a key; every array of the task that it returns has a leading task axis."""


class StepOptions(TypedDict, total=False):
    """How meta-steps are taken.

    Attributes:
        max_grad_norm: bound on the norm of the meta-gradient, 1 by default; None leaves it as it
            is. Where the learner has `grad_norms`, these are bounded instead.
        on_bad: what is done about a task whose loss or gradient is not finite. "raise", the
            default, stops; "skip" leaves the task out of the mean and counts it in
            `history.skipped`. A step all of whose tasks are skipped changes nothing.
        metrics: by name, numbers `metric(y_hat, y)` whose mean over each meta-batch is kept in
            `history.metrics`. They need another adaptation of each task in every step.
        chunk: how many tasks are vectorised together; by default as many as the cache (CPU) or the
            memory holds.
        devices: over how many devices tasks are spread; by default the amount of work decides.
    """

    max_grad_norm: float | None
    on_bad: OnBad
    metrics: Mapping[str, MetricFn]
    chunk: int | None
    devices: int | None


class Drawn(NamedTuple):
    """Tasks that a sampler draws on the device.

    Attributes:
        sampler: a pytree that can be called.
        key: decides all tasks.
    """

    sampler: Any
    key: Any


class Given(NamedTuple):
    """Tasks that were stacked on the host, `[step, task, ...]`."""

    tasks: Task


def fit(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    key: Key[Array, ""],
    *,
    steps: int,
    state: MetaState | None = None,
    **options: Unpack[StepOptions],
) -> tuple[MetaState, MetaInfo]:
    """Meta-train for many steps: one compiled scan that samples its tasks on the device.

    The tasks of meta-step `s` depend on `key` and `s` alone, so training in several calls, each
    going on from the last one's state with the same key, equals training in one. The whole of it is
    a function of `key`: `jax.vmap(lambda key: fit(..., key, steps=n))(keys)` trains several seeds.

    Compiled programs belong to the learner, the optimizer, the sampler and the metrics: another
    object of equal settings is compiled again. Make each once, outside of loops. Programs are
    released with their learner.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer. A schedule or another clipping is part of it.
        sampler: a pure function `(key) -> Task` whose arrays have a leading task axis. One that
            holds large arrays is best a pytree that can be called, such as a
            `jax.tree_util.Partial`, which keeps them out of the compiled program.
        key: decides the initial meta-parameters and all tasks.
        steps: how many meta-steps to take.
        state: where to go on from; None begins afresh.
        **options: `max_grad_norm`, `on_bad`, `metrics`, `chunk`, `devices`: see `StepOptions`.

    Returns:
        The final state, and a `MetaInfo` whose arrays have a leading axis of steps. When a loss or
        a gradient is not finite and nothing is skipped, no later step is taken: under `vmap` or
        `jit` parameters stay as they were before that step, and `history.loss` is NaN from there
        on.

    Raises:
        ShapeError: if the task axis is missing, or the state is not of this learner and optimizer.
        TaskError: if the sampler ignores its key.
        TypeError: if `learner`, `optimizer` or `sampler` is none of the kind.
        TrainingError: if a loss or a gradient is not finite (not under `vmap` or `jit`, where
            nothing can be raised); the message names the step and the tasks.
        ValueError: if `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"the number of meta-steps must not be negative, got {steps}")
    require_learner(learner)
    require_outer_optimizer(optimizer)
    require_sampler(sampler)
    sampler = as_pytree(sampler)
    shapes = sampled_shapes(sampler, key)
    state = begin(learner, optimizer, key, shapes, state)
    return take_steps(learner, optimizer, Drawn(sampler, key), shapes, steps, state, **options)


def as_pytree(sampler: Sampler) -> Any:
    """Return a sampler that `jax.jit` takes as an argument, as a plain function is none."""
    return jax.tree_util.Partial(sampler) if jax.tree_util.all_leaves([sampler]) else sampler


def begin(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    shapes: Task,
    state: MetaState | None = None,
) -> MetaState:
    """Return a state to train from, checked against the tasks; a fresh one where there is none."""
    x = require_tasks(shapes, learner)
    if state is None:
        return meta_init(learner, optimizer, jax.random.split(key)[0], jnp.zeros(x.shape, x.dtype))
    require_state(learner, optimizer, state, x)
    return state


def take_steps(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    source: Drawn | Given,
    shapes: Task,
    steps: int,
    state: MetaState,
    *,
    donate: bool = False,
    max_grad_norm: float | None = MAX_GRAD_NORM,
    **how: Any,
) -> tuple[MetaState, MetaInfo]:
    """Take meta-steps without further checks of what is given.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        source: where tasks come from.
        shapes: of the tasks of one step.
        steps: how many to take.
        state: where to go on from.
        donate: let the result take the memory of the state.
        max_grad_norm: as for `fit`.
        **how: `on_bad`, `metrics`, `chunk` and `devices`, as for `fit`.

    Raises:
        TrainingError: as `fit`.
    """
    first_step = 0 if isinstance(state.step, jax.core.Tracer) else int(state.step)
    plan = plan_meta_step(learner, state, shapes, repeats=steps, **how)
    mesh = plan.schedule.mesh
    # A sampler's own function is a part of the structure, and so has a program of its own.
    settings = plan, optimizer, max_grad_norm, steps, donate
    key = settings, jax.tree.structure(source)
    train = _PROGRAMS.get(learner, key, lambda: scan_program(*settings))
    result, history = bring_back(mesh, train(*put_on_mesh(mesh, source, state)))
    if not plan.skip and not isinstance(history.loss, jax.core.Tracer):
        if not np.isfinite(to_numpy((history.loss, history.grad_norm))).all():
            require_finite(to_numpy(history), result, first_step=first_step)
    return result, history


def scan_program(
    plan: StepPlan,
    optimizer: optax.GradientTransformation,
    max_grad_norm: float | None,
    steps: int,
    donate: bool = False,
) -> Callable[[Drawn | Given, MetaState], tuple[MetaState, MetaInfo]]:
    """Compile the scan over meta-steps.

    Each is a function of its own: of one with static arguments, `jax.jit` keeps thousands.

    Args:
        plan: of one step.
        optimizer: the outer optimizer.
        max_grad_norm: as for `fit`.
        steps: how many to take.
        donate: whether the result takes the memory of the state.
    """

    def train(source: Drawn | Given, state: MetaState) -> tuple[MetaState, MetaInfo]:
        def take(state, tasks):
            if isinstance(source, Drawn):
                tasks = tasks_of_step(source.sampler, source.key, state.step)
            return guarded_meta_step(plan, optimizer, max_grad_norm, state, tasks)

        given = source.tasks if isinstance(source, Given) else None
        return _scan(take, steps, plan.skip, state, given)

    return jax.jit(train, donate_argnames="state" if donate else None)


def _scan(take: Callable, steps: int, skip: bool, state: MetaState, given: Task | None):
    if skip:  # there is always a next step
        return lax.scan(lambda state, tasks: take(state, tasks)[:2], state, given, length=steps)

    def rest(state, tasks):
        _, info, _ = jax.eval_shape(take, state, tasks)
        return state, jax.tree.map(_unknown, info), jnp.zeros((), bool)

    def step(carry: tuple[MetaState, Bool[Array, ""]], tasks):
        state, good = carry
        state, info, good = lax.cond(good, take, rest, state, tasks)
        return (state, good), info

    (state, _), history = lax.scan(step, (state, jnp.ones((), bool)), given, length=steps)
    return state, history


def _unknown(shape: jax.ShapeDtypeStruct) -> Array:
    fill = jnp.nan if jnp.issubdtype(shape.dtype, jnp.inexact) else 0
    return jnp.full(shape.shape, fill, shape.dtype)


def tasks_of_step(sampler: Sampler, key: Key[Array, ""], step: int | Int[Array, ""]) -> Task:
    """Return the meta-batch that `fit` draws at meta-step `step` under `key`."""
    return sampler(step_key(key, step))


def step_key(key: Key[Array, ""], step: int | Int[Array, ""]) -> Key[Array, ""]:
    """Return the key that `fit` hands to the sampler at meta-step `step`."""
    _, tasks_key = jax.random.split(key)
    return jax.random.fold_in(tasks_key, step)


def split_steps(steps: int, longest: int) -> list[int]:
    """Split meta-steps into calls of one length where a divisor that is not too short allows it."""
    if not steps:
        return []
    longest = min(steps, longest)
    length = next(n for n in range(longest, 0, -1) if steps % n == 0)
    if length * 4 < longest:
        length = longest
    rest = steps % length
    return [length] * (steps // length) + ([rest] if rest else [])


def require_finite(history: MetaInfo, state: MetaState, *, first_step: int = 0) -> None:
    """Refuse a history that holds a loss or a gradient that is not finite.

    Args:
        history: what `fit` returned, one run.
        state: the last good parameters, its step moved past the first bad one.
        first_step: the number of the meta-step that the history begins with.

    Raises:
        TrainingError: naming the first bad step, and the tasks whose loss it was.
    """
    bad = ~(np.isfinite(history.loss) & np.isfinite(history.grad_norm))
    if not bad.any():
        return
    index = int(bad.argmax())
    task_loss = np.asarray(history.task_loss[index])
    tasks = np.flatnonzero(~np.isfinite(task_loss)).tolist()
    raise TrainingError(
        f"meta-training stopped at step {first_step + index}: "
        + (
            f"the loss of task {', '.join(map(str, tasks[:5]))}"
            f"{' and others' if len(tasks) > 5 else ''} of {len(task_loss)} is not finite"
            if tasks
            else f"the meta-gradient is not finite though every task's loss is "
            f"(largest: {task_loss.max():.3g})"
        )
        + ". Try a smaller inner learning rate, fewer inner steps, a smaller outer learning rate or"
        " a smaller max_grad_norm, and look for extreme values, or classes that do not exist, in"
        " that task's data; or leave such tasks out with on_bad='skip'",
        step=first_step + index,
        tasks=tasks,
        state=state,
        history=jax.tree.map(lambda leaf: leaf[:index], history),
    )
