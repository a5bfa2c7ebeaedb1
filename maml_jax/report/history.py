"""Tables of what was earned when: years, worst falls, first and best trades."""

import numpy as np
import pandas as pd

from maml_jax.backtest import metrics
from maml_jax.report import style


def yearly_returns(returns: pd.DataFrame) -> pd.DataFrame:
    """Return compounded returns of calendar years in per cent, `[year, strategy]`.

    Args:
        returns: net simple returns per bar, `[time, strategy]`, on an index of times.
    """
    years = pd.DatetimeIndex(returns.index).year
    found = {
        year: {name: 100 * metrics.total_return(part[name].fillna(0.0)) for name in part.columns}
        for year, part in style.columns_of(returns).groupby(years)
    }
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("year")


def worst_drawdowns(returns: pd.Series, count: int = 5) -> pd.DataFrame:
    """Return the deepest falls of the equity, each from a maximum to its recovery.

    Args:
        returns: net simple returns per bar of one strategy, on an index of times.
        count: how many.

    Returns:
        One row per fall, the deepest first: `depth [%]`, `start` (the last maximum; the first bar
        where that is the equity at the start), `bottom`, `recovery` (NaT where there is none yet),
        `to bottom`, `to recovery` (times from start; NaT where there is none yet).
    """
    values = returns.astype("float64").fillna(0.0)
    falls = metrics.drawdown(values)
    below = falls < 0
    starts = np.flatnonzero(below & ~np.append(False, below[:-1])).tolist()
    rows = []
    for first in starts:
        above = np.flatnonzero(~below[first:]).tolist()
        end = first + above[0] if len(above) else len(falls)
        bottom = first + int(np.argmin(falls[first:end]))
        start = values.index[max(first - 1, 0)]
        recovery = values.index[end] if len(above) else pd.NaT
        rows.append(
            {
                "depth [%]": 100 * falls[bottom],
                "start": start,
                "bottom": values.index[bottom],
                "recovery": recovery,
                "to bottom": values.index[bottom] - start,
                "to recovery": recovery - start,
            }
        )
    columns = ["depth [%]", "start", "bottom", "recovery", "to bottom", "to recovery"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("depth [%]").head(count).reset_index(drop=True)


def with_intervals(intervals: pd.DataFrame, rows: str = "strategy") -> pd.DataFrame:
    """Lay intervals out for reading: one row each, one column per figure, "0.42 [-0.10, 0.95]".

    Args:
        intervals: one row per strategy and figure: `figure`, `value`, `low`, `high`.
        rows: the column that names the rows.
    """
    told = [
        f"{number(value)} [{number(low)}, {number(high)}]" if value == value else "–"
        for value, low, high in intervals[["value", "low", "high"]].to_numpy(float)
    ]
    table = intervals.assign(told=told).pivot_table(
        "told", rows, "figure", aggfunc="first", sort=False
    )
    return table.rename_axis(columns=None)


def number(value: float) -> str:
    """Write a figure as short as it can be read.

    >>> [number(v) for v in (0.4213, -12.345, 1234.5, float("nan"))]
    ['0.42', '-12.3', '1,234', '–']
    """
    if value != value:
        return "–"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3g}"
    text = f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text.lstrip("-") if not text.strip("-0.") else text
