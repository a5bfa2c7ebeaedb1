"""Fetch bars from a source into a store: what is missing, and revisions of what is there."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from maml_jax.data.interval import MICROSECOND, Interval, parse_interval, parse_moment
from maml_jax.data.names import COLUMNS
from maml_jax.data.sources.source import Page, Source, refuse_impossible
from maml_jax.data.store.series_files import SeriesKey, no_revisions
from maml_jax.data.store.store import Store
from maml_jax.errors import DataError, MamlJaxError, SourceError, StoreError

OVERLAP = 10
"""Bars before the missing ones that are fetched again, in case the source revised them."""

_FLUSH_BARS = 10_000
_FLUSH_SECONDS = 5.0

Progress = Callable[[str, float], None]
"""Called with a symbol and the share of its missing bars that have come, 0 to 1."""


class Fetched(NamedTuple):
    """The result for one series.

    Attributes:
        key: of the series.
        added: number of new bars in the store.
        revised: bars that the source has changed since, as `Written.revised`.
        error: why bars are missing; None if none are.
    """

    key: SeriesKey
    added: int
    revised: pd.DataFrame
    error: MamlJaxError | None = None


@dataclass(frozen=True)
class FetchReport:
    """The result of a fetch.

    Attributes:
        store: with the bars.
        series: one result per symbol.
        start: of the request; None if it continued from the store.
        end: of the request, exclusive.
    """

    store: Store
    series: tuple[Fetched, ...]
    start: pd.Timestamp | None
    end: pd.Timestamp

    @property
    def bars(self) -> dict[str, pd.DataFrame]:
        """The requested bars, by symbol, from the store."""
        sound = [e.key for e in self.series if not isinstance(e.error, StoreError)]
        held = [key for key in sound if self.store.covered(key)]
        return {key.symbol: self.store.read(key, self.start, self.end) for key in held}

    @property
    def errors(self) -> dict[str, MamlJaxError]:
        """Errors by symbol, of series that are not complete."""
        return {each.key.symbol: each.error for each in self.series if each.error is not None}


def fetch(
    source: Source,
    symbols: str | Iterable[str],
    interval: str | Interval,
    *,
    start: str | date | None = None,
    end: str | date | None = None,
    store: Store | str | Path | None = None,
    again: bool = False,
    workers: int = 8,
    progress: Progress | None = None,
) -> FetchReport:
    """Fetch bars of several symbols into a store, only those that it lacks.

    Bars are written every few seconds, so that after an interruption the next call continues from
    there. The last bars before the missing ones are fetched again; where the source has revised
    one, the new value is stored, the old one recorded, and earlier bars are compared too.

    Args:
        source: such as `bybit()`.
        symbols: one or several, as the source writes them.
        interval: length of a bar, such as `"1h"`; see `parse_interval`.
        start: first day or time; None continues from the store.
        end: last day (inclusive) or time; default now. Unfinished bars are never stored.
        store: default the store in the user's data directory.
        again: also fetch bars that the store already has.
        workers: symbols fetched at the same time.
        progress: called with the progress of each symbol, from several threads.

    Returns:
        A report with `bars` and `errors`: one symbol's failure does not stop the others.

    Raises:
        DataError: if interval, dates or symbols make no sense, before anything is fetched.
    """
    interval = parse_interval(interval)
    store = store if isinstance(store, Store) else Store(store)
    names = list(dict.fromkeys([symbols] if isinstance(symbols, str) else symbols))
    if not names or not all(name.strip() and len(name) <= 100 for name in names):
        raise DataError(f"name at least one symbol, of 1 to 100 characters each: {names}")
    if not source.name:
        raise DataError("a source needs a name: it is the folder of its bars in the store")
    if workers < 1:
        raise DataError(f"workers must be at least 1, got {workers}")
    first = None if start is None else parse_moment(start)
    last = parse_moment(datetime.now().astimezone() if end is None else end, end=True)
    if first is not None and first > last:
        raise DataError(f"start {first} is after end {last}")
    keys = [SeriesKey(source.name, name, interval) for name in names]
    new = [key.symbol for key in keys if first is None and not _begun(store, key)]
    if new:
        raise DataError(
            f"start is required: the store has no bars of {', '.join(new)} to continue from"
        )
    stop = threading.Event()

    def work(key: SeriesKey) -> Fetched:
        job = _Job(source, store, key, progress or (lambda *_: None), stop)
        try:
            job.run(first, last + MICROSECOND, again)
        except MamlJaxError as error:
            return Fetched(key, job.added, job.revised(), error)
        except Exception as error:  # a source of the user's own may raise anything
            failure = SourceError(
                f"{source.name}, {key.symbol}: failed with {type(error).__name__}: {error}"
            )
            failure.__cause__ = error
            return Fetched(key, job.added, job.revised(), failure)
        return Fetched(key, job.added, job.revised())

    with ThreadPoolExecutor(max_workers=min(workers, len(keys))) as pool:
        try:
            series = tuple(pool.map(work, keys))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return FetchReport(store, series, first, last + MICROSECOND)


def _begun(store: Store, key: SeriesKey) -> bool:
    """Say whether a series has bars to continue from; a damaged one fails when it is fetched."""
    try:
        return bool(store.covered(key))
    except StoreError:
        return True


class _Job:
    """The fetching of one series."""

    def __init__(self, source, store, key, progress, stop):
        self.source: Source = source
        self.store: Store = store
        self.key: SeriesKey = key
        self.progress: Progress = progress
        self.stop: threading.Event = stop
        self.added = 0
        self._revised: list[pd.DataFrame] = []

    def revised(self) -> pd.DataFrame:
        return pd.concat([no_revisions(), *self._revised]).sort_index(kind="stable")

    def run(self, first: pd.Timestamp | None, end: pd.Timestamp, again: bool) -> None:
        covered = self.store.covered(self.key)
        first = covered[0][0] if first is None else first
        spans = [(first, end)] if again else self.store.missing(self.key, first, end)
        whole = sum(((b - a) for a, b in spans), pd.Timedelta(0))
        done = pd.Timedelta(0)
        for a, b in spans:
            if self.stop.is_set():
                return
            self._span(a, b, lambda at, a=a, done=done: self._report(done + (at - a), whole))
            done += b - a
        if not any(a < b for a, b in self.store.covered(self.key)):
            raise SourceError(
                f"{self.source.name} has no bars of {self.key.symbol} ({self.key.interval}) from "
                f"{first} to {end}; is the symbol right, and was it listed then?"
            )
        self.progress(self.key.symbol, 1.0)

    def _report(self, done: pd.Timedelta, whole: pd.Timedelta) -> None:
        self.progress(self.key.symbol, min(1.0, max(0.0, done / whole)))

    def _span(self, a: pd.Timestamp, b: pd.Timestamp, report) -> None:
        """Fetch the bars of a missing span, and a few known ones before it."""
        begins, known = a, pd.DatetimeIndex([])
        for start, stop in self.store.covered(self.key):
            if start < a <= stop:
                known = pd.DatetimeIndex(self.store.read(self.key, start, a).index)
        back = min(OVERLAP, len(known))
        if back:
            begins = known[-back]
        revised = self._write(begins, b, report)
        while revised and back < len(known) and not self.stop.is_set():
            compared, back = back, min(3 * back, len(known))
            revised = self._write(known[-back], known[-compared], lambda at: None)

    def _write(self, begins: pd.Timestamp, ends: pd.Timestamp, report) -> bool:
        """Fetch a span into the store; say whether any stored bar has changed."""
        waiting: list[pd.DataFrame] = []
        since, at, revised = time.monotonic(), begins, False
        noted = begins

        def flush() -> None:
            nonlocal noted, revised, since
            bars = pd.concat(waiting) if waiting else None
            # A series begins with its first bar: a mistyped symbol leaves no trace.
            if bars is not None and (len(bars) or self.store.covered(self.key)):
                written = self.store.write(
                    self.key, bars, (noted, at), tolerance=self.source.tolerance
                )
                self.added += written.added
                self._revised.append(written.revised)
                revised |= len(written.revised) > 0
                waiting.clear()
                noted = at
            since = time.monotonic()

        try:
            for page in self._pages(begins, ends):
                waiting.append(page.bars)
                at = page.end
                report(at)
                rows = sum(map(len, waiting))
                if rows >= _FLUSH_BARS or time.monotonic() - since > _FLUSH_SECONDS:
                    flush()
                if self.stop.is_set():
                    break
        finally:
            flush()
        return revised

    def _pages(self, begins: pd.Timestamp, ends: pd.Timestamp) -> Iterator[Page]:
        """Yield the source's pages, checked."""
        name, at = f"{self.source.name}, {self.key.symbol}", begins
        for page in self.source.pages(self.key.symbol, self.key.interval, begins, ends):
            try:
                _refuse_page(page, at, self.key.interval.after(ends))
            except ValueError as error:
                raise SourceError(f"{name}: an invalid page: {error}") from error
            yield page
            at = page.end


def _refuse_page(page: Page, begins: pd.Timestamp, latest: pd.Timestamp) -> None:
    bars, index = page.bars, page.bars.index
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        raise ValueError("its index is no DatetimeIndex in UTC")
    if [c for c in COLUMNS if c in bars.columns] != [*bars.columns] or "close" not in bars.columns:
        raise ValueError(f"its columns are {list(bars.columns)}, expected some of {list(COLUMNS)}")
    if not (index.is_monotonic_increasing and index.is_unique):
        raise ValueError("its bars are not in order, or two have the same time")
    if not begins <= page.end <= latest:
        raise ValueError(f"it ends at {page.end}, outside of {begins} to {latest}")
    refuse_impossible(bars, begins, page.end, may_lack=("open",))
