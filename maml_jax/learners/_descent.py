"""What several learners need: adaptation by gradient descent, and what all tell of themselves."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from maml_jax.errors import GradientError, ShapeError
from maml_jax.meta.gradients.implicit import Implicit, implicit
from maml_jax.meta.gradients.mixed_mode import mixed_mode
from maml_jax.meta.gradients.modes import GradientMode, exact, first_order
from maml_jax.meta.inner_loop import descend
from maml_jax.meta.optimizers.learned_rates import LearnedOptimizer
from maml_jax.meta.types import (
    Batch,
    InitFn,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Scalar,
    Task,
)

InnerOptimizer: TypeAlias = optax.GradientTransformation | LearnedOptimizer

INNER_STEPS = 5
"""Steps of adaptation that learners take where nothing else is said."""


class AdaptationInfo(NamedTuple):
    """What adapting to one task did.

    Attributes:
        support_loss_before: support loss before the first step; of the prior where there are no
            steps.
        support_loss_after: support loss at the adapted parameters.
    """

    support_loss_before: Float[Array, ""]
    support_loss_after: Float[Array, ""]


class MetaParams(NamedTuple):
    """Meta-parameters of a learner whose inner optimizer is learned too.

    Attributes:
        start: what the learner would learn without that.
        settings: of the inner optimizer.
    """

    start: Params
    settings: Any


class Parts(NamedTuple):
    """What a task changes of a learner's meta-parameters, and what it leaves as it is.

    Attributes:
        init: `(key, x) -> meta_params`.
        split: `(meta_params) -> (changing, resting)`: the parameters in which adaptation begins,
            and what else its objective depends on.
        join: `(changing, resting) -> adapted`.
        predict: `(adapted, x) -> y_hat`.
        penalty: `(changing, resting) -> scalar`, added to the loss that is descended.
        learned_start: whether the parameters in which adaptation begins are meta-parameters.
        objective: `(adapted, support) -> scalar`, descended in place of the loss of predictions.
    """

    init: InitFn
    split: Callable[[Params], tuple[Params, Params]]
    join: Callable[[Params, Params], Params]
    predict: Callable[[Params, Any], Any]
    penalty: Callable[[Params, Params], Scalar] | None = None
    learned_start: bool = True
    objective: Callable[[Params, Batch], Scalar] | None = None


def whole_network(model: ModelLike) -> Parts:
    """Let all parameters of a network adapt."""

    def init(key, x, /):
        return require_plain_params(model.init(key, x))

    return Parts(init, lambda theta: (theta, ()), lambda theta, _: theta, model.apply)


def by_descent(
    parts: Parts,
    *,
    optimizer: InnerOptimizer,
    steps: int,
    gradient: GradientMode,
    loss: LossFn,
) -> MetaLearner:
    """Make a learner that adapts by gradient descent and learns by differentiating through it.

    Args:
        parts: what adapts, and how it predicts.
        optimizer: the inner optimizer; if learned, meta-parameters are a `MetaParams`.
        steps: inner steps where `adapt` is not told otherwise.
        gradient: how to differentiate.
        loss: compares outputs with targets, on support and query alike.

    Raises:
        GradientError: if `gradient` is implicit, where it would be zero.
        TypeError: if `gradient` is what makes a mode instead of a mode.
        ValueError: if `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"inner_steps must not be negative, got {steps}")
    require_mode(gradient)
    default_steps = steps
    learned = optimizer if isinstance(optimizer, LearnedOptimizer) else None
    if isinstance(gradient, Implicit):
        _require_dependence(parts, learned)
    transform = optimizer if learned is None else learned.transform

    def objective(changing: Params, context: Any) -> Scalar:
        support, resting = context
        descended = batch_loss if parts.objective is None else parts.objective
        value = descended(parts.join(changing, resting), support)
        return value if parts.penalty is None else value + parts.penalty(changing, resting)

    def batch_loss(adapted: Params, batch: Batch) -> Scalar:
        return loss(parts.predict(adapted, batch.x), batch.y)

    def problem(meta_params: Params, support: Batch, steps: int) -> tuple:
        """Lay out the arguments of `descend`."""
        start, settings = (meta_params, None) if learned is None else meta_params
        changing, resting = parts.split(start)
        return objective, transform, changing, (support, resting), steps, settings

    def join(changing: Params, meta_params: Params) -> Params:
        start = meta_params if learned is None else meta_params.start
        return parts.join(changing, parts.split(start)[1])

    def init(key, x, /) -> Params:
        start = parts.init(key, x)
        if learned is None:
            return start
        settings = learned.init(jax.random.fold_in(key, 1), parts.split(start)[0])
        return MetaParams(start, settings)

    # Compiled by itself, so that a loop over assets that calls it compiles nothing anew.
    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None) -> Params:
        count = default_steps if steps is None else steps
        return join(descend(*problem(meta_params, support, count))[0], meta_params)

    def meta_loss(meta_params: Params, task: Task, step):
        del step
        changing, values = gradient(*problem(meta_params, task.support, default_steps))
        adapted = join(changing, meta_params)
        after = batch_loss(adapted, task.support)
        if parts.objective is None:
            before = values[0] if default_steps else after
        else:
            start = meta_params if learned is None else meta_params.start
            before = batch_loss(parts.join(*parts.split(start)), task.support)
        return batch_loss(adapted, task.query), AdaptationInfo(before, after)

    return MetaLearner(init, adapt, parts.predict, meta_loss)


def adaptation_info(loss: LossFn, predict: Callable, before: Any, after: Any, support: Batch):
    """Return the `AdaptationInfo` of what predicts before and after it has seen a support set."""
    return AdaptationInfo(
        *(loss(predict(adapted, support.x), support.y) for adapted in (before, after))
    )


def rows_of(features: ModelLike, theta: Params, rows: Any) -> Any:
    """Compute the features of rows, with the constant 1 behind them, for a linear head.

    Args:
        features: the feature network.
        theta: its parameters.
        rows: inputs, or a `Batch` of inputs and targets.

    Returns:
        Features `[n, features + 1]` in single precision or better; of a `Batch`, targets
        `[n, targets]` too.

    Raises:
        ShapeError: if the network's outputs are not `[n, features]`.
    """
    x = rows.x if isinstance(rows, Batch) else rows
    phi = features.apply(theta, x)
    if phi.ndim != 2:
        raise ShapeError(f"features need the shape [n, features], the network gives {phi.shape}")
    phi = in_full(phi)
    phi = jnp.concatenate([phi, jnp.ones_like(phi[:, :1])], axis=1)
    if not isinstance(rows, Batch):
        return phi
    targets = math.prod(rows.y.shape[1:])  # -1 would not do for an empty support set
    return phi, rows.y.reshape(phi.shape[0], targets).astype(phi.dtype)


def in_full(points: Array) -> Array:
    """Return floating numbers in single precision or better."""
    return points.astype(jnp.promote_types(points.dtype, jnp.float32))


def class_numbers(y: Array) -> Int[Array, " n"]:
    """Return class numbers in a row.

    Raises:
        ShapeError: if they are no integers `[n]` or `[n, 1]`.
    """
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape not in ((len(y),), (len(y), 1)):
        raise ShapeError(
            f"classes are given by number, integers [n] or [n, 1]; got {y.dtype} of shape {y.shape}"
        )
    return y.reshape(len(y))


def no_steps(name: str, steps: int | None) -> None:
    """Refuse a number of steps where adapting takes none.

    Raises:
        ValueError: if `steps` is not None.
    """
    if steps is not None:
        raise ValueError(f"{name} fits its support set in closed form: it takes no steps")


def require_fixed(name: str, optimizer: InnerOptimizer) -> optax.GradientTransformation:
    """Return an inner optimizer, unless it is a learned one of which nothing would be learned.

    Raises:
        TypeError: naming the learner.
    """
    if isinstance(optimizer, LearnedOptimizer):
        raise TypeError(
            f"{name} does not differentiate through its inner steps, so it learns nothing of a "
            "learned optimizer: give it an optax transformation, such as optax.sgd(0.005)"
        )
    return optimizer


def _require_dependence(parts: Parts, learned: LearnedOptimizer | None) -> None:
    """Refuse implicit gradients of what the minimum does not depend on."""
    if parts.learned_start and parts.penalty is None:
        raise GradientError(
            "implicit() is the derivative of a minimum, which does not depend on where the descent "
            "began: nothing would be learned of the start. Use imaml, whose objective holds to the "
            "start, or gradient=exact()"
        )
    if learned is not None:
        raise GradientError(
            "implicit() is the derivative of a minimum, which does not depend on the optimizer: "
            "nothing would be learned of it. Use a fixed one, such as optax.sgd(0.01), or "
            "gradient=exact()"
        )


def require_mode(gradient: GradientMode) -> None:
    """Refuse what makes a gradient mode in the place of one.

    Raises:
        TypeError: saying what to write.
    """
    if gradient in (exact, first_order, mixed_mode, implicit):
        raise TypeError("gradient takes a mode, not what makes one: write exact(), first_order()")


def require_plain_params(params: Params) -> Params:
    """Return the parameters of a fresh network, unless some of them are running state.

    A `flax.linen` module returns its collections side by side; only `params` is learned. Running
    averages (`batch_stats`) would be taken for parameters and changed by gradient descent.

    Raises:
        ShapeError: naming the other collections.
    """
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = sorted(set(params) - {"params"})
        raise ShapeError(
            f"the module holds collections beside its parameters: {others}; an (init, apply) pair "
            "cannot carry them. Use layers without running state, such as LayerNorm"
        )
    return params
