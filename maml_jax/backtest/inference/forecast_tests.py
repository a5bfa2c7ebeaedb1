r"""How good forecasts are, and whether one is better than another.

Forecasts and outcomes are arrays `[..., asset, time]`, NaN where there is none; leading axes, such
as one of seeds, are averaged over. Times are the units of everything that speaks of chance: assets
move together within a bar, so that a bar of twenty assets is not twenty observations.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

_MEANT = 100.0
"""Logarithms of a ratio of variances beyond this size come of divergence."""


def r_squared(
    forecast: Float[np.ndarray, "*lead asset time"],
    outcome: Float[np.ndarray, "asset time"],
    *,
    within: bool = False,
) -> float:
    r"""Share of the variance of outcomes that forecasts explain.

    $$R^2 = 1 - \frac{\sum_{a,t} (y_{a,t} - f_{a,t})^2}{\sum_{a,t} (y_{a,t} - \bar y)^2}$$

    over all bars where both are known, $\bar y$ the mean of their outcomes: one mean of all assets,
    so that knowing which asset is the livelier one counts; or, `within`, each asset's own, which
    leaves only what is known of when.

    Args:
        forecast: $f$.
        outcome: $y$.
        within: measure from each asset's own mean.

    Returns:
        The mean over leading axes; NaN where nothing is known or outcomes do not vary.
    """
    known = _known(outcome, forecast)
    y = np.where(known, outcome, np.nan)
    count = known.sum(axis=-1, keepdims=True)
    total = np.nansum(y, axis=-1, keepdims=True)
    if not within:
        count, total = count.sum(axis=-2, keepdims=True), total.sum(axis=-2, keepdims=True)
    mean = total / np.maximum(count, 1)
    spread = np.nansum((y - mean) ** 2)
    if not spread > 0:
        return np.nan
    errors = np.where(known, (outcome - forecast) ** 2, 0.0).sum(axis=(-2, -1))
    return float(np.mean(1 - errors / spread))


def qlike(
    forecast: Float[np.ndarray, "*lead asset time"], outcome: Float[np.ndarray, "asset time"]
) -> float:
    """Return the mean of `qlike_loss` where both are known."""
    known = _known(outcome, forecast)
    return float(
        np.mean(np.broadcast_to(qlike_loss(forecast, outcome), forecast.shape)[..., known])
    )


def qlike_loss(forecast: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    r"""Loss of a forecast of volatility: 0 where it is right, and worse for one too low.

    $$L = \frac{\sigma^2}{h} - \ln \frac{\sigma^2}{h} - 1$$

    with $\sigma^2$ the realised variance and $h$ the one forecast. Its ranking of forecasts is
    that which the true variance would give, although only a noisy measure of it is seen. It is
    least for the mean of the variance; the exponential of a mean of logarithms is lower than that.

    Args:
        forecast: logarithm of the volatility forecast, $\ln \sqrt h$.
        outcome: logarithm of the realised volatility, $\ln \sigma$.

    Reference:
        Patton (2011), Volatility forecast comparison using imperfect volatility proxies.
    """
    log_ratio = 2 * (outcome - forecast)
    with np.errstate(over="ignore"):  # what diverged has an infinite loss
        return np.expm1(log_ratio) - log_ratio


def shift_to_mean_variance(
    forecast: pd.DataFrame, outcome: pd.DataFrame, known_at: pd.DataFrame
) -> pd.DataFrame:
    r"""Turn forecasts of the log of volatility into those of the log of the mean variance's root.

    $$f_t + \frac12 \ln \overline{e^{2 (y_s - f_s)}}$$

    the mean over all assets and all bars s whose outcomes are known at t. Losses such as `qlike`
    are least for the mean of the variance, which lies above the exponential of a mean of
    logarithms.

    Args:
        forecast: of the log of volatility, `[time, asset]`; NaN where there is none.
        outcome: the log of the realised volatility, at the same bars and assets.
        known_at: index on the time axis of the bar at which each outcome is known.

    Returns:
        `[time, asset]`; NaN until an outcome is known.
    """
    times = len(forecast)
    error = (outcome - forecast).to_numpy(float)
    ratio = np.exp(np.clip(2 * error, -_MEANT, _MEANT))
    index = known_at.to_numpy()
    known = np.isfinite(error) & (index >= 0) & (index < times)
    total, count = (
        np.cumsum(np.bincount(index[known], weights, times)) for weights in (ratio[known], None)
    )
    shift = np.full(times, np.nan)
    shift[count > 0] = 0.5 * np.log(total[count > 0] / count[count > 0])
    return forecast.add(pd.Series(shift, forecast.index), axis="index")


class DieboldMariano(NamedTuple):
    """A test of two forecasts' losses being equal.

    Attributes:
        statistic: negative where the first forecast's losses are the smaller.
        p_value: two-sided.
        times: how many times were compared.
    """

    statistic: float
    p_value: float
    times: int


def diebold_mariano(
    first: Float[np.ndarray, "*lead asset time"],
    second: Float[np.ndarray, "*lead asset time"],
    horizon: int,
) -> DieboldMariano:
    r"""Test whether two forecasts have the same expected loss.

    $$\text{DM} = \bar d \Big/ \sqrt{\tfrac1T \Bigl(\gamma_0 + 2 \sum_{k=1}^{h-1}
      \gamma_k\Bigr)}, \qquad
      \text{DM}^* = \text{DM} \sqrt{\frac{T + 1 - 2h + h (h - 1) / T}{T}}$$

    with $d_t$ the difference of the losses at t, averaged over assets, $\gamma_k$ its
    autocovariances, and $\text{DM}^*$ compared with Student's t of T - 1 degrees of freedom
    (Harvey's correction). Where their sum is not positive they are weighted as by Newey and West.

    Args:
        first: losses of one forecast.
        second: losses of the other; times where both are known for some asset are compared.
        horizon: $h$, bars ahead that were forecast: errors less than h bars apart share outcomes.

    Raises:
        ValueError: if `horizon` is below 1, or there are not more times than it has bars.

    Reference:
        Diebold and Mariano (1995), Comparing predictive accuracy; Newey and West (1987); Harvey,
        Leybourne, Newbold (1997), Testing the equality of prediction mean squared errors.
    """
    if horizon < 1:
        raise ValueError(f"a horizon has at least 1 bar, not {horizon}")
    difference = _over_lead(first - second)
    known = np.isfinite(difference)
    count = known.sum(axis=0)
    d = np.where(known, difference, 0.0).sum(axis=0)[count > 0] / count[count > 0]
    times = len(d)
    if times <= horizon:
        raise ValueError(
            f"a test of forecasts {horizon} bars ahead needs more than {horizon} times, and there "
            f"are {times}"
        )
    centred = d - d.mean()
    lags = np.arange(horizon)
    covariances = np.array([centred[lag:] @ centred[: times - lag] / times for lag in lags])
    variance = 2 * covariances.sum() - covariances[0]
    if not variance > 0:
        variance = 2 * (1 - lags / horizon) @ covariances - covariances[0]
    correction = (times + 1 - 2 * horizon + horizon * (horizon - 1) / times) / times
    if not variance > 0:
        return DieboldMariano(np.nan, np.nan, times)
    from scipy import stats

    statistic = float(d.mean() / np.sqrt(variance / times) * np.sqrt(correction))
    return DieboldMariano(statistic, float(2 * stats.t.sf(abs(statistic), times - 1)), times)


class Difference(NamedTuple):
    """A difference and its 95 % interval."""

    value: float
    low: float
    high: float


def r_squared_difference(
    first: Float[np.ndarray, "*lead asset time"],
    second: Float[np.ndarray, "*lead asset time"],
    outcome: Float[np.ndarray, "asset time"],
    *,
    block: int = 63,
    draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """Difference of two forecasts' R2, with an interval by the stationary bootstrap over times.

    Times are drawn in blocks of random length, with all assets at once, so that what outcomes of
    neighbouring bars and of assets have in common stays together. R2 is measured as by `r_squared`
    from one mean of all, that of the times drawn; where any forecast is missing, none is judged.

    Args:
        first: one forecast.
        second: the other; a positive difference speaks for the first.
        outcome: what came.
        block: mean length of a block in bars; several horizons.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: if nothing is known of all three.

    Reference:
        Politis and Romano (1994), The stationary bootstrap.
    """
    known = _known(outcome, first) & _known(outcome, second)
    if not known.any():
        raise ValueError("there is no bar with both forecasts and an outcome")
    y = np.where(known, outcome, 0.0)
    gain = _over_lead((outcome - second) ** 2 - (outcome - first) ** 2)
    gain = np.where(known, gain, 0.0).sum(axis=0)
    sums = np.stack([gain, known.sum(axis=0), y.sum(axis=0), (y**2).sum(axis=0)], axis=1)
    sums = sums[known.any(axis=0)]

    def difference(drawn: np.ndarray) -> np.ndarray:
        better, count, total, squares = drawn.sum(axis=0)
        return np.array([better / (squares - total**2 / count)])

    from arch.bootstrap import StationaryBootstrap

    drawn = StationaryBootstrap(block, sums, seed=seed).apply(difference, draws)[:, 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(float(difference(sums)[0]), float(low), float(high))


def _known(outcome: np.ndarray, forecast: np.ndarray) -> np.ndarray:
    """Find where the outcome and the forecasts of all leading axes are finite, `[asset, time]`."""
    finite = np.isfinite(forecast)
    return np.isfinite(outcome) & finite.all(axis=tuple(range(forecast.ndim - 2)))


def _over_lead(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=tuple(range(values.ndim - 2)))
