"""A Bayesian linear head on meta-learned features: mean and standard deviation in closed form."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.learners._checks import (
    log_tenth,
    require_plain_params,
    require_positive,
)
from maml_jax.learners._heads import (
    by_closed_form,
    features_and_targets,
    features_of,
    weighted_rows,
)
from maml_jax.meta.linalg import inverse_spd
from maml_jax.meta.losses import gaussian_nll
from maml_jax.meta.networks import require_model
from maml_jax.meta.types import Batch, LossFn, MetaLearner, ModelLike, Params, Prediction, Setting

_MOST_LOG_RATIO = 3.0
"""Bound on the logarithm of a row's noise, in units of the common one: no row counts for all."""


class AlpacaParams(NamedTuple):
    """Meta-parameters: features, and the prior of the head on them.

    Attributes:
        features: of the feature network.
        mean: of the head's weights, `[features + 1, targets]`; the last row is the constant's.
        factor: lower triangle whose product with its transpose is the prior precision in units of
            the noise, `[features + 1, features + 1]`; logarithms on the diagonal.
        tenth_log_noise: a tenth of the logarithm of the noise's standard deviation, `[targets]`.
            The steps of an outer optimizer such as Adam are of one size for all parameters; so
            they find the scale of the targets in hundreds of meta-steps instead of thousands.
        noise_slope: of the logarithm of the noise on the features, `[features + 1]`; None where the
            noise is the same in every row.
        mean_function: of the network whose outputs the head corrects; None where there is none.
    """

    features: Params
    mean: Float[Array, "feature target"]
    factor: Float[Array, "feature feature"]
    tenth_log_noise: Float[Array, " target"]
    noise_slope: Float[Array, " feature"] | None = None
    mean_function: Params = None


class Posterior(NamedTuple):
    """What is known of the head's weights after some rows.

    Attributes:
        features: of the feature network.
        precision: of the weights, in units of the noise, `[features + 1, features + 1]`.
        information: precision times mean, `[features + 1, targets]`.
        log_noise: logarithm of the noise's standard deviation, `[targets]`.
        noise_slope: as in `AlpacaParams`.
        mean_function: as in `AlpacaParams`.
    """

    features: Params
    precision: Float[Array, "feature feature"]
    information: Float[Array, "feature target"]
    log_noise: Float[Array, " target"]
    noise_slope: Float[Array, " feature"] | None = None
    mean_function: Params = None


def alpaca(
    features: ModelLike,
    *,
    targets: int = 1,
    noise: Setting = 1.0,
    prior_precision: Setting = 50.0,
    heteroscedastic: bool = False,
    mean_function: ModelLike | None = None,
    loss: LossFn = gaussian_nll,
) -> MetaLearner:
    r"""Make the Bayesian linear head on meta-learned features (ALPaCA).

    $$\Lambda = \Lambda_0 + \Phi^\top\Phi, \quad
      \bar K = \Lambda^{-1}(\Lambda_0\bar K_0 + \Phi^\top Y), \quad
      y_* \sim N\bigl(\bar K^\top\phi_*,\ (1 + \phi_*^\top\Lambda^{-1}\phi_*)\,\sigma^2\bigr)$$

    with a row of $\Phi$ being the features of a support row and the constant 1. Features, prior
    mean $\bar K_0$, prior precision $\Lambda_0 = LL^\top$ and noise $\sigma$ are meta-learned by
    the likelihood of the query rows.

    `update` takes further rows in by adding their products to precision and information: the same
    posterior as that of all rows at once, at a cost that does not depend on how many came before.
    Adapting to no rows gives the prior.

    With `heteroscedastic` the noise depends on the input,

    $$\sigma(x) = \sigma\, e^{g(x)}, \qquad g(x) = 3 \tanh\bigl(w^\top \phi(x) / 3\bigr)$$

    with w meta-learned from 0 on: support rows count by $e^{-2 g(x)}$, as in weighted least
    squares, and the variance of a prediction is $(e^{2 g(x_*)} + \phi_*^\top\Lambda^{-1}\phi_*)
    \,\sigma^2$.

    With a `mean_function` m the head is fitted to $y - m(x)$ and predicts what is to be added to
    it: a prior mean of its own, which features that are good to adapt need not be good for.

    Args:
        features: `(init, apply)` of the feature network, `[n, *input] -> [n, features]`.
        targets: how many numbers are predicted.
        noise: standard deviation that the noise begins with, in units of the target.
        prior_precision: what the prior precision begins with, times the identity.
        heteroscedastic: whether the noise depends on the input.
        mean_function: a network, `[n, *input] -> [n, targets]`; None: 0.
        loss: compares a `Prediction` with targets, on the query.

    Returns:
        A `MetaLearner` that predicts a `Prediction`; its meta-parameters are `AlpacaParams`, its
        adapted parameters a `Posterior`, and its `info` is an `AdaptationInfo` (before: of the
        prior).

    Raises:
        ShapeError: from `adapt` and `loss`, if the features are not `[n, features]`.
        ValueError: if a number is not positive; from `adapt`, if it is given a number of steps.

    Reference:
        Harrison, Sharma, Pavone (2018), Meta-Learning Priors for Efficient Online Bayesian
        Regression, arXiv:1807.08912, section 3. Mean functions: Fortuin, Strathmann, Rätsch (2019),
        Meta-Learning Mean Functions for Gaussian Processes, arXiv:1901.08098.
    """
    if targets < 1:
        raise ValueError(f"alpaca needs at least 1 target, got {targets}")
    require_positive(noise=noise, prior_precision=prior_precision)

    require_model(features)
    if mean_function is not None:
        require_model(mean_function)

    def init(key, x, /) -> AlpacaParams:
        theta = require_plain_params(features.init(key, x))
        offset = None
        if mean_function is not None:
            offset = require_plain_params(mean_function.init(jax.random.fold_in(key, 1), x))
        width = jax.eval_shape(features.apply, theta, x).shape[-1] + 1  # and the constant
        return AlpacaParams(
            theta,
            jnp.zeros((width, targets)),
            0.5 * jnp.log(jnp.asarray(prior_precision, jnp.float32)) * jnp.eye(width),
            jnp.full(targets, log_tenth(noise)),
            jnp.zeros(width) if heteroscedastic else None,
            offset,
        )

    def update(adapted: Posterior, batch: Batch, /) -> Posterior:
        phi, y = features_and_targets(features, adapted.features, batch)
        if y.shape[1] != targets:
            raise ShapeError(
                f"targets have {y.shape[1]} columns, and the head was made for {targets}: "
                f"alpaca(..., targets={y.shape[1]})"
            )
        if mean_function is not None:
            offset = mean_function.apply(adapted.mean_function, batch.x).astype(y.dtype)
            y = y - weighted_rows(offset, batch.weight)
        by_noise = phi
        if adapted.noise_slope is not None:
            # Rows are scaled by the roots of their weights; the noise is that of the row itself.
            rows = features_of(features, adapted.features, batch.x)
            by_noise = phi * jnp.exp(-2 * _log_ratio(rows, adapted.noise_slope))[:, None]
        return adapted._replace(
            precision=adapted.precision + by_noise.T @ phi,
            information=adapted.information + by_noise.T @ y,
        )

    def predict(adapted: Posterior, x, /) -> Prediction:
        phi = features_of(features, adapted.features, x)
        covariance = inverse_spd(adapted.precision)
        mean = phi @ (covariance @ adapted.information)
        if mean_function is not None:
            mean = mean + mean_function.apply(adapted.mean_function, x).astype(mean.dtype)
        variance = jnp.sum((phi @ covariance) * phi, axis=1)
        own = 1.0
        if adapted.noise_slope is not None:
            own = jnp.exp(2 * _log_ratio(phi, adapted.noise_slope))
        std = jnp.sqrt(own + variance)[:, None] * jnp.exp(adapted.log_noise)
        return Prediction(mean, std.astype(mean.dtype))

    return by_closed_form(
        "alpaca",
        init=init,
        fit=lambda params, support: update(_prior(params), support),
        prior=lambda params, adapted: _prior(params),
        predict=predict,
        loss=loss,
        update=update,
    )


def _prior(params: AlpacaParams) -> Posterior:
    """Return what is known of the weights before any row."""
    diagonal = jnp.diag(jnp.exp(jnp.diag(params.factor)))
    factor = jnp.tril(params.factor, -1) + diagonal
    precision = factor @ factor.T
    return Posterior(
        params.features,
        precision,
        precision @ params.mean,
        10 * params.tenth_log_noise,
        params.noise_slope,
        params.mean_function,
    )


def _log_ratio(phi: Array, slope: Array) -> Array:
    """Logarithm of each row's noise in units of the common one, `[n]`, bounded."""
    return _MOST_LOG_RATIO * jnp.tanh(phi @ slope / _MOST_LOG_RATIO)
