"""Bars of stocks, indices and currencies from Yahoo, through yfinance."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax import watchdog
from maml_jax.data.interval import Interval
from maml_jax.data.names import COLUMNS, PRICES, plain_name
from maml_jax.data.sources.http import Retries, TransientError
from maml_jax.data.sources.source import Page, Source, make_bars, refuse_impossible
from maml_jax.errors import DataError, SourceError

TOLERANCE = 1e-5
"""Relative; Yahoo's prices have float32 precision, and adjusted ones are products of several."""

_REQUESTS = 4
"""About as many as yfinance makes per call, those for its cookies included."""


class _Offer(NamedTuple):
    """What Yahoo offers of an interval.

    Attributes:
        name: of the interval at Yahoo.
        margin: requested in addition on either side, so that holidays are not taken for a missing
            symbol.
        days: how far the history goes back; None for all of it.
        page: days per request; None for any number.
    """

    name: str
    margin: pd.Timedelta
    days: int | None = None
    page: int | None = None


_TEN_DAYS = pd.Timedelta(days=10)
_OFFERS = {
    "1m": _Offer("1m", pd.Timedelta(days=2), 30, 3),  # 8 days a request are allowed
    **{name: _Offer(name, _TEN_DAYS, 60) for name in ("2m", "5m", "15m", "30m", "90m")},
    "1h": _Offer("1h", _TEN_DAYS, 730),
    "1d": _Offer("1d", _TEN_DAYS),
    "1w": _Offer("1wk", pd.Timedelta(days=28)),
    "1mo": _Offer("1mo", pd.Timedelta(days=93)),
}
_FIRST = pd.Timestamp("1900-01-01", tz="UTC")
_DAY = pd.Timedelta(days=1)
_MINUTE = pd.Timedelta(minutes=1)

_lock = threading.Lock()
_asking = 0
"""Threads within yfinance, whose settings all threads share."""
_before: dict[str, Any] = {}
"""These settings before the first of them."""


def yahoo(
    *,
    adjusted: bool = True,
    retries: Retries = Retries(5, first=2.0),  # noqa: B008 (a constant)
    timeout: float = 15.0,
    now: Callable[[], pd.Timestamp] = lambda: pd.Timestamp.now("UTC"),
) -> Source:
    """Make a source of Yahoo's bars; no account is needed, the package yfinance is.

    Daily, weekly and monthly bars are stamped with the exchange's local day at midnight UTC, and
    are finished when that day, week or month is over in the exchange's time zone. Shorter bars open
    at a time in UTC and are finished when their length has passed. Minutes reach back 30 days,
    hours 730, intervals between them 60.

    A row without any price, as Yahoo has on holidays, is not a bar. A row that lacks a value is
    refused, as are prices that are not positive.

    Args:
        adjusted: for dividends and splits; otherwise for splits alone. A dividend changes the whole
            history before it, which `fetch` notices in the last bars and then fetches again.
        retries: after rate limits, failed connections, and replies that yfinance cannot read.
        timeout: seconds for a reply.
        now: the clock.

    Returns:
        A source named `yahoo` or `yahoo-unadjusted`, with a tolerance of 1e-5.
    """

    def pages(symbol, interval, start, end) -> Iterator[Page]:
        offer = _OFFERS.get(str(interval))
        if offer is None:
            raise DataError(f"interval {interval}: Yahoo has {', '.join(_OFFERS)}")
        package, moment = _yfinance(), now()
        request = _Request(symbol, interval, offer, adjusted, moment)
        request.refuse_too_old(start)
        at, reached = start, start
        while at < min(end, moment + _DAY):  # somewhere it is tomorrow already
            until = end if offer.page is None else min(end, at + pd.Timedelta(days=offer.page))
            table = _get(package, request, at, until, retries, timeout)
            bars, reach = _read(table, request, at, until)
            # Beyond the last bar nothing is certain: the next may be late.
            if min(until, reach) > reached:
                reached = min(until, reach)
                yield Page(bars, reached)
            at = until

    return Source("yahoo" if adjusted else "yahoo-unadjusted", pages, TOLERANCE)


class _Request(NamedTuple):
    """A request, and when it is made."""

    symbol: str
    interval: Interval
    offer: _Offer
    adjusted: bool
    now: pd.Timestamp

    def __str__(self) -> str:
        return f"{self.symbol} ({self.interval})"

    @property
    def intraday(self) -> bool:
        return self.interval.unit in ("m", "h")

    @property
    def horizon(self) -> pd.Timestamp:
        """The time before which Yahoo has no bars any more."""
        days = self.offer.days
        return _FIRST if days is None else self.now - pd.Timedelta(days=days) + _MINUTE

    def refuse_too_old(self, start: pd.Timestamp) -> None:
        if self.offer.days is not None and start < self.horizon:
            day = (self.horizon + _DAY).strftime("%Y-%m-%d")
            raise SourceError(
                f"Yahoo has bars of {self.interval} for the last {self.offer.days} days only, and "
                f"those of {self.symbol} are requested from {start}; start on {day} or later, or "
                "use a longer interval"
            )

    def window(self, start: pd.Timestamp, end: pd.Timestamp) -> tuple[Any, Any]:
        """Return the start and end of the request; days are local to the exchange."""
        first = max(self.interval.floor(start) - self.offer.margin, self.horizon)
        last = min(end + self.offer.margin, self.now + 2 * _DAY)
        if self.intraday:
            return first, last
        first = self.interval.floor(first)  # weeks are counted from the first day requested
        return first.strftime("%Y-%m-%d"), (last + _DAY).strftime("%Y-%m-%d")


def _yfinance() -> Any:
    try:
        return import_module("yfinance")
    except ImportError as error:
        raise SourceError(
            f"bars from Yahoo need the package yfinance ({error}): pip install 'maml-jax[yahoo]'"
        ) from error


def _get(
    package: Any,
    request: _Request,
    start: pd.Timestamp,
    end: pd.Timestamp,
    retries: Retries,
    timeout: float,
) -> pd.DataFrame:
    """Request until there is a table.

    Raises:
        SourceError: if there is none, or all attempts fail.
    """
    problem = ""
    for attempt in range(retries.attempts):
        try:
            with _raise_errors(package):
                return _get_once(package, request, start, end, timeout)
        except TransientError as failure:
            problem = str(failure)
        if attempt + 1 < retries.attempts:
            wait = retries.wait(attempt)
            watchdog.progress(wait)
            time.sleep(wait)
            _forget_replies(package)
    raise SourceError(f"Yahoo, {request}: {problem}; gave up after {retries.attempts} attempts")


def _get_once(package, request, start, end, timeout) -> pd.DataFrame:
    first, last = request.window(start, end)
    said = ""
    watchdog.progress(_REQUESTS * timeout)
    try:
        table = package.Ticker(request.symbol).history(
            interval=request.offer.name,
            start=first,
            end=last,
            auto_adjust=request.adjusted,
            actions=False,
            keepna=True,
            timeout=timeout,
        )
    except Exception as error:  # yfinance lets through what anything below it raises
        said = " ".join(str(error).split())[:300]
        names = {kind.__name__ for kind in type(error).__mro__}
        if "YFRateLimitError" in names:
            raise TransientError("too many requests (rate limit); wait an hour") from error
        status = getattr(getattr(error, "response", None), "status_code", None)
        refused = isinstance(status, int) and 400 <= status < 500 and status != 429
        if "YFTickerMissingError" not in names and not refused:
            raise TransientError(f"yfinance failed with {type(error).__name__}: {said}") from error
        table = pd.DataFrame()
    if not isinstance(table, pd.DataFrame) or table.empty:
        said = f" (it says: {said})" if said else ""
        kept = request.offer.days
        limit = f", and Yahoo keeps {request.interval} for {kept} days only" if kept else ""
        raise SourceError(
            f"Yahoo has no bars of {request} from {first} to {last}{said}; is the symbol written "
            f"as on finance.yahoo.com, and was it listed then? It may be delisted{limit}"
        )
    return table


@contextmanager
def _raise_errors(package: Any) -> Iterator[None]:
    """Make yfinance raise what it would log, and print nothing, while any thread uses it."""
    global _asking
    debug, logger = package.config.debug, logging.getLogger("yfinance")
    with _lock:
        _asking += 1
        if _asking == 1:
            _before["hide"], _before["handler"] = debug.hide_exceptions, logging.NullHandler()
            debug.hide_exceptions = False
            logger.addHandler(_before["handler"])
    try:
        yield
    finally:
        with _lock:
            _asking -= 1
            if _asking == 0:
                debug.hide_exceptions = _before["hide"]
                logger.removeHandler(_before["handler"])


def _forget_replies(package: Any) -> None:
    """Clear the replies that yfinance caches: a failure among them would repeat for ever."""
    kept = getattr(getattr(package, "data", None), "YfData", None)
    clear = getattr(getattr(kept, "cache_get", None), "cache_clear", None)
    if clear is not None:
        clear()


def _read(
    table: pd.DataFrame, request: _Request, start: pd.Timestamp, end: pd.Timestamp
) -> tuple[pd.DataFrame, pd.Timestamp]:
    """Return the finished bars that open from `start` to before `end`, and where all of them end.

    Raises:
        SourceError: naming date and column.
    """
    try:
        flat = _flat(table, request.symbol).sort_index()
        opened, finished = _times(flat.index, request)
        keep = finished & flat[[c for c in PRICES if c in flat]].notna().any(axis=1).to_numpy()
        bars = make_bars(
            opened[keep].asi8.tolist(), flat.to_numpy()[keep], list(flat.columns), unit="us"
        )
        reach = request.interval.after(bars.index[-1]) if len(bars) else start
        bars = bars[(bars.index >= start) & (bars.index < end)]
        refuse_impossible(bars, start, end)
    except (ValueError, TypeError) as error:
        raise SourceError(
            f"Yahoo returned implausible bars of {request}: {error}; start later, or try again "
            "another day" + (", or use unadjusted prices" if request.adjusted else "")
        ) from error
    return bars, reach


def _flat(table: pd.DataFrame, symbol: str) -> pd.DataFrame:
    """Return the columns of one symbol in normal form, whatever the layout."""
    if isinstance(table.columns, pd.MultiIndex):
        levels = [table.columns.get_level_values(i) for i in range(table.columns.nlevels)]
        fields = [i for i, level in enumerate(levels) if "close" in map(plain_name, level)]
        if len(levels) != 2 or not fields:
            raise ValueError(f"its columns are {list(table.columns)}")
        names = levels[1 - fields[0]]
        mine = np.array([str(name).upper() == symbol.upper() for name in names])
        if not mine.any():
            if len(names.unique()) > 1:
                raise ValueError(f"they are of {', '.join(map(str, names.unique()))}")
            mine[:] = True
        table = table.loc[:, mine].set_axis(levels[fields[0]][mine], axis="columns")
    named = {plain_name(column): column for column in table.columns}
    if "close" not in named:
        raise ValueError(f"there is no column 'close' in {list(table.columns)}")
    flat = pd.DataFrame({name: table[named[name]] for name in COLUMNS if name in named})
    return flat.astype("float64")


def _times(index: pd.Index, request: _Request) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """Return when bars open, in normal form, and which of them are finished."""
    if not isinstance(index, pd.DatetimeIndex) or index.tz is None:
        raise ValueError("their times have no time zone")
    if request.intraday:
        opened = index.tz_convert("UTC").as_unit("us")
        live = opened.second != 0
        if len(live):
            live[-1:] = False
        if live.any():
            raise ValueError(f"one opens at {opened[live][0]}")
        # The last row may be the current price, which is not a bar.
        whole = np.asarray(opened.second == 0)
        return opened, whole & np.asarray(opened + request.interval.step <= request.now)
    opened = index.tz_localize(None).normalize().tz_localize("UTC").as_unit("us")
    today = request.now.tz_convert(index.tz).tz_localize(None).normalize().tz_localize("UTC")
    period = request.interval.open_times(opened).as_unit("us")
    finished = np.asarray(period < request.interval.floor(today))
    # The very first bar may carry the day of the listing.
    off = np.asarray(opened != period) & finished
    off[:1] = False
    if off.any():
        raise ValueError(f"one opens on {opened[off][0]:%Y-%m-%d}, not every {request.interval}")
    return period, finished
