"""Hierarchical MAML: one start, adapted to a class of assets, an asset, a time scale in turn."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from maml_jax.errors import ShapeError
from maml_jax.learners._checks import (
    require_derivative_of_start,
    require_loss,
    require_mode,
    require_optimizer,
    require_steps,
)
from maml_jax.learners._descent import (
    INNER_STEPS,
    bound_inner_norm,
    keep_unless_rows,
    objective_of,
    split_key,
    transform_of,
    whole_network,
    with_key,
)
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.inner_loop import descend
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers import learned_rates
from maml_jax.meta.rows import concatenate
from maml_jax.meta.types import (
    AdaptationInfo,
    Batch,
    InnerOptimizer,
    LearnedOptimizer,
    LossFn,
    MetaLearner,
    MetaParams,
    ModelLike,
    Params,
    Task,
)

Supports: TypeAlias = Batch | tuple[Batch, ...]
"""One support set for each level, coarse to fine; or all their rows in one, in that order."""


class Level(NamedTuple):
    """How one level of a hierarchy adapts from its parent.

    Attributes:
        inner_steps: steps of adaptation.
        inner_optimizer: adapts the level; if learned, settings are the level's own.
    """

    inner_steps: int = INNER_STEPS
    inner_optimizer: InnerOptimizer = learned_rates(0.005)


def hierarchical_maml(
    model: ModelLike,
    *,
    levels: int | Sequence[Level] = 2,
    rows: Sequence[int] | Sequence[float] | None = None,
    nested: bool = False,
    by_place: bool = False,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the hierarchical MAML learner.

    $$\theta_0 = \theta, \qquad
      \theta_{k} = \theta_{k-1} - \alpha_k \nabla L^{support_k}(\theta_{k-1})
      \text{ (repeated)}, \qquad
      \min_{\theta, \alpha} \sum_i L_i^{query}(\theta_{K, i})$$

    Level $k$ begins where its parent ended and adapts on rows of its own: those of the asset class,
    of the asset, of its recent bars at one time scale. One meta-gradient goes through all levels.
    Coarse levels may have many rows that resemble the task little, fine ones few that resemble it
    much; the learned rates weigh them. With one level this is `maml`.

    Args:
        model: `(init, apply)`.
        levels: how each level adapts, coarse to fine; a number stands for so many default ones.
        rows: how many rows each level has where a support set is one `Batch` whose rows are laid
            out coarse to fine, or, below 1, which share of them; the last level takes the rest,
            whatever its entry says. None: the support set is a tuple of a `Batch` for each level
            (one level takes one `Batch` too).
        nested: let each level adapt on the rows of all finer levels too, as an asset belongs to its
            class. The coarsest level then sees all rows, and where finer levels come to rest it is
            `maml` on them together.
        by_place: let rows that do not count keep their place, as where each level's rows are filled
            up by themselves. Otherwise they are passed over, as if they were not there. (A row of
            weight 2 is one row of its level.)
        gradient: how to differentiate through all levels: any mode but `implicit`.
        loss: compares outputs with targets, on all levels and the query alike.

    Returns:
        A `MetaLearner`. Its meta-parameters are the start, or, where a level has a learned
        optimizer, a `MetaParams` whose settings are a tuple with an entry for each level. Its
        `adapt` and `loss` take support sets of either form; `steps` of `adapt` counts for every
        level. A level without rows leaves its parent as it is. The support losses of the
        `AdaptationInfo` are of the rows of all levels together.

    Raises:
        GradientError: if `gradient` is implicit, in which nothing would be learned.
        ShapeError: from `adapt` and `loss`, if the support set has no form that fits the levels.
        TypeError: if `gradient` is what makes a mode instead of a mode.
        ValueError: if there is no level, steps are negative, or `rows` do not fit the levels.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax import Batch
    >>> from maml_jax.models import mlp
    >>> learner = hierarchical_maml(mlp((8, 1)), rows=(30, 10))
    >>> x = jnp.linspace(-1.0, 1.0, 40)[:, None]
    >>> theta = learner.init(jax.random.key(0), x)
    >>> together = learner.adapt(theta, Batch(x, x))
    >>> apart = learner.adapt(theta, (Batch(x[:30], x[:30]), Batch(x[30:], x[30:])))
    >>> bool(jnp.allclose(learner.predict(together, x), learner.predict(apart, x)))
    True
    """
    plan = _plan(levels)
    if rows is not None:
        _require_rows(rows, len(plan))
    require_loss(loss)
    require_mode(gradient)
    require_derivative_of_start(gradient, "Use gradient=exact()")
    network = whole_network(model)
    objective = objective_of(loss, network)
    is_learned = [isinstance(level.inner_optimizer, LearnedOptimizer) for level in plan]
    transforms = [transform_of(bound_inner_norm(level.inner_optimizer, loss)) for level in plan]

    def init(key, x, /) -> Params:
        start = network.init(key, x)
        if not any(is_learned):
            return start
        keys = (jax.random.fold_in(key, index + 1) for index in range(len(plan)))
        return MetaParams(
            start,
            tuple(
                level.inner_optimizer.init(key, start)
                if isinstance(level.inner_optimizer, LearnedOptimizer)
                else ()
                for key, level in zip(keys, plan, strict=True)
            ),
        )

    def descend_levels(
        how, meta_params: Params, supports: tuple[Batch, ...], steps: int | None, key
    ) -> Params:
        """Adapt level after level; `how` is `descend` or a gradient mode."""
        theta, settings = meta_params if any(is_learned) else (meta_params, (None,) * len(plan))
        keys = split_key(key, len(plan))
        for index, support in enumerate(supports):
            count = plan[index].inner_steps if steps is None else steps
            if count and len(support.y):
                own = settings[index] if is_learned[index] else None
                here = with_key(support, keys[index])
                moved, _ = how(objective, transforms[index], theta, here, count, own)
                theta = keep_unless_rows(support, moved, theta)
        return theta

    def split(support: Any) -> tuple[Batch, ...]:
        return _split(support, rows, len(plan), by_place)

    def rows_to_adapt_on(supports: tuple[Batch, ...]) -> tuple[Batch, ...]:
        if not nested:
            return supports
        return tuple(concatenate(supports[index:]) for index in range(len(supports)))

    # Compiled by itself, so that a loop over assets reuses the compiled program.
    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Supports, steps: int | None = None, key=None) -> Params:
        require_steps(0 if steps is None else steps)
        return descend_levels(descend, meta_params, rows_to_adapt_on(split(support)), steps, key)

    def meta_loss(meta_params: Params, task: Task, step=0):
        del step
        supports = split(task.support)
        adapting, predicting = split_key(task.key)
        levels = rows_to_adapt_on(supports)
        adapted = descend_levels(gradient, meta_params, levels, None, adapting)
        start = meta_params.start if any(is_learned) else meta_params
        rows = concatenate(supports)
        info = AdaptationInfo(objective(start, rows), objective(adapted, rows))
        return objective(adapted, with_key(task.query, predicting)), info

    random = network.predict_with_key is not None
    return MetaLearner(init, adapt, model.apply, meta_loss, random=random)


def _plan(levels: int | Sequence[Level]) -> tuple[Level, ...]:
    plan = (Level(),) * levels if isinstance(levels, int) else tuple(levels)
    if not plan:
        raise ValueError(f"a hierarchy needs at least 1 level, got levels={levels!r}")
    for level in plan:
        require_optimizer(level.inner_optimizer)
    if any(level.inner_steps < 0 for level in plan):
        raise ValueError(
            "the inner_steps of a level must not be negative, got "
            f"{[level.inner_steps for level in plan]}"
        )
    return plan


def _require_rows(rows: Sequence[int] | Sequence[float], levels: int) -> None:
    if len(rows) != levels or min(rows) < 0:
        raise ValueError(
            f"rows gives each of the {levels} levels a number of rows, coarse to fine, such as "
            f"(200, 20) for two, or a share; got {tuple(rows)}"
        )


def _bounds(rows: Sequence[int] | Sequence[float], count: int) -> list[int]:
    """Return where each level begins in a support set of so many rows, and where the last ends."""
    if any(0 < part < 1 for part in rows):
        rows = [int(part * count) for part in rows]
    return [0, *(min(count, int(sum(rows[: index + 1]))) for index in range(len(rows) - 1)), count]


def _split(
    support: Any,
    rows: Sequence[int] | Sequence[float] | None,
    levels: int,
    by_place: bool = False,
) -> tuple[Batch, ...]:
    """Return the support set of each level.

    Raises:
        ShapeError: if it has no form that fits.
    """
    if not isinstance(support, Batch):
        if len(support) != levels:
            raise ShapeError(f"{levels} levels need a Batch each, got {len(support)}")
        return tuple(support)
    if levels == 1:
        return (support,)
    if rows is None:
        raise ShapeError(
            f"the support set of {levels} levels is a tuple of a Batch for each, coarse to fine; "
            "to take it as one Batch, say how many rows each level has, as in rows=(200, 20)"
        )
    if support.weight is not None and not by_place:
        return _split_weighted(support, support.weight, rows)
    bounds = _bounds(rows, len(support.y))
    if bounds[-2] == bounds[-1] and bounds[-1]:
        raise ShapeError(
            f"{bounds[-1]} rows leave the last of {levels} levels without any, with rows="
            f"{tuple(rows)}: give a larger support set, or the share of each level's rows"
        )
    return tuple(
        jax.tree.map(lambda leaf, a=a, b=b: leaf[a:b], support)
        for a, b in zip(bounds[:-1], bounds[1:], strict=True)
    )


def _split_weighted(support: Batch, weight: Array, rows: Any) -> tuple[Batch, ...]:
    """Return all rows for each level, with the weights of those that are not its own at 0.

    Rows that do not count are not counted either, so that levels have the rows that they would have
    without them.
    """
    counts = weight > 0
    rank, present = jnp.cumsum(counts) - 1, jnp.sum(counts)
    # Where levels begin and end in a set of every possible size.
    bounds = jnp.asarray([_bounds(rows, count) for count in range(len(weight) + 1)])[present]
    own = [(rank >= first) & (rank < last) for first, last in zip(bounds, bounds[1:], strict=False)]
    return tuple(support._replace(weight=jnp.where(mine, weight, 0)) for mine in own)
