"""Read bars from CSV, Parquet and JSON files, and write them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Unpack

import pandas as pd

from maml_jax.atomic import write_atomically
from maml_jax.data.bars import to_bars
from maml_jax.data.names import COLUMNS
from maml_jax.data.options import TableOptions
from maml_jax.data.sources.bybit import is_saved_reply, read_saved_reply
from maml_jax.errors import DataError, StoreError

CSV_ENDINGS = (".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip", ".csv.zst", ".txt", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")
JSON_ENDINGS = (".json",)

Compression = Literal["gzip", "bz2", "xz"]
_WRITTEN: dict[str, Compression | None] = {
    ".csv": None,
    ".csv.gz": "gzip",
    ".csv.bz2": "bz2",
    ".csv.xz": "xz",
}


def read_bars(
    path: str | Path | Iterable[str | Path],
    **options: Unpack[TableOptions],
) -> dict[str, pd.DataFrame]:
    """Read bars from one file or several, in any layout that `to_bars` understands.

    An asset without a name in the file is named after the file, up to the first dot.

    Args:
        path: CSV (also compressed), Parquet, or JSON (a list of objects, or a saved reply of
            Bybit); or several of them.
        **options: as for `to_bars`: `timezone`, `date_format`, `adjust`, `missing`, `columns` and
            `decimal`.

    Returns:
        `{asset: bars}` in normal form, in the order of the files.

    Raises:
        DataError: naming the file, and the column, line or date; also if two files have the same
            asset.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    if not paths:
        raise DataError("no file to read bars from")
    result: dict[str, pd.DataFrame] = {}
    origin: dict[str, Path] = {}
    for each in map(Path, paths):
        frames = _read_one(each, options)
        for name, bars in frames.items():
            if name in result:
                raise DataError(f"{each}: holds {name}, as does {origin[name]}")
            result[name], origin[name] = bars, each
    return result


def write_bars(bars: Mapping[str, pd.DataFrame], path: str | Path) -> int:
    """Write bars as one long table that `read_bars` reads: timestamp, symbol, prices, volume.

    Args:
        bars: in normal form, by asset. Columns that some of them lack are left out. A masked bar
            becomes empty cells, for `read_bars(..., missing="drop")`.
        path: ends in `.csv`, a compressed `.csv.gz` and so on, or `.parquet`. It is written
            atomically, and replaces a file of that name.

    Returns:
        The number of rows.

    Raises:
        DataError: if the ending is unknown, or there are no bars.
        StoreError: if the file cannot be written.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith((*_WRITTEN, *PARQUET_ENDINGS)):
        endings = ", ".join((*_WRITTEN, *PARQUET_ENDINGS))
        raise DataError(f"{path}: unknown kind of file; expected a name that ends in {endings}")
    if not bars:
        raise DataError(f"{path}: no bars to write")
    table = pd.concat(dict(bars), names=["symbol"], join="inner").reset_index()
    table = table[["timestamp", "symbol", *[c for c in COLUMNS if c in table.columns]]]
    table.attrs.clear()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as partial:
            if name.endswith(PARQUET_ENDINGS):
                table.to_parquet(partial, index=False)
            else:
                table.to_csv(partial, index=False, compression=_compression(name))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error
    return len(table)


def _compression(name: str) -> Compression | None:
    return next((kind for ending, kind in _WRITTEN.items() if name.endswith(ending)), None)


def _read_one(path: Path, given: TableOptions) -> dict[str, pd.DataFrame]:
    options = {"source": str(path), "symbol": path.name.split(".")[0], **given}
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the files in it")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    name = path.name.lower()
    try:
        if name.endswith(PARQUET_ENDINGS):
            return to_bars(pd.read_parquet(path), **options)
        if name.endswith(JSON_ENDINGS):
            return to_bars(_read_json(path), **options)
        if not name.endswith(CSV_ENDINGS):
            endings = ", ".join(CSV_ENDINGS + PARQUET_ENDINGS + JSON_ENDINGS)
            raise DataError(f"{path}: unknown kind of file; expected a name that ends in {endings}")
        table = _read_text(path, ",")
        if len(table.columns) == 1:
            header = str(table.columns[0])
            separator = next((mark for mark in ";\t|" if mark in header), None)
            table = table if separator is None else _read_text(path, separator)
    except DataError:
        raise
    except (ValueError, OSError, EOFError, ImportError) as error:  # pandas and decompressors
        raise DataError(f"{path}: cannot be read: {str(error).strip()}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise DataError(
            f"{path}: the rows have more fields than the header, {list(table.columns)}; remove any "
            "line above the header, and name every column"
        )
    table.index = table.index + 2
    table = table[(table != "").any(axis=1)]
    lines = table.index.to_numpy()
    return to_bars(table.reset_index(drop=True), place=lambda row: f"line {lines[row]}", **options)


def _read_json(path: Path) -> pd.DataFrame:
    """Read a saved reply of Bybit, or a list of objects with one key for each column."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if is_saved_reply(content):
        return read_saved_reply(path, content)
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        return pd.DataFrame(content)
    raise DataError(
        f"{path}: expected a reply of Bybit, or a list of objects such as "
        '[{"timestamp": "2024-01-01", "close": 1.5}, ...]'
    )


def _read_text(path: Path, separator: str) -> pd.DataFrame:
    """Read a table as text with blank lines, so that line numbers are exact."""
    return pd.read_csv(
        path,
        sep=separator,
        dtype=str,
        keep_default_na=False,
        skip_blank_lines=False,
        encoding="utf-8-sig",
    )
