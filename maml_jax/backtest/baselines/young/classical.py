r"""Models of an asset's own variance, from the returns since its listing alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from maml_jax.backtest.baselines.volatility import GARCH_LEAST, RISKMETRICS
from maml_jax.backtest.baselines.young.rows import check_ages, check_assets, check_returns
from maml_jax.features.volatility import FLOOR

_PER_CENT = 100.0
"""Returns are fitted in per cent, as the fit's tolerances want them."""


def ewma_at_age(
    returns: Float[np.ndarray, "asset time"],
    *,
    ages: Sequence[int],
    decay: float = RISKMETRICS,
    prior: Float[np.ndarray, "asset time"] | None = None,
) -> Float[np.ndarray, "age asset time"]:
    r"""Log of the volatility per bar that RiskMetrics expects n returns after the listing.

    $$\sigma^2_t = (1 - \lambda) \sum_{i=0}^{n-1} \lambda^i r_{t-i}^2 + \lambda^n v$$

    with $v$ the first of the n squared returns, as RiskMetrics begins, or the variance of `prior`
    at the listing.

    Args:
        returns: logarithmic, per bar; bars without one are passed over.
        ages: $n$, increasing.
        decay: $\lambda$.
        prior: log of volatility per bar that is expected of an asset of which nothing is known,
            such as the market's, at the close of each bar; read n returns ago.

    Returns:
        NaN where an asset has no bar or fewer returns; without a prior, also at an age of 0.

    Raises:
        ValueError: if the decay is not between 0 and 1, the ages are impossible, or the prior has
            another shape.

    Reference:
        J.P. Morgan (1996), RiskMetrics technical document, fourth edition.
    """
    if not 0 < decay < 1:
        raise ValueError(f"a decay lies between 0 and 1, not {decay}")
    r, numbers = check_returns(returns, 1), check_ages(ages)
    if prior is not None and prior.shape != r.shape:
        raise ValueError(f"returns are {r.shape} and their prior is {prior.shape}")
    result = np.full((len(numbers), *r.shape), np.nan)
    for asset in range(len(r)):
        own = np.flatnonzero(np.isfinite(r[asset]))
        squares = r[asset, own] ** 2
        sums = np.zeros(len(own) + 1)
        for bar, square in enumerate(squares):
            sums[bar + 1] = decay * sums[bar] + (1 - decay) * square
        for place, age in enumerate(numbers):
            # What is known at the asset's i-th return, i - age of them before the listing.
            ends = np.arange(max(age, 1), len(own) + 1)
            recent = sums[ends] - decay**age * sums[ends - age]
            start = np.full(len(ends), np.nan)
            if prior is not None:
                listed = ends - age - 1
                at = own[np.maximum(listed, 0)] if len(own) else listed
                start = np.where(listed >= 0, np.exp(2 * prior[asset, at]), np.nan)
            elif age:
                start = squares[ends - age]
            variance = np.maximum(recent + decay**age * start, FLOOR**2)
            result[place, asset, own[ends - 1]] = 0.5 * np.log(variance)
    return result


class GarchFit(NamedTuple):
    r"""GARCH(1,1) with Student's t, fitted on some returns.

    Attributes:
        omega: $\omega$, of returns as they are.
        alpha: $\alpha$.
        beta: $\beta$.
        degrees: of freedom.
        variances: of each return fitted on, and of the one after.
    """

    omega: float
    alpha: float
    beta: float
    degrees: float
    variances: Float[np.ndarray, " bar"]

    def following(self, variance: float, square: float) -> float:
        """Return the variance of the bar after one with that variance and squared return."""
        return self.omega + self.alpha * square + self.beta * variance


def fit_garch_t(returns: Float[np.ndarray, " bar"]) -> GarchFit | None:
    """Fit GARCH(1,1), mean zero, with innovations of Student's t, by maximum likelihood.

    None where the returns do not move or the fit has no finite result.
    """
    from arch import arch_model

    r = _PER_CENT * np.asarray(returns, float)
    if not r.std() > _PER_CENT * FLOOR:
        return None
    model = arch_model(r, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    fitted = model.fit(disp="off", show_warning=False)
    omega, alpha, beta, degrees = (float(value) for value in fitted.params)
    if not np.isfinite([omega, alpha, beta, degrees]).all():
        return None
    variances = np.asarray(fitted.conditional_volatility, float) ** 2 / _PER_CENT**2
    found = GarchFit(omega / _PER_CENT**2, alpha, beta, degrees, variances)
    last = found.following(variances[-1], float(returns[-1]) ** 2)
    return found._replace(variances=np.append(variances, last))


def garch_t(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    ages: Sequence[int],
    refit: int = 21,
    first: int = 0,
    targets: Sequence[int] | None = None,
) -> Float[np.ndarray, "age asset time"]:
    r"""Log of the volatility per bar that a GARCH(1,1) with Student's t expects over the horizon.

    $$\sigma^2_{t+1} = \omega + \alpha r_t^2 + \beta \sigma^2_t, \qquad
      r_t / \sigma_t \sim t_\nu \text{ of variance } 1$$

    and the root of the mean of the next h variances. Every `refit` bars it is fitted by maximum
    likelihood on the returns that are among the last n at each of the bars it serves, n - refit + 1
    of them; between two fits the variance goes on with its parameters.

    Args:
        returns: logarithmic, per bar; bars without one are passed over.
        horizon: $h$.
        ages: $n$, increasing.
        refit: bars of the asset from one fit to the next.
        first: index of the first bar to forecast at.
        targets: indices of the assets to forecast; default all.

    Returns:
        NaN before `first`, below an age of 250, where an asset has no bar or fewer returns than the
        age, and where a fit failed.

    Raises:
        ValueError: if a number or an index is impossible.

    Reference:
        Bollerslev (1987), A conditionally heteroskedastic time series model for speculative prices
        and rates of return.
    """
    return walk_garch_t(
        returns, horizon=horizon, ages=ages, refit=refit, first=first, targets=targets
    )[0]


def walk_garch_t(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    ages: Sequence[int],
    refit: int,
    first: int,
    targets: Sequence[int] | None,
) -> tuple[Float[np.ndarray, "age asset time"], Float[np.ndarray, "age asset time"]]:
    """Forecast as `garch_t`, and return the degrees of freedom of the fits as well."""
    r, numbers = check_returns(returns, horizon), check_ages(ages)
    if not 1 <= refit < GARCH_LEAST // 2:
        raise ValueError(f"garch is refitted every 1 to {GARCH_LEAST // 2 - 1} bars, not {refit}")
    result = np.full((2, len(numbers), *r.shape), np.nan)
    for asset in check_assets(targets, len(r)):
        own = np.flatnonzero(np.isfinite(r[asset]))
        known = r[asset, own]
        for place, age in enumerate(numbers):
            if age < GARCH_LEAST:
                continue
            begin = max(int(np.searchsorted(own, first)), age - 1)
            for start in range(begin, len(own), refit):
                fit = fit_garch_t(known[max(start + refit - age, 0) : start + 1])
                if fit is None:
                    continue
                variance = fit.variances[-1]
                for bar in range(start, min(start + refit, len(own))):
                    if bar > start:
                        variance = fit.following(variance, known[bar] ** 2)
                    ahead = _mean_ahead(fit, variance, horizon)
                    logarithm = 0.5 * np.log(max(ahead, FLOOR**2))
                    result[:, place, asset, own[bar]] = logarithm, fit.degrees
    return result[0], result[1]


def _mean_ahead(fit: GarchFit, variance: float, horizon: int) -> float:
    total = 0.0
    for _ in range(horizon):
        total += variance
        variance = fit.following(variance, variance)
    return total / horizon
