"""Join a column of dates with one of times of the day."""

import numpy as np
import pandas as pd

from maml_jax.data.options import Reading
from maml_jax.data.parse import refuse_rows
from maml_jax.data.times import parse_times

_DAY = pd.Timedelta(days=1)


def join_times(date: pd.Series, time: pd.Series, reading: Reading) -> pd.DatetimeIndex:
    """Parse dates and times of the day: `09:30`, `9:30:00 AM`, `093000`, `930`, parts of a day.

    Where the second column holds whole times, the one of the two that tells more bars apart is
    read, and the other left.

    Raises:
        DataError: naming the column, and the place of what is no time.
    """
    written = time.astype(str).str.strip().str.replace(r"^0 days ", "", regex=True)
    if written.str.match(r"\d{1,2}:\d{2}").all():
        joined = _as_dates(date) + " " + written
        return parse_times(joined.rename(date.name), reading)
    numbers = pd.to_numeric(time, errors="coerce").astype("float64")
    if numbers.notna().all() and (numbers >= 0).all() and (numbers < 240_000).all():
        clock = _clock(written, numbers)
        refuse_rows(clock.isna(), time, time.name, "not a time of the day", reading)
        days = parse_times(date, reading._replace(timezone="UTC"))
        wall = days.tz_localize(None) + pd.TimedeltaIndex(clock)
        return parse_times(pd.Series(wall, name=date.name), reading)
    if reading.columns and {"date", "time"} <= {*reading.columns}:
        refuse_rows(numbers.isna(), time, time.name, "not a time of the day", reading)
    if date.nunique() >= time.nunique():
        return parse_times(date, reading)
    return parse_times(time, reading)


def _as_dates(date: pd.Series) -> pd.Series:
    """Return dates as text, without the midnight that some have."""
    if pd.api.types.is_datetime64_any_dtype(date):
        return date.dt.strftime("%Y-%m-%d")
    return date.astype(str).str.strip().str.replace(r"[ T]00:00(:00(\.0+)?)?$", "", regex=True)


def _clock(written: pd.Series, numbers: pd.Series) -> pd.Series:
    """Return the time since midnight of HHMMSS, HHMM or parts of a day; NaT where there is none."""
    if (numbers < 1).all() and (numbers != 0).any():
        return pd.to_timedelta((numbers * 86400).round(), unit="s")
    whole = numbers.round().astype("int64")
    if numbers.max() > 2359 or (written.str.len() == 6).all():
        hours, rest = whole // 10_000, whole % 10_000
        minutes, seconds = rest // 100, rest % 100
    else:
        hours, minutes, seconds = whole // 100, whole % 100, whole * 0
    good = (numbers == whole) & (hours < 24) & (minutes < 60) & (seconds < 60)
    total = hours * 3600 + minutes * 60 + seconds
    return pd.to_timedelta(pd.Series(np.where(good, total, np.nan), written.index), unit="s")
