"""Figures as a person reads them."""

import pandas as pd


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


def probability(value: float) -> str:
    """Write a probability with the figures that matter.

    >>> [probability(v) for v in (0.76, 0.0341, 0.0999, 0.0001, float("nan"))]
    ['0.76', '0.034', '0.100', '< 0.001', '–']
    """
    if value != value:
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
