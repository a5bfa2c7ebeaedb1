r"""Regimes of a market, from its past alone.

Every bar gets one of five labels. With $r_t$ the log return of bar t, the *trend* over n bars is

$$z_t = \frac{\sum_{i<n} r_{t-i}}{s_n(r)_t \sqrt n}$$

where $s_n$ is the standard deviation (ddof 1): the t-statistic of the mean return. The *rank* of
the trailing volatility $s_m$ is the share of the h - 1 values before it that lie below it; ties
count half.

Labels are given in this order, the first that fits:

1. `bull`: the trend is above `trend`;
2. `bear`: the trend is below -`trend`;
3. `high_volatility`: the rank is at least `high`;
4. `low_volatility`: the rank is at most `low`;
5. `ranging`: none of these.

Trend comes before volatility: falling markets are volatile, and with volatility first hardly any
bear market would be called one.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features.technical import return_over
from maml_jax.features.windows import rolling_mean, rolling_std

REGIMES = ("bull", "bear", "high_volatility", "low_volatility", "ranging")
"""A label is an index into this list."""

UNKNOWN = -1
"""The label where the regime is unknown: in the warm-up, and where prices are masked."""

BULL, BEAR, HIGH, LOW, RANGING = range(len(REGIMES))

_SAME = 1e-9
"""Numbers with a smaller relative difference are equal; a single move has a trend of exactly 1."""


def label_regimes(
    bars: pd.DataFrame,
    *,
    trend_window: int = 60,
    volatility_window: int = 20,
    history: int = 252,
    trend: float = 1.0,
    low: float = 0.2,
    high: float = 0.8,
) -> pd.Series:
    """Label each bar of one asset with its regime.

    A label depends on the last `regime_warm_up(...)` + 1 bars only: not on later bars, nor on where
    the series begins.

    Args:
        bars: in normal form; closes alone are read.
        trend_window: n, bars of the trend.
        volatility_window: m, bars of a trailing volatility.
        history: h, how many of the asset's own trailing volatilities the present one is ranked
            among, itself included. Those that masked bars make unknown are left out, as long as
            half are known.
        trend: how many standard errors the mean return must lie from 0 to be a trend.
        low: rank up to which volatility is low, in [0, high).
        high: rank from which on it is high, in (low, 1].

    Returns:
        Places in `REGIMES`, int8, on the index of `bars`; `UNKNOWN` (-1) in the first
        `regime_warm_up(...)` bars, and where a masked bar leaves the trend or the volatility
        unknown.

    Raises:
        ValueError: if a window or a threshold is impossible.
    """
    windows = _windows(trend_window, volatility_window, history)
    return _label(log_returns(bars), *windows, *_thresholds(trend, low, high))


def market_regimes(
    bars: Mapping[str, pd.DataFrame],
    *,
    trend_window: int = 60,
    volatility_window: int = 20,
    history: int = 252,
    trend: float = 1.0,
    low: float = 0.2,
    high: float = 0.8,
) -> pd.Series:
    """Label each bar with the regime of the market: of the equal-weighted index of all assets.

    Args:
        bars: in normal form, by asset; all that belong to the market.
        trend_window: as for `label_regimes`, like all that follow.
        volatility_window: bars of a trailing volatility.
        history: trailing volatilities that the present one is ranked among.
        trend: standard errors from 0 that make a trend.
        low: rank up to which volatility is low.
        high: rank from which on it is high.

    Returns:
        Places in `REGIMES`, int8, on the union of the assets' timestamps.

    Raises:
        DataError: if there is no asset.
        ValueError: if a window or a threshold is impossible.
    """
    windows = _windows(trend_window, volatility_window, history)
    return _label(market_log_returns(bars), *windows, *_thresholds(trend, low, high))


def regime_warm_up(
    *, trend_window: int = 60, volatility_window: int = 20, history: int = 252
) -> int:
    """Return how many bars at the start of a series have no label.

    >>> regime_warm_up(), regime_warm_up(trend_window=300)
    (271, 300)
    """
    n, m, h = _windows(trend_window, volatility_window, history)
    return max(n, m + h - 1)


def log_returns(bars: pd.DataFrame) -> pd.Series:
    """Return the log return of each bar from the last one's close; NaN in the first bar."""
    close = bars["close"]
    return pd.Series(np.log(close / close.shift(1)), index=bars.index, name="return")


def market_log_returns(bars: Mapping[str, pd.DataFrame]) -> pd.Series:
    r"""Return the log return of the equal-weighted index, $\ln(1 + \text{mean}_i\, r_{i,t})$.

    An asset takes part in the bars in which it has a return, from its own last bar. Later bars of
    no asset change a value.

    Args:
        bars: in normal form, by asset.

    Returns:
        On the union of the assets' timestamps; NaN where no asset has a return.

    Raises:
        DataError: if there is no asset.
    """
    if not bars:
        raise DataError("the regime of a market needs the bars of at least one asset")
    # In order of their names: the same assets make the same sums.
    returns = pd.DataFrame({name: return_over(bars[name], 1) for name in sorted(bars)}).sort_index()
    index = returns.mean(axis="columns")
    return pd.Series(np.log1p(index), index=index.index, name="return")


def _label(
    returns: pd.Series, n: int, m: int, h: int, trend: float, low: float, high: float
) -> pd.Series:
    move = rolling_mean(returns, n).to_numpy() * np.sqrt(n)
    bound = trend * rolling_std(returns, n).to_numpy() * (1 + _SAME)
    rank = _rank(rolling_std(returns, m).to_numpy(), h)
    labels = np.select(
        [move > bound, move < -bound, rank >= high, rank <= low],
        [BULL, BEAR, HIGH, LOW],
        RANGING,
    ).astype(np.int8)
    labels[~(np.isfinite(move) & np.isfinite(bound) & np.isfinite(rank))] = UNKNOWN
    labels[: max(n, m + h - 1)] = UNKNOWN
    return pd.Series(labels, index=returns.index, name="regime")


def _rank(values: np.ndarray, history: int) -> np.ndarray:
    """Share of the last `history` - 1 known values before each that lie below it, `[bar]`.

    NaN where the value itself, or half of those before it, is missing.
    """
    below, known = np.zeros(len(values)), np.zeros(len(values))
    with np.errstate(invalid="ignore"):
        for lag in range(1, min(history, len(values))):
            now, before = values[lag:], values[:-lag]
            same = np.abs(now - before) <= _SAME * np.abs(now)
            below[lag:] += np.where(same, 0.5, before < now)
            known[lag:] += np.isfinite(before)
    enough = np.isfinite(values) & (2 * known >= history - 1)
    return np.divide(below, known, out=np.full(len(values), np.nan), where=enough)


def _windows(trend_window: int, volatility_window: int, history: int) -> tuple[int, int, int]:
    for name, value in (
        ("trend_window", trend_window),
        ("volatility_window", volatility_window),
        ("history", history),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 2:
            raise ValueError(f"{name} must be a whole number of at least 2 bars, got {value!r}")
    return trend_window, volatility_window, history


def _thresholds(trend: float, low: float, high: float) -> tuple[float, float, float]:
    if not 0 <= trend < np.inf:
        raise ValueError(f"trend must be 0 or a positive number of standard errors, got {trend}")
    if not 0 <= low < high <= 1:
        raise ValueError(f"ranks must be 0 <= low < high <= 1, got {low=} and {high=}")
    return trend, low, high
