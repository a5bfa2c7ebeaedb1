"""Join a column of dates with one of times of the day."""

import numpy as np
import pandas as pd

from maml_jax.data.options import Reading
from maml_jax.data.parse import refuse_rows
from maml_jax.data.times import parse_times


def join_times(date: pd.Series, time: pd.Series, reading: Reading) -> pd.DatetimeIndex:
    """Parse dates and times of the day: `09:30`, `9:30:00 AM`, `093000`, `930`, parts of a day.

    Where the second column holds whole times, the one of the two that tells more bars apart is
    read, and the other left.

    Raises:
        DataError: naming the column, and the place of what is no time.
    """
    form = reading.date_format or ""
    written = time.astype(str).str.strip().str.replace(r"^0 days ", "", regex=True)
    if written.str.match(r"\d{1,2}:\d{2}").all():
        clock = _read_clock(written)
        if clock.isna().any() or "%H" in form or "%I" in form:
            joined = _as_dates(date) + " " + written
            return parse_times(joined.rename(str(date.name)), reading)
        return _add(date, clock, reading)
    if written.str.fullmatch(r"[AaPp]\.?[Mm]\.?").all():  # the half of a day, after its hours
        joined = date.astype(str).str.strip() + " " + written
        return parse_times(joined.rename(str(date.name)), reading)
    numbers = pd.to_numeric(time, errors="coerce").astype("float64")
    if numbers.notna().all() and (numbers >= 0).all() and (numbers < 240_000).all():
        clock = _clock(written, numbers)
        refuse_rows(clock.isna(), time, time.name, "not a time of the day", reading)
        return _add(date, clock, reading)
    if reading.columns and {"date", "time"} <= {*reading.columns}:
        refuse_rows(numbers.isna(), time, time.name, "not a time of the day", reading)
    if date.nunique() >= time.nunique():
        return parse_times(date, reading)
    return parse_times(time, reading)


def _add(date: pd.Series, clock: pd.Series, reading: Reading) -> pd.DatetimeIndex:
    days = parse_times(date, reading._replace(timezone="UTC", zone_doubt=None)).tz_localize(None)
    return parse_times(pd.Series(days + pd.TimedeltaIndex(clock), name=date.name), reading)


def _read_clock(written: pd.Series) -> pd.Series:
    """Return the time since midnight of `9:30`, `09:30:00.5` or `9:30 PM`; NaT of anything else."""
    parts = written.str.extract(r"^(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?\s*([AaPp])?[Mm]?$")
    hours, minutes, seconds = (pd.to_numeric(parts[i]) for i in range(3))
    half = parts[3].str.lower()
    bad = (hours > 23) | (minutes > 59) | (half.notna() & ((hours < 1) | (hours > 12)))
    hours = hours.where(half.isna(), hours % 12 + 12 * (half == "p"))
    return pd.to_timedelta((3600 * hours + 60 * minutes + seconds.fillna(0)).mask(bad), unit="s")


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
