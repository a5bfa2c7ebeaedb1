"""Ridge regression on raw features, with the penalty chosen on the rows that it is fitted on."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.meta.linalg import eigh
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.rows import fill_absent, weights_of
from maml_jax.meta.types import Batch, MetaLearner, Prediction, Task

PENALTIES = (1e4, 3e3, 1e3, 3e2, 1e2, 3e1, 1e1, 3.0, 1.0)
"""Of features of unit variance, the strongest first: it is taken where the rows say nothing."""

_LEAST_FREEDOM = 1e-3
_LEAST_VARIANCE = 1e-12


class Sums(NamedTuple):
    """What ridge regression needs to know of rows: further ones are added.

    Attributes:
        count: how many.
        x: sum of the features, `[feature]`.
        y: sum of the targets.
        gram: sum of the products of the features, `[feature, feature]`.
        moment: sum of features times targets, `[feature]`.
        square: sum of the squared targets.
    """

    count: Float[Array, ""]
    x: Float[Array, " feature"]
    y: Float[Array, ""]
    gram: Float[Array, "feature feature"]
    moment: Float[Array, " feature"]
    square: Float[Array, ""]


class _Fit(NamedTuple):
    """Slopes in the directions in which features vary, and what is left unexplained."""

    x_mean: Array
    y_mean: Array
    directions: Array
    strengths: Array
    slopes: Array
    variance: Array
    count: Array


@cache
def ridge_regression() -> MetaLearner:
    r"""Make ridge regression in the form of a learner, so that it walks forward as learners do.

    $$\hat y = \bar y + (x - \bar x)^\top
      (\tilde X^\top\tilde X + \lambda I)^{-1} \tilde X^\top \tilde y$$

    with $\tilde X, \tilde y$ the support rows minus their means. The penalty is the one of nine,
    from 1 to 10,000, with the least generalised cross-validation

    $$\mathrm{GCV}(\lambda) = \frac{n\,\mathrm{RSS}(\lambda)}{(n - \mathrm{df}(\lambda))^2},
      \qquad \mathrm{df} = 1 + \sum_j \frac{d_j}{d_j + \lambda}$$

    with $d$ the eigenvalues of $\tilde X^\top \tilde X$: chosen on every support set, by
    nothing but its rows. Of sequences, the features of the last bar are read.

    Nothing is meta-learned: meta-parameters are empty sums. `update` takes further rows in. It is
    made once, and what is compiled for it stays.

    Returns:
        A `MetaLearner` of one target that predicts a `Prediction`, whose deviation is that of an
        outcome: the residuals' with $n - \mathrm{df}$ degrees of freedom, and the variance of
        the slopes.

    Raises:
        ShapeError: from `adapt`, if targets are not one number per row.

    Reference:
        Golub, Heath, Wahba (1979), Generalized cross-validation as a method for choosing a good
        ridge parameter, equation 1.3.
    """

    def init(key, x, /) -> Sums:
        del key
        width = x.shape[-1]
        nothing = jnp.zeros((), jnp.float32)
        return Sums(
            nothing, jnp.zeros(width), nothing, jnp.zeros((width, width)), jnp.zeros(width), nothing
        )

    def update(adapted: Sums, batch: Batch, /) -> Sums:
        batch = fill_absent(batch)
        x, y = _last_bar(batch.x), batch.y
        if y.size != len(x):
            raise ShapeError(f"ridge regression predicts 1 target per row, got targets {y.shape}")
        y = y.reshape(len(x)).astype(jnp.float32)
        w = weights_of(batch).astype(jnp.float32)
        wx = w[:, None] * x
        new = Sums(w.sum(), wx.sum(0), w @ y, wx.T @ x, wx.T @ y, w @ (y * y))
        return jax.tree.map(jnp.add, adapted, new)

    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Sums, support: Batch, steps: int | None = None, key=None) -> Sums:
        del steps, key
        return update(meta_params, support)

    def predict(adapted: Sums, x, /) -> Prediction:
        fit = _fit(adapted)
        away = (_last_bar(x) - fit.x_mean) @ fit.directions
        spread = 1 / jnp.maximum(fit.count, 1) + (away**2 / fit.strengths).sum(axis=1)
        std = jnp.sqrt(fit.variance * (1 + spread))
        return Prediction((fit.y_mean + away @ fit.slopes)[:, None], std[:, None])

    def meta_loss(meta_params: Sums, task: Task, step):
        del step
        adapted = update(meta_params, task.support)
        mean = predict(adapted, task.query.x).mean
        return mean_squared_error(mean, task.query.y, task.query.weight), ()

    return MetaLearner(init, adapt, predict, meta_loss, update)


def _last_bar(x):
    return (x if x.ndim == 2 else x[:, -1]).astype(jnp.float32)


def _fit(sums: Sums) -> _Fit:
    n = jnp.maximum(sums.count, 1)
    x_mean, y_mean = sums.x / n, sums.y / n
    gram = sums.gram - n * jnp.outer(x_mean, x_mean)
    moment, square = sums.moment - n * x_mean * y_mean, sums.square - n * y_mean**2
    d, directions = eigh(gram)
    d, b = jnp.maximum(d, 0.0), directions.T @ moment
    strengths = d + jnp.asarray(PENALTIES, jnp.float32)[:, None]  # [penalty, direction]
    slopes = b / strengths
    residual = jnp.maximum(square - 2 * (b * slopes).sum(1) + (d * slopes**2).sum(1), 0.0)
    freedom = n - 1 - (d / strengths).sum(axis=1)
    possible = freedom > _LEAST_FREEDOM
    best = jnp.argmin(jnp.where(possible, residual / jnp.where(possible, freedom, 1) ** 2, jnp.inf))
    variance = residual[best] / jnp.maximum(freedom[best], _LEAST_FREEDOM)
    variance = jnp.maximum(variance, _LEAST_VARIANCE)
    return _Fit(x_mean, y_mean, directions, strengths[best], slopes[best], variance, n)
