"""Find the separator and the header of a table of text, where there is no doubt about them."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from maml_jax.data.names import ADJUSTED, SYMBOL_NAMES, field_of, plain_name, time_rank
from maml_jax.data.reading.cells import looks_like_time
from maml_jax.data.reading.layouts import describe_layouts
from maml_jax.errors import DataError

SEPARATORS = ("\t", ";", "|", ",")
"""The comma last: it may also be a decimal mark."""

_NUMBER = re.compile(r"[-+]?[\d.,' ]*\d[\d.,' ]*(e[-+]?\d+)?", re.IGNORECASE)
_LEVELS = {"", "price", "prices", "field", "attribute", "attributes", *SYMBOL_NAMES}
_LEVELS |= {f"{name}s" for name in SYMBOL_NAMES}

Row = Sequence[str]


class Header(NamedTuple):
    """Where the header of a table is.

    Attributes:
        row: its number, from 0; -1 where there is none.
        first: number of the first row of values.
        levels: 1, or 2 where one row names the fields and the next the assets; 0 without.
        names: the cells of the first level, and of the second.
        index: name of the first column where there are two levels.
    """

    row: int
    first: int
    levels: int
    names: tuple[Row, Row] = ((), ())
    index: str = ""


def names_prices(names: Row) -> bool:
    """Say whether one of several names is that of a closing price."""
    roles = {field.role for name in names if (field := field_of(name)) is not None}
    letters = {plain_name(name) for name in names}
    return bool(roles & {"close", ADJUSTED}) or {*"ohlc"} <= letters


def split_rows(text: str, given: str | None = None) -> tuple[str, list[list[str]]]:
    """Return the separator with which most rows have the same number of cells, and the rows."""
    best = (0, ",", [])
    for separator in SEPARATORS if given is None else (given,):
        if separator in text or separator == (given or ","):
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
            score = max(_widths(rows).values(), default=0)
            if score > best[0] or not best[2]:
                best = (score, separator, rows)
    return best[1], best[2]


def find_header(
    rows: Sequence[Row], source: str, *, skip_lines: int | None = None, layout: str | None = None
) -> Header:
    """Find the header among the first rows of a table.

    It is the first row, or the one that names the time among those above the first row of values,
    or the only one of them with as many cells. Two levels, as pandas and yfinance write them, are
    recognised by a row of fields beside a row of assets.

    Args:
        rows: the first rows; a blank line is an empty one.
        source: how errors call the table.
        skip_lines: how many stand above the header; None finds it.
        layout: given for tables without a header.

    Raises:
        DataError: if the table has no header and no layout is given, or if it is unclear which row
            the header is.
    """
    start = skip_lines or 0
    if start >= len(rows) and start:
        raise DataError(f"{source}: skip_lines={start}, but there are {len(rows)} lines at most")
    filled = [i for i, row in enumerate(rows) if i >= start and any(cell.strip() for cell in row)]
    if not filled:
        return Header(start, start + 1, 1)
    widths = _widths([rows[i] for i in filled])
    width = max(widths, key=lambda n: (widths[n], n), default=1)
    first = _first_values(rows, filled, width)
    above = filled if first is None else [i for i in filled if i < first]
    if first is not None and (two := _two_levels(rows, above, first, width)) is not None:
        return two
    if first is None:
        return Header(filled[0], filled[0] + 1, 1)
    wide = [i for i in above if sum(bool(cell.strip()) for cell in rows[i]) > 1]
    if not wide or (layout and all(len(rows[i]) != width for i in above)):
        if layout is None:
            _refuse_dates_as_names(rows, filled, first, source)
            raise DataError(
                f"{source}: there is no header, line {first + 1} holds values "
                f"({', '.join(rows[first][:3])}, ...); {describe_layouts(rows[first])}"
            )
        return Header(-1, first, 0)
    row = above[0] if len(above) == 1 or skip_lines is not None else _choose(rows, above, width)
    if row is None:
        raise DataError(
            f"{source}: {len(above)} lines stand above line {first + 1}, the first with values, "
            "and it is unclear which is the header; say how many are above it with skip_lines, as "
            f"in skip_lines={above[-1]}"
        )
    _refuse_between(rows, [i for i in above if i > row], source)
    return Header(row, row + 1, 1)


def _refuse_dates_as_names(rows: Sequence[Row], filled: list[int], first: int, source: str) -> None:
    """Refuse a table with a column for each date: its first row has times, the next has none."""
    names = rows[first]
    later = [rows[i] for i in filled if i > first][:1]
    times = [looks_like_time(cell) for cell in names]
    if (
        later
        and sum(times) > 1
        and not any(
            time and looks_like_time(cell) for time, cell in zip(times, later[0], strict=False)
        )
    ):
        raise DataError(
            f"{source}, line {first + 1}: has dates as names of columns ({', '.join(names[:3])}, "
            "...); write a row for each date"
        )


def _refuse_between(rows: Sequence[Row], between: list[int], source: str) -> None:
    """Refuse a row of text, such as units, between the header and the values."""
    for i in between:
        cells = [cell.strip() for cell in rows[i]]
        if not any(looks_like_time(cell) or _NUMBER.fullmatch(cell) for cell in cells):
            raise DataError(
                f"{source}, line {i + 1}: stands between the header and the first values: "
                f"{', '.join(filter(None, cells))[:60]}; remove it"
            )


def _widths(rows: Sequence[Row]) -> Counter[int]:
    return Counter(len(row) for row in rows if len(row) > 1 and any(cell.strip() for cell in row))


def _first_values(rows: Sequence[Row], filled: list[int], width: int) -> int | None:
    """Return the first row of values: one with a time, or with numbers alone."""
    for i in filled:
        cells = [cell.strip() for cell in rows[i]]
        named = _names_time([cell for cell in cells if len(cell) > 1])  # T is also a ticker
        if len(cells) != width or width < 2 or named:
            continue
        times = [looks_like_time(cell) for cell in cells]
        half = sum(map(bool, cells)) >= width / 2
        numbers = cells[0] and all(_NUMBER.fullmatch(cell) for cell in cells if cell)
        if times[0] or (any(times) and half) or numbers:
            return i
    return None


def _choose(rows: Sequence[Row], above: list[int], width: int) -> int | None:
    named = [i for i in above if _names_time(rows[i])]
    priced = [i for i in named if names_prices(rows[i])]
    full = [i for i in above if len(rows[i]) == width and all(cell.strip() for cell in rows[i][1:])]
    for found in (named, priced, [] if named else full):
        if len(found) == 1:
            return found[0]
    return None


def _names_time(row: Row) -> bool:
    filled = sum(bool(cell.strip()) for cell in row) > 1
    return filled and any(time_rank(cell) is not None for cell in row)


def _two_levels(rows: Sequence[Row], above: list[int], first: int, width: int) -> Header | None:
    """Recognise a row of fields and one of assets, in either order, and the index's name."""
    if len(above) < 2:
        return None
    last = rows[above[-1]]
    named = len(above) > 2 and bool(last[0].strip()) and not any(c.strip() for c in last[1:])
    upper, lower = (above[-3], above[-2]) if named else (above[-2], above[-1])
    a, b = (list(rows[i]) for i in (upper, lower))
    if named:  # merged cells of a sheet
        a = _fill_forward(a)
    if not (len(a) == len(b) == width > 1) or not all(c.strip() for c in (*a[1:], *b[1:])):
        return None
    if not named and not {plain_name(a[0]), plain_name(b[0])} <= _LEVELS:
        return None
    if not names_prices((*a[1:], *b[1:])):
        return None
    return Header(upper, first, 2, (a[1:], b[1:]), last[0] if named else "")


def _fill_forward(cells: list[str]) -> list[str]:
    for i in range(2, len(cells)):
        cells[i] = cells[i] if cells[i].strip() else cells[i - 1]
    return cells
