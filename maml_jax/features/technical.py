r"""Technical features: trend, momentum, volatility and volume, each a function of the past.

$p_t$ is the close of bar t, $r_t = p_t / p_{t-1} - 1$ its return, and $\text{SMA}_n$ the mean of
the last n values.
"""

import numpy as np
import pandas as pd

from maml_jax.features.feature import Feature
from maml_jax.features.windows import rolling_average, rolling_mean, rolling_std

EMA_MEMORY = 3
"""An exponential average remembers this many spans; what lies further back would weigh 0.25 %."""


def return_over(bars: pd.DataFrame, lag: int) -> pd.Series:
    r"""Return over the last `lag` bars, $p_t / p_{t-lag} - 1$. Warm-up: `lag` bars."""
    return bars["close"] / bars["close"].shift(lag) - 1


def sma_ratio(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Close over its moving average, $p_t / \text{SMA}_n(p)_t$. Warm-up: n - 1 bars."""
    close = bars["close"]
    return close / rolling_mean(close, window)


def ema_ratio(bars: pd.DataFrame, span: int) -> pd.Series:
    r"""Close over its exponential average, $p_t / \text{EMA}_n(p)_t$.

    Warm-up: 3n - 1 bars (see `exponential_average`).
    """
    return bars["close"] / exponential_average(bars["close"], span)


def volatility(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Standard deviation of the last n returns (ddof 1), per bar. Warm-up: n bars."""
    return rolling_std(return_over(bars, 1), window)


def rsi(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Relative strength index between 0 and 100, $100\, U / (U + D)$.

    $U$ and $D$ are the means of the rises and of the falls of the close over the last n bars
    (Cutler's form of Wilder, 1978). 50 where the price did not move. Warm-up: n bars.
    """
    change = bars["close"].diff()
    rise = rolling_mean(change.clip(lower=0), window)
    total = rolling_mean(change.abs(), window)
    index = 100 * rise / total
    return index.mask(total <= 0, 50.0).clip(0, 100)


def macd(bars: pd.DataFrame, fast: int, slow: int) -> pd.Series:
    r"""Difference of two exponential averages, as a share of the price.

    $(\text{EMA}_{fast} - \text{EMA}_{slow}) / p_t$ (Appel, 1979). Warm-up: 3 slow - 1 bars.
    """
    close = bars["close"]
    return (exponential_average(close, fast) - exponential_average(close, slow)) / close


def bb_position(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Place between the Bollinger bands, $(p_t - \text{SMA}_n) / (2 s_n)$.

    -1 is the lower band, +1 the upper; 0 where the price did not move. Warm-up: n - 1 bars.
    """
    close = bars["close"]
    mean, std = rolling_mean(close, window), rolling_std(close, window)
    return ((close - mean) / (2 * std)).mask(std <= 0, 0.0)


def volume_ratio(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Volume over its moving average, $v_t / \text{SMA}_n(v)_t$.

    1 where nothing was traded for n bars. Warm-up: n - 1 bars.
    """
    volume = bars["volume"]
    mean = rolling_mean(volume, window)
    return (volume / mean).mask(mean <= 0, 1.0)


def exponential_average(values: pd.Series, span: int) -> pd.Series:
    r"""Exponential average of the last $m = 3n$ values, weights normalised.

    $$\text{EMA}_n(p)_t = \frac{\sum_{i<m} (1-a)^i\, p_{t-i}}{\sum_{i<m} (1-a)^i},
      \qquad a = \frac{2}{n+1}$$

    `Series.ewm(span=n).mean()` with a finite memory: the two differ by the 0.25 % of weight that
    the infinite form gives to older values, and this one does not depend on where the series
    begins.
    """
    memory = EMA_MEMORY * span
    weights = (1 - 2 / (span + 1)) ** np.arange(memory)
    return rolling_average(values, (weights / weights.sum())[::-1])


def technical_features(
    *,
    window: int = 20,
    returns: tuple[int, ...] = (1, 5, 10),
    fast: int = 12,
    slow: int = 26,
) -> dict[str, Feature]:
    """Return the catalogue of technical features, by name.

    Args:
        window: bars of the averages, the volatility, the momentum, RSI and bands.
        returns: the lags, in bars, of the plain returns.
        fast: span of the faster average of the MACD, in bars.
        slow: span of the slower one.

    Raises:
        ValueError: if a window is too short, or `fast` is not below `slow`.
    """
    if window < 2 or fast < 1 or min(returns, default=1) < 1:
        raise ValueError("windows must be >= 2 bars, spans and lags >= 1 bar")
    if fast >= slow:
        raise ValueError(f"fast ({fast}) must be shorter than slow ({slow})")
    n = window
    features = [
        Feature(f"return_{lag}", lambda b, lag=lag: return_over(b, lag), lag) for lag in returns
    ]
    features += [
        Feature("sma_ratio", lambda b: sma_ratio(b, n), n - 1),
        Feature("ema_ratio", lambda b: ema_ratio(b, n), EMA_MEMORY * n - 1),
        Feature("volatility", lambda b: volatility(b, n), n),
        Feature("momentum", lambda b: return_over(b, n), n),
        Feature("rsi", lambda b: rsi(b, n), n),
        Feature("macd", lambda b: macd(b, fast, slow), EMA_MEMORY * slow - 1),
        Feature("bb_position", lambda b: bb_position(b, n), n - 1),
        Feature("volume_ratio", lambda b: volume_ratio(b, n), n - 1, ("volume",)),
    ]
    return {feature.name: feature for feature in features}
