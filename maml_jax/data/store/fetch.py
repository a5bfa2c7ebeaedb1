"""Bars from a source into a store: only what is missing, and what was there is checked."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from maml_jax.data.bars import COLUMNS
from maml_jax.data.interval import MICROSECOND, Interval, parse_interval, parse_moment
from maml_jax.data.sources.source import Page, Source, refuse_impossible
from maml_jax.data.store.series_files import SeriesKey, no_revisions
from maml_jax.data.store.store import Store
from maml_jax.errors import DataError, MamlJaxError, SourceError, StoreError

OVERLAP = 10
"""Bars before the missing ones that are fetched again, to see whether the source revised any."""

_FLUSH_BARS = 10_000
_FLUSH_SECONDS = 5.0

Progress = Callable[[str, float], None]
"""Told of a symbol how much of what is missing is there, from 0 to 1."""


class Fetched(NamedTuple):
    """What came of one series.

    Attributes:
        key: which series.
        added: bars that are new in the store.
        revised: bars that the source changed since, as `Written.revised`.
        error: why the rest is missing; None if nothing is.
    """

    key: SeriesKey
    added: int
    revised: pd.DataFrame
    error: MamlJaxError | None = None


@dataclass(frozen=True)
class FetchReport:
    """What came of a fetch.

    Attributes:
        store: where the bars are.
        series: one for each symbol.
        start: first moment asked for; None is what the store began with.
        end: the moment after the last one.
    """

    store: Store
    series: tuple[Fetched, ...]
    start: pd.Timestamp | None
    end: pd.Timestamp

    @property
    def bars(self) -> dict[str, pd.DataFrame]:
        """The bars asked for, by symbol, from the store."""
        sound = [e.key for e in self.series if not isinstance(e.error, StoreError)]
        held = [key for key in sound if self.store.covered(key)]
        return {key.symbol: self.store.read(key, self.start, self.end) for key in held}

    @property
    def errors(self) -> dict[str, MamlJaxError]:
        """What kept series from being complete, by symbol."""
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
    """Bring bars of several symbols into a store, fetching only what is missing in it.

    What has come is written every few seconds, so that after an interruption the next call goes on
    from there. The last bars before the missing ones are fetched again; where the source has
    revised one, the new value is kept, the old one noted, and the bars before are looked at too.

    Args:
        source: where from, such as `bybit()`.
        symbols: one or several, as the source names them.
        interval: length of a bar, such as `"1h"`; see `parse_interval`.
        start: first moment wanted, a day or more exactly; None goes on from what is there.
        end: last moment wanted (of a day all of it); default now. Unfinished bars are never kept.
        store: where to; default the store in the user's data directory.
        again: fetch what is there already as well.
        workers: symbols fetched at the same time.
        progress: is told how far each symbol is, from several threads.

    Returns:
        What came. Its `bars` are the bars, its `errors` what failed: one symbol's failure does not
        keep the others from being fetched.

    Raises:
        DataError: if interval, dates or symbols make no sense; before anything is fetched.
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
        raise DataError(f"start {first} lies after end {last}")
    keys = [SeriesKey(source.name, name, interval) for name in names]
    new = [key.symbol for key in keys if first is None and not _begun(store, key)]
    if new:
        raise DataError(
            f"name the start: the store holds no bars of {', '.join(new)} to go on from"
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
    """Say whether a series has bars to go on from; one that is damaged fails when it is fetched."""
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
            self._span(a, b, lambda at, a=a, done=done: self._tell(done + (at - a), whole))
            done += b - a
        if not any(a < b for a, b in self.store.covered(self.key)):
            raise SourceError(
                f"{self.source.name} has no bars of {self.key.symbol} ({self.key.interval}) from "
                f"{first} to {end}; is the symbol right, and was it listed then?"
            )
        self.progress(self.key.symbol, 1.0)

    def _tell(self, done: pd.Timedelta, whole: pd.Timedelta) -> None:
        self.progress(self.key.symbol, min(1.0, max(0.0, done / whole)))

    def _span(self, a: pd.Timestamp, b: pd.Timestamp, tell) -> None:
        """Fetch the bars of a missing span, and some before it where there are any."""
        begins, known = a, pd.DatetimeIndex([])
        for start, stop in self.store.covered(self.key):
            if start < a <= stop:
                known = pd.DatetimeIndex(self.store.read(self.key, start, a).index)
        back = min(OVERLAP, len(known))
        if back:
            begins = known[-back]
        revised = self._write(begins, b, tell)
        while revised and back < len(known) and not self.stop.is_set():
            looked, back = back, min(3 * back, len(known))
            revised = self._write(known[-back], known[-looked], lambda at: None)

    def _write(self, begins: pd.Timestamp, ends: pd.Timestamp, tell) -> bool:
        """Fetch a span into the store; say whether bars that were there have changed."""
        waiting: list[pd.DataFrame] = []
        since, at, revised = time.monotonic(), begins, False
        noted = begins

        def flush() -> None:
            nonlocal noted, revised, since
            bars = pd.concat(waiting) if waiting else None
            # Before its first bar a series is not begun: a mistyped symbol leaves no trace.
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
                tell(at)
                rows = sum(map(len, waiting))
                if rows >= _FLUSH_BARS or time.monotonic() - since > _FLUSH_SECONDS:
                    flush()
                if self.stop.is_set():
                    break
        finally:
            flush()
        return revised

    def _pages(self, begins: pd.Timestamp, ends: pd.Timestamp) -> Iterator[Page]:
        """Ask the source, whose pages must be what they promise."""
        name, at = f"{self.source.name}, {self.key.symbol}", begins
        for page in self.source.pages(self.key.symbol, self.key.interval, begins, ends):
            try:
                _refuse_page(page, at, self.key.interval.after(ends))
            except ValueError as error:
                raise SourceError(f"{name}: a page cannot be right: {error}") from error
            yield page
            at = page.end


def _refuse_page(page: Page, begins: pd.Timestamp, latest: pd.Timestamp) -> None:
    bars, index = page.bars, page.bars.index
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        raise ValueError("its index is no DatetimeIndex in UTC")
    if [c for c in COLUMNS if c in bars.columns] != [*bars.columns] or "close" not in bars.columns:
        raise ValueError(f"its columns are {list(bars.columns)}, expected some of {list(COLUMNS)}")
    if not (index.is_monotonic_increasing and index.is_unique):
        raise ValueError("its bars are not in order, or two have one time")
    if not begins <= page.end <= latest:
        raise ValueError(f"it ends at {page.end}, outside of {begins} to {latest}")
    refuse_impossible(bars, begins, page.end)
