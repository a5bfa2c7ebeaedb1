"""Lengths of bars on the calendar: minutes to days, weeks from Monday, months from the 1st."""

import re
from datetime import date, datetime
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError

_UNITS = {
    "m": "m", "min": "m", "minute": "m",
    "h": "h", "hour": "h",
    "d": "d", "day": "d",
    "w": "w", "wk": "w", "week": "w",
    "mo": "mo", "month": "mo",
}  # fmt: skip
_MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 7 * 1440}
MICROSECOND = pd.Timedelta(microseconds=1)
_FIRST_MONDAY = pd.Timestamp("1970-01-05", tz="UTC")


class Interval(NamedTuple):
    """The length of a bar.

    Attributes:
        count: number of units.
        unit: `m` minutes, `h` hours, `d` days, `w` weeks, `mo` months.

    >>> str(parse_interval("60")), str(parse_interval("D")), str(parse_interval("1M"))
    ('1h', '1d', '1mo')
    """

    count: int
    unit: str

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def step(self) -> pd.Timedelta:
        """The time from one bar to the next; 30 days for a month."""
        days = 30 * self.count if self.unit == "mo" else 0
        return pd.Timedelta(days=days, minutes=self.count * _MINUTES.get(self.unit, 0))

    def floor(self, time: pd.Timestamp) -> pd.Timestamp:
        """Return the opening time of the bar that contains a time."""
        return self.open_times(pd.DatetimeIndex([time]))[0]

    def after(self, time: pd.Timestamp, bars: int = 1) -> pd.Timestamp:
        """Return the time a number of bars later; negative numbers go back."""
        if self.unit == "mo":
            return time + pd.DateOffset(months=bars * self.count)
        return time + bars * self.step

    def open_times(self, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Return the opening times of the bars that contain times, on the calendar of UTC."""
        if self.unit == "mo":
            months = (times.year - 1970) * 12 + times.month - 1
            months = np.asarray(months) // self.count * self.count
            floor = np.datetime64("1970-01", "M") + months
            return pd.DatetimeIndex(floor.astype("datetime64[us]"), tz="UTC")
        origin = _FIRST_MONDAY if self.unit == "w" else pd.Timestamp(0, tz="UTC")
        return pd.DatetimeIndex(origin + (times - origin).floor(self.step))


def parse_interval(text: str | int | Interval) -> Interval:
    """Parse the length of a bar as sources write it.

    A plain number means minutes, `D W M` a day, week and month; otherwise `m` means minutes and `M`
    months: `5m`, `60`, `1h`, `D`, `1d`, `1wk`, `1mo`, `1M`.

    Raises:
        DataError: naming the text.
    """
    if isinstance(text, Interval):
        return text
    match = re.fullmatch(r"(\d*)\s*([A-Za-z]*)", str(text).strip())
    count, unit = (match[1], match[2]) if match else ("", "")
    unit = "mo" if unit == "M" else "m" if unit == "" and count else unit.lower()
    unit = _UNITS.get(unit if unit in _UNITS else unit.removesuffix("s"))
    if unit is None or (count and int(count) == 0) or (unit == "m" and not count):
        raise DataError(
            f"interval {text!r}: expected one such as 5m, 60 (minutes), 1h, 1d, 1w, 1mo"
        )
    number = int(count or 1)
    for small, large, ratio in (("m", "h", 60), ("h", "d", 24), ("d", "w", 7)):
        if unit == small and number % ratio == 0:
            unit, number = large, number // ratio
    return Interval(number, unit)


def parse_moment(text: str | date, *, end: bool = False, timezone: str = "UTC") -> pd.Timestamp:
    """Parse a day or time, to UTC; a plain day means its first, or its last, microsecond.

    >>> parse_moment("2024-02-29", end=True)
    Timestamp('2024-02-29 23:59:59.999999+0000', tz='UTC')

    Raises:
        DataError: if it is neither.
    """
    try:
        moment = pd.Timestamp(datetime.fromisoformat(text) if isinstance(text, str) else text)
    except (ValueError, TypeError):
        moment = pd.NaT
    if not isinstance(moment, pd.Timestamp) or isinstance(text, (int, float)):
        raise DataError(
            f"{text!r} is not a date or time (expected e.g. 2024-01-31 or 2024-01-31T16:00Z)"
        )
    is_day = "T" not in text and ":" not in text if isinstance(text, str) else _is_day(text)
    if end and is_day:  # on the clock of its zone, on which some days have 23 hours
        moment += pd.DateOffset(days=1)
    if moment.tz is None:
        moment = _localise(moment, timezone)
    moment = moment.tz_convert("UTC").as_unit("us")
    return moment - MICROSECOND if end and is_day else moment


def require_zone(timezone: str) -> str:
    """Return the name of a time zone, if it exists.

    Raises:
        DataError: if not.
    """
    _localise(pd.Timestamp("2000-01-01"), timezone)
    return timezone


def _is_day(value: object) -> bool:
    return isinstance(value, date) and not isinstance(value, datetime)


def _localise(moment: pd.Timestamp, timezone: str) -> pd.Timestamp:
    try:
        return moment.tz_localize(timezone, ambiguous=True, nonexistent="shift_forward")
    except Exception as error:  # zone databases raise types of their own
        raise DataError(
            f"{timezone!r} is not a time zone (expected e.g. UTC or America/New_York)"
        ) from error
