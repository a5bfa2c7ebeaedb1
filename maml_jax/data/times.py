"""Parse times as people and machines write them, with errors that name the place."""

import re
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from maml_jax.data.date_forms import find_form, guess_forms, parse_form
from maml_jax.data.epochs import parse_epochs
from maml_jax.data.options import Reading
from maml_jax.data.parse import refuse_rows
from maml_jax.errors import DataError

FIRST_YEAR, LAST_YEAR = 1900, 2100
UNITS = ("s", "ms", "us", "ns", "D", "excel")
"""What `date_format` may say of numbers: units since 1970, or days of spreadsheets."""

_OFFSET = re.compile(
    r"((?:\d:\d{2}|\d[T ]\d{4})(?::?\d{2})?(?:[.,]\d+)?(?:\s*[AaPp]\.?[Mm]\.?)?)"
    r"\s*(Z|UTC|GMT|(?:UTC|GMT)?\s?[+-]\d{2}(?::?\d{2})?(?::?00)?)$"
)
"""The end of a clock, and an offset from UTC."""
_ZONE = re.compile(r"\s\(?([A-Za-z]+(?:/[A-Za-z_+\-0-9]+)+)\)?$")
_SAMPLE = 50
_LETTERS = re.compile(r"(?<=\d)\s\(?([A-Z]{3,5})\)?$")
_OTHER_YEAR = re.compile(r"^(\d{4})-\d{1,2}-\d{1,2}(?!\d)")


def parse_times(column: pd.Series, reading: Reading) -> pd.DatetimeIndex:
    """Parse a column of times (text, numbers since 1970, timestamps, periods) to UTC.

    Times that are all midnight in their own time zone are days of an exchange: they become the
    midnights, UTC, of the same dates.

    Raises:
        DataError: naming the column, and the place of what is no time; or the setting that says
            how times are written.
    """
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    elif column.dtype == object and all(isinstance(cell, pd.Period) for cell in column):
        column = pd.Series([pd.Period(cell).to_timestamp() for cell in column], name=column.name)
    if pd.api.types.is_datetime64_any_dtype(column):
        times = column
    elif pd.api.types.is_numeric_dtype(column) or _all_numbers(column):
        times = parse_epochs(column, reading)
    else:
        times = _parse_text(column, reading)
    hint = "; if times are written in another form, say it with date_format"
    refuse_rows(times.isna(), column, column.name, _why(column, times), reading, hint)
    index = pd.DatetimeIndex(times)
    years = np.asarray(index.year)
    outside = (years < FIRST_YEAR) | (years > LAST_YEAR)
    numbers = pd.api.types.is_numeric_dtype(column)
    hint = '; say the unit of numbers with date_format = "ms" or another' if numbers else ""
    wrong = f"not within the years {FIRST_YEAR} to {LAST_YEAR}"
    refuse_rows(outside, column, column.name, wrong, reading, hint)
    return _to_utc(index.as_unit("us"), reading).rename("timestamp")


def _why(column: pd.Series, times: pd.Series) -> str:
    """Say what is wrong with the first time that was not read."""
    rows = np.flatnonzero(times.isna())
    text = str(column.iloc[int(rows[0])]) if rows.size else ""
    year = _OTHER_YEAR.match(text)
    if year and not FIRST_YEAR <= int(year[1]) <= LAST_YEAR:
        return f"not within the years {FIRST_YEAR} to {LAST_YEAR}"
    return "not a date"


def _all_numbers(column: pd.Series) -> bool:
    return all(
        bool(pd.to_numeric(each, errors="coerce").notna().all())
        for each in (column.iloc[:_SAMPLE], column)  # most texts fail at once
    )


def _to_utc(times: pd.DatetimeIndex, reading: Reading) -> pd.DatetimeIndex:
    """Return times in UTC; days of an exchange as its dates."""
    if times.tz is None:
        if _are_days(times):  # dates, whatever the zone
            return times.tz_localize("UTC")
        return _localise(times, reading).tz_convert("UTC")
    for zone in (None, reading.timezone or "UTC"):
        wall = (times if zone is None else times.tz_convert(zone)).tz_localize(None)
        if _are_days(wall):
            return wall.tz_localize("UTC")
    return times.tz_convert("UTC")


def _are_days(wall: pd.DatetimeIndex) -> bool:
    """Say whether times are dates; a single one may be an hour."""
    return len(wall) > 1 and bool((wall == wall.normalize()).all())


def _localise(times: pd.DatetimeIndex, reading: Reading) -> pd.DatetimeIndex:
    """Localise times; the repeated hour in autumn is resolved by its order."""
    if reading.zone_doubt is not None:
        raise DataError(
            f"{reading.source}: in which time zone are the times? {reading.zone_doubt}; name it, "
            'as in timezone = "America/New_York" or timezone = "UTC"'
        )
    zone, problem = reading.timezone or "UTC", ""
    for ambiguous in ("raise", "infer"):
        try:
            return times.tz_localize(zone, ambiguous=ambiguous)
        except Exception as error:  # zone databases raise types of their own
            problem = problem or str(error).partition(". ")[0]
    raise DataError(
        f"{reading.source}: times cannot be in {zone}: {problem}; name their time zone "
        "(timezone), or write them with their offset from UTC"
    )


def _parse_text(column: pd.Series, reading: Reading) -> pd.Series:
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    if reading.date_format in UNITS:
        bad = pd.to_numeric(text, errors="coerce").isna()
        refuse_rows(bad, text, column.name, f"no number of {reading.date_format}", reading)
    if reading.date_format is not None:
        return _by_format(text, reading.date_format, reading)
    sample = text.iloc[:_SAMPLE]
    if not sample.str.contains(r"[A-Za-z)]$|[+-]\d{2}:?\d{0,2}(?::\d{2})?$", regex=True).any():
        return _naive(text, reading)  # what differs further down is no date
    text = _without_zone_name(text, reading)
    if isinstance(text, pd.DatetimeIndex):
        return text.to_series(index=column.index)
    offsets = text.str.extract(_OFFSET)[1]
    zoned = offsets.notna()
    if zoned.any() and not zoned.all():
        raise DataError(
            f"{reading.source}, column {column.name!r}: only some times have a time zone, such as "
            f"{text[zoned].iloc[0]!r}; write all with one, or none and set timezone"
        )
    if not zoned.any():
        return _naive(text, reading)
    return _with_offsets(_naive(text.str.replace(_OFFSET, r"\1", regex=True), reading), offsets)


def _with_offsets(wall: pd.Series, offsets: pd.Series) -> pd.Series:
    """Return times in UTC; midnights of places that are not in UTC stay dates."""
    digits = offsets.str.replace(r"^(UTC|GMT)\s?(?=.)|:", "", regex=True)
    hours = pd.to_numeric(digits.str.extract(r"^([+-]\d{2})")[0]).fillna(0)
    minutes = pd.to_numeric(digits.str.extract(r"^[+-]\d{2}(\d{2})")[0]).fillna(0)
    signs = np.where(digits.str.startswith("-"), -1, 1)
    shift = pd.to_timedelta(60 * hours + signs * minutes, unit="min")
    if wall.notna().all() and _are_days(pd.DatetimeIndex(wall)):
        return wall.dt.tz_localize("UTC")
    return (wall - shift).dt.tz_localize("UTC")


def _naive(text: pd.Series, reading: Reading) -> pd.Series:
    first = pd.to_datetime(text.iloc[:_SAMPLE], format="ISO8601", errors="coerce")
    if first.isna().all():
        return find_form(text, reading)
    try:
        return pd.to_datetime(text, format="ISO8601", errors="coerce")
    except ValueError:  # some rows further down have a time zone
        times = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True)
        return times.dt.tz_localize(None).where(~text.str.contains(r":.*[+-Z]", regex=True))


def _by_format(text: pd.Series, form: str, reading: Reading) -> pd.Series:
    zoned = "%z" in form or "%Z" in form
    try:
        times = (
            pd.to_datetime(text, format=form, errors="coerce", utc=True)
            if zoned
            else parse_form(text, form)
        )
    except ValueError as error:
        raise DataError(f"{reading.source}: date_format {form!r}: {error}") from error
    if "%z" in form and times.notna().all():
        walls = pd.to_datetime(text.str.extract(r"(\d{1,2}:\d{2}(?::\d{2})?)")[0], errors="coerce",
                               format="mixed")  # fmt: skip
        offsets = text.str.extract(_OFFSET)[1]
        if walls.notna().all() and _are_days(pd.DatetimeIndex(walls)) and offsets.notna().all():
            wall = pd.to_datetime(
                text.str.replace(_OFFSET, r"\1", regex=True).str.strip(),
                format=re.sub(r"\s*%z", "", form), errors="coerce",
            )  # fmt: skip
            return _with_offsets(wall, offsets) if wall.notna().all() else times
    return times


def _without_zone_name(text: pd.Series, reading: Reading) -> "pd.Series | pd.DatetimeIndex":
    """Read times such as `20190102 09:30:00 US/Eastern`; refuse abbreviations, which are not clear.

    Returns:
        Times in the zone; the text as it is if it names none.
    """
    zones = text.str.extract(_ZONE)[0]
    if zones.notna().all() and zones.iloc[0] in available_timezones():
        if (zones != zones.iloc[0]).any():
            raise DataError(
                f"{reading.source}, column {text.name!r}: times of several time zones, "
                f"{zones.iloc[0]} and {zones[zones != zones.iloc[0]].iloc[0]}; write them with "
                "their offset from UTC"
            )
        wall = _naive(text.str.replace(_ZONE, "", regex=True), reading)
        refuse_rows(wall.isna(), text, text.name, "not a date", reading)
        return _localise(pd.DatetimeIndex(wall), reading._replace(timezone=str(zones.iloc[0])))
    short = text.str.extract(_LETTERS)[0]
    named = short.notna() & ~short.isin({"UTC", "GMT", "AM", "PM"})
    if named.any():
        row = int(np.flatnonzero(named)[0])
        abbreviation = str(short.iloc[row])
        first = text.iloc[row]
        form = next(iter(guess_forms(_LETTERS.sub("", first))), "%Y-%m-%d %H:%M:%S")
        raise DataError(
            f"{reading.source}, {reading.place(row)}, column {text.name!r}: {first!r}: "
            f"{abbreviation} is not one time zone everywhere; say how to read it with "
            f'date_format = "{form} %Z" (its offset all year), or with date_format = '
            f'"{form} {abbreviation}" and timezone = "America/New_York" or another'
        )
    return text
