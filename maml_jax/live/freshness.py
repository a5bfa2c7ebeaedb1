"""Whether bars are as recent as they could be, by the calendar that they themselves show."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

_RECENT = 400
"""Last bars of an asset from which its calendar is learned."""

_HOLIDAYS = 1
"""Bars that may be missing where a calendar has gaps: of a holiday nobody told us."""

_MOST_SLOTS = 100_000


class Freshness(NamedTuple):
    """How recent the bars of an asset are.

    Attributes:
        last: time of the last bar (when it opened); None where there is none.
        age: since it closed.
        missing: bars that should have closed since.
        problem: why nothing should be decided on them; empty where it may be.
    """

    last: pd.Timestamp | None
    age: pd.Timedelta | None
    missing: int
    problem: str

    @property
    def stale(self) -> bool:
        """Whether nothing should be decided on these bars."""
        return bool(self.problem)


def freshness(
    bars: Mapping[str, pd.DataFrame],
    assets: tuple[str, ...],
    interval: pd.Timedelta,
    now: pd.Timestamp,
) -> dict[str, Freshness]:
    """Judge the bars of assets.

    Stale is an asset whose last bar is followed by more than one that should have closed by now; by
    any, where its bars leave no gaps; or that lacks a bar which others of its calendar have.

    Args:
        bars: in normal form, stamped when they open.
        assets: names.
        interval: length of a bar.
        now: the time.
    """
    known = {a: pd.DatetimeIndex(bars[a].index) for a in assets if a in bars and len(bars[a])}
    slots = {asset: _missing(index, interval, now) for asset, index in known.items()}
    found = {}
    for asset in assets:
        if asset not in known:
            found[asset] = Freshness(None, None, 0, "missing: no bars")
            continue
        last, (missing, gaps) = known[asset][-1], slots[asset]
        age = now - (last + interval)
        ahead = [other for other, index in known.items() if _alike(known[asset], index, last)]
        problem = ""
        if age < pd.Timedelta(0):
            problem = f"unfinished: its last bar closes at {last + interval}, and it is {now}"
        elif missing > (_HOLIDAYS if gaps else 0):
            problem = f"stale: {missing} bars have closed since {last}"
        elif ahead:
            problem = f"stale: {ahead[0]} has a bar at {known[ahead[0]][-1]}, the last is {last}"
        found[asset] = Freshness(last, age, missing, problem)
    return found


def _alike(own: pd.DatetimeIndex, other: pd.DatetimeIndex, last: pd.Timestamp) -> bool:
    """Say whether another asset had the same bars lately, and has a later one."""
    if other[-1] <= last:
        return False
    begin = own[max(0, len(own) - 20)]
    mine, theirs = own[own >= begin], other[(other >= begin) & (other <= last)]
    return len(mine) > 1 and len(mine.intersection(theirs)) >= 0.9 * max(len(mine), len(theirs))


def _missing(
    index: pd.DatetimeIndex, interval: pd.Timedelta, now: pd.Timestamp
) -> tuple[int, bool]:
    """Count the bars that should have closed since the last; and say whether bars leave gaps.

    A bar is due at a weekday and time of the day at which the last ones had one.
    """
    recent = index[-_RECENT:]
    longest = recent.to_series().diff().max()
    gaps = len(recent) == 1 or bool(longest > 1.5 * interval)
    count = int(min((now - recent[-1]) // interval, _MOST_SLOTS)) - 1
    if count < 1:
        return 0, gaps
    due = pd.DatetimeIndex(recent[-1] + pd.to_timedelta(np.arange(1, count + 1) * interval))
    if gaps and len(recent) > 1:
        due = due[np.isin(_slot(due), _slot(recent))]
    return len(due), gaps


def _slot(times: pd.DatetimeIndex) -> np.ndarray:
    """Number the weekday and the time of the day."""
    return (
        times.day_of_week * 86_400 + times.hour * 3600 + times.minute * 60 + times.second
    ).to_numpy()
