"""Numbers that are times: since 1970, days of spreadsheets, dates without separators."""

import numpy as np
import pandas as pd

from maml_jax.data.date_forms import compact_forms, parse_form, pick_reading
from maml_jax.data.options import Reading
from maml_jax.data.parse import show_cell
from maml_jax.errors import DataError

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DAY = 86400.0
_LEAST, _MOST = -2208988800.0, 4133980800.0
"""Seconds since 1970 at the beginnings of the years 1900 and 2101."""
_LONGEST_STEP = 400 * _DAY
_LONGEST_HOLE = 20 * 366 * _DAY
_EXCEL_ZERO = 25569
"""The number of 1 January 1970 among the days of spreadsheets."""
_EXCEL_LAST = 73416
_SHORTEST_STEP = 60.0
"""Seconds between bars whose times are small numbers: days since another moment count up by 1."""
_FIRST_BY_SIZE = 1e8
"""The smallest number that is in seconds by its size; each factor of 1000 is the next unit."""


def parse_epochs(column: pd.Series, reading: Reading) -> pd.Series:
    """Read numbers as times, all of them in one unit; those since 1970 in UTC.

    The unit is the coarsest that keeps the years within 1900 to 2100 and the bars a usual length
    apart. Two units are read where some feeds went from one to the next, where all bars of
    one are before those of the other.

    Raises:
        DataError: if the unit cannot be known, or the numbers are rounded.
    """
    values = pd.to_numeric(column, errors="coerce").astype("float64")
    if values.isna().any() or np.isinf(values).any() or pd.api.types.is_bool_dtype(column):
        return pd.Series(pd.NaT, index=column.index, dtype="datetime64[us]").where(
            values.isna() | np.isinf(values) | pd.api.types.is_bool_dtype(column), pd.Timestamp(0)
        )
    unit = reading.date_format
    if unit in _SECONDS:
        return _read(column, values, unit).dt.tz_localize("UTC")
    if unit == "excel":
        return _from_excel(column, values)
    if unit == "D":
        return pd.to_datetime((values * _DAY).round(), unit="s", errors="coerce")
    if unit is not None:
        try:
            return parse_form(_digits(column, values), unit)
        except ValueError as error:
            raise DataError(f"{reading.source}: date_format {unit!r}: {error}") from error
    if compact_forms(len(_digits(column.iloc[:1], values.iloc[:1]).iloc[0])):
        dates = _dates(_digits(column, values), column.name, reading)
        if dates is not None:
            return dates
    _refuse_rounded(column, values, reading)
    if 10_000 <= values.min() and values.max() < _EXCEL_LAST:
        if values.min() >= _EXCEL_ZERO:
            return _from_excel(column, values)
        raise _unclear(column, reading, "days of a spreadsheet or since 1970")
    mixed = _in_two_units(column, values, reading)
    if mixed is not None:
        return mixed.dt.tz_localize("UTC")
    unit = _find_unit(values.to_numpy())
    if unit is None:
        raise _unclear(
            column, reading, "no unit since 1970 gives years 1900 to 2100 and usual bars"
        )
    return _read(column, values, unit).dt.tz_localize("UTC")


def _unclear(column: pd.Series, reading: Reading, what: str) -> DataError:
    return DataError(
        f"{reading.source}, {reading.place(0)}, column {column.name!r}: times like "
        f'{show_cell(column, 0)} are unclear: {what}; say which with date_format = "s", "ms", '
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


def _from_excel(column: pd.Series, values: pd.Series) -> pd.Series:
    """Read days of spreadsheets; few decimals mean whole minutes, where these are as near."""
    seconds = ((values - _EXCEL_ZERO) * _DAY).round()
    decimals = column.astype(str).str.extract(r"\.(\d+)$")[0].str.len().max()
    minutes = (seconds / 60).round() * 60
    if decimals <= 5 and ((seconds - minutes).abs() <= _DAY * 10.0**-decimals).all():
        seconds = minutes
    return pd.to_datetime(seconds, unit="s", errors="coerce")


def _dates(text: pd.Series, name: object, reading: Reading) -> pd.Series | None:
    """Read dates without separators, such as 20190102 or 190102; None if they are none."""
    width = text.str.len()
    if (width != width.iloc[0]).any() or not text.str.isdigit().all():
        return None
    forms = compact_forms(int(width.iloc[0]))
    readings = {form: parse_form(text, form) for form in forms}
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
    unit = next(iter(_possible(values.to_numpy())), "s")
    written = column.iloc[:50].astype(str).str.contains("[eE]", regex=True).any()
    step = 10.0 ** np.ceil(np.log10((10.0 if written else 100.0) / _SECONDS[unit]))
    minute = round(60 / _SECONDS[unit])
    if numbers.max() > step and (numbers % step == 0).all() and (numbers % minute != 0).any():
        raise DataError(
            f"{reading.source}, {reading.place(0)}, column {column.name!r}: times like "
            f"{show_cell(column, 0)} are too coarse: rounded to {step * _SECONDS[unit]:g} seconds "
            "or more; write all digits (as a number without decimals), or dates, of which "
            "date_format says the form"
        )


def _possible(numbers: np.ndarray) -> list[str]:
    """Return the units in which numbers are years 1900 to 2100, the coarsest first."""
    return [
        unit
        for unit, seconds in _SECONDS.items()
        if numbers.min() * seconds >= _LEAST and numbers.max() * seconds < _MOST
    ]


def _find_unit(numbers: np.ndarray) -> str | None:
    """Return the coarsest unit that gives possible years and usual lengths of bars.

    If one unit is possible, the next finer one puts all bars within seven weeks of 1970. So it is
    believed only if bars have a usual length in it and not in the coarser one.
    """
    possible = _possible(numbers)
    steps = np.abs(np.diff(numbers))
    steps = steps[steps > 0]
    large = bool(possible) and np.abs(numbers).min() >= _FIRST_BY_SIZE
    if not steps.size:
        return possible[0] if large else None
    step = float(np.median(steps))
    if (steps == step).mean() > 0.3:
        for unit in possible:
            if not large and step * _SECONDS[unit] < _SHORTEST_STEP:
                continue  # they count rows, or days from another beginning
            if _usual(step * _SECONDS[unit]):
                return unit
    coarse = [unit for unit in possible if step * _SECONDS[unit] <= _LONGEST_STEP]
    return coarse[0] if large and coarse else None


def _usual(step: float) -> bool:
    """Say whether bars have such a length, in seconds: whole days, half hours, minutes, seconds."""
    for least, part in ((_DAY, _DAY), (7200.0, 1800.0), (60.0, 60.0), (1.0, 1.0)):
        if step >= least * (1 - 1e-9):
            return step <= _LONGEST_STEP and abs(step / part - round(step / part)) < 1e-6
    return False


def _in_two_units(column: pd.Series, values: pd.Series, reading: Reading) -> pd.Series | None:
    """Read a feed that went from one unit to the next at some moment; None if there is one unit.

    Raises:
        DataError: if there are two units, but no such moment.
    """
    numbers = values.to_numpy()
    if np.abs(numbers).min() < _FIRST_BY_SIZE:
        return None
    thousands = np.floor(np.log10(np.abs(numbers) / _FIRST_BY_SIZE) / 3)
    kinds = np.unique(thousands)
    if len(kinds) < 2:
        return None
    seconds = numbers * 10.0 ** (-3 * thousands)
    if len(kinds) == 2 and seconds.min() >= _LEAST and seconds.max() < _MOST:
        old, new = (seconds[thousands == kind] for kind in kinds)
        if old.max() < new.min() < old.max() + _LONGEST_STEP:
            return pd.to_datetime(pd.Series((seconds * 1e6).round(), values.index), unit="us")
    for unit in _possible(numbers)[:1]:
        if np.diff(np.sort(numbers * _SECONDS[unit])).max() > _LONGEST_HOLE:
            raise _unclear(column, reading, "some are in other units than others")
    return None
