"""Returns by time: drawdowns and recoveries, years, months."""

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from maml_jax.backtest import metrics


def drawdowns(net: pd.Series) -> pd.DataFrame:
    """List the drawdowns of the equity, each from its peak to its recovery.

    Args:
        net: net simple returns per bar of one strategy, on an index of times.

    Returns:
        One row per drawdown, in order: `start` (time of the peak; the first bar where that is the
        equity at the start), `bottom`, `recovery` (first bar at the peak again or above, NaT
        where there is none), `depth [%]` (below 0), `duration` (to the recovery, else to the last
        bar), `to bottom` and `to recovery` (from start to bottom, from bottom to recovery, NaT
        where there is none).
    """
    time = pd.DatetimeIndex(net.index)
    below = metrics.drawdown(net)
    first, after = spells(below)
    bottoms = [
        start + int(below[start:end].argmin()) for start, end in zip(first, after, strict=True)
    ]
    # Where the series ends below a peak nothing comes after.
    recovered = after < len(time)
    last = time[np.minimum(after, len(time) - 1)] if len(time) else time
    start, bottom = time[np.maximum(first - 1, 0)], time[np.array(bottoms, int)]
    recovery = pd.Series(last).where(pd.Series(recovered))
    return pd.DataFrame(
        {
            "start": start,
            "bottom": bottom,
            "recovery": recovery,
            "depth [%]": 100 * below[np.array(bottoms, int)],
            "duration": last - start,
            "to bottom": bottom - start,
            "to recovery": recovery - pd.Series(bottom),
        }
    )


def spells(depth: Float[np.ndarray, " bar"]) -> Int[np.ndarray, "2 spell"]:
    """Return the first bar of each spell below a maximum, and the bar after its last.

    Args:
        depth: the drawdown at each bar, <= 0.
    """
    below = np.concatenate([[False], depth < 0, [False]])
    return np.flatnonzero(np.diff(below.astype(int))).reshape(-1, 2).T


def by_year(net: pd.DataFrame) -> pd.DataFrame:
    """Return compounded returns of calendar years in per cent, `[year, strategy]`.

    Args:
        net: net simple returns per bar, `[time, strategy]`; NaN earns nothing.
    """
    years = pd.Index(pd.DatetimeIndex(net.index).year, name="year")
    return _compound(net, years)


def by_month(net: pd.Series) -> pd.DataFrame:
    """Return compounded returns of calendar months in per cent, `[year, month]`.

    Args:
        net: net simple returns per bar of one strategy; NaN earns nothing.

    Returns:
        Columns 1 to 12; NaN where there was no bar.
    """
    time = pd.DatetimeIndex(net.index)
    months = pd.MultiIndex.from_arrays([time.year, time.month], names=["year", "month"])
    found = _compound(net.to_frame("net"), months).reset_index()
    found = found.pivot_table("net", "year", "month")
    return found.reindex(columns=pd.RangeIndex(1, 13, name="month"))


def _compound(net: pd.DataFrame, groups: pd.Index) -> pd.DataFrame:
    grown = (1 + net.fillna(0.0).astype(float)).clip(lower=0.0).set_axis(groups)
    return 100 * (grown.groupby(level=list(range(groups.nlevels))).prod() - 1)
