"""Learners that adapt by gradient descent: what adapts, and how its result is differentiated."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from maml_jax.errors import GradientError
from maml_jax.learners._checks import (
    require_derivative_of_start,
    require_mode,
    require_plain_params,
    require_steps,
)
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.inner_loop import descend
from maml_jax.meta.losses import mean_squared_error
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
        objective: `(moved, fixed, support) -> scalar`, descended in place of the loss of
            predictions.
        task_settings: `(meta_params, support, settings) -> settings`: what the inner optimizer's
            update receives as `settings`, where that depends on the task too.
    """

    init: InitFn
    split: Callable[[Params], tuple[Params, Params]]
    join: Callable[[Params, Params], Params]
    predict: Callable[[Params, Any], Any]
    penalty: Callable[[Params, Params], Scalar] | None = None
    learned_start: bool = True
    objective: Callable[[Params, Params, Batch], Scalar] | None = None
    task_settings: Callable[[Params, Batch, Any], Any] | None = None


def whole_network(model: ModelLike) -> Parts:
    """Let all parameters of a network adapt."""

    def init(key, x, /):
        return require_plain_params(model.init(key, x))

    return Parts(init, lambda theta: (theta, ()), lambda theta, _: theta, model.apply)


def by_descent(
    parts: Parts,
    *,
    inner_optimizer: InnerOptimizer,
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
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
    learned = inner_optimizer if isinstance(inner_optimizer, LearnedOptimizer) else None
    _require_dependence(gradient, parts, learned)
    transform = transform_of(inner_optimizer)

    def objective(moved: Params, context: Any) -> Scalar:
        support, fixed = context
        if parts.objective is None:
            value = batch_loss(parts.join(moved, fixed), support)
        else:
            value = parts.objective(moved, fixed, support)
        return value if parts.penalty is None else value + parts.penalty(moved, fixed)

    def batch_loss(adapted: Params, batch: Batch) -> Scalar:
        return loss(parts.predict(adapted, batch.x), batch.y)

    def problem(meta_params: Params, support: Batch, steps: int) -> tuple:
        """Lay out the arguments of `descend`."""
        theta, settings = (meta_params, None) if learned is None else meta_params
        if parts.task_settings is not None:
            settings = parts.task_settings(theta, support, settings)
        start, fixed = parts.split(theta)
        return objective, transform, start, (support, fixed), steps, settings

    def join(moved: Params, meta_params: Params) -> Params:
        theta = meta_params if learned is None else meta_params.start
        return parts.join(moved, parts.split(theta)[1])

    def init(key, x, /) -> Params:
        theta = parts.init(key, x)
        if learned is None:
            return theta
        settings = learned.init(jax.random.fold_in(key, 1), parts.split(theta)[0])
        return MetaParams(theta, settings)

    # Compiled by itself, so that a loop over assets reuses the compiled program.
    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None) -> Params:
        count = inner_steps if steps is None else steps
        return join(descend(*problem(meta_params, support, count))[0], meta_params)

    def meta_loss(meta_params: Params, task: Task, step):
        del step
        moved, values = gradient(*problem(meta_params, task.support, inner_steps))
        adapted = join(moved, meta_params)
        after = batch_loss(adapted, task.support)
        if parts.objective is None:
            before = values[0] if inner_steps else after
        else:
            theta = meta_params if learned is None else meta_params.start
            before = batch_loss(parts.join(*parts.split(theta)), task.support)
        return batch_loss(adapted, task.query), AdaptationInfo(before, after)

    return MetaLearner(init, adapt, parts.predict, meta_loss)


def transform_of(optimizer: InnerOptimizer) -> optax.GradientTransformation:
    """Return the optax transformation of an inner optimizer, learned or not."""
    return optimizer.transform if isinstance(optimizer, LearnedOptimizer) else optimizer


def compare_on_support(
    loss: LossFn, predict: Callable, before: Params, after: Params, support: Batch
) -> AdaptationInfo:
    """Return the `AdaptationInfo` of parameters before and after they have seen a support set."""
    return AdaptationInfo(
        *(loss(predict(adapted, support.x), support.y) for adapted in (before, after))
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
