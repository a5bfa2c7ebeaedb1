"""Metrics: functions of predictions and targets by which tasks are judged, for `evaluate`.

They take the weights of the rows as losses do: what stands in a row of weight 0 changes nothing.
"""

import math
from typing import Any, TypeAlias

import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Num

from maml_jax.errors import ShapeError
from maml_jax.meta.losses import gaussian_nll, one_hot
from maml_jax.meta.rows import weighted_mean
from maml_jax.meta.types import Prediction, Scalar

Weight: TypeAlias = Float[Array, " n"] | None
"""Of each row; None where all count alike."""


def accuracy(y_hat: Any, y: Num[Array, "n *targets"], weight: Weight = None) -> Scalar:
    r"""Share of rows whose class is predicted, $\frac1n\sum_i 1[\arg\max_c z_{ic} = y_i]$.

    Args:
        y_hat: logits or probabilities, `[n, classes]`.
        y: numbers of the classes, integers `[n]` or `[n, 1]`, or their probabilities
            `[n, classes]`, of which the largest counts.
        weight: of the rows, `[n]`; None: all count alike.

    Returns:
        The share, `[]`; NaN where a row that counts has a logit that is NaN.

    Raises:
        ShapeError: if the shapes do not fit, or a class is known not to exist.
        TypeError: if the predictions are a `Prediction`.
    """
    if isinstance(y_hat, Prediction):
        raise TypeError("accuracy compares classes, and the predictions are means and deviations")
    if y_hat.ndim != 2:
        raise ShapeError(f"accuracy takes logits of the shape [n, classes], got {y_hat.shape}")
    if jnp.issubdtype(y.dtype, jnp.integer):
        y = _where_counts(y, weight)
        y = one_hot(y, y_hat.shape[-1], jnp.float32)
    if y.shape != y_hat.shape:
        raise ShapeError(
            f"logits have shape {y_hat.shape} and probabilities have shape {y.shape}; classes "
            "given by number must be integers"
        )
    right = jnp.argmax(y_hat, axis=-1) == jnp.argmax(y, axis=-1)
    broken = jnp.isnan(y_hat).any(axis=-1) | jnp.isnan(y).any(axis=-1)
    return weighted_mean(jnp.where(broken, jnp.nan, right.astype(jnp.float32)), weight)


def r_squared(y_hat: Any, y: Num[Array, "n *targets"], weight: Weight = None) -> Scalar:
    r"""Coefficient of determination: the share of the targets' variance that is explained.

    $$R^2 = 1 - \frac{\sum_i w_i (y_i - \hat y_i)^2}{\sum_i w_i (y_i - \bar y)^2}, \qquad
      \bar y = \frac{\sum_i w_i y_i}{\sum_i w_i}$$

    Args:
        y_hat: predictions, `[n, *targets]`, or a `Prediction`, whose means are judged.
        y: targets, `[n, *targets]`. `[n]` and `[n, 1]` are taken for one another.
        weight: of the rows, $w$, `[n]`; None: all count alike.

    Returns:
        The mean over targets, `[]`; NaN where a target does not vary, as in a single row.

    Raises:
        ShapeError: if the shapes differ otherwise.
    """
    y_hat = y_hat.mean if isinstance(y_hat, Prediction) else y_hat
    y_hat, y = (
        _where_counts(values, weight).reshape(len(values), math.prod(values.shape[1:]))
        for values in (y_hat, _match(y, y_hat.shape))
    )
    w = jnp.ones(len(y)) if weight is None else jnp.maximum(weight, 0)
    w = w.astype(y_hat.dtype)[:, None]
    total = jnp.sum(w)
    mean = jnp.sum(w * y, axis=0) / jnp.where(total > 0, total, 1)
    spread = jnp.sum(w * jnp.square(y - mean), axis=0)
    error = jnp.sum(w * jnp.square(y - y_hat), axis=0)
    varies = spread > 0
    return jnp.mean(jnp.where(varies, 1 - error / jnp.where(varies, spread, 1), jnp.nan))


def nll(y_hat: Any, y: Num[Array, "n *targets"], weight: Weight = None) -> Scalar:
    r"""Mean negative log likelihood of a normal distribution: the logarithmic score.

    $$\frac{1}{n}\sum_i \log\sigma_i + \tfrac12\Bigl(\frac{y_i - \mu_i}{\sigma_i}\Bigr)^2
      + \tfrac12\log 2\pi$$

    Args:
        y_hat: a `Prediction` of mean and std, `[n, *targets]`.
        y: targets, `[n, *targets]`. `[n]` and `[n, 1]` are taken for one another.
        weight: of the rows, `[n]`; None: all count alike.

    Returns:
        The score, `[]`, in nats per target; lower is better.

    Raises:
        ShapeError: if the shapes differ otherwise.
        TypeError: if the predictions are no `Prediction`.
    """
    return gaussian_nll(y_hat, y, weight)


def crps(y_hat: Any, y: Num[Array, "n *targets"], weight: Weight = None) -> Scalar:
    r"""Mean continuous ranked probability score of a normal distribution.

    $$\mathrm{CRPS}(\mu, \sigma; y) = \int (F(t) - 1[t \ge y])^2\,dt
      = \sigma\Bigl[z\,(2\Phi(z) - 1) + 2\varphi(z) - \frac1{\sqrt\pi}\Bigr], \qquad
      z = \frac{y - \mu}{\sigma}$$

    with $F$ the distribution that is predicted, $\Phi$ and $\varphi$ the standard normal
    distribution and its density. A point forecast ($\sigma \to 0$) has its absolute error.

    Args:
        y_hat: a `Prediction` of mean and std, `[n, *targets]`, the std positive.
        y: targets, `[n, *targets]`. `[n]` and `[n, 1]` are taken for one another.
        weight: of the rows, `[n]`; None: all count alike.

    Returns:
        The score, `[]`, in units of the target; lower is better.

    Raises:
        ShapeError: if the shapes differ otherwise.
        TypeError: if the predictions are no `Prediction`.

    Reference:
        Gneiting, Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation, Journal
        of the American Statistical Association 102(477), section 4.2, with the sign reversed.
    """
    if not isinstance(y_hat, Prediction):
        raise TypeError(
            "crps takes a Prediction of mean and std, which models.gaussian, alpaca and ensemble "
            f"make; got {type(y_hat).__name__}"
        )
    y = _where_counts(_match(y, y_hat.mean.shape), weight)
    z = (y - y_hat.mean) / y_hat.std
    rows = z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi)
    return weighted_mean(y_hat.std * rows, weight)


def _where_counts(values: Array, weight: Weight) -> Array:
    """Return what rows hold, 0 in those that do not count."""
    if weight is None:
        return values
    return jnp.where(weight.reshape(-1, *(1,) * (values.ndim - 1)) > 0, values, 0)


def _match(y: Array, shape: tuple[int, ...]) -> Array:
    """Return targets in the shape of the predictions."""
    if y.shape != shape and (*shape, 1) != y.shape and shape != (*y.shape, 1):
        raise ShapeError(
            f"predictions have shape {shape} and the targets have shape {y.shape}; they must "
            "agree (only [n] and [n, 1] may stand for one another)"
        )
    return y.reshape(shape)
