"""Numbers that are times: since 1970, days of spreadsheets, dates without separators."""

import numpy as np
import pandas as pd

from maml_jax.data.date_forms import compact_forms, in_order, pick_reading
from maml_jax.data.options import Reading
from maml_jax.errors import DataError

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DAY = 86400.0
_LEAST, _MOST = -2208988800.0, 4133980800.0
"""Seconds since 1970 at the beginnings of the years 1900 and 2101."""
_LONGEST_STEP = 400 * _DAY
_EXCEL_ZERO = 25569
"""The number of 1 January 1970 among the days of spreadsheets."""
_EXCEL_LAST = 73416
_FIRST_BY_SIZE = 1e8
"""The smallest number that is in seconds by its size; each factor of 1000 is the next unit."""


def parse_epochs(column: pd.Series, reading: Reading) -> pd.Series:
    """Read numbers as times, all of them in one unit.

    The unit is the coarsest that keeps the years within 1900 to 2100 and the bars a usual length
    apart. Two units are read where some feeds went from one to the next, if nothing but that keeps
    the times in order.

    Raises:
        DataError: if the unit cannot be known, or the numbers are rounded.
    """
    values = pd.to_numeric(column, errors="coerce").astype("float64")
    if values.isna().any() or np.isinf(values).any():
        return pd.Series(pd.NaT, index=column.index, dtype="datetime64[us]").where(
            values.isna() | np.isinf(values), pd.Timestamp(0)
        )
    unit = reading.date_format
    if unit in _SECONDS:
        return _read(column, values, unit)
    if unit == "excel":
        return _from_excel(values)
    if unit == "D":
        return _from_excel(values + _EXCEL_ZERO)
    text = _digits(column, values)
    if unit is not None:
        try:
            return pd.to_datetime(text, format=unit, errors="coerce")
        except ValueError as error:
            raise DataError(f"{reading.source}: date_format {unit!r}: {error}") from error
    dates = _dates(text, column.name, reading)
    if dates is not None:
        return dates
    _refuse_rounded(column, values, reading)
    if 10_000 <= values.min() and values.max() < _EXCEL_LAST:
        if values.min() >= _EXCEL_ZERO:
            return _from_excel(values)
        raise _unclear(column, reading, "days of a spreadsheet or since 1970")
    mixed = _in_two_units(values)
    if mixed is not None:
        return mixed
    unit = _find_unit(values.to_numpy())
    if unit is None:
        raise _unclear(
            column, reading, "no unit since 1970 gives years 1900 to 2100 and usual bars"
        )
    return _read(column, values, unit)


def _unclear(column: pd.Series, reading: Reading, what: str) -> DataError:
    return DataError(
        f"{reading.source}, {reading.place(0)}, column {column.name!r}: times like "
        f'{column.iloc[0]!r} are unclear: {what}; say which with date_format = "s", "ms", '
        '"us", "ns" (since 1970), "excel" (days) or a format such as "%Y%m%d"'
    )


def _digits(column: pd.Series, values: pd.Series) -> pd.Series:
    """Return the digits of whole numbers as text, with the leading zeros of text."""
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        return column.astype(str).str.strip()
    whole = values == values.round()
    return values.round().astype("int64").astype(str).where(whole, column.astype(str))


def _read(column: pd.Series, values: pd.Series, unit: str) -> pd.Series:
    exact = pd.to_numeric(column, errors="coerce")
    if pd.api.types.is_integer_dtype(exact):
        number = exact.astype("int64")
        if unit == "ns":
            return pd.to_datetime(number // 1000, unit="us")
        scale = {"s": 10**6, "ms": 10**3, "us": 1}[unit]
        return pd.to_datetime(number * scale, unit="us", errors="coerce")
    return pd.to_datetime((values * (_SECONDS[unit] * 1e6)).round(), unit="us", errors="coerce")


def _from_excel(values: pd.Series) -> pd.Series:
    return pd.to_datetime(((values - _EXCEL_ZERO) * _DAY).round(), unit="s", errors="coerce")


def _dates(text: pd.Series, name: object, reading: Reading) -> pd.Series | None:
    """Read dates without separators, such as 20190102 or 190102; None if they are none."""
    width = text.str.len()
    if (width != width.iloc[0]).any() or not text.str.isdigit().all():
        return None
    forms = compact_forms(int(width.iloc[0]))
    readings = {form: pd.to_datetime(text, format=form, errors="coerce") for form in forms}
    readings = {
        form: times.where(times.dt.year.between(1900, 2100)) for form, times in readings.items()
    }
    full = {form: times for form, times in readings.items() if times.notna().all()}
    if full:
        return pick_reading(full, text, name, reading)
    most = max(readings.values(), key=lambda times: times.notna().sum(), default=None)
    return most if most is not None and most.notna().mean() > 0.5 else None


def _refuse_rounded(column: pd.Series, values: pd.Series, reading: Reading) -> None:
    """Refuse numbers that lost their last digits, as in 1.54639E+12."""
    numbers = np.abs(values.to_numpy())
    unit = _find_unit(values.to_numpy()) or ("ms" if numbers.max() > 1e11 else "s")
    written = column.astype(str).str.contains("[eE]", regex=True).any()
    step = 10.0 ** np.ceil(np.log10((10.0 if written else 100.0) / _SECONDS[unit]))
    minute = round(60 / _SECONDS[unit])
    if numbers.max() > step and (numbers % step == 0).all() and (numbers % minute != 0).any():
        raise DataError(
            f"{reading.source}, {reading.place(0)}, column {column.name!r}: times like "
            f"{column.iloc[0]!r} are too coarse: rounded to {step * _SECONDS[unit]:g} seconds or "
            "more; write all digits (as a number without decimals), or dates, of which date_format "
            "says the form"
        )


def _find_unit(numbers: np.ndarray) -> str | None:
    """Return the coarsest unit that gives possible years, and usual lengths of bars if one does."""
    possible = []
    for unit, seconds in _SECONDS.items():
        times = numbers * seconds
        steps = np.abs(np.diff(times))
        step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        if times.min() < _LEAST or times.max() >= _MOST or step > _LONGEST_STEP:
            continue
        if len(numbers) > 1 and step < 1e-3:
            continue
        possible.append((unit, step))
    for unit, step in possible:
        if step and (_divides(step) or _divides(_DAY, step)):
            return unit
    large = np.abs(numbers).min() >= _FIRST_BY_SIZE if numbers.size else False
    return possible[0][0] if possible and large else None


def _divides(whole: float, part: float = _DAY) -> bool:
    """Say whether a length is a multiple of another, of a second at least."""
    if part < 1:
        return False
    ratio = whole / part
    return ratio >= 1 - 1e-9 and abs(ratio - round(ratio)) < 1e-6


def _in_two_units(values: pd.Series) -> pd.Series | None:
    """Read a feed that went from one unit to the next; None if it did not."""
    numbers = values.to_numpy()
    if np.abs(numbers).min() < _FIRST_BY_SIZE:
        return None
    thousands = np.floor(np.log10(np.abs(numbers) / _FIRST_BY_SIZE) / 3)
    if (np.diff(thousands) != 0).sum() != 1 or thousands.max() > 3:
        return None
    seconds = numbers * 10.0 ** (-3 * thousands)
    if seconds.min() < _LEAST or seconds.max() >= _MOST or not in_order(seconds):
        return None
    return pd.to_datetime(pd.Series((seconds * 1e6).round(), values.index), unit="us")
