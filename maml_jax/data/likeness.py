"""Whether columns of a table hold prices of one asset, of several, or no prices."""

from typing import Any

import numpy as np
import pandas as pd

from maml_jax.data.parse import glance

ALIKE = 0.05
"""Largest median difference of two columns that hold prices of one asset."""

MOST_APART = 4.0
"""Times by which the usual moves of closes of several assets differ at most, where a name is a word
of bars, as the fund SIZE is."""

MOST_ROWS = 1000
"""Last rows that are looked at."""

_FEW_COLUMNS = 12
_FEWEST_ROWS = 10


def are_alike(one: pd.Series, other: pd.Series, most: float = ALIKE) -> bool:
    """Say whether two columns of prices are those of one asset."""
    a, b = glance(one.tail(MOST_ROWS)), glance(other.tail(MOST_ROWS))
    known_ = (a > 0) & (b > 0)
    apart = np.abs(np.log(a[known_] / b[known_]))
    return bool(known_.any()) and float(np.median(apart)) < min(most, ALIKE)


def usual_move(column: pd.Series) -> float:
    """Return the median relative move of a column from row to row; NaN if it has none."""
    values = glance(column.tail(MOST_ROWS))
    logs = np.log(np.where(values > 0, values, np.nan))
    change = np.abs(np.diff(logs))
    return float(np.nanmedian(change)) if np.isfinite(change).any() else float("nan")


def unlike_prices(values: dict[Any, np.ndarray]) -> str | None:
    """Say why columns cannot be closes of several assets; None if they can."""
    moves = {}
    for column, each in values.items():
        logs = np.log(np.where(each > 0, each, np.nan))
        change = np.abs(np.diff(logs))
        if np.isfinite(change).sum() >= _FEWEST_ROWS:
            moves[column] = float(np.nanmedian(change))
    for column, move in moves.items():
        others = [m for c, m in moves.items() if c != column]
        if others and move > 0.25 and move > 5 * float(np.median(others)):
            return f"{str(column)!r} moves by {move:.0%} from bar to bar"
    if len(values) > _FEW_COLUMNS:
        return None
    for a in moves:
        for b in moves:
            between = values[a] - values[b]
            if min((between > 0).mean(), (between < 0).mean()) < 0.1 or str(a) >= str(b):
                continue
            top, bottom = np.maximum(values[a], values[b]), np.minimum(values[a], values[b])
            step = 6 * np.nanmedian(np.abs(np.diff(values[a])))
            high = [c for c in moves if c not in (a, b) and _bounds(values[c] - top, step)]
            low = [c for c in moves if c not in (a, b) and _bounds(bottom - values[c], step)]
            if high and low:
                return f"{str(high[0])!r} is always the highest, {str(low[0])!r} the lowest"
    return None


def _bounds(above: np.ndarray, step: float) -> bool:
    there = above[np.isfinite(above)]
    return (
        len(there) >= _FEWEST_ROWS and bool((there >= 0).all()) and float(np.median(there)) < step
    )
