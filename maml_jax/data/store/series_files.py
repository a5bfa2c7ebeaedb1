"""The files of one series in a store: its bars, its revisions, the spans that it covers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from maml_jax.atomic import write_atomically
from maml_jax.data.interval import Interval
from maml_jax.data.names import COLUMNS
from maml_jax.errors import StoreError

_FORMAT = 1

Span = tuple[pd.Timestamp, pd.Timestamp]


class SeriesKey(NamedTuple):
    """The name of a series: the bars of one symbol, from one source, at one interval."""

    source: str
    symbol: str
    interval: Interval

    def __str__(self) -> str:
        return f"{self.source}/{self.symbol}/{self.interval}"


class Known(NamedTuple):
    """The content of `series.json`: columns, spans, and how many bars each file has at least."""

    columns: tuple[str, ...] = ()
    covered: tuple[Span, ...] = ()
    counts: Mapping[str, int] = {}


def read_revisions(path: Path) -> pd.DataFrame:
    """Read the bars that a source changed: `column`, `before`, `after`, by timestamp."""
    return pd.read_csv(path, index_col="timestamp", parse_dates=True)


def merge(
    old: pd.DataFrame, new: pd.DataFrame, tolerance: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Merge old and new bars, of which the new take precedence; return what they change, too."""
    both = new.index.intersection(old.index)
    before, after = old.loc[both], new.loc[both]
    differs = (after - before).abs() > tolerance * before.abs()
    rows, columns = np.nonzero(differs.to_numpy())
    changes = pd.DataFrame(
        {
            "column": old.columns[columns],
            "before": before.to_numpy()[rows, columns],
            "after": after.to_numpy()[rows, columns],
        },
        index=both[rows],
    )
    stays = old.drop(both[np.unique(rows)])
    merged = pd.concat([stays, new.drop(both[~differs.any(axis=1).to_numpy()])])
    return merged.sort_index(), changes


def join_spans(covered: Sequence[Span], span: Span) -> tuple[Span, ...]:
    """Add a span, and join those that touch."""
    result: list[Span] = []
    spans: list[Span] = [*covered, span] if span[0] < span[1] else [*covered]
    for begins, ends in sorted(spans, key=lambda each: each[0]):
        if result and begins <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], ends))
        else:
            result.append((begins, ends))
    return tuple(result)


def part_of(interval: Interval, time: pd.Timestamp) -> str:
    """Return the name of the file that a bar belongs in."""
    return str(parts_of(interval, pd.DatetimeIndex([time]))[0])


def parts_of(interval: Interval, index: pd.Index) -> np.ndarray:
    """Return the name of the file that each bar belongs in."""
    if interval.unit not in ("m", "h"):
        return np.full(len(index), "all")
    times = pd.DatetimeIndex(index).as_unit("us").asi8.view("datetime64[us]")
    return times.astype("datetime64[M]" if interval.unit == "m" else "datetime64[Y]").astype(str)


def write_part(path: Path, bars: pd.DataFrame, key: SeriesKey) -> None:
    """Write a file of bars, whose bytes depend on the bars alone."""
    # No metadata of pandas: its version would change the bytes.
    times = pd.DatetimeIndex(bars.index).as_unit("us").asi8.view("datetime64[us]")
    times = pa.array(times, pa.timestamp("us", tz="UTC"))
    columns = {name: pa.array(bars[name].to_numpy()) for name in bars.columns}
    table = pa.table({"timestamp": times, **columns})
    table = table.replace_schema_metadata({"maml_jax": str(key)})
    with write_atomically(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


def read_part(path: Path) -> pd.DataFrame:
    """Read a file of bars, whose pages carry checksums.

    Raises:
        StoreError: if it is damaged.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
        index = pd.DatetimeIndex(table.column("timestamp").to_numpy(), tz="UTC", name="timestamp")
        names = [name for name in table.column_names if name != "timestamp"]
        return pd.DataFrame({name: table.column(name).to_numpy() for name in names}, index)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StoreError(
            f"{path}: is damaged: {error}; delete it and fetch its span again (--again)"
        ) from error


def rows_of(path: Path) -> int | None:
    """Return how many bars a file holds; None if it is damaged."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return None


def _utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text).tz_convert("UTC").as_unit("us")


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_revisions(path: Path, changes: pd.DataFrame) -> None:
    """Append bars that a source changed."""
    all_ = pd.concat([read_revisions(path), changes]) if path.exists() else changes
    # A writer that was killed between this file and the bars has recorded its changes already.
    _write_text(path, all_.reset_index().drop_duplicates().to_csv(index=False))


def no_revisions() -> pd.DataFrame:
    """Return an empty table of revisions."""
    index = pd.DatetimeIndex([], tz="UTC", name="timestamp").as_unit("us")
    return pd.DataFrame({"column": [], "before": [], "after": []}, index).astype(
        {"column": str, "before": float, "after": float}
    )


def write_known(path: Path, key: SeriesKey, known: Known) -> None:
    """Write `series.json`."""
    record: Mapping = {
        "format": _FORMAT,
        "source": key.source,
        "symbol": key.symbol,
        "interval": str(key.interval),
        "columns": list(known.columns),
        "bars": dict(sorted(known.counts.items())),
        "covered": [[time.isoformat() for time in span] for span in known.covered],
    }
    _write_text(path, json.dumps(record, indent=1) + "\n")


def read_known(path: Path, symbol: str) -> Known:
    """Read `series.json`.

    Raises:
        StoreError: if it cannot be read, or is of another symbol.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT or content["symbol"] != symbol:
            raise ValueError(f"it is of {content['symbol']}, format {content['format']}")
        spans = tuple((_utc(begins), _utc(ends)) for begins, ends in content["covered"])
        return Known(tuple(content["columns"]), spans, content["bars"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: cannot be read: {error}; delete its folder and fetch the series again"
        ) from error


def empty(columns: Sequence[str]) -> pd.DataFrame:
    """Return an empty table of bars."""
    index = pd.DatetimeIndex([], tz="UTC", name="timestamp").as_unit("us")
    return pd.DataFrame({name: np.empty(0) for name in columns or COLUMNS}, index)


def folder_name(name: str) -> str:
    """Quote a name for any file system; unquoting it gives the name back."""
    safe = quote(name, safe="-_^=+@,")
    return safe if safe.strip(".") else safe.replace(".", "%2E")
