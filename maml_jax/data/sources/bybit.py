"""Bars from Bybit: spot, linear and inverse contracts, from the public API v5."""

import json
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from maml_jax import watchdog
from maml_jax.data.interval import MICROSECOND, Interval, parse_interval
from maml_jax.data.names import COLUMNS
from maml_jax.data.sources.http import Client, RateLimit, Reply, Retries, TransientError, plain_text
from maml_jax.data.sources.source import Page, Source, make_bars, refuse_impossible
from maml_jax.errors import DataError, SourceError

Category = Literal["spot", "linear", "inverse"]

ADDRESS = "https://api.bybit.com"
TESTNET = "https://api-testnet.bybit.com"

PER_SECOND = 100.0
"""Requests per second; Bybit allows 600 in 5 s per IP address."""

_INTERVALS = {
    **{f"{n}m": str(n) for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": str(60 * n) for n in (1, 2, 4, 6, 12)},
    "1d": "D",
    "1w": "W",
    "1mo": "M",
}
_ROWS = 1000
_FIELDS = ("start", *COLUMNS, "turnover")
"""Of a kline, in order; a reply may leave out the last two."""
_LONG_STRETCH = 100
_RATE_LIMITED = {10006, 10018}
_PASSING = _RATE_LIMITED | {10000, 10016}
_LONGEST_PERIOD = 10.0
"""Seconds of a rate limit. A server's clock and ours may differ by more than a period."""

_REFUSALS = {
    403: "Bybit refuses this IP address: too many requests (wait ten minutes and lower the rate),"
    " or it is in a country that Bybit does not serve",
}


def bybit(
    category: Category = "linear",
    *,
    address: str = ADDRESS,
    per_second: float | None = PER_SECOND,
    retries: Retries = Retries(),  # noqa: B008 (a constant)
    timeout: float = 15.0,
    deadline: float = 60.0,
) -> Source:
    """Make a source of Bybit's klines; no account is needed.

    Each request is for an explicit window of 1,000 bars. A bar is finished when the next one has
    opened by the clock of the reply. Holes in a window are requested once more, long ones twice, so
    that a bad reply leaves none.

    Args:
        category: `spot`, `linear` (contracts in USDT or USDC) or `inverse` (contracts in coins).
        address: of the server, such as `TESTNET`.
        per_second: requests per second, over all symbols and threads; None for no limit of ours.
            The server's `X-Bapi` headers are obeyed in any case.
        retries: after time-outs, broken replies, HTTP 429 and 5xx, and codes 10000, 10006, 10016
            and 10018.
        timeout: seconds for a connection and for each part of a reply.
        deadline: seconds for a whole reply.

    Returns:
        A source named `bybit-<category>`, on the testnet `bybit-<category>-testnet`.

    Raises:
        DataError: if there is no such category.

    References:
        Bybit, API v5, "Get Kline" (GET /v5/market/kline).
    """
    if category not in get_args(Category):
        raise DataError(f"category {category!r}: expected one of {get_args(Category)}")
    client = Client(
        RateLimit(per_second),
        retries,
        observe=_observe,
        refusals=_REFUSALS,
        timeout=timeout,
        deadline=deadline,
    )
    url = address.rstrip("/") + "/v5/market/kline"

    def pages(symbol, interval, start, end) -> Iterator[Page]:
        if str(interval) not in _INTERVALS:
            raise DataError(f"interval {interval}: Bybit has {', '.join(_INTERVALS)}")

        def get(first: pd.Timestamp, last: pd.Timestamp) -> _Window:
            request = _Request(symbol, category, interval, first, last)
            return client.get(url, request.params(), lambda reply: _read(reply, request))

        first = interval.floor(start)
        first, begun = first if first == start else interval.after(first), False
        while first < end:
            last = min(interval.after(first, _ROWS - 1), interval.floor(end - MICROSECOND))
            window = _fill_holes(get, interval, first, last, begun=begun, retries=retries)
            begun = begun or len(window.bars) > 0
            yield Page(window.bars, min(interval.after(last), max(window.open, first)))
            if window.open <= last:
                return
            first = interval.after(last)

    name = f"bybit-{category}" + ("-testnet" if "testnet" in address else "")
    return Source(name, pages)


class _Request(NamedTuple):
    """A window of a series, from one opening time to another."""

    symbol: str
    category: str
    interval: Interval
    first: pd.Timestamp
    last: pd.Timestamp

    def __str__(self) -> str:
        return f"{self.symbol} ({self.category})"

    def params(self) -> dict[str, str | int]:
        return {
            "category": self.category,
            "symbol": self.symbol,
            "interval": _INTERVALS[str(self.interval)],
            "start": int(self.first.timestamp() * 1000),
            "end": int(self.last.timestamp() * 1000),
            "limit": _ROWS,
        }


class _Window(NamedTuple):
    """The finished bars of a reply, and the opening time of the unfinished one."""

    bars: pd.DataFrame
    open: pd.Timestamp


def _fill_holes(
    get: Callable[[pd.Timestamp, pd.Timestamp], _Window],
    interval: Interval,
    first: pd.Timestamp,
    last: pd.Timestamp,
    *,
    begun: bool,
    retries: Retries,
) -> _Window:
    """Get a window, and each stretch that is missing in it until nothing new comes.

    After the first bars, a long stretch is requested three times before it is believed.
    """
    window = get(first, last)
    bars, absent = window.bars, pd.DatetimeIndex([], tz="UTC")
    while True:
        finished = min(last, interval.after(window.open, -1))
        due = pd.date_range(first, finished, freq=_frequency(interval), unit="us")
        missing = due.difference(pd.DatetimeIndex(bars.index)).difference(absent)
        if missing.empty:
            return _Window(bars, window.open)
        place = due.get_indexer(pd.DatetimeIndex(missing))
        stretch = missing[: 1 + int((np.diff(place, append=-1) != 1).argmax())]
        for attempt in range(3 if begun and len(stretch) > _LONG_STRETCH else 1):
            if attempt:
                wait = retries.wait(attempt)
                watchdog.progress(wait)
                time.sleep(wait)
            again = get(stretch[0], stretch[-1]).bars
            if len(again):
                bars = pd.concat([bars, again]).sort_index()
                bars = bars[~bars.index.duplicated()]
                break
        else:
            absent = absent.union(stretch)


def _frequency(interval: Interval) -> pd.Timedelta | pd.DateOffset:
    return pd.DateOffset(months=interval.count) if interval.unit == "mo" else interval.step


def _read(reply: Reply, request: _Request) -> _Window:
    """Read a reply, trusting nothing in it.

    Raises:
        TransientError: if it is not from Bybit, or makes no sense.
        SourceError: if Bybit refuses.
    """
    if reply.status == 404:
        raise SourceError(f"{reply.url}: no such page; is this an address of Bybit?")
    try:
        content = json.loads(reply.body)
        code = content["retCode"]
        if not isinstance(code, int):
            raise TypeError(f"its retCode is {code!r}")
    except (ValueError, RecursionError, KeyError, TypeError):
        start = plain_text(reply.body[:60].decode("utf-8", "replace"))
        raise TransientError(f"the reply is not from Bybit: {start!r}...") from None
    if code != 0:
        reason = plain_text(content.get("retMsg")) or "no reason given"
        message = f"Bybit answers {code} for {request}: {reason}"
        if code in _PASSING:
            raise TransientError(message, _until_reset(reply) if code in _RATE_LIMITED else None)
        hint = "; are symbol and category right?" if code == 10001 else ""
        raise SourceError(message + hint)
    try:
        moment = pd.Timestamp(_whole(content["time"]), unit="ms", tz="UTC").as_unit("us")
        if not 2010 <= moment.year < 2100:
            raise ValueError(f"its time is {moment}")
        result = content["result"]
        for name, wanted in (("symbol", request.symbol), ("category", request.category)):
            if result.get(name, wanted) != wanted:
                raise ValueError(f"it is about {name} {result[name]}")
        rows = result["list"]
        opened = [_whole(row[0]) for row in rows]
        values = np.array([[_number(row[i]) for i in range(1, 6)] for row in rows], float)
        bars = make_bars(opened, values.reshape(len(rows), 5), COLUMNS)
        refuse_impossible(bars, request.first, request.last + MICROSECOND)
        if (request.interval.open_times(pd.DatetimeIndex(bars.index)) != bars.index).any():
            raise ValueError(f"its bars do not open every {request.interval}")
    except (ValueError, OverflowError) as error:
        raise TransientError(f"the reply for {request} makes no sense: {error}") from None
    except (LookupError, TypeError, AttributeError):
        raise TransientError(
            f"the reply for {request} makes no sense: not a kline response"
        ) from None
    unfinished = request.interval.floor(moment)
    return _Window(bars[bars.index < unfinished], unfinished)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not _is_plain(value):
        raise ValueError(f"{value!r} is not a time")
    return int(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not _is_plain(value):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _is_plain(value: object) -> bool:
    """Say whether text is a number outside of Python, too: no underscores, ASCII only."""
    return not isinstance(value, str) or value.isascii() and "_" not in value


def _observe(limit: RateLimit, reply: Reply) -> None:
    """Obey `X-Bapi-Limit`, `X-Bapi-Limit-Status` (requests left) and its reset."""
    left = reply.headers.get("x-bapi-limit-status", "")
    if left.isdigit():
        allowed = reply.headers.get("x-bapi-limit", "")
        limit.learn(
            limit=int(allowed) if allowed.isdigit() and int(allowed) else None,
            left=int(left),
            seconds=_until_reset(reply) or 0.0,
        )


def _until_reset(reply: Reply) -> float | None:
    """Return the seconds until the rate limit resets, if the reply says so."""
    reset = reply.headers.get("x-bapi-limit-reset-timestamp", "")
    if not reset.isdigit():
        return None
    ahead = int(reset) / 1000 - time.time()
    if not 0 <= ahead <= _LONGEST_PERIOD:  # then the clocks differ
        try:
            ahead = int(reset) / 1000 - parsedate_to_datetime(reply.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            pass
    return min(max(ahead, 0.0), _LONGEST_PERIOD)


def is_saved_reply(content: Any) -> bool:
    """Say whether the content of a JSON file is a reply of Bybit."""
    return isinstance(content, dict) and "retCode" in content


def read_saved_reply(path: Path, content: dict) -> pd.DataFrame:
    """Read a saved reply as a table, without the bar that was unfinished at its time.

    Args:
        path: of the file, for error messages.
        content: what the file holds; see `is_saved_reply`.

    Returns:
        A table for `to_bars`: start, prices, volume, turnover as text, and `symbol`.

    Raises:
        DataError: naming the file, and what Bybit says if the reply is a failure.
    """
    if content["retCode"] != 0:
        reason = content.get("retMsg") or "no reason given"
        raise DataError(f"{path}: holds no bars: Bybit answers {content['retCode']}: {reason}")
    try:
        result, time = content["result"], int(content["time"])
        rows, symbol = result["list"], result["symbol"]
        width = {len(row) for row in rows}
        if not rows or len(width) > 1 or not 5 <= min(width) <= len(_FIELDS):
            raise ValueError(
                f"rows of {sorted(width)} values, expected 5 to {len(_FIELDS)} in each"
            )
        table = pd.DataFrame(rows, columns=list(_FIELDS[: width.pop()]))
        opened = table["start"].astype("int64")
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is not a Bybit kline response: {error}") from error
    return table[_is_finished(opened, time)].reset_index(drop=True).assign(symbol=symbol)


def _is_finished(opened: pd.Series, time: int) -> np.ndarray:
    """Say which bars had ended at a moment, in ms; of a single bar nobody knows when it ends."""
    if len(opened) < 2:
        return np.ones(len(opened), bool)
    times = pd.DatetimeIndex(opened.to_numpy("datetime64[ms]"), tz="UTC")
    step = times.sort_values().diff().min()
    minutes = max(1, round(step / pd.Timedelta(minutes=1)))
    interval = parse_interval("1mo" if step >= pd.Timedelta(days=28) else minutes)
    return np.asarray(times < interval.floor(pd.Timestamp(time, unit="ms", tz="UTC")))
