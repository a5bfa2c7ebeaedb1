"""Bars on disk: Parquet files by source, symbol and interval, written atomically.

    <root>/<source>/<symbol>/<interval>/series.json      which spans were requested
                                        2023.parquet     its bars: a file per month of minutes, per
                                                         year of hours, else one
                                        revisions.csv    bars that the source changed later

The bytes of a file depend on its bars alone, not on the order in which they came. Bars are written
before the span that they cover is recorded, so whatever kills a writer, what is recorded is there.
Writers of one series take turns, by a lock that the operating system frees when one dies.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import pandas as pd
import platformdirs
import pyarrow as pa
from filelock import FileLock, Timeout

from maml_jax.atomic import find_unfinished
from maml_jax.data.interval import Interval, parse_interval
from maml_jax.data.store.series_files import (
    Known,
    SeriesKey,
    Span,
    append_revisions,
    empty,
    folder_name,
    join_spans,
    merge,
    no_revisions,
    part_of,
    parts_of,
    read_known,
    read_part,
    read_revisions,
    rows_of,
    write_known,
    write_part,
)
from maml_jax.errors import DataError, StoreError

ROOT_VARIABLE = "MAML_JAX_STORE"
"""Environment variable that names the default store."""

_SERIES = "series.json"
_REVISIONS = "revisions.csv"
_PATIENCE = 60.0
"""Seconds to wait for another writer of the same series."""


class Written(NamedTuple):
    """What a write changed.

    Attributes:
        added: number of new bars.
        revised: bars that differ from the stored ones: columns `column`, `before`, `after`, by
            timestamp.
    """

    added: int
    revised: pd.DataFrame


class SeriesInfo(NamedTuple):
    """What is known of a series without reading all of it.

    Attributes:
        key: of the series.
        bars: number of bars.
        first: opening time of the first bar.
        last: opening time of the last bar.
        covered: spans `[from, to)` that were requested from the source, ascending and disjoint.
        bytes: size on disk.
        revised: number of bars that the source changed later.
    """

    key: SeriesKey
    bars: int
    first: pd.Timestamp | None
    last: pd.Timestamp | None
    covered: tuple[Span, ...]
    bytes: int
    revised: int


def default_root() -> Path:
    """Return the default store: `$MAML_JAX_STORE`, or in the platform's data directory."""
    root = os.environ.get(ROOT_VARIABLE)
    return Path(root) if root else Path(platformdirs.user_data_dir("maml_jax")) / "bars"


@dataclass(frozen=True)
class Store:
    """A directory of bars.

    Attributes:
        root: the directory; created on the first write.
    """

    root: Path

    def __init__(self, root: str | Path | None = None):
        object.__setattr__(self, "root", default_root() if root is None else Path(root))

    def keys(self) -> list[SeriesKey]:
        """Return all series, in order."""
        files = sorted(self.root.glob(f"*/*/*/{_SERIES}"))
        found = [tuple(unquote(part) for part in file.parts[-4:-1]) for file in files]
        intervals = [_interval(c) for _, _, c in found]
        return [
            SeriesKey(a, b, interval)
            for (a, b, _), interval in zip(found, intervals, strict=True)
            if interval is not None
        ]

    def find(self, text: str) -> list[SeriesKey]:
        """Find series by name: `source`, `source/interval` or `source/symbol/interval`.

        Raises:
            StoreError: if there is none.
        """
        begin, _, last = text.strip("/").rpartition("/")
        interval = _interval(last)
        wanted = {text.strip("/"), f"{begin}/{interval}" if begin and interval else ""}
        found = [
            key
            for key in self.keys()
            if wanted & {key.source, f"{key.source}/{key.interval}", str(key)}
        ]
        if not found:
            raise StoreError(
                f"{self.root}: has no series {text!r}; expected source, source/interval or "
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
            raise StoreError(f"{self.root}: {key} has no bars")
        first = None if start is None else part_of(key.interval, start)
        last = None if end is None else part_of(key.interval, end)
        parts = {*known.counts, *(part for part, _ in self._parts(key))}
        frames = [
            self._read_whole(key, part, known.counts.get(part, 0))
            for part in sorted(parts)
            if (first is None or part >= first) and (last is None or part <= last)
        ]
        if not frames:
            return empty(known.columns)
        bars = pd.concat(frames) if len(frames) > 1 else frames[0]
        return bars if start is None and end is None else bars[_within(bars.index, start, end)]

    def _read_whole(self, key: SeriesKey, part: str, least: int) -> pd.DataFrame:
        path = self._folder(key) / f"{part}.parquet"
        bars = read_part(path) if path.exists() else None
        if bars is None or len(bars) < least:
            held = "is missing" if bars is None else f"holds {len(bars)} bars"
            raise StoreError(
                f"{path}: {held}, but {least} were written; fetch its span again (--again)"
            )
        return bars

    def covered(self, key: SeriesKey) -> tuple[Span, ...]:
        """Return the spans requested from the source; none for an unknown series."""
        return self._known(key).covered if self._file(key).exists() else ()

    def missing(self, key: SeriesKey, start: pd.Timestamp, end: pd.Timestamp) -> list[Span]:
        """Return the parts of `[start, end)` that were never requested from the source."""
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

        Where a stored bar differs by more than the tolerance, the new one replaces it and
        `revisions.csv` records both.

        Args:
            key: of the series.
            bars: in normal form, within the span.
            covered: `[from, to)`: the bars are all that the source has in this span.
            tolerance: relative difference up to which the stored bar stays.

        Raises:
            StoreError: if the columns are not those of the series, or it cannot be written.
        """
        folder = self._folder(key)
        added, revised = 0, [no_revisions()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._turn(folder):
                for left in find_unfinished(folder):  # of a process that was killed
                    left.unlink()
                known = self._known(key) if self._file(key).exists() else Known()
                columns = known.columns or tuple(bars.columns if len(bars) else ())
                if len(bars) and tuple(bars.columns) != columns:
                    raise StoreError(
                        f"{key}: its columns are {list(columns)}, and the new bars have "
                        f"{list(bars.columns)}"
                    )
                parts, counts = parts_of(key.interval, bars.index), dict(known.counts)
                for part in np.unique(parts):
                    path = folder / f"{part}.parquet"
                    old = read_part(path) if path.exists() else empty(columns)
                    merged, changes = merge(old, bars[parts == part], tolerance)
                    added += len(merged) - len(old)
                    if len(changes):
                        append_revisions(folder / _REVISIONS, changes)
                    if len(changes) or len(merged) > len(old):
                        write_part(path, merged, key)
                    revised.append(changes)
                    counts[str(part)] = len(merged)
                now = Known(columns, join_spans(known.covered, covered), counts)
                if now != known:
                    write_known(self._file(key), key, now)
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
        ends = [read_part(parts[i][1]).index for i in (0, -1)] if parts else []
        revisions = self._folder(key) / _REVISIONS
        return SeriesInfo(
            key=key,
            bars=sum(rows_of(path) or 0 for _, path in parts),
            first=ends[0][0] if ends else None,
            last=ends[1][-1] if ends else None,
            covered=known.covered,
            bytes=sum(file.stat().st_size for file in self._folder(key).iterdir()),
            revised=len(read_revisions(revisions)) if revisions.exists() else 0,
        )

    def verify(self, key: SeriesKey) -> list[str]:
        """Read all of a series and return what is wrong with its files.

        Bit errors are found by the checksum of each page.
        """
        try:
            known = self._known(key)
        except StoreError as error:
            return [str(error)]
        problems, there = [], dict(self._parts(key))
        for part, count in known.counts.items():
            held = rows_of(there[part]) if part in there else 0
            if held is not None and held < count:
                problems.append(
                    f"{self._folder(key) / part}.parquet: holds {held} bars, but {count} were "
                    "written; fetch its span again (--again)"
                )
        for part, path in there.items():
            try:
                bars = read_part(path)
            except StoreError as error:
                problems.append(str(error))
                continue
            index = pd.DatetimeIndex(bars.index)
            if tuple(bars.columns) != known.columns:
                problems.append(f"{path}: its columns are {list(bars.columns)}")
            if not (index.is_monotonic_increasing and index.is_unique):
                problems.append(f"{path}: its bars are not in order")
            if (parts_of(key.interval, index) != part).any():
                problems.append(f"{path}: holds bars that belong in another file")
            others = [column for column in bars.columns if column != "open"]
            if not np.isfinite(bars[others].to_numpy()).all():
                problems.append(f"{path}: holds values that are not finite")
            inside = np.zeros(len(index), bool)
            for begins, ends in known.covered:
                inside |= (index >= begins) & (index < ends)
            if not inside.all():
                problems.append(
                    f"{path}: {int((~inside).sum())} bars are not recorded as fetched, from "
                    f"{index[~inside][0]}: a fetch was interrupted; fetch again"
                )
        for left in find_unfinished(self._folder(key)):
            problems.append(f"{left}: left by an interrupted process; the next fetch removes it")
        return problems

    def _folder(self, key: SeriesKey) -> Path:
        names = (key.source, key.symbol, str(key.interval))
        return self.root.joinpath(*(folder_name(name) for name in names))

    def _file(self, key: SeriesKey) -> Path:
        return self._folder(key) / _SERIES

    def _parts(self, key: SeriesKey) -> list[tuple[str, Path]]:
        return [(path.stem, path) for path in sorted(self._folder(key).glob("*.parquet"))]

    def _known(self, key: SeriesKey) -> Known:
        path = self._file(key)
        if not path.exists():
            held = _some(self.keys())
            raise StoreError(f"{self.root}: has no series {key}; it has {held}")
        return read_known(path, key.symbol)

    @contextmanager
    def _turn(self, folder: Path) -> Iterator[None]:
        """Wait for our turn to write."""
        try:
            with FileLock(folder / ".lock", timeout=_PATIENCE):
                yield
        except Timeout:
            raise StoreError(
                f"{folder}: another process has been writing it for {_PATIENCE:g} s"
            ) from None


def _within(index: pd.Index, start: pd.Timestamp | None, end: pd.Timestamp | None) -> np.ndarray:
    inside = np.ones(len(index), bool)
    if start is not None:
        inside &= index >= start
    if end is not None:
        inside &= index < end
    return inside


def _interval(text: str) -> Interval | None:
    try:
        return parse_interval(text)
    except DataError:
        return None


def _some(keys: Sequence[SeriesKey], most: int = 5) -> str:
    listed = ", ".join(str(key) for key in keys[:most]) + (", ..." if len(keys) > most else "")
    return listed or "none yet (fetch some first)"
