"""Meta-training: one meta-step, the compiled scan over many, and a loop over such scans."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from maml_jax.errors import TrainingError
from maml_jax.meta.types import Info, MetaLearner, Params, Task
from maml_jax.parallel.map import Plan, average_tasks, plan_tasks
from maml_jax.parallel.placement import bring_back, move_committed, put_on_mesh, to_numpy

MAX_GRAD_NORM = 1.0
"""Default bound on the norm of the meta-gradient; it keeps second-order MAML alive on noise."""

Sampler = Callable[[Key[Array, ""]], Task]
"""A pure function of a key; every array of the task that it returns has a leading task axis."""


class MetaState(NamedTuple):
    """What meta-training carries from step to step.

    Attributes:
        params: the meta-parameters.
        opt_state: the outer optimizer's state.
        step: how many meta-steps were taken.
    """

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]


class MetaInfo(NamedTuple):
    """What one meta-step measured; `fit` stacks these along a leading axis of steps.

    Attributes:
        loss: mean query loss over the meta-batch, before the update.
        grad_norm: norm of the mean meta-gradient, before clipping.
        task_loss: query loss of each task, `[tasks]`.
        task_info: what the learner reports of each task, leading axis `[tasks]`.
    """

    loss: Float[Array, "*steps"]
    grad_norm: Float[Array, "*steps"]
    task_loss: Float[Array, "*steps tasks"]
    task_info: Info


class TrainingProgress(NamedTuple):
    """Where `training` stands.

    Attributes:
        step: meta-steps taken so far, those of the state that it started from included.
        state: the state after them.
        history: what the steps since the last progress measured, leading axis `[steps]`.
    """

    step: int
    state: MetaState
    history: MetaInfo


def meta_init(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    x: Float[Array, "..."],
) -> MetaState:
    """Make the state in which meta-training begins.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer, any optax transformation.
        key: decides the initial meta-parameters.
        x: example inputs, `[n, *features]`; only shape and dtype count.
    """
    params = learner.init(key, x)
    return MetaState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def meta_step(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    state: MetaState,
    tasks: Task,
    *,
    max_grad_norm: float | None = MAX_GRAD_NORM,
    chunk: int | None = None,
    devices: int | None = None,
) -> tuple[MetaState, MetaInfo]:
    r"""Take one step of the outer optimizer on the mean loss of a meta-batch.

    $$\theta \leftarrow \theta + u\Bigl(\nabla_\theta \frac{1}{T}\sum_{i=1}^{T} L_i(\theta)\Bigr)$$

    (Finn et al., 2017, arXiv:1703.03400, algorithm 1), with the global norm of the
    meta-gradient clipped.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer, the one that `meta_init` was given.
        state: where meta-training stands.
        tasks: a meta-batch: every array has a leading task axis.
        max_grad_norm: bound on the norm of the meta-gradient; None leaves it as it is.
        chunk: how many tasks are vectorised together; by default as many as the cache (CPU) or the
            memory holds. The result depends on neither chunk nor devices.
        devices: over how many devices tasks are spread; by default the amount of work decides.

    Returns:
        The next state and what the step measured.
    """
    plan = plan_meta_step(learner, state, tasks, chunk=chunk, devices=devices)
    mesh = plan.schedule.mesh
    (state,) = put_on_mesh(mesh, state)
    return planned_meta_step(plan, optimizer, max_grad_norm, state, move_committed(mesh, tasks))


def plan_meta_step(learner: MetaLearner, state: MetaState, tasks: Any, **options) -> Plan:
    """Plan meta-steps on tasks, or shapes, like these; options are those of `plan_tasks`."""
    return plan_tasks(_meta_gradient, (learner,), tasks, state.params, state.step, **options)


def _meta_gradient(learner):
    def meta_gradient(task, params, step):
        (loss, info), grad = jax.value_and_grad(learner.loss, has_aux=True)(params, task, step)
        return (loss, grad), (loss, info)

    return meta_gradient


@partial(jax.jit, static_argnums=(0, 1, 2))
def planned_meta_step(
    plan: Plan,
    optimizer: optax.GradientTransformation,
    max_grad_norm: float | None,
    state: MetaState,
    tasks: Task,
) -> tuple[MetaState, MetaInfo]:
    """Take a `meta_step` for which there is a plan, inside of a compiled program or by itself."""
    (loss, grad), (task_loss, task_info) = average_tasks(plan, tasks, state.params, state.step)
    grad_norm = optax.tree.norm(grad)
    if max_grad_norm is not None:
        scale = jnp.minimum(1.0, max_grad_norm / jnp.maximum(grad_norm, 1e-30))
        grad = jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), grad)
    optimizer = optax.with_extra_args_support(optimizer)
    updates, opt_state = optimizer.update(grad, state.opt_state, state.params, value=loss)
    params = optax.apply_updates(state.params, updates)
    info = MetaInfo(loss, grad_norm, task_loss, task_info)
    return MetaState(params, opt_state, state.step + 1), info


def guarded_meta_step(
    plan: Plan,
    optimizer: optax.GradientTransformation,
    max_grad_norm: float | None,
    state: MetaState,
    tasks: Task,
) -> tuple[MetaState, MetaInfo, Bool[Array, ""]]:
    """Take a planned meta-step, unless its loss or gradient is not finite: the state then stays.

    Returns:
        The state, what the step measured, and whether that was finite.
    """
    new, info = planned_meta_step(plan, optimizer, max_grad_norm, state, tasks)
    good = jnp.isfinite(info.loss) & jnp.isfinite(info.grad_norm)
    return jax.tree.map(partial(jnp.where, good), new, state), info, good


def fit(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    key: Key[Array, ""],
    *,
    steps: int,
    state: MetaState | None = None,
    max_grad_norm: float | None = MAX_GRAD_NORM,
    chunk: int | None = None,
    devices: int | None = None,
) -> tuple[MetaState, MetaInfo]:
    """Meta-train for many steps: one compiled scan that samples its tasks on the device.

    The tasks of meta-step `s` depend on `key` and `s` alone, so training in several calls, each
    going on from the last one's state with the same key, equals training in one. The whole of it is
    a function of `key`: `jax.vmap(lambda key: fit(..., key, steps=n))(keys)` trains several seeds.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer. A schedule or another clipping is part of it.
        sampler: a pure function `(key) -> Task` whose arrays have a leading task axis. One that
            holds large arrays is best a pytree that can be called, such as a
            `jax.tree_util.Partial`, which keeps them out of the compiled program.
        key: decides the initial meta-parameters and all tasks.
        steps: how many meta-steps to take.
        state: where to go on from; None begins afresh.
        max_grad_norm: bound on the norm of the meta-gradient; None leaves it as it is.
        chunk: as for `meta_step`.
        devices: as for `meta_step`.

    Returns:
        The final state, and a `MetaInfo` whose arrays have a leading axis of steps. When a loss or
        a gradient is not finite, no later step is taken: under `vmap` or `jit` the state stays as
        it was before that step, and `history.loss` is NaN from there on.

    Raises:
        TrainingError: if a loss or a gradient is not finite (not under `vmap` or `jit`, where
            nothing can be raised); the message names the step and the tasks.
    """
    options = {"max_grad_norm": max_grad_norm, "chunk": chunk, "devices": devices}
    return _fit(learner, optimizer, sampler, key, steps, state, **options)


def _fit(
    learner,
    optimizer,
    sampler,
    key,
    steps,
    state,
    *,
    max_grad_norm=MAX_GRAD_NORM,
    donate=False,
    **where,
):
    """Do what `fit` does; let the result take the memory of the state where it is donated."""
    if steps < 0:
        raise ValueError(f"the number of meta-steps must not be negative, got {steps}")
    if jax.tree_util.all_leaves([sampler]):  # a plain function, to jit no argument by itself
        sampler = jax.tree_util.Partial(sampler)
    tasks = jax.eval_shape(sampler, key)
    if state is None:
        init_key, _ = jax.random.split(key)
        x = jnp.zeros(tasks.query.x.shape[1:], tasks.query.x.dtype)
        state = meta_init(learner, optimizer, init_key, x)
    first_step = 0 if isinstance(state.step, jax.core.Tracer) else int(state.step)
    plan = plan_meta_step(learner, state, tasks, repeats=steps, **where)
    train = _train_donating if donate else _train
    result, history = train(
        plan, optimizer, steps, max_grad_norm, *put_on_mesh(plan.schedule.mesh, sampler, key, state)
    )
    result, history = bring_back(plan.schedule.mesh, (result, history))
    if not isinstance(history.loss, jax.core.Tracer):
        if not np.isfinite(to_numpy((history.loss, history.grad_norm))).all():
            require_finite(to_numpy(history), result, first_step=first_step)
    return result, history


def training(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    key: Key[Array, ""],
    *,
    steps: int,
    every: int = 100,
    state: MetaState | None = None,
    donate: bool = False,
    **options: Any,
) -> Iterator[TrainingProgress]:
    """Meta-train in several calls of `fit`, yielding after each, which equals one call.

    The body of the loop is the callback: it shows progress, saves states, or ends the training by
    leaving the loop.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        sampler: as for `fit`.
        key: as for `fit`.
        steps: how many meta-steps to take in total.
        every: the most meta-steps of one call. Calls are of one length, which needs one compiled
            program, where a divisor of `steps` allows it.
        state: where to go on from; None begins afresh.
        donate: let each state take the memory of the one before (or of the copy that was made to
            spread it over devices), `state` included; a state must then not be used once the loop
            goes on.
        **options: `max_grad_norm`, `chunk` and `devices`, as for `fit`.

    Returns:
        An iterator over the progress after each call.

    Raises:
        ValueError: if `steps` is negative or `every` is less than 1.
        TrainingError: while iterating, if a loss or a gradient is not finite. It holds the last
            good state, and what the steps since the last progress measured.

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
    if steps < 0 or every < 1:
        raise ValueError(f"steps must be at least 0 and every at least 1, got {steps=}, {every=}")

    calls = split_steps(steps, every)
    return _train_in(calls, learner, optimizer, sampler, key, state, donate=donate, **options)


def _train_in(calls, learner, optimizer, sampler, key, state, **options):
    for count in calls:
        state, history = _fit(learner, optimizer, sampler, key, count, state, **options)
        yield TrainingProgress(int(state.step), state, history)


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


def tasks_of_step(sampler: Sampler, key: Key[Array, ""], step: int | Int[Array, ""]) -> Task:
    """Return the meta-batch that `fit` draws at meta-step `step` under `key`."""
    return sampler(step_key(key, step))


def step_key(key: Key[Array, ""], step: int | Int[Array, ""]) -> Key[Array, ""]:
    """Return the key that `fit` hands to the sampler at meta-step `step`."""
    _, tasks_key = jax.random.split(key)
    return jax.random.fold_in(tasks_key, step)


def _scan(plan, optimizer, steps, max_grad_norm, sampler, key, state):
    def take(state):
        tasks = tasks_of_step(sampler, key, state.step)
        return guarded_meta_step(plan, optimizer, max_grad_norm, state, tasks)

    def skip(state):
        _, info, _ = jax.eval_shape(take, state)
        return state, jax.tree.map(_unknown, info), jnp.zeros((), bool)

    def step(carry: tuple[MetaState, Bool[Array, ""]], _):
        state, good = carry
        state, info, good = lax.cond(good, take, skip, state)
        return (state, good), info

    (state, _), history = lax.scan(step, (state, jnp.ones((), bool)), None, length=steps)
    return state, history


_train = jax.jit(_scan, static_argnums=(0, 1, 2, 3))
_train_donating = jax.jit(_scan, static_argnums=(0, 1, 2, 3), donate_argnames="state")


def _unknown(shape: jax.ShapeDtypeStruct) -> Array:
    fill = jnp.nan if jnp.issubdtype(shape.dtype, jnp.inexact) else 0
    return jnp.full(shape.shape, fill, shape.dtype)


def require_finite(history: MetaInfo, state: MetaState, *, first_step: int = 0) -> None:
    """Refuse a history that holds a loss or a gradient that is not finite.

    Args:
        history: what `fit` returned, one run.
        state: the state before the first bad step.
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
        " a smaller max_grad_norm, and look for extreme values in that task's data",
        step=first_step + index,
        tasks=tasks,
        state=state,
        history=jax.tree.map(lambda leaf: leaf[:index], history),
    )
