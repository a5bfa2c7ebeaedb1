"""Rolling statistics, every window computed on its own.

A running sum carries the rounding error of a jump into all later windows. Here only the n values of
a window enter its statistic, and a window of equal values has exactly their mean and deviation 0,
since values are measured from the last of their window.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

PIECE = 2**19
"""Values held in memory at once; longer series are processed piece by piece."""


def rolling_mean(values: pd.Series, window: int) -> pd.Series:
    """Mean of the last `window` values, `[bar]`; NaN where one of them is missing."""
    return _over_windows(lambda w: w[:, -1] + _from_last(w).mean(axis=1), window, values)


def rolling_std(values: pd.Series, window: int) -> pd.Series:
    """Standard deviation (ddof 1) of the last `window` values; NaN where one is missing."""
    return rolling_covariance(values, values, window) ** 0.5


def rolling_covariance(first: pd.Series, second: pd.Series, window: int) -> pd.Series:
    """Covariance (ddof 1) of the last `window` pairs of values; NaN where one is missing."""
    return _over_windows(
        lambda v, w: (_centre(v) * _centre(w)).sum(axis=1) / (window - 1), window, first, second
    )


def rolling_max(values: pd.Series, window: int) -> pd.Series:
    """Greatest of the last `window` values; NaN where one is missing."""
    return _over_windows(lambda w: w.max(axis=1), window, values)


def rolling_min(values: pd.Series, window: int) -> pd.Series:
    """Least of the last `window` values; NaN where one is missing."""
    return _over_windows(lambda w: w.min(axis=1), window, values)


def rolling_average(values: pd.Series, weights: np.ndarray) -> pd.Series:
    """Weighted mean of the last values.

    Args:
        values: `[bar]`.
        weights: `[n]`, of sum 1, that of the latest value last.
    """
    return _over_windows(
        lambda w: w[:, -1] + (_from_last(w) * weights).sum(axis=1), len(weights), values
    )


def _from_last(windows: np.ndarray) -> np.ndarray:
    return windows - windows[:, -1:]


def _centre(windows: np.ndarray) -> np.ndarray:
    windows = _from_last(windows)
    return windows - windows.mean(axis=1, keepdims=True)


def _over_windows(reduce: Callable[..., np.ndarray], window: int, *series: pd.Series) -> pd.Series:
    """Apply `reduce`, `[window, value] -> [window]`, to all full windows of series alike."""
    values = [each.to_numpy(float) for each in series]
    result = np.full(len(values[0]), np.nan)
    full = len(result) - window + 1
    count = max(1, PIECE // window)
    # Missing and absurdly large values give NaN, without a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, full, count):
            last = min(first + count, full)
            pieces = [
                np.ascontiguousarray(
                    np.lib.stride_tricks.sliding_window_view(v[first : last + window - 1], window)
                )
                for v in values
            ]
            result[first + window - 1 : last + window - 1] = reduce(*pieces)
    return pd.Series(result, index=series[0].index)
