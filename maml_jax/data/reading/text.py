"""Tables of text: CSV with any usual separator, with a header of one row or two, or with none."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from maml_jax.data.names import time_rank
from maml_jax.data.reading.cells import looks_like_time
from maml_jax.data.reading.headers import (
    Header,
    find_header,
    split_rows,
)
from maml_jax.data.reading.layouts import layout_columns
from maml_jax.data.reading.raw import Options, Raw
from maml_jax.data.reading.spaces import split_spaces
from maml_jax.errors import DataError

_FEW_LINES, _MANY_LINES = 20, 200
_HEAD_BYTES = 2**16
_MARKUP = re.compile(rb"\s*<(!doctype|\?xml|(html|head|body)(\s[^>]*)?>(?![,;|\t]))")


def read_text(
    data: bytes,
    source: str,
    options: Options,
    *,
    separator: str | None = None,
    file: Path | None = None,
) -> list[Raw]:
    """Read a table of text, all cells as text.

    Args:
        data: in UTF-8.
        source: how errors call the file.
        options: the layout of a table without a header, and lines to skip.
        separator: of cells; None finds it.
        file: that holds just these bytes, but for a byte order mark: pandas reads it with threads.

    Returns:
        The table; its columns have two levels where the header has.

    Raises:
        DataError: naming the line, and the option that helps.
    """
    if not data.strip():
        raise DataError(f"{source}: cannot be read: is empty")
    if b"\n" not in data and b"\r" in data:
        data, file = data.replace(b"\r", b"\n"), None
    if _MARKUP.match(data[:200].lower()):
        raise DataError(
            f"{source}: is a page of the web or XML, and no table; was it an error or a login page "
            "that was saved?"
        )
    if separator is None and (spaced := split_spaces(data, source)) is not data:
        data, file = spaced, None
    lines = (options.skip_lines or 0) + _MANY_LINES
    try:
        separator, rows = split_rows(_first_lines(data, lines), separator)
    except csv.Error as error:
        raise DataError(f"{source}: cannot be read as a table: {error}") from None
    header = find_header(rows, source, skip_lines=options.skip_lines, layout=options.layout)
    table = _parse(file or io.BytesIO(data), source, separator, header)
    lines = np.arange(len(table)) + (header.first if header.levels != 1 else header.row + 1) + 1
    blank = (table.iloc[:, 0] == "").to_numpy(copy=True)
    blank[blank] = (table[blank] == "").all(axis=1).to_numpy()
    table, lines = table[~blank].reset_index(drop=True), lines[~blank]
    if header.levels == 0:
        table = _name_columns(table, f"{source}, line {lines[0]}", options)
    elif options.layout is not None and "," in options.layout:
        raise DataError(
            f"{source}: layout={options.layout!r} names the columns of a table without a header, "
            f"but line {header.row + 1} is one; leave it out"
        )
    _refuse_footer(table, lines, source)
    if len(table) and len(table.columns) == 1:
        raise DataError(
            f"{source}: finds one column, {str(table.columns[0])[:60]!r}; expected cells that are "
            "separated by commas, semicolons, tabs, pipes, or by spaces with as many in each line"
        )
    if header.levels == 2:
        table = _name_levels(table, header)
    if header.levels == 1:
        _refuse_repeated_header(table, lines, source)
        table = table.drop(columns=_empty_columns(table))
    return [Raw(table, place=_placer(lines))]


def _first_lines(data: bytes, most: int) -> str:
    end = 0
    for count in range(most):
        place = data.find(b"\n", end)
        if place < 0:
            end = len(data)
            break
        end = place + 1
        if end > _HEAD_BYTES and count >= most - _MANY_LINES + _FEW_LINES:
            break
    return data[:end].decode()


def _parse(file: Path | io.BytesIO, source: str, separator: str, header: Header) -> pd.DataFrame:
    """Parse with blank lines, so that line numbers are exact."""
    try:
        table = pd.read_csv(
            file,
            sep=separator,
            header=0 if header.levels == 1 else None,
            skiprows=header.row if header.levels == 1 else header.first,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
            compression=None,
        )
    except ValueError as error:
        quote = re.search(r"EOF inside string starting at row (\d+)", str(error))
        if quote is not None:
            line = int(quote[1]) + 1
            raise DataError(f"{source}, line {line}: a quotation mark is never closed") from error
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(error))
        if found is None:
            raise DataError(f"{source}: cannot be read: {str(error).strip()}") from error
        expected, line, saw = found.groups()
        raise DataError(
            f"{source}, line {line}: has {saw} fields, where the lines before have {expected}; is "
            "it a footer, or an unquoted separator?"
        ) from error
    if isinstance(table.index, pd.RangeIndex):
        return table
    if not isinstance(table.index, pd.MultiIndex):
        names, rows = [*table.columns], table.reset_index(names="").astype(str)
        if (rows.iloc[:, -1] == "").all():  # a separator at the end of each row
            return rows.iloc[:, :-1].set_axis(names, axis="columns")
        if looks_like_time(str(rows.iloc[0, 0])) and not any(
            time_rank(n) is not None for n in names
        ):
            return rows  # names of rows, as R writes them
    raise DataError(
        f"{source}: the rows have more fields than the header, {list(table.columns)}; name every "
        "column, or skip lines above the header with skip_lines"
    )


def _name_columns(table: pd.DataFrame, source: str, options: Options) -> pd.DataFrame:
    assert options.layout is not None  # or find_header would have refused
    names = layout_columns(options.layout, table.iloc[0].tolist(), source)
    wanted = [i for i, name in enumerate(names) if name]
    return table.iloc[:, wanted].set_axis([names[i] for i in wanted], axis="columns")


def _empty_columns(table: pd.DataFrame) -> list:
    """List columns without name and values, as separators at the end of the lines leave them."""
    unnamed = [name for name in table.columns[1:] if str(name).startswith("Unnamed: ")]
    return [name for name in unnamed if (table[name] == "").all()]


def _refuse_repeated_header(table: pd.DataFrame, lines: np.ndarray, source: str) -> None:
    names = [re.sub(r"^Unnamed: \d+$", "", str(name)) for name in table.columns]
    rows = np.flatnonzero((table.iloc[:, -1] == names[-1]).to_numpy())
    for row in rows:
        if table.iloc[row].tolist() == names:
            raise DataError(f"{source}, line {lines[row]}: repeats the header; remove the line")


def _refuse_footer(table: pd.DataFrame, lines: np.ndarray, source: str) -> None:
    """Refuse a last line of text, where the first has a time, and half of its cells are empty."""
    if len(table) < 2:
        return
    first, last = table.iloc[0].tolist(), table.iloc[-1].tolist()
    column = next((i for i, cell in enumerate(first) if looks_like_time(cell)), None)
    if column is None or any(looks_like_time(cell) for cell in last):
        return
    told = [cell for cell in last if cell.strip()]
    if 2 * len(told) <= len(last) and re.search(r"[^\W\d_]", last[column] or told[0]):
        raise DataError(
            f"{source}, line {lines[-1]}: is no row of the table: {told[0][:60]!r}; remove the "
            "footer"
        )


def _name_levels(table: pd.DataFrame, header: Header) -> pd.DataFrame:
    """Give the columns two levels, and make an index of the first column, as it is in memory."""
    body = table.iloc[:, 1:].set_axis(
        pd.MultiIndex.from_arrays([list(names) for names in header.names]), axis="columns"
    )
    name = header.index if time_rank(header.index) is not None else "timestamp"
    return body.set_axis(pd.Index(table.iloc[:, 0], name=name), axis="index")


def _placer(lines: np.ndarray):
    return lambda row: f"line {lines[row]}"
