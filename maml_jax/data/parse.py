"""Parse times and numbers as people write them, with errors that name the place."""

import warnings

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from maml_jax.errors import DataError

_FIRST_EPOCH = 1e8
"""The smallest number read as seconds since 1970; each factor of 1000 above is the next unit."""


def refuse_rows(bad, shown, source, column, problem, place) -> None:
    """Raise a `DataError` that names the first row where `bad` holds."""
    rows = np.flatnonzero(np.asarray(bad))
    if rows.size:
        more = f" (and {rows.size - 1} more)" if rows.size > 1 else ""
        raise DataError(
            f"{source}, {place(int(rows[0]))}, column {column!r}: "
            f"{problem}: {shown.iloc[int(rows[0])]!r}{more}"
        )


def parse_times(column, source, timezone, date_format, place) -> pd.DatetimeIndex:
    """Parse a column of times (text, numbers since 1970 or timestamps) to UTC."""
    if pd.api.types.is_datetime64_any_dtype(column):
        times = column
    else:
        numbers = pd.to_numeric(column, errors="coerce")
        if date_format is None and numbers.notna().all() and numbers.min() >= _FIRST_EPOCH:
            # Each by itself: some feeds went from milliseconds to microseconds on a New Year's Day.
            thousands = np.floor(np.log10(numbers / _FIRST_EPOCH) / 3)
            microseconds = (numbers * 10.0 ** (6 - 3 * thousands)).round()
            times = pd.to_datetime(microseconds, unit="us", errors="coerce")
        else:
            times = _from_text(column, source, date_format)
    refuse_rows(times.isna(), column, source, column.name, "not a date", place)
    times = pd.DatetimeIndex(times)
    if times.tz is None:
        times = _localise(times, source, timezone)
    return times.tz_convert("UTC").as_unit("us").rename("timestamp")


def _localise(times: pd.DatetimeIndex, source: str, timezone: str) -> pd.DatetimeIndex:
    """Localise times; the repeated hour in autumn is resolved by its order."""
    problem = ""
    for ambiguous in ("raise", "infer"):
        try:
            return times.tz_localize(timezone, ambiguous=ambiguous)
        except Exception as error:  # zone databases raise types of their own
            problem = problem or str(error).partition(". ")[0]
    raise DataError(
        f"{source}: times cannot be in {timezone}: {problem}; name their time zone, or write them "
        "with their offset from UTC"
    )


def _from_text(column: pd.Series, source: str, date_format: str | None) -> pd.Series:
    text = column.astype(str).str.strip()
    zoned = text.str.contains(r":\d{2}.*(?:Z|[+-]\d{2}:?\d{2}|UTC|GMT)$", regex=True)
    if zoned.any() and not zoned.all():
        raise DataError(f"{source}, column {column.name!r}: only some times have a time zone")
    utc = bool(zoned.any())
    if date_format is not None:
        try:
            return pd.to_datetime(text, format=date_format, errors="coerce", utc=utc)
        except ValueError as error:
            raise DataError(f"{source}: date_format {date_format!r}: {error}") from error
    iso = pd.to_datetime(text, format="ISO8601", errors="coerce", utc=utc)
    if iso.notna().any():
        return iso
    return _guess_form(text, source, utc)


def _guess_form(text: pd.Series, source: str, utc: bool) -> pd.Series:
    """Parse times in the format of the first, day first or month first, whichever fits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # both orders are tried on purpose
        forms = {guess_datetime_format(text.iloc[0], dayfirst=first) for first in (False, True)}
    readings = [
        pd.to_datetime(text, format=form, errors="coerce", utc=utc) for form in forms - {None}
    ]
    if not readings:
        return pd.Series(pd.NaT, index=text.index)
    full = [reading for reading in readings if reading.notna().all()]
    if len(full) > 1 and not full[0].equals(full[1]):
        raise DataError(
            f"{source}, column {text.name!r}: times like {text.iloc[0]!r} may start with the day "
            "or the month; say which with date_format, as in '%d/%m/%Y'"
        )
    return min(readings, key=lambda reading: reading.isna().sum())


def parse_numbers(column: pd.Series, source: str, place) -> pd.Series:
    """Parse a column of numbers; empty cells become NaN, anything else is refused."""
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.astype("float64")
    else:
        text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
        empty = text.str.lower().isin({"", "nan", "na", "n/a", "null", "none", "-"})
        numbers = pd.to_numeric(text.where(~empty, other="nan"), errors="coerce").astype("float64")
        refuse_rows(numbers.isna() & ~empty, text, source, column.name, "not a number", place)
    refuse_rows(np.isinf(numbers), column, source, column.name, "not a finite number", place)
    return numbers
