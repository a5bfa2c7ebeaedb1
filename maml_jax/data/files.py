"""Read bars from files, and write them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, Unpack

import pandas as pd

from maml_jax.atomic import write_atomically
from maml_jax.data.bars import to_bars
from maml_jax.data.names import COLUMNS
from maml_jax.data.options import TableOptions
from maml_jax.data.reading.contents import read_contents, to_utf8
from maml_jax.data.reading.json_tables import load_json, read_json_table
from maml_jax.data.reading.kinds import ENDINGS, Kind, split_name
from maml_jax.data.reading.raw import Options, Raw
from maml_jax.data.reading.tables import read_excel, read_feather, read_parquet
from maml_jax.data.reading.text import read_text
from maml_jax.data.sources.bybit import is_saved_reply, read_saved_reply
from maml_jax.errors import DataError, StoreError

PARQUET_ENDINGS = ENDINGS["parquet"]

Compression = Literal["gzip", "bz2", "xz"]
_WRITTEN: dict[str, Compression | None] = {
    ".csv": None,
    ".csv.gz": "gzip",
    ".csv.bz2": "bz2",
    ".csv.xz": "xz",
}


def read_bars(
    path: str | Path | Iterable[str | Path],
    *,
    layout: str | None = None,
    encoding: str | None = None,
    skip_lines: int | None = None,
    symbol: str | None = None,
    **options: Unpack[TableOptions],
) -> dict[str, pd.DataFrame]:
    """Read bars from one file or several, in any layout that `to_bars` understands.

    An asset without a name in the file is named after the file, without its ending.

    Args:
        path: text (CSV with commas, semicolons, tabs or pipes), JSON (also in the envelope of an
            API), both also compressed; Parquet, feather, Excel; or several of them.
        layout: of a table without a header: `"binance"`, `"kraken"`, `"histdata"`, `"mt4"`, or the
            names of its columns, as in `"date,open,high,low,close,-,volume"`.
        encoding: of text that is not UTF-8 and has no byte order mark, such as `"gbk"`.
        skip_lines: lines above the header; None finds the header, or refuses if it is unclear.
        symbol: the asset of a file that does not name it, instead of the file's name.
        **options: as for `to_bars`: `timezone`, `date_format`, `adjust`, `missing`,
            `columns` and `decimal`.

    Returns:
        `{asset: bars}` in normal form, in the order of the files.

    Raises:
        DataError: naming the file, and the column, line or date; also if two files have the same
            asset.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    if not paths:
        raise DataError("no file to read bars from")
    how = Options(layout, encoding, skip_lines)
    how.check()
    result: dict[str, pd.DataFrame] = {}
    origin: dict[str, Path] = {}
    for each in map(Path, paths):
        for name, bars in _read_one(each, how, symbol, options).items():
            if name in result:
                hint = "; symbol names the asset of one file" if name == symbol else ""
                raise DataError(f"{each}: holds {name}, as does {origin[name]}{hint}")
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


def _read_one(
    path: Path, how: Options, symbol: str | None, options: TableOptions
) -> dict[str, pd.DataFrame]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; name the files in it")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    asset, kind = split_name(path)
    result: dict[str, pd.DataFrame] = {}
    try:
        tables = _read_tables(path, kind, how)
    except DataError:
        raise
    except (ValueError, OSError, ImportError) as error:  # pandas and pyarrow
        raise DataError(f"{path}: cannot be read: {str(error).strip()}") from error
    for raw in tables:
        if raw.zone is not None:
            raw.table.attrs["zone"] = raw.zone
        frames = to_bars(
            raw.table,
            source=f"{path}{raw.part}",
            symbol=raw.symbol or symbol or asset,
            place=raw.place,
            **options,
        )
        twice = sorted({*result} & {*frames})
        if twice:
            raise DataError(f"{path}{raw.part}: holds {twice[0]}, as does another part of the file")
        result |= frames
    return result


def _read_tables(path: Path, kind: Kind | None, how: Options) -> list[Raw]:
    if kind == "parquet":
        return read_parquet(path)
    if kind == "feather":
        return read_feather(path)
    if kind == "excel":
        return read_excel(path, how)
    contents = read_contents(path)
    if kind is None:  # a zip
        _, kind = split_name(path / contents.name)
    data = to_utf8(contents.data, how.encoding, path)
    if kind == "json":
        content = load_json(data, str(path))
        if is_saved_reply(content):
            return [Raw(read_saved_reply(path, content))]
        return [read_json_table(content, str(path), how.layout)]
    if kind == "text":
        plain = not contents.packed and contents.data.endswith(data)
        return read_text(data, str(path), how, file=path if plain else None)
    raise DataError(
        f"{path}: holds {contents.name}, which is neither text nor JSON; unpack it first"
    )
