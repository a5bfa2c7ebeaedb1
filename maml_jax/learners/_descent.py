"""Learners that adapt by gradient descent: what adapts, and how its result is differentiated."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from maml_jax.errors import GradientError
from maml_jax.learners._checks import (
    require_derivative_of_start,
    require_loss,
    require_mode,
    require_optimizer,
    require_plain_params,
    require_steps,
)
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.inner_loop import Keyed, descend
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.networks import require_model
from maml_jax.meta.optimizers import bounded
from maml_jax.meta.rows import batch_loss
from maml_jax.meta.types import (
    AdaptationInfo,
    Batch,
    InitFn,
    InnerOptimizer,
    LearnedOptimizer,
    LossFn,
    MetaLearner,
    MetaParams,
    ModelLike,
    Params,
    Scalar,
    Task,
)

INNER_STEPS = 5
"""Steps of adaptation that learners take by default."""


class Parts(NamedTuple):
    """Which part of a learner's meta-parameters adapts to a task, and how the whole predicts.

    All are pure functions of pytrees.

    Attributes:
        init: `(key, x [n, *features]) -> meta_params`.
        split: `(meta_params) -> (start, fixed)`: the parameters in which adaptation begins, and
            what else its objective depends on.
        join: `(moved, fixed) -> adapted`, with `moved` shaped like `start`.
        predict: `(adapted, x [n, *features]) -> y_hat [n, *targets]`, or a `Prediction`.
        penalty: `(moved, fixed) -> scalar`, added to the loss that is descended.
        learned_start: whether `start` depends on the meta-parameters.
        objective: `(moved, fixed, support, key=None) -> scalar`, descended in place of the loss of
            predictions. It honours the weights of rows itself, and receives a key only where tasks
            have one.
        task_settings: `(meta_params, support, settings) -> settings`: what the inner optimizer's
            update receives as `settings`, where that depends on the task too.
        predict_with_key: `(adapted, x, key) -> y_hat`, how predictions are made in training where
            a task has a key; None where nothing is random.
    """

    init: InitFn
    split: Callable[[Params], tuple[Params, Params]]
    join: Callable[[Params, Params], Params]
    predict: Callable[[Params, Any], Any]
    penalty: Callable[[Params, Params], Scalar] | None = None
    learned_start: bool = True
    objective: Callable[..., Scalar] | None = None
    task_settings: Callable[[Params, Batch, Any], Any] | None = None
    predict_with_key: Callable[[Params, Any, Any], Any] | None = None


def whole_network(model: ModelLike) -> Parts:
    """Let all parameters of a network adapt."""
    require_model(model)

    def init(key, x, /):
        return require_plain_params(model.init(key, x))

    return Parts(
        init,
        lambda theta: (theta, ()),
        lambda theta, _: theta,
        model.apply,
        predict_with_key=getattr(model, "apply_with_key", None),
    )


def by_descent(
    parts: Parts,
    *,
    inner_optimizer: InnerOptimizer,
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
    max_inner_norm: float | Literal["loss"] | None = "loss",
) -> MetaLearner:
    r"""Make a learner that adapts by gradient descent and learns by differentiating through it.

    $$\min_{\theta, \psi} \sum_i L_i^{query}(\phi_i, \psi), \qquad
      \phi_i = \mathrm{descend}_\phi\; L_i^{support}(\phi, \psi) \text{ from } \theta$$

    where $\theta$ and $\psi$ are the two halves that `parts.split` makes of the meta-parameters.

    Args:
        parts: what adapts, and how it predicts; `whole_network(model)` for all of a network.
        inner_optimizer: adapts to a task. If it is learned, meta-parameters are a `MetaParams`.
        inner_steps: steps of adaptation, unless `adapt` is given another number.
        gradient: how to differentiate through adaptation.
        loss: compares outputs with targets, on support and query alike.
        max_inner_norm: bound on the norm of the gradients that adapt; "loss": what the loss asks
            for (`gaussian_nll` does); None: no bound.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        GradientError: if `gradient` is implicit, where it would be zero.
        TypeError: if `gradient` is `exact` itself, not `exact()`.
        ValueError: if `inner_steps` is negative.

    Reference:
        Finn, Abbeel, Levine (2017), Model-Agnostic Meta-Learning for Fast Adaptation of Deep
        Networks, arXiv:1703.03400, section 2.2.
    """
    require_steps(inner_steps)
    require_mode(gradient)
    require_optimizer(inner_optimizer)
    require_loss(loss)
    inner_optimizer = bound_inner_norm(inner_optimizer, loss, max_inner_norm)
    learned = inner_optimizer if isinstance(inner_optimizer, LearnedOptimizer) else None
    _require_dependence(gradient, parts, learned)
    transform = transform_of(inner_optimizer)

    def objective(moved: Params, context: Any) -> Scalar:
        (support, fixed), key = context if isinstance(context, Keyed) else (context, None)
        if parts.objective is None:
            value = loss_of(parts.join(moved, fixed), support, key)
        else:
            value = parts.objective(moved, fixed, support, *(() if key is None else (key,)))
        return value if parts.penalty is None else value + parts.penalty(moved, fixed)

    def loss_of(adapted: Params, batch: Batch, key=None) -> Scalar:
        return loss_with_key(loss, parts, adapted, batch, key)

    def take_steps(how, meta_params: Params, support: Batch, steps: int, key=None):
        """Adapt; `how` is `descend` or a gradient mode."""
        theta, settings = (meta_params, None) if learned is None else meta_params
        if not len(support.y):
            require_steps(steps)
            return parts.join(*parts.split(theta)), jnp.zeros(steps)
        if parts.task_settings is not None:
            settings = parts.task_settings(theta, support, settings)
        start, fixed = parts.split(theta)
        context = with_key((support, fixed), key)
        moved, values = how(objective, transform, start, context, steps, settings)
        return parts.join(keep_unless_rows(support, moved, start), fixed), values

    def init(key, x, /) -> Params:
        theta = parts.init(key, x)
        if learned is None:
            return theta
        settings = learned.init(jax.random.fold_in(key, 1), parts.split(theta)[0])
        return MetaParams(theta, settings)

    # Compiled by itself, so that a loop over assets reuses the compiled program.
    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None, key=None) -> Params:
        count = inner_steps if steps is None else steps
        return take_steps(descend, meta_params, support, count, key)[0]

    def meta_loss(meta_params: Params, task: Task, step=0):
        del step
        adapting, predicting = split_key(task.key)
        adapted, values = take_steps(gradient, meta_params, task.support, inner_steps, adapting)
        after = loss_of(adapted, task.support)
        if parts.objective is None and task.key is None:
            before = values[0] if inner_steps else after
        else:
            theta = meta_params if learned is None else meta_params.start
            before = loss_of(parts.join(*parts.split(theta)), task.support)
        return loss_of(adapted, task.query, predicting), AdaptationInfo(before, after)

    random = parts.predict_with_key is not None
    return MetaLearner(init, adapt, parts.predict, meta_loss, random=random)


def bound_inner_norm(
    optimizer: Any, loss: LossFn, max_norm: float | Literal["loss"] | None = "loss"
) -> Any:
    """Bound the gradients that an inner optimizer sees, where the loss or a number asks for it."""
    bound: Any = getattr(loss, "max_inner_norm", None) if max_norm == "loss" else max_norm
    return optimizer if bound is None else bounded(optimizer, bound)


def keep_unless_rows(support: Batch, moved: Params, start: Params) -> Params:
    """Return where adapting led, or where it began if no row of the support set counts."""
    if support.weight is None:
        return moved
    return jax.tree.map(partial(jnp.where, jnp.any(support.weight > 0)), moved, start)


def loss_with_key(
    loss: LossFn, parts: Parts, adapted: Params, batch: Batch, key: Key[Array, ""] | None
) -> Scalar:
    """Return the loss of a batch in training: with what is random drawn by a key, if there is one.

    Args:
        loss: compares outputs with targets.
        parts: how predictions are made.
        adapted: parameters.
        batch: the rows.
        key: None: nothing is random.
    """
    drawing, comparing = split_key(key)
    return batch_loss(
        loss, lambda own, x: predict_drawing(parts, own, x, drawing), adapted, batch, comparing
    )


def predict_drawing(parts: Parts, adapted: Params, x: Any, key: Key[Array, ""] | None) -> Any:
    """Predict as in training: with what is random drawn by a key, if there is one."""
    if key is None or parts.predict_with_key is None:
        return parts.predict(adapted, x)
    return parts.predict_with_key(adapted, x, key)


def objective_of(loss: LossFn, parts: Parts) -> Callable[[Params, Any], Scalar]:
    """Return the loss of a batch, or of a `Keyed` one, as `descend` takes it."""

    def objective(params: Params, context: Any) -> Scalar:
        batch, key = context if isinstance(context, Keyed) else (context, None)
        return loss_with_key(loss, parts, params, batch, key)

    return objective


def with_key(context: Any, key: Key[Array, ""] | None) -> Any:
    """Return a context as it is, or with a key, if there is one."""
    return context if key is None else Keyed(context, key)


def split_key(key: Key[Array, ""] | None, count: int = 2) -> Any:
    """Return so many keys, or so many times None."""
    return (None,) * count if key is None else jax.random.split(key, count)


def transform_of(optimizer: InnerOptimizer) -> optax.GradientTransformation:
    """Return the optax transformation of an inner optimizer, learned or not."""
    return optimizer.transform if isinstance(optimizer, LearnedOptimizer) else optimizer


def compare_on_support(
    loss: LossFn, predict: Callable, before: Params, after: Params, support: Batch
) -> AdaptationInfo:
    """Return the `AdaptationInfo` of parameters before and after they have seen a support set."""
    return AdaptationInfo(
        *(batch_loss(loss, predict, adapted, support) for adapted in (before, after))
    )


def _require_dependence(
    gradient: GradientMode, parts: Parts, learned: LearnedOptimizer | None
) -> None:
    """Refuse implicit gradients of what the minimum does not depend on."""
    if parts.learned_start and parts.penalty is None:
        require_derivative_of_start(
            gradient, "Use imaml, whose objective holds to the start, or gradient=exact()"
        )
    if learned is not None and not gradient.differentiates_start:
        raise GradientError(
            "implicit() is the derivative of a minimum, which does not depend on the optimizer: "
            "nothing would be learned of it. Use a fixed one, such as optax.sgd(0.01), or "
            "gradient=exact()"
        )
