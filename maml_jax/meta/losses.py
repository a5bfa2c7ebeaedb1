"""Losses: functions of outputs and targets that return one number, a mean over rows.

All take the weights of the rows, by which the mean is then weighted.
"""

import math
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from maml_jax.errors import ShapeError
from maml_jax.meta.rows import weighted_mean
from maml_jax.meta.types import LossFn, Prediction, Scalar

Weight: TypeAlias = Float[Array, " n"] | None
"""Of each row; None where all count alike."""


def mean_squared_error(y_hat: Any, y: Float[Array, "n *targets"], weight: Weight = None) -> Scalar:
    r"""Mean squared error, $\frac{1}{n}\sum_i (\hat y_i - y_i)^2$.

    Args:
        y_hat: outputs, `[n, *targets]`.
        y: targets, `[n, *targets]`. `[n]` and `[n, 1]` are taken for one another.
        weight: of the rows, `[n]`; None: all count alike.

    Raises:
        TypeError: if the outputs are a `Prediction`.
        ShapeError: if the shapes differ otherwise. (Broadcasting `[n, 1]` against `[n]` would
            compare every output with every target.)
    """
    y_hat = _require_numbers(y_hat)
    return weighted_mean(jnp.square(y_hat - _match_shape(y, y_hat.shape, weight)), weight)


def huber(delta: float = 1.0) -> LossFn:
    r"""Make the Huber loss: quadratic near zero, linear beyond `delta`, for targets with fat tails.

    $$h(e) = \begin{cases} \tfrac12 e^2 & |e| \le \delta \\
      \delta\,(|e| - \tfrac12\delta) & \text{else} \end{cases}$$

    the mean of `optax.huber_loss`. Near zero it is half of `mean_squared_error`, so that the same
    step takes twice the learning rate.

    Args:
        delta: where it becomes linear, in units of the target.

    Returns:
        A loss `(y_hat [n, *targets], y [n, *targets], weight=None) -> scalar`.

    Raises:
        ValueError: if `delta` is not positive.

    Reference:
        Huber (1964), Robust Estimation of a Location Parameter.
    """
    if not delta > 0:
        raise ValueError(f"delta must be positive, got {delta}")

    def loss(y_hat: Any, y: Float[Array, "n *targets"], weight: Weight = None) -> Scalar:
        y_hat = _require_numbers(y_hat)
        y = _match_shape(y, y_hat.shape, weight)
        return weighted_mean(optax.losses.huber_loss(y_hat, y, delta=delta), weight)

    return loss


def gaussian_nll(y_hat: Any, y: Float[Array, "n *targets"], weight: Weight = None) -> Scalar:
    r"""Mean negative log likelihood of a normal distribution.

    $$\frac{1}{n}\sum_i \log\sigma_i + \tfrac12\Bigl(\frac{y_i - \mu_i}{\sigma_i}\Bigr)^2
      + \tfrac12\log 2\pi$$

    Args:
        y_hat: means and standard deviations, as `maml_jax.models.gaussian` makes a network predict.
        y: targets of the mean's shape; `[n]` and `[n, 1]` are taken for one another.
        weight: of the rows, `[n]`; None: all count alike.

    Raises:
        ShapeError: if the shapes differ otherwise.
        TypeError: if the outputs are no `Prediction`.
    """
    if not isinstance(y_hat, Prediction):
        raise TypeError(
            "gaussian_nll compares a Prediction(mean, std) with targets; wrap the model in "
            "maml_jax.models.gaussian, which makes one of two outputs per target"
        )
    error = (_match_shape(y, y_hat.mean.shape, weight) - y_hat.mean) / y_hat.std
    rows = jnp.log(y_hat.std) + 0.5 * jnp.square(error) + 0.5 * math.log(2 * math.pi)
    return weighted_mean(rows, weight)


# Where a network chooses its deviation, the likelihood has no bound on its slope: a few rows met
# almost exactly make the next step as large as they like.
setattr(gaussian_nll, "max_inner_norm", 1.0)  # noqa: B010


def cross_entropy(logits: Any, y: Any, weight: Weight = None) -> Scalar:
    r"""Mean cross-entropy, $-\frac1n\sum_i \log \mathrm{softmax}(z_i)_{y_i}$.

    Args:
        logits: `[n, classes]`; log probabilities are logits too.
        y: numbers of the classes, integers `[n]` or `[n, 1]`, or their probabilities
            `[n, classes]`.
        weight: of the rows, `[n]`; None: all count alike.

    Raises:
        ShapeError: if the shapes do not fit, or a class is known not to exist; inside of a compiled
            function the loss is then NaN.
    """
    if jnp.ndim(_require_numbers(logits)) != 2:
        raise ShapeError(f"logits need the shape [n, classes], got {logits.shape}")
    rows, classes = logits.shape
    if jnp.issubdtype(y.dtype, jnp.integer):
        if y.shape not in ((rows,), (rows, 1)):
            raise ShapeError(f"{rows} rows of logits need one class each, got shape {y.shape}")
        y = one_hot(y.reshape(rows), classes, logits.dtype)
    if y.shape != logits.shape:
        raise ShapeError(
            f"logits have shape {logits.shape} and probabilities have shape {y.shape}; classes "
            "given by number must be integers"
        )
    return -weighted_mean(jnp.sum(y * jax.nn.log_softmax(logits), axis=-1), weight)


def one_hot(y: Int[Array, "..."], classes: int, dtype: Any) -> Float[Array, "n class"]:
    """Return the indicator of each row's class, `[n, class]`.

    Args:
        y: numbers of the classes, `[n]` or `[n, 1]`.
        classes: how many there are.
        dtype: of the result.

    Returns:
        1 for the row's class and 0 for the others; NaN where there is no class of that number and,
        inside of a compiled function, nothing could be raised.

    Raises:
        ShapeError: if `y` are not integers `[n]` or `[n, 1]`; if a number is known to be out of
            range.
    """
    if not jnp.issubdtype(y.dtype, jnp.integer) or y.shape not in ((len(y),), (len(y), 1)):
        raise ShapeError(
            f"classes are given by number, integers [n] or [n, 1]; got {y.dtype} of shape {y.shape}"
        )
    y = y.reshape(len(y))
    exists = (y >= 0) & (y < classes)
    if not isinstance(exists, jax.core.Tracer) and not exists.all():
        row = int(np.argmin(exists))
        raise ShapeError(
            f"row {row} is of class {int(y[row])}, and {classes} classes are numbered 0 to "
            f"{classes - 1}"
        )
    return jnp.where(exists[:, None], jax.nn.one_hot(y, classes, dtype=dtype), jnp.nan)


def _require_numbers(y_hat: Any) -> Array:
    """Return outputs as they are, unless they are means with deviations."""
    if isinstance(y_hat, Prediction):
        raise TypeError(
            "the model predicts means and standard deviations, which this loss does not compare: "
            "use loss=gaussian_nll"
        )
    return y_hat


def _match_shape(y: Array, shape: tuple[int, ...], weight: Weight) -> Array:
    """Return targets in the shape of the outputs, 0 where the row does not count."""
    if weight is not None:
        y = jnp.where(weight.reshape(-1, *(1,) * (y.ndim - 1)) > 0, y, 0)
    if shape == y.shape:
        return y
    if (*shape, 1) != y.shape and shape != (*y.shape, 1):
        raise ShapeError(
            f"the model's output has shape {shape} and the targets have shape {y.shape}; "
            "they must agree (only [n] and [n, 1] may stand for one another)"
        )
    return y.reshape(shape)
