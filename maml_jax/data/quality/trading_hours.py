"""Trading hours learned from the bars of a market, and the bars missing within them."""

from typing import NamedTuple

import numpy as np
import pandas as pd

_DAY = 86_400_000_000
"""Microseconds."""
_WEEK = 7 * _DAY
_FEWEST_WEEKS = 3
_OPEN = 0.75
"""Share of weeks in which a time of the week must have a bar to count as trading time. With
daylight saving time, the edges of a session have one for half of the year."""
_HOLIDAYS = 5
"""Weekdays in a row without a bar that count as holidays, in a market closed at weekends."""


class Missing(NamedTuple):
    """Missing bars.

    Attributes:
        gaps: opening times of bars missing within trading hours.
        longest: the longest gap, in words; empty without gaps.
        closed: opening times of the bars after other breaks: nights, weekends, holidays.
        longest_break: the longest of these, in words; empty without any.
    """

    gaps: pd.DatetimeIndex
    longest: str
    closed: pd.DatetimeIndex
    longest_break: str


def missing_bars(index: pd.DatetimeIndex, step: pd.Timedelta) -> Missing:
    """Distinguish gaps from times at which a market is closed.

    A time of the week at which fewer than three of four weeks have a bar is not a trading time. In
    a market with such times, up to five weekdays in a row without a daily bar are holidays. Fewer
    than three weeks of bars show no pattern; then only weekends are excepted.

    Args:
        index: opening times, ascending, in UTC.
        step: from one bar to the next.
    """
    times = index.as_unit("us").asi8
    width = int(step / pd.Timedelta("1us"))
    before = np.flatnonzero(np.diff(times) > 1.5 * width)
    trading = _trading_times(times, width)
    gaps, closed = [], []
    for i in before:
        run = _between(times[i], times[i + 1], width)
        due = run[trading(run)]
        if not len(due) or trading.rests and _is_holiday(due, width):
            closed.append(i)
        else:
            gaps.append(due)
    longest_gap = longest_break = ""
    if gaps:
        longest = max(gaps, key=len)
        first = _utc(longest[:1])[0]
        longest_gap = f"{len(gaps)} in total, the longest of {len(longest)} bars from {first}"
    if closed:
        hours = max(times[i + 1] - times[i] for i in closed) / 3_600_000_000
        longest_break = f"{len(closed)} in total, the longest of {hours:g} h"
    missing = np.concatenate(gaps) if gaps else np.empty(0, np.int64)
    after = _utc(times[np.array(closed, int) + 1])
    return Missing(_utc(missing), longest_gap, after, longest_break)


class _Trading(NamedTuple):
    """Which times of the week have bars; all of them if unknown."""

    open: np.ndarray | None
    width: int
    rests: bool

    def __call__(self, times: np.ndarray) -> np.ndarray:
        if self.open is None:
            if not self.rests:
                return np.ones(len(times), bool)
            return _weekday(times) < 5
        return self.open[times % _WEEK // self.width]


def _trading_times(times: np.ndarray, width: int) -> _Trading:
    weeks = (times[-1] - times[0]) / _WEEK
    if width >= _WEEK or _WEEK % width:
        return _Trading(None, width, rests=False)
    if weeks < _FEWEST_WEEKS:
        return _Trading(None, width, rests=bool((_weekday(times) < 5).all()))
    slots = _WEEK // width
    places = np.unique(times // width)
    had = np.bincount(places % slots, minlength=slots)
    whole, rest = divmod(int(places[-1] - places[0]) + 1, slots)
    could = whole + ((np.arange(slots) - places[0]) % slots < rest)
    lacks = could - had
    # A single week proves nothing, however few there are.
    usual = lacks <= np.maximum(1, (1 - _OPEN) * could)
    return _Trading(usual, width, rests=bool((lacks > np.maximum(1, _OPEN * could)).any()))


def _between(before: int, after: int, width: int) -> np.ndarray:
    """Return when bars would have opened between two bars."""
    if not 28 <= width // _DAY <= 31:
        return np.arange(before + width, after - width // 2, width)
    first, last = _utc(np.array([before]))[0], _utc(np.array([after]))[0]
    months = pd.date_range(first, last, freq=pd.DateOffset(months=1), unit="us")
    return months[(months > first) & (months < last)].asi8


def _is_holiday(due: np.ndarray, width: int) -> bool:
    days = np.unique(due // _DAY)
    if len(days) > _HOLIDAYS:
        return False
    return width >= _DAY


def _weekday(times: np.ndarray) -> np.ndarray:
    return (times // _DAY + 3) % 7


def _utc(times: np.ndarray) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(times.view("datetime64[us]"), tz="UTC")
