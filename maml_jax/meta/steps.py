"""One meta-step: the mean gradient of a meta-batch, clipped, given to the outer optimizer."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from maml_jax.meta.arguments import require_learner, require_outer_optimizer
from maml_jax.meta.evaluation import MetricFn, require_metrics
from maml_jax.meta.programs import Programs
from maml_jax.meta.task_checks import require_state, require_tasks, warn_without_keys
from maml_jax.meta.types import Info, MetaLearner, MetaLossFn, Params, Task
from maml_jax.meta.validation import OnBad, score_query
from maml_jax.parallel.map import Plan, average_tasks, plan_tasks
from maml_jax.parallel.placement import move_committed, put_on_mesh
from maml_jax.parallel.schedule import Schedule

MAX_GRAD_NORM = 1.0
"""Default bound on the norm of the meta-gradient; it keeps second-order MAML alive on noise."""

_PROGRAMS = Programs()


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
        loss: mean query loss over the meta-batch, before the update; weighted where tasks have
            weights. 0 where no task has a weight above 0, NaN where all were skipped.
        grad_norm: norm of the mean meta-gradient, before clipping.
        task_loss: query loss of each task, `[tasks]`; 0 of a task of weight 0.
        task_info: what the learner reports of each task, leading axis `[tasks]`.
        skipped: how many tasks were skipped because their loss or gradient was not finite.
        metrics: by name, the mean over the meta-batch, before the update; empty unless asked for.
    """

    loss: Float[Array, "*steps"]
    grad_norm: Float[Array, "*steps"]
    task_loss: Float[Array, "*steps tasks"]
    task_info: Info
    skipped: Int[Array, "*steps"]
    metrics: dict[str, Any]


class StepPlan(NamedTuple):
    """How meta-steps on tasks of one shape are taken; hashable.

    Attributes:
        tasks: how losses and gradients of tasks are computed.
        grad_norms: as of the learner.
        skip: whether tasks that are not finite are skipped.
    """

    tasks: Plan
    grad_norms: Callable[[Params], Params] | None
    skip: bool

    @property
    def schedule(self) -> Schedule:
        """Where the tasks run."""
        return self.tasks.schedule

    @property
    def history_structure(self) -> Any:
        """The tree structure of the `MetaInfo` of its steps."""
        summed, each = self.tasks.results
        scores = summed.metrics
        return jax.tree.structure(MetaInfo(0, 0, 0, each.info, 0, scores))  # pyright: ignore[reportArgumentType]


class _Summed(NamedTuple):
    """What is averaged over tasks: all of it times the weight, where tasks have one."""

    loss: Any
    grad: Any
    metrics: dict[str, Any]
    weight: Any


class _Each(NamedTuple):
    """What is kept of each task."""

    loss: Any
    info: Any
    skipped: Any


def meta_init(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    x: Float[Array, "..."],
    *,
    param_dtype: Any = None,
) -> MetaState:
    """Make the state in which meta-training begins.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer, any optax transformation.
        key: decides the initial meta-parameters.
        x: example inputs, `[n, *features]`; only shape and dtype count.
        param_dtype: precision of the meta-parameters; default: as the learner makes them (single),
            or that of `x` if it is higher, so that double precision is double throughout.

    Raises:
        TypeError: if `learner` or `optimizer` is none of the kind.
    """
    require_learner(learner)
    require_outer_optimizer(optimizer)

    def cast(leaf):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return leaf
        rows = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else leaf.dtype
        dtype = jnp.promote_types(leaf.dtype, rows) if param_dtype is None else param_dtype
        return leaf.astype(jax.dtypes.canonicalize_dtype(dtype))

    params = jax.tree.map(cast, learner.init(key, x))
    return MetaState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def meta_step(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    state: MetaState,
    tasks: Task,
    *,
    max_grad_norm: float | None = MAX_GRAD_NORM,
    on_bad: OnBad = "raise",
    chunk: int | None = None,
    devices: int | None = None,
) -> tuple[MetaState, MetaInfo]:
    r"""Take one step of the outer optimizer on the mean loss of a meta-batch.

    $$\theta \leftarrow \theta + u\Bigl(\nabla_\theta
      \frac{\sum_{i=1}^{T} w_i L_i(\theta)}{\sum_{i=1}^{T} w_i}\Bigr)$$

    (Finn et al., 2017, arXiv:1703.03400, algorithm 1, where all $w_i$ are 1), with the global norm
    of the meta-gradient clipped. A task of weight 0 counts for nothing, even if it is NaN; a step
    without any other changes nothing but `state.step`.

    Compiled programs belong to the learner and the optimizer: make each once, outside of loops.

    Args:
        learner: the algorithm. Where it has `grad_norms`, these are clipped instead of the norm of
            the whole gradient.
        optimizer: the outer optimizer, the one that `meta_init` was given.
        state: where meta-training stands.
        tasks: a meta-batch: every array has a leading task axis.
        max_grad_norm: bound on the norm of the meta-gradient; None leaves it as it is.
        on_bad: "skip" gives tasks whose loss or gradient is not finite a weight of 0. Otherwise a
            single step does not look (`fit` raises): parameters become NaN.
        chunk: how many tasks are vectorised together; by default as many as the cache (CPU) or the
            memory holds. The result depends on neither chunk nor devices.
        devices: over how many devices tasks are spread; by default the amount of work decides.

    Returns:
        The next state and what the step measured.

    Raises:
        ShapeError: if the task axis is missing, or the state is not of this learner and optimizer.
        TypeError: if `learner` or `optimizer` is none of the kind.
    """
    require_learner(learner)
    require_outer_optimizer(optimizer)
    x = require_tasks(tasks, learner)
    require_state(learner, optimizer, state, x)
    plan = plan_meta_step(learner, state, tasks, on_bad=on_bad, chunk=chunk, devices=devices)
    mesh = plan.schedule.mesh
    (state,) = put_on_mesh(mesh, state)
    key = plan, optimizer, max_grad_norm
    take = _PROGRAMS.get(learner, key, lambda: _compile_step(*key))
    return take(state, move_committed(mesh, tasks))


def _compile_step(plan: StepPlan, optimizer, max_grad_norm) -> Callable:
    step = guarded_meta_step if plan.skip else planned_meta_step

    def take(state: MetaState, tasks: Task) -> tuple[MetaState, MetaInfo]:
        return step(plan, optimizer, max_grad_norm, state, tasks)[:2]

    return jax.jit(take)


def plan_meta_step(
    learner: MetaLearner,
    state: MetaState,
    tasks: Any,
    *,
    on_bad: str = "raise",
    metrics: Mapping[str, MetricFn] | None = None,
    **options: Any,
) -> StepPlan:
    """Plan meta-steps on tasks, or shapes, like these.

    Args:
        learner: the algorithm.
        state: like those that steps will be taken from, arrays or shapes.
        tasks: a meta-batch.
        on_bad: as for `fit`.
        metrics: as for `fit`.
        **options: of `plan_tasks`.
    """
    if on_bad not in ("raise", "skip"):
        raise ValueError(f"on_bad must be 'raise' or 'skip', got {on_bad!r}")
    warn_without_keys(learner, tasks)
    skip = on_bad == "skip"
    if metrics is not None:
        require_metrics(metrics)
    static = (learner.loss, skip)  # and not the whole learner, which a plan would keep
    if metrics:
        static = (*static, tuple(metrics.items()), learner)
    plan = plan_tasks(meta_gradient, static, tasks, state.params, state.step, **options)
    return StepPlan(plan, learner.grad_norms, skip)


def meta_gradient(
    loss_of: MetaLossFn,
    skip: bool = False,
    metrics: tuple[tuple[str, MetricFn], ...] = (),
    learner: MetaLearner | None = None,
) -> Callable[[Task, Params, Any], tuple[_Summed, _Each]]:
    """Make the function of one task whose results are averaged, and kept, in a meta-step.

    Without weights, skipping and metrics it is the loss and its gradient, and nothing else.

    Args:
        loss_of: the loss of the learner.
        skip: whether tasks that are not finite count for nothing.
        metrics: by name.
        learner: predicts what they score.
    """

    def of_task(task: Task, params: Params, step):
        (loss, info), grad = jax.value_and_grad(loss_of, has_aux=True)(params, task, step)
        scores = {} if learner is None else score_query(learner, metrics, task, params)
        weight = getattr(task, "weight", None)
        if weight is None and not skip:
            return _Summed(loss, grad, scores, None), _Each(loss, info, None)
        weight = jnp.asarray(1.0 if weight is None else weight, jnp.float32)
        counts, task_loss, skipped = weight > 0, jnp.where(weight > 0, loss, 0), None
        if skip:
            good = jnp.isfinite(loss) & _all_finite(grad)
            counts, skipped = counts & good, counts & ~good

        def weigh(leaf):
            wide = jnp.promote_types(leaf.dtype, jnp.float32)  # of half precision too
            return jnp.where(counts, weight.astype(wide) * leaf.astype(wide), 0)

        loss, grad, scores = jax.tree.map(weigh, (loss, grad, scores))
        summed = _Summed(loss, grad, scores, jnp.where(counts, weight, 0))
        return summed, _Each(task_loss, info, skipped)

    return of_task


def _all_finite(tree: Any) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def planned_meta_step(
    plan: StepPlan,
    optimizer: optax.GradientTransformation,
    max_grad_norm: float | None,
    state: MetaState,
    tasks: Task,
) -> tuple[MetaState, MetaInfo]:
    """Take a `meta_step` for which there is a plan, inside of a compiled program."""
    summed, each = average_tasks(plan.tasks, tasks, state.params, state.step)
    loss, grad, metrics, weight = summed
    skipped = jnp.zeros((), jnp.int32)
    if weight is not None:
        if plan.skip:
            skipped = jnp.sum(each.skipped, dtype=jnp.int32)
        some, total = weight > 0, jnp.where(weight > 0, weight, 1)

        def divide(leaf, like=None):
            return (leaf / total).astype(leaf.dtype if like is None else like.dtype)

        nothing = jnp.where(skipped > 0, jnp.nan, 0)
        grad = jax.tree.map(divide, grad, state.params)
        loss, metrics = jax.tree.map(
            lambda leaf: jnp.where(some, divide(leaf), nothing.astype(leaf.dtype)), (loss, metrics)
        )
    grad_norm = optax.tree.norm(grad)
    if max_grad_norm is not None:
        grad = _clip(grad, grad_norm, plan.grad_norms, max_grad_norm)
    optimizer = optax.with_extra_args_support(optimizer)
    updates, opt_state = optimizer.update(grad, state.opt_state, state.params, value=loss)
    new = MetaState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)
    if weight is not None:
        new = jax.tree.map(partial(jnp.where, some), new, _pass_over(state))
    return new, MetaInfo(loss, grad_norm, each.loss, each.info, skipped, metrics)


def _clip(grad: Params, norm: Array, grad_norms, bound: float) -> Params:
    def share(norm):
        return jnp.minimum(1.0, bound / jnp.maximum(norm, 1e-30))

    if grad_norms is None:
        scale = share(norm)
        return jax.tree.map(lambda leaf: (leaf * scale).astype(leaf.dtype), grad)
    return jax.tree.map(
        lambda leaf, norm: (leaf * share(norm)).astype(leaf.dtype), grad, grad_norms(grad)
    )


def _pass_over(state: MetaState) -> MetaState:
    """Return the state after a step that learned nothing: the next one draws other tasks."""
    return state._replace(step=state.step + 1)


def guarded_meta_step(
    plan: StepPlan,
    optimizer: optax.GradientTransformation,
    max_grad_norm: float | None,
    state: MetaState,
    tasks: Task,
) -> tuple[MetaState, MetaInfo, Bool[Array, ""]]:
    """Take a planned meta-step, unless its loss or gradient is not finite.

    Of the state nothing but `step` is then changed, so that the next step draws other tasks.

    Returns:
        The state, what the step measured, and whether that was finite. Where tasks are skipped,
        so is a step whose mean is not finite though its tasks are.
    """
    new, info = planned_meta_step(plan, optimizer, max_grad_norm, state, tasks)
    good = jnp.isfinite(info.loss) & jnp.isfinite(info.grad_norm)
    if plan.skip:
        overflow = ~good & (info.grad_norm != 0)  # of the mean: no task is to blame
        info = info._replace(skipped=jnp.where(overflow, len(info.task_loss), info.skipped))
    return jax.tree.map(partial(jnp.where, good), new, _pass_over(state)), info, good
