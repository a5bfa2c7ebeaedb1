r"""Features of whole bars: ranges, their volatility, the place of the close, gaps.

$o_t, h_t, l_t, c_t$ are the open, high, low and close of bar t, and $\text{SMA}_n$ the mean of the
last n values. Prices enter as shares of a price, so that assets can be compared.
"""

import numpy as np
import pandas as pd

from maml_jax.features.feature import Feature
from maml_jax.features.windows import rolling_max, rolling_mean, rolling_min

_RANGE = ("high", "low", "close")


def trange(bars: pd.DataFrame) -> pd.Series:
    r"""True range as a share of the last close, $\text{TR}_t / c_{t-1}$ (Wilder, 1978).

    TA-Lib's TRANGE is $\text{TR}_t$, see `true_range`. Warm-up: 1 bar.
    """
    return true_range(bars) / bars["close"].shift(1)


def natr(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Average true range as a share of the close, $\text{SMA}_n(\text{TR})_t / c_t$.

    TA-Lib's NATR is in per cent, and its average the exponential one of Wilder, whose memory
    reaches back to the first bar. Warm-up: n bars.
    """
    return rolling_mean(true_range(bars), window) / bars["close"]


def true_range(bars: pd.DataFrame) -> pd.Series:
    r"""How far the price moved since the last close, $\max(h_t, c_{t-1}) - \min(l_t, c_{t-1})$."""
    before = bars["close"].shift(1)
    high, low = np.maximum(bars["high"], before), np.minimum(bars["low"], before)
    return pd.Series(high - low, index=bars.index)


def garman_klass(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Volatility per bar from all prices of the last n bars, gaps between them left out.

    $$\sqrt{\text{SMA}_n\Bigl(\tfrac12 \ln^2 \frac{h}{l} - (2 \ln 2 - 1) \ln^2 \frac{c}{o}\Bigr)}$$

    (Garman and Klass, 1980). 0 where bars that contradict themselves make the mean negative.
    Warm-up: n - 1 bars.
    """
    span, move = _log_ratio(bars, "high", "low"), _log_ratio(bars, "close", "open")
    variance = 0.5 * span**2 - (2 * np.log(2) - 1) * move**2
    return rolling_mean(variance, window).clip(lower=0) ** 0.5


def parkinson(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Volatility per bar from the highs and lows of the last n bars (Parkinson, 1980).

    $$\sqrt{\text{SMA}_n\bigl(\ln^2 (h / l)\bigr) / (4 \ln 2)}$$

    Warm-up: n - 1 bars.
    """
    return (rolling_mean(_log_ratio(bars, "high", "low") ** 2, window) / (4 * np.log(2))) ** 0.5


def _log_ratio(bars: pd.DataFrame, over: str, under: str) -> pd.Series:
    return pd.Series(np.log(bars[over] / bars[under]), index=bars.index)


def range_position(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Place of the close in the range of the last n bars, $2 (c_t - L_n) / (H_n - L_n) - 1$.

    $H_n$ is the highest high and $L_n$ the lowest low; -1 is the bottom of the range, 1 the top; 0
    where the price did not move. TA-Lib's WILLR (Williams' %R) is 50 times this, minus 50. Warm-up:
    n - 1 bars.
    """
    high, low = rolling_max(bars["high"], window), rolling_min(bars["low"], window)
    place = 2 * (bars["close"] - low) / (high - low) - 1
    return place.mask(high <= low, 0.0).clip(-1, 1)


def overnight_gap(bars: pd.DataFrame) -> pd.Series:
    r"""Return from the last close to the open, $o_t / c_{t-1} - 1$. Warm-up: 1 bar."""
    return bars["open"] / bars["close"].shift(1) - 1


def bop(bars: pd.DataFrame) -> pd.Series:
    r"""Balance of power, $(c_t - o_t) / (h_t - l_t)$ (TA-Lib's BOP; Livshin, 2001).

    0 in a bar in which the price did not move. No warm-up.
    """
    width = bars["high"] - bars["low"]
    return ((bars["close"] - bars["open"]) / width).mask(width <= 0, 0.0).clip(-1, 1)


def ohlc_features(*, window: int = 20) -> dict[str, Feature]:
    """Return the features of whole bars, by name.

    Args:
        window: bars of the averages and ranges.
    """
    n = window
    whole = ("open", *_RANGE)
    features = [
        Feature("trange", trange, 1, _RANGE),
        Feature("natr", lambda b: natr(b, n), n, _RANGE),
        Feature("garman_klass", lambda b: garman_klass(b, n), n - 1, whole),
        Feature("parkinson", lambda b: parkinson(b, n), n - 1, ("high", "low")),
        Feature("range_position", lambda b: range_position(b, n), n - 1, _RANGE),
        Feature("overnight_gap", overnight_gap, 1, ("open", "close")),
        Feature("bop", bop, 0, whole),
    ]
    return {feature.name: feature for feature in features}
