"""Parse numbers as people write them, with errors that name the place."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from maml_jax.data.options import Reading
from maml_jax.errors import DataError

_MISSING = {
    "", "nan", "na", "n/a", "#n/a", "#n/a n/a", "#na", "null", "none", "nil", "nat", "<na>", "-",
    "--", "\N{EN DASH}", "\N{EM DASH}", ".", "..", "...", "\\n",
}  # fmt: skip
_TIMES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_SIGNS = "[$\N{EURO SIGN}\N{POUND SIGN}\N{YEN SIGN}\N{INDIAN RUPEE SIGN}\N{WON SIGN}]"
_GROUP_GAPS = r"(?<=\d)[\s'\N{RIGHT SINGLE QUOTATION MARK}](?=\d{3}(?!\d))"
_BEFORE = re.compile(rf"^([+-]?)\s*(?:(?:US|A|C|HK)?{_SIGNS}|[A-Z]{{3}}\s)\s*([+-]?)")
_AFTER = re.compile(rf"\s*(?:{_SIGNS}|(?<=\d)\s+[A-Z]{{3}})$")


def show_cell(column: pd.Series, row: int) -> str:
    """Return how errors show a cell."""
    value = column.iloc[row]
    return repr(value.item() if isinstance(value, np.generic) else value)


def refuse_rows(
    bad, shown: pd.Series, column: object, problem: str, reading: Reading, hint: str = ""
) -> None:
    """Raise a `DataError` that names the first row where `bad` holds, and what helps."""
    rows = np.flatnonzero(np.asarray(bad))
    if rows.size:
        more = f" (and {rows.size - 1} more)" if rows.size > 1 else ""
        raise DataError(
            f"{reading.source}, {reading.place(int(rows[0]))}, column {column!r}: "
            f"{problem}: {show_cell(shown, int(rows[0]))}{more}{hint}"
        )


def parse_numbers(columns: Mapping[str, pd.Series], reading: Reading) -> pd.DataFrame:
    """Parse columns of numbers; empty cells become NaN, anything else is refused.

    Currencies, thousands, `947.63K`, percentages and negatives in parentheses are read. Whether a
    comma is a decimal one must be clear from one cell of the table at least, or from the options.

    Args:
        columns: numbers or text, by name of the result.
        reading: names the table and its options.

    Raises:
        DataError: naming the column, and the place of a cell that is no number.
    """
    for column in columns.values():
        unreal = np.full(len(column), not _is_real(column))
        refuse_rows(unreal, column, column.name, "not a number", reading)
    plain = {name: _plain(column) for name, column in columns.items()}
    if all(numbers is not None for numbers in plain.values()) and reading.decimal != ",":
        result = {name: numbers for name, numbers in plain.items() if numbers is not None}
    else:
        commas = {
            name: _cells(column)
            for name, column in columns.items()
            if not pd.api.types.is_numeric_dtype(column)
        }
        named = {str(columns[name].name): cells for name, cells in commas.items()}
        mark = reading.decimal or _decimal_mark(named, reading)
        result = {
            name: _read(commas[name], columns[name], mark, reading)
            if name in commas
            else columns[name].astype("float64")
            for name in columns
        }
    for name, numbers in result.items():
        column = columns[name]
        refuse_rows(np.isinf(numbers), column, column.name, "not a finite number", reading)
    return pd.DataFrame(result)


def glance(column: pd.Series) -> np.ndarray:
    """Return the numbers of a column that can be read in one way only; NaN elsewhere."""
    plain = _plain(column)
    if plain is not None:
        return plain.to_numpy()
    cells = _cells(column)
    marks = _marks(cells)
    return _numbers(cells, "," if marks == {","} else ".").to_numpy()


def _plain(column: pd.Series) -> pd.Series | None:
    """Return a column as Python writes numbers; None if any cell is written otherwise."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("float64") if _is_real(column) else None
    if not _is_real(column):
        return None
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    if not numbers.isna().any():
        return numbers
    text = _text(column)
    empty = text.str.lower().isin(_MISSING)
    numbers = pd.to_numeric(text.where(~empty, other="nan"), errors="coerce").astype("float64")
    return numbers if not (numbers.isna() & ~empty).any() else None


def _is_real(column: pd.Series) -> bool:
    """Say whether a column may hold numbers: neither truth values nor times nor complex ones."""
    return column.dtype.kind not in "bcmM"


def _text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _cells(column: pd.Series) -> pd.Series:
    """Return cells without currencies, gaps between thousands and signs of per cent."""
    text = _text(column).str.replace("\N{MINUS SIGN}", "-")
    text = text.where(~text.str.lower().isin(_MISSING), "")
    text = text.str.replace(r"^\((.*)\)$", r"-\1", regex=True)
    text = text.str.replace(_BEFORE, r"\1\2", regex=True).str.replace(_AFTER, "", regex=True)
    text = text.str.replace(_GROUP_GAPS, "", regex=True)
    percent = text.str.endswith("%")
    if (percent | (text == "")).all():
        text = text.str.rstrip("% ")
    return text


def _numbers(cells: pd.Series, mark: str) -> pd.Series:
    """Read cells with a decimal mark; NaN where that fails or nothing stands."""
    m, gap = re.escape(mark), re.escape("." if mark == "," else ",")
    form = rf"^([+-]?(?:\d{{1,3}}(?:{gap}\d{{2,3}})*{gap}\d{{3}}|\d*)(?:{m}\d*)?(?:[eE][+-]?\d+)?)"
    parts = cells.str.extract(form + r"\s*([KkMmBbTt]?)n?$")
    digits = parts[0].str.replace("." if mark == "," else ",", "").str.replace(mark, ".")
    scale = parts[1].str.lower().map(_TIMES).fillna(1.0)
    numbers = pd.to_numeric(digits, errors="coerce") * scale
    odd = numbers.isna() & (cells != "")
    if odd.any():  # what Python reads besides, such as "inf"
        numbers = numbers.where(~odd, pd.to_numeric(cells.where(odd), errors="coerce"))
    return numbers.astype("float64")


def _read(cells: pd.Series, column: pd.Series, mark: str, reading: Reading) -> pd.Series:
    numbers = _numbers(cells, mark)
    bad = numbers.isna() & (cells != "")
    comma = cells[bad].str.contains(r"[.,]", regex=True).any() and cells[bad].str.contains(
        r"^[\d.,+-]+$", regex=True
    ).any()  # fmt: skip
    hint = f"; its decimals are read with {mark!r} (data.decimal)" if comma else ""
    refuse_rows(bad, _text(column), column.name, "not a number", reading, hint)
    return numbers


def _marks(cells: pd.Series) -> set[str]:
    """Return the decimal marks of cells that can be read in one way only."""
    found = set()
    for mark in ".,":
        m, gap = re.escape(mark), re.escape("." if mark == "," else ",")
        tail = r"(?:[eE][+-]?\d+|\s*[KkMmBbTt]n?)?$"
        sure = (
            rf"^[+-]?(?:\d{{1,3}}(?:{gap}\d{{2,3}})*{gap}\d{{3}}{m}\d*{tail}"  # 1,234.5
            rf"|\d*{m}(?:\d{{1,2}}|\d{{4,}}){tail}"  # 1.5, 1.2345
            rf"|(?:0?|0\d*|\d{{4,}}){m}\d+{tail}"  # 0.123, 1234.567
            rf"|\d{{1,3}}(?:{gap}\d{{2,3}})+{gap}\d{{3}}$)"  # 1,234,567
        )
        if cells.str.contains(sure, regex=True).any():
            found.add(mark)
    return found


def _decimal_mark(cells: Mapping[str, pd.Series], reading: Reading) -> str:
    """Return the decimal mark of a table.

    Raises:
        DataError: if there are two, or a comma may be one or separate thousands.
    """
    marks = {name: _marks(each) for name, each in cells.items()}
    either = set[str]().union(*marks.values())
    if len(either) == 1:
        return next(iter(either))
    say = 'say which mark decimals have with data.decimal = "," or data.decimal = "."'
    for name, each in cells.items():
        doubtful = each[each.str.contains(r"\d,\d", regex=True)]
        if len(doubtful):
            both = "is written otherwise elsewhere" if either else "may be thousands or a fraction"
            raise DataError(
                f"{reading.source}, column {name!r}: {doubtful.iloc[0]!r} {both}; {say}"
            )
    return "."
