"""Bars kept on disk: Parquet files by source, symbol and interval, written whole or not at all.

    <root>/<source>/<symbol>/<interval>/series.json      what the source was asked for
                                        2023.parquet     its bars: a file per month below an hour,
                                                         per year below a day, else one
                                        revisions.csv    bars that the source changed later

The bytes of a file depend on its bars alone, not on the order in which they came. Bars are written
before the span that they cover is noted, so whatever kills a writer, what is noted is there.
Writers of one series take turns by a lock that the operating system frees when one dies.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import platformdirs
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from maml_jax.data.bars import COLUMNS
from maml_jax.data.interval import Interval, parse_interval
from maml_jax.errors import StoreError
from maml_jax.whole import unfinished_in, whole_file

ROOT_VARIABLE = "MAML_JAX_STORE"
"""Environment variable that names the default store."""

_SERIES = "series.json"
_REVISIONS = "revisions.csv"
_FORMAT = 1
_PATIENCE = 60.0
"""Seconds to wait for another writer of the same series; a write takes a fraction of one."""

Span = tuple[pd.Timestamp, pd.Timestamp]


class SeriesKey(NamedTuple):
    """Which series: the bars of one symbol, from one source, at one interval."""

    source: str
    symbol: str
    interval: Interval

    def __str__(self) -> str:
        return f"{self.source}/{self.symbol}/{self.interval}"


class Written(NamedTuple):
    """What a write changed.

    Attributes:
        added: how many bars are new.
        revised: bars that differ from what was there: columns `column`, `before`, `after`, by
            timestamp.
    """

    added: int
    revised: pd.DataFrame


class SeriesInfo(NamedTuple):
    """What is known of a series without reading all of it.

    Attributes:
        key: which one.
        bars: how many.
        first: opening time of the first bar.
        last: of the last one.
        covered: spans `[from, to)` for which the source was asked, ascending and apart.
        bytes: size on disk.
        revised: bars that the source changed after they had been written.
    """

    key: SeriesKey
    bars: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    covered: tuple[Span, ...]
    bytes: int
    revised: int


def default_root() -> Path:
    """Return where bars are kept: `$MAML_JAX_STORE`, or the platform's data directory."""
    chosen = os.environ.get(ROOT_VARIABLE)
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("maml_jax")) / "bars"


@dataclass(frozen=True)
class Store:
    """A directory of bars.

    Attributes:
        root: the directory; made when something is written.
    """

    root: Path

    def __init__(self, root: str | Path | None = None):
        object.__setattr__(self, "root", default_root() if root is None else Path(root))

    def keys(self) -> list[SeriesKey]:
        """Return all series, in order."""
        files = sorted(self.root.glob(f"*/*/*/{_SERIES}"))
        found = [tuple(unquote(part) for part in file.parts[-4:-1]) for file in files]
        return [SeriesKey(a, b, parse_interval(c)) for a, b, c in found]

    def find(self, text: str) -> list[SeriesKey]:
        """Return the series that a text names: `source`, `source/interval` or all three parts.

        Raises:
            StoreError: if there is none.
        """
        parts = [part for part in text.strip("/").split("/") if part]
        found = [key for key in self.keys() if _matches(key, parts)]
        if not found:
            raise StoreError(
                f"{self.root}: holds no series {text!r}; expected source, source/interval or "
                f"source/symbol/interval of {_some(self.keys())}"
            )
        return found

    def read(
        self,
        key: SeriesKey,
        start: pd.Timestamp | None = None,
        end: pd.Timestamp | None = None,
    ) -> pd.DataFrame:
        """Read the bars of a series that open from `start` to before `end`.

        Raises:
            StoreError: if there is no such series, or a file of it is damaged.
        """
        known = self._known(key)
        if not known.columns:
            raise StoreError(f"{self.root}: {key} holds no bars")
        frames = [
            _read_part(path)
            for part, path in self._parts(key)
            if (start is None or part >= _part(key.interval, start))
            and (end is None or part <= _part(key.interval, end))
        ]
        if not frames:
            return _empty(known.columns)
        bars = pd.concat(frames) if len(frames) > 1 else frames[0]
        return bars if start is None and end is None else bars[_within(bars.index, start, end)]

    def covered(self, key: SeriesKey) -> tuple[Span, ...]:
        """Return the spans for which the source was asked; none for a series that is not there."""
        return self._known(key).covered if self._file(key).exists() else ()

    def missing(self, key: SeriesKey, start: pd.Timestamp, end: pd.Timestamp) -> list[Span]:
        """Return the parts of `[start, end)` for which the source was not asked."""
        result, at = [], start
        for begins, ends in self.covered(key):
            if begins > at:
                result.append((at, min(begins, end)))
            at = max(at, ends)
        result.append((at, end))
        return [(a, b) for a, b in result if a < b]

    def write(
        self, key: SeriesKey, bars: pd.DataFrame, covered: Span, *, tolerance: float = 0.0
    ) -> Written:
        """Add bars to a series.

        Where a bar is there already and differs by more than the tolerance, the new one takes its
        place and `revisions.csv` keeps both.

        Args:
            key: which series.
            bars: in normal form, within the span.
            covered: `[from, to)`: the bars are all that the source has of this span.
            tolerance: relative difference up to which the bar that is there stays.

        Raises:
            StoreError: if the columns are not those of the series, or it cannot be written.
        """
        folder = self._folder(key)
        added, revised = 0, [no_revisions()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._turn(folder):
                for left in unfinished_in(folder):  # of a process that was killed
                    left.unlink()
                known = self._known(key) if self._file(key).exists() else _Known()
                columns = known.columns or tuple(bars.columns if len(bars) else ())
                if len(bars) and tuple(bars.columns) != columns:
                    raise StoreError(
                        f"{key}: its columns are {list(columns)}, and bars with "
                        f"{list(bars.columns)} are to be added"
                    )
                parts, counts = _parts_of(key.interval, bars.index), dict(known.counts)
                for part in np.unique(parts):
                    path = folder / f"{part}.parquet"
                    old = _read_part(path) if path.exists() else _empty(columns)
                    merged, changes = _merge(old, bars[parts == part], tolerance)
                    added += len(merged) - len(old)
                    if len(changes):
                        _append_revisions(folder / _REVISIONS, changes)
                    if len(changes) or len(merged) > len(old):
                        _write_part(path, merged, key)
                    revised.append(changes)
                    counts[str(part)] = len(merged)
                now = _Known(columns, _join(known.covered, covered), counts)
                if now != known:
                    _write_text(self._file(key), _known_to_json(key, now))
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, StoreError):
                raise
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"{folder}: cannot be written: {reason}") from error
        return Written(added, pd.concat(revised))

    def info(self, key: SeriesKey) -> SeriesInfo:
        """Say what a series holds.

        Raises:
            StoreError: if there is no such series, or a file of it is damaged.
        """
        known, parts = self._known(key), self._parts(key)
        ends = [_read_part(parts[i][1]).index for i in (0, -1)] if parts else []
        revisions = self._folder(key) / _REVISIONS
        return SeriesInfo(
            key=key,
            bars=sum(_rows_of(path) or 0 for _, path in parts),
            first=ends[0][0] if ends else None,
            last=ends[1][-1] if ends else None,
            covered=known.covered,
            bytes=sum(file.stat().st_size for file in self._folder(key).iterdir()),
            revised=len(read_revisions(revisions)) if revisions.exists() else 0,
        )

    def verify(self, key: SeriesKey) -> list[str]:
        """Read all of a series and return what is wrong with its files; nothing if all is well.

        Bit errors are found by the checksum of each page.
        """
        try:
            known = self._known(key)
        except StoreError as error:
            return [str(error)]
        problems, there = [], dict(self._parts(key))
        for part, count in known.counts.items():
            held = _rows_of(there[part]) if part in there else 0
            if held is not None and held < count:
                problems.append(
                    f"{self._folder(key) / part}.parquet: holds {held} bars, and {count} were "
                    "written; fetch its span again (--again)"
                )
        for part, path in there.items():
            try:
                bars = _read_part(path)
            except StoreError as error:
                problems.append(str(error))
                continue
            index = pd.DatetimeIndex(bars.index)
            if tuple(bars.columns) != known.columns:
                problems.append(f"{path}: its columns are {list(bars.columns)}")
            if not (index.is_monotonic_increasing and index.is_unique):
                problems.append(f"{path}: its bars are not in order")
            if (_parts_of(key.interval, index) != part).any():
                problems.append(f"{path}: holds bars that belong into another file")
            if not np.isfinite(bars.to_numpy()).all():
                problems.append(f"{path}: holds values that are not finite")
            inside = np.zeros(len(index), bool)
            for begins, ends in known.covered:
                inside |= (index >= begins) & (index < ends)
            if not inside.all():
                problems.append(
                    f"{path}: {int((~inside).sum())} bars are not noted as fetched, from "
                    f"{index[~inside][0]}: a fetch was cut off; fetch again"
                )
        for left in unfinished_in(self._folder(key)):
            problems.append(
                f"{left}: left by a process that was cut off; the next fetch removes it"
            )
        return problems

    def _folder(self, key: SeriesKey) -> Path:
        names = (key.source, key.symbol, str(key.interval))
        return self.root.joinpath(*(_folder_name(name) for name in names))

    def _file(self, key: SeriesKey) -> Path:
        return self._folder(key) / _SERIES

    def _parts(self, key: SeriesKey) -> list[tuple[str, Path]]:
        return [(path.stem, path) for path in sorted(self._folder(key).glob("*.parquet"))]

    def _known(self, key: SeriesKey) -> "_Known":
        path = self._file(key)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or content["symbol"] != key.symbol:
                raise ValueError(f"it is of {content['symbol']}, format {content['format']}")
            spans = tuple((_utc(begins), _utc(ends)) for begins, ends in content["covered"])
            return _Known(tuple(content["columns"]), spans, content["bars"])
        except FileNotFoundError:
            held = _some(self.keys())
            raise StoreError(f"{self.root}: holds no series {key}; there are {held}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: cannot be read: {error}") from error

    @contextmanager
    def _turn(self, folder: Path) -> Iterator[None]:
        """Wait for one's turn to write."""
        try:
            with FileLock(folder / ".lock", timeout=_PATIENCE):
                yield
        except Timeout:
            raise StoreError(
                f"{folder}: another process has been writing it for {_PATIENCE:g} s"
            ) from None


class _Known(NamedTuple):
    """What `series.json` says: columns, spans, and how many bars each file holds at least."""

    columns: tuple[str, ...] = ()
    covered: tuple[Span, ...] = ()
    counts: Mapping[str, int] = {}


def read_revisions(path: Path) -> pd.DataFrame:
    """Read the bars that a source changed: `column`, `before`, `after`, by timestamp."""
    return pd.read_csv(path, index_col="timestamp", parse_dates=True)


def _merge(
    old: pd.DataFrame, new: pd.DataFrame, tolerance: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both together, the new ones first in rank, and what they change."""
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


def _join(covered: Sequence[Span], span: Span) -> tuple[Span, ...]:
    """Return spans with one more, those that touch joined."""
    result: list[Span] = []
    spans: list[Span] = [*covered, span] if span[0] < span[1] else [*covered]
    for begins, ends in sorted(spans, key=lambda each: each[0]):
        if result and begins <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], ends))
        else:
            result.append((begins, ends))
    return tuple(result)


def _part(interval: Interval, time: pd.Timestamp) -> str:
    return str(_parts_of(interval, pd.DatetimeIndex([time]))[0])


def _parts_of(interval: Interval, index: pd.Index) -> np.ndarray:
    """Return the name of the file that each bar belongs into."""
    if interval.unit not in ("m", "h"):
        return np.full(len(index), "all")
    times = pd.DatetimeIndex(index).as_unit("us").asi8.view("datetime64[us]")
    return times.astype("datetime64[M]" if interval.unit == "m" else "datetime64[Y]").astype(str)


def _write_part(path: Path, bars: pd.DataFrame, key: SeriesKey) -> None:
    # Nothing of pandas goes into the file: its version would change the bytes.
    times = pa.array(bars.index.to_numpy(), pa.timestamp("us", tz="UTC"))
    columns = {name: pa.array(bars[name].to_numpy()) for name in bars.columns}
    table = pa.table({"timestamp": times, **columns})
    table = table.replace_schema_metadata({"maml_jax": str(key)})
    with whole_file(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


def _read_part(path: Path) -> pd.DataFrame:
    try:
        table = pq.read_table(path, page_checksum_verification=True, use_threads=False)
        index = pd.DatetimeIndex(table.column("timestamp").to_numpy(), tz="UTC", name="timestamp")
        names = [name for name in table.column_names if name != "timestamp"]
        return pd.DataFrame({name: table.column(name).to_numpy() for name in names}, index)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StoreError(
            f"{path}: is damaged: {error}; delete it and fetch its span again (--again)"
        ) from error


def _rows_of(path: Path) -> int | None:
    """Return how many bars a file holds; None if it is damaged."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return None


def _utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text).tz_convert("UTC").as_unit("us")


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _append_revisions(path: Path, changes: pd.DataFrame) -> None:
    all_ = pd.concat([read_revisions(path), changes]) if path.exists() else changes
    # A writer that was killed between this file and the bars has noted its changes already.
    _write_text(path, all_.reset_index().drop_duplicates().to_csv(index=False))


def no_revisions() -> pd.DataFrame:
    """Return a table of revisions that holds none."""
    index = pd.DatetimeIndex([], tz="UTC", name="timestamp").as_unit("us")
    return pd.DataFrame({"column": [], "before": [], "after": []}, index).astype(
        {"column": str, "before": float, "after": float}
    )


def _known_to_json(key: SeriesKey, known: _Known) -> str:
    record: Mapping = {
        "format": _FORMAT,
        "source": key.source,
        "symbol": key.symbol,
        "interval": str(key.interval),
        "columns": list(known.columns),
        "bars": dict(sorted(known.counts.items())),
        "covered": [[time.isoformat() for time in span] for span in known.covered],
    }
    return json.dumps(record, indent=1) + "\n"


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    index = pd.DatetimeIndex([], tz="UTC", name="timestamp").as_unit("us")
    return pd.DataFrame({name: np.empty(0) for name in columns or COLUMNS}, index)


def _within(index: pd.Index, start: pd.Timestamp | None, end: pd.Timestamp | None) -> np.ndarray:
    inside = np.ones(len(index), bool)
    if start is not None:
        inside &= index >= start
    if end is not None:
        inside &= index < end
    return inside


def _folder_name(name: str) -> str:
    """Write a name such that any file system takes it, and reading it back gives the same."""
    safe = quote(name, safe="-_^=+@,")
    return safe if safe.strip(".") else safe.replace(".", "%2E")


def _matches(key: SeriesKey, parts: Sequence[str]) -> bool:
    if len(parts) == 3:
        return (key.source, key.symbol, key.interval) == (*parts[:2], parse_interval(parts[2]))
    if len(parts) == 2:
        return (key.source, key.interval) == (parts[0], parse_interval(parts[1]))
    return len(parts) == 1 and key.source == parts[0]


def _some(keys: Sequence[SeriesKey], most: int = 5) -> str:
    listed = ", ".join(str(key) for key in keys[:most]) + (", ..." if len(keys) > most else "")
    return listed or "none at all (fetch some first)"
