"""Learners that adapt in closed form, and what their heads have in common."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from maml_jax.errors import ShapeError
from maml_jax.learners._checks import refuse_steps, require_loss
from maml_jax.learners._descent import compare_on_support
from maml_jax.meta.rows import batch_loss, fill_absent
from maml_jax.meta.types import (
    Batch,
    InitFn,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Task,
    UpdateFn,
)


def by_closed_form(
    name: str,
    *,
    init: InitFn,
    fit: Callable[[Params, Batch], Params],
    prior: Callable[[Params, Params], Params],
    predict: Callable[[Params, Any], Any],
    loss: LossFn,
    update: UpdateFn | None = None,
) -> MetaLearner:
    r"""Make a learner that adapts in closed form and learns by differentiating the formula.

    $$\min_\theta \sum_i L_i^{query}\bigl(\mathrm{fit}(\theta, support_i)\bigr)$$

    Args:
        name: of the learner, for errors.
        init: `(key, x [n, *features]) -> meta_params`.
        fit: `(meta_params, support) -> adapted`, differentiable in both. It honours the weights of
            rows; what stands in rows of weight 0 is finite.
        prior: `(meta_params, adapted) -> adapted`: adapted parameters that know nothing of the
            support set, by which `info` measures what adapting brought.
        predict: `(adapted, x [n, *features]) -> y_hat [n, *targets]`, or a `Prediction`.
        loss: compares outputs with targets, on the query.
        update: `(adapted, batch) -> adapted`, where further rows can be taken in; as `fit`.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo` (before: of the prior). Its `adapt`
        refuses a number of steps.
    """
    require_loss(loss)

    # Compiled by itself, so that a loop over assets reuses the compiled program.
    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None, key=None) -> Params:
        del key  # a formula draws nothing
        refuse_steps(name, steps)
        return fit(meta_params, fill_absent(support))

    def meta_loss(meta_params: Params, task: Task, step=0):
        del step
        adapted = fit(meta_params, fill_absent(task.support))
        before = prior(meta_params, adapted)
        query_loss = batch_loss(loss, predict, adapted, task.query, task.key)
        return query_loss, compare_on_support(loss, predict, before, adapted, task.support)

    def take_in(adapted: Params, batch: Batch, /) -> Params:
        assert update is not None
        return update(adapted, fill_absent(batch))

    return MetaLearner(init, adapt, predict, meta_loss, None if update is None else take_in)


def features_of(model: ModelLike, theta: Params, x: Array) -> Array:
    """Compute the features of rows, with the constant 1 behind them, for a linear head.

    Args:
        model: the feature network.
        theta: its parameters.
        x: inputs, `[n, *features]`.

    Returns:
        Features `[n, features + 1]` in single precision or better.

    Raises:
        ShapeError: if the network's outputs are not `[n, features]`.
    """
    phi = model.apply(theta, x)
    if phi.ndim != 2:
        raise ShapeError(f"features need the shape [n, features], the network gives {phi.shape}")
    phi = at_least_single(phi)
    return jnp.concatenate([phi, jnp.ones_like(phi[:, :1])], axis=1)


def features_and_targets(model: ModelLike, theta: Params, rows: Batch) -> tuple[Array, Array]:
    """Return `features_of` rows, and their targets `[n, targets]` in the same precision.

    Rows with weights are scaled by the roots of these, so that products over rows are weighted.
    """
    phi = features_of(model, theta, rows.x)
    targets = math.prod(rows.y.shape[1:])  # -1 would not do for an empty support set
    y = rows.y.reshape(phi.shape[0], targets).astype(phi.dtype)
    return weighted_rows(phi, rows.weight), weighted_rows(y, rows.weight)


def weighted_rows(values: Array, weight: Array | None) -> Array:
    """Scale rows by the roots of their weights, `[n, ...]`; without weights as they are."""
    if weight is None:
        return values
    counts = weight > 0
    root = jnp.where(counts, jnp.sqrt(jnp.where(counts, weight, 1)), 0)  # finite slopes
    return root.astype(values.dtype)[:, None] * values


def at_least_single(points: Array) -> Array:
    """Return floating numbers in single precision or better."""
    return points.astype(jnp.promote_types(points.dtype, jnp.float32))
