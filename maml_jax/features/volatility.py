r"""Logarithms of trailing volatility over several windows, which predict future volatility.

$r_t = \ln (c_t / c_{t-1})$ is the logarithmic return of bar t. The lengths are those of the
heterogeneous autoregressive model (Corsi, 2009): a day, a week and a month, and a quarter of daily
bars; on other bars, the same numbers of bars. On hourly bars around the clock a day has 24, a week
168.
"""

import numpy as np
import pandas as pd

from maml_jax.features.feature import MARKET_MOVE, Feature
from maml_jax.features.windows import rolling_mean

LENGTHS = (1, 5, 22, 60)
"""Bars over which an asset's own volatility is measured."""

MARKET_LENGTHS = (5, 22)
"""Bars over which the market's volatility is measured."""

HOURLY_LENGTHS, HOURLY_MARKET_LENGTHS = (24, 168), (24,)
"""A day and a week of hourly bars around the clock."""

MONTH = 22
LEAST_SHARE = 0.1
"""Lower bound, as a share of the volatility over 22 bars: a bar without a move has no logarithm,
and one with a tiny move says no more."""

FLOOR = 1e-6
"""The least volatility per bar: that of a constant price."""


def log_return(bars: pd.DataFrame) -> pd.Series:
    r"""Logarithmic return of each bar, $r_t = \ln (c_t / c_{t-1})$; NaN at the first."""
    close = bars["close"]
    return pd.Series(np.log(close / close.shift(1)), index=bars.index)


def realised_volatility(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Root mean square of the last n returns, $\sqrt{\text{SMA}_n(r^2)_t}$. Warm-up: n bars."""
    return rolling_mean(log_return(bars) ** 2, window) ** 0.5


def log_volatility(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Logarithm of realised volatility per bar over the last n bars.

    $$\ln \max\Bigl(\sqrt{\text{SMA}_n(r^2)_t},\ \tfrac1{10} \sqrt{\text{SMA}_{22}(r^2)_t},\
      10^{-6}\Bigr)$$

    Warm-up: n bars, 22 at least.
    """
    return _log_at_least(realised_volatility(bars, window), bars)


def log_downside(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Logarithm of the semivolatility of falls, $\sqrt{\text{SMA}_n(\min(r, 0)^2)_t}$.

    With the floors of `log_volatility`. Warm-up: n bars, 22 at least.

    Reference:
        Barndorff-Nielsen, Kinnebrock, Shephard (2010), Measuring Downside Risk.
    """
    falls = log_return(bars).clip(upper=0)
    return _log_at_least(rolling_mean(falls**2, window) ** 0.5, bars)


def market_volatility(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Logarithm of the mean absolute return of all assets over n bars.

    $\ln \text{SMA}_n(\bar a)_t$ with $\bar a_t$ the mean of $|r_t|$ over all assets, at least
    $10^{-6}$. Absolute returns rather than squares: one asset's jump is not the market's
    volatility. Warm-up: n bars.
    """
    return _log(rolling_mean(bars[MARKET_MOVE], window).clip(lower=FLOOR))


def _log_at_least(volatility: pd.Series, bars: pd.DataFrame) -> pd.Series:
    least = (LEAST_SHARE * realised_volatility(bars, MONTH)).clip(lower=FLOOR)
    # Without a whole month there is no value, however short the window.
    return _log(volatility.where(volatility >= least, least).where(volatility.notna()))


def _log(values: pd.Series) -> pd.Series:
    return pd.Series(np.log(values), index=values.index)


def own_volatility_features() -> dict[str, Feature]:
    """Return the log volatilities of an asset itself, by name."""
    name = f"log_downside_{MONTH}"
    downside = Feature(name, lambda b: log_downside(b, MONTH), MONTH)
    return _by_name(*map(_own, LENGTHS), downside)


def market_volatility_features() -> dict[str, Feature]:
    """Return the log volatilities of all assets together, by name."""
    return _by_name(*map(_market, MARKET_LENGTHS))


def hourly_volatility_features() -> dict[str, Feature]:
    """Return the log volatilities of a day and a week of hourly bars, by name."""
    return _by_name(*map(_own, HOURLY_LENGTHS), *map(_market, HOURLY_MARKET_LENGTHS))


def _own(length: int) -> Feature:
    name = f"log_volatility_{length}"
    return Feature(name, lambda b: log_volatility(b, length), max(length, MONTH))


def _market(length: int) -> Feature:
    name = f"market_volatility_{length}"
    return Feature(name, lambda b: market_volatility(b, length), length, (MARKET_MOVE,))


def _by_name(*features: Feature) -> dict[str, Feature]:
    return {feature.name: feature for feature in features}
