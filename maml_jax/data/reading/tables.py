"""Tables with types: Parquet, feather and Excel."""

import ast
import csv
import io
import re
import zipfile
from datetime import date, datetime, time
from pathlib import Path

import pandas as pd

from maml_jax.data.reading.contents import MOST_BYTES, check_size
from maml_jax.data.reading.raw import Options, Raw
from maml_jax.data.reading.text import read_text
from maml_jax.errors import DataError

_PAIR = re.compile(r"\((['\"]).*\1, (['\"]).*\2\)")


def read_parquet(path: Path) -> list[Raw]:
    """Read a Parquet file.

    Raises:
        DataError: if it holds far more than a table of prices would.
        ValueError, OSError: if it is damaged.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        about = file.metadata
        if 8 * about.num_rows * about.num_columns > 4 * MOST_BYTES:
            raise DataError(
                f"{path}: {about.num_rows:,} rows of {about.num_columns} columns are too many"
            )
    return [Raw(_restore_columns(pd.read_parquet(path)))]


def read_feather(path: Path) -> list[Raw]:
    """Read a feather file.

    Raises:
        ValueError, OSError: if it is damaged.
    """
    return [Raw(_restore_columns(pd.read_feather(path)))]


def _restore_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Restore what writers without the metadata of pandas leave of an index and of two levels."""
    if isinstance(table.columns, pd.MultiIndex):
        return table
    unnamed = re.compile(r"__index_level_\d+__")
    table = table.rename(columns=lambda name: "index" if unnamed.fullmatch(str(name)) else name)
    pairs = [str(name) for name in table.columns if _PAIR.fullmatch(str(name))]
    others = [name for name in table.columns if str(name) not in pairs]
    if not pairs or len(others) > 1:
        return table
    if others:
        table = table.set_index(others[0])
    columns = [ast.literal_eval(name) for name in pairs]
    times = [pair for pair in columns if pair[1] == ""]
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table.set_index(times[0]).rename_axis(times[0][0]) if len(times) == 1 else table


def read_excel(path: Path, options: Options) -> list[Raw]:
    """Read the sheets of a workbook; several are assets with the names of the sheets.

    Raises:
        DataError: naming the sheet; also if openpyxl is not installed, or the file is damaged.
    """
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            f"{path}: reading Excel needs openpyxl: pip install 'maml-jax[excel]', or save the "
            "sheet as .csv"
        ) from None
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(sum(each.file_size for each in archive.infolist()), path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {sheet.title: _cells(sheet) for sheet in book.worksheets}
        book.close()
    except DataError:
        raise
    except Exception as error:  # a damaged workbook fails anywhere in zip, XML or openpyxl
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"{path}: cannot be read as a workbook: {reason}") from error
    sheets = {title: cells for title, cells in sheets.items() if cells}
    if not sheets:
        raise DataError(f"{path}: holds no rows")
    result = []
    for title, cells in sheets.items():
        part = f", sheet {title!r}" if len(sheets) > 1 else ""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(cells)
        for raw in read_text(text.getvalue().encode(), f"{path}{part}", options, separator=","):
            named = raw.symbol or (title if part else None)
            result.append(raw._replace(symbol=named, part=part))
    return result


def _cells(sheet) -> list[list[str]]:
    sheet.reset_dimensions()  # what some writers state is wrong
    rows = [[_cell_text(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    used = [max((i + 1 for i, cell in enumerate(row) if cell), default=0) for row in rows]
    width = max(used, default=0)
    return [(row + [""] * width)[:width] for row in rows] if width else []


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value).replace("\n", " ").replace("\r", " ")
