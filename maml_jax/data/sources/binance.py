"""Bars from Binance's public archive of monthly and daily zips, on its server or on disk."""

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, get_args
from urllib.parse import quote

import numpy as np
import pandas as pd

from maml_jax.data.interval import MICROSECOND, Interval
from maml_jax.data.names import COLUMNS
from maml_jax.data.sources.http import Client, RateLimit, Reply, Retries, TransientError
from maml_jax.data.sources.source import Page, Source, make_bars
from maml_jax.errors import DataError, SourceError

Market = Literal["spot", "um", "cm"]

ADDRESS = "https://data.binance.vision"

_PLACES = {"spot": "spot", "um": "futures/um", "cm": "futures/cm"}
_MINUTES_TO_DAY = [
    *(f"{n}m" for n in (1, 3, 5, 15, 30)), *(f"{n}h" for n in (1, 2, 4, 6, 8, 12)), "1d",
]  # fmt: skip
_INTERVALS = (*_MINUTES_TO_DAY, "1w", "1mo")
_FIRST = pd.Timestamp("2017-07-01", tz="UTC")
"""Binance opened in that month."""
_DAY = pd.Timedelta(days=1)
_MONTH = pd.DateOffset(months=1)

_HEADER = ["open_time", *COLUMNS]
_FIELDS = 12
_MOST_BYTES = 64 << 20
"""Unpacked size of a file; a month of minutes takes about six million."""
_LAST_MILLISECOND = 10**14
"""Larger opening times are in microseconds."""

_WAY_OUT = "to accept zips without it, use checksums=False (--no-checksums)"
_REFUSALS = {
    403: "Binance's archive refuses this IP address, or has no such folder",
    451: "Binance's archive is not served in this country",
}


def binance(
    market: Market = "spot",
    *,
    folder: str | Path | None = None,
    address: str = ADDRESS,
    checksums: bool = True,
    per_second: float | None = 50.0,
    retries: Retries = Retries(),  # noqa: B008 (a constant)
    timeout: float = 15.0,
    deadline: float = 300.0,
) -> Source:
    """Make a source of the klines in Binance's archive; no account is needed.

    The monthly file of a month comes first. Days that it lacks, or all days without one, are taken
    from daily files; what these lack too is a gap of the archive. Weeks and months are in monthly
    files alone, by the day on which they open.

    From the server, a month without a monthly file is searched day by day only where the month
    before or after has bars, where its first or last day has a file, and at the end of the request:
    elsewhere are the years before the listing.

    Args:
        market: `spot`, `um` (futures margined in USDT or USDC) or `cm` (margined in coins).
        folder: of zips, to read instead of the server: as in the archive, or anywhere below it. The
            time before the first file counts as before the listing.
        address: of the server.
        checksums: compare each zip with its `.CHECKSUM` file.
        per_second: requests per second, over all symbols and threads; None for no limit of ours.
        retries: after time-outs, broken replies, HTTP 429 and 5xx, and damaged zips.
        timeout: seconds for a connection and for each part of a reply.
        deadline: seconds for a whole reply.

    Returns:
        A source named `binance-<market>`.

    Raises:
        DataError: if there is no such market or folder.

    References:
        Binance, "Binance Public Data" (github.com/binance/binance-public-data).
    """
    if market not in get_args(Market):
        raise DataError(f"market {market!r}: expected one of {get_args(Market)}")
    if folder is not None and not Path(folder).is_dir():
        raise DataError(f"{folder}: no such folder")
    client = Client(
        RateLimit(per_second), retries, refusals=_REFUSALS, timeout=timeout, deadline=deadline
    )

    def pages(symbol, interval, start, end) -> Iterator[Page]:
        if str(interval) not in _INTERVALS:
            raise DataError(f"interval {interval}: Binance's archive has {', '.join(_INTERVALS)}")
        if not symbol.strip(".") or re.search(r"[/\\\s]", symbol):
            raise DataError(f"{symbol!r} is not a Binance symbol")
        if folder is None:
            read = _from_address(client, address.rstrip("/"), checksums)
        else:
            read = _from_folder(Path(folder), market, checksums)
        latest = min(end, pd.Timestamp.now("UTC").as_unit("us"))
        series = _Series(symbol, interval, market, read, max(start, _FIRST), latest)
        reached = start
        for found in series.months(sparing=folder is None):
            bars = found.bars[(found.bars.index >= start) & (found.bars.index < end)]
            if min(found.reach, end) > reached:
                reached = min(found.reach, end)
                yield Page(bars, reached)

    return Source(f"binance-{market}", pages)


class _Zip(NamedTuple):
    """A file of the archive: where it was found, and the CSV in it."""

    where: str
    text: bytes


class _Found(NamedTuple):
    """The bars of a month, and the time up to which they are complete."""

    bars: pd.DataFrame
    reach: pd.Timestamp


class _Series(NamedTuple):
    """The files of a series."""

    symbol: str
    interval: Interval
    market: str
    read: Callable[[str], _Zip | None]
    start: pd.Timestamp
    end: pd.Timestamp

    def months(self, *, sparing: bool) -> Iterator[_Found]:
        """Yield the bars, month by month.

        Args:
            sparing: do not search each day of each month; see `binance`.
        """
        if self.start >= self.end:
            return
        first = self.start.floor("D").replace(day=1)
        months = pd.date_range(first, self.end - MICROSECOND, freq="MS", unit="us")
        near, passed = False, None
        for month in months:
            thorough = not sparing or near or month >= months[-1] - _MONTH
            found = self._month(month, thorough)
            if found is not None:
                before = None if passed is None else self._month(passed, True)
                yield from [found] if before is None else [before, found]
            near = found is not None
            passed = None if near or thorough else month

    def _month(self, month: pd.Timestamp, thorough: bool) -> _Found | None:
        """Return the bars of a month; unless thorough, guess from its first and last day."""
        bars = self._file(month, month + _MONTH, "monthly", "%Y-%m")
        if str(self.interval) not in _MINUTES_TO_DAY:
            # The file may be older than the end of its last week, which is then added later.
            return None if bars is None else _Found(bars, self.interval.after(bars.index[-1]))
        first, last = max(month, self.start.floor("D")), min(month + _MONTH, self.end)
        days = pd.date_range(first, last - MICROSECOND, freq="D", unit="us")
        read: dict[pd.Timestamp, pd.DataFrame | None] = {}
        if bars is None and not thorough:
            read = {day: self._day(day) for day in (days[0], days[-1])}
            if all(frame is None for frame in read.values()):
                return None
        frames, reach = ([], month) if bars is None else ([bars], month + _MONTH)
        if bars is not None:
            days = days.difference(pd.DatetimeIndex(bars.index).floor("D"))
        for day in days:
            frame = read[day] if day in read else self._day(day)
            if frame is not None:
                frames.append(frame)
                reach = max(reach, day + _DAY)
        return _Found(pd.concat(frames).sort_index(), reach) if frames else None

    def _day(self, day: pd.Timestamp) -> pd.DataFrame | None:
        return self._file(day, day + _DAY, "daily", "%Y-%m-%d")

    def _file(
        self, begins: pd.Timestamp, ends: pd.Timestamp, kind: str, form: str
    ) -> pd.DataFrame | None:
        """Return the bars of a file; None if there is none."""
        name = f"{self.symbol}-{self.interval}-{begins.strftime(form)}"
        place = f"data/{_PLACES[self.market]}/{kind}/klines/{self.symbol}/{self.interval}"
        found = self.read(f"{place}/{name}.zip")
        return None if found is None else _read_rows(found, self.interval, begins, ends)


def _from_address(client: Client, address: str, checksums: bool) -> Callable[[str], _Zip | None]:
    """Return a function that reads files of the archive from the server."""

    def read(path: str) -> _Zip | None:
        url = f"{address}/{quote(path)}"
        member = PurePosixPath(path).with_suffix(".csv").name

        def take(reply: Reply, expected: str | None = None) -> tuple[str, bytes] | None:
            if reply.status == 404:
                return None
            digest = hashlib.sha256(reply.body).hexdigest()
            try:
                if expected not in (None, digest):
                    raise ValueError(f"its SHA-256 is {digest}, expected {expected}")
                return digest, _unpack(reply.body, member)
            except ValueError as error:
                raise TransientError(str(error)) from None

        def take_checksum(reply: Reply) -> str:
            if reply.status == 404:
                raise SourceError(f"{url}: has no .CHECKSUM file; {_WAY_OUT}")
            try:
                return _checksum(reply.body, PurePosixPath(path).name)
            except ValueError as error:
                raise TransientError(str(error)) from None

        taken = client.get(url, {}, take)
        if taken is not None and checksums:
            expected = client.get(f"{url}.CHECKSUM", {}, take_checksum)
            if taken[0] != expected:
                taken = client.get(url, {}, lambda reply: take(reply, expected))
        return None if taken is None else _Zip(url, taken[1])

    return read


def _from_folder(folder: Path, market: str, checksums: bool) -> Callable[[str], _Zip | None]:
    """Return a function that reads files of the archive anywhere below a folder."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.zip")):
        if _may_be(path.relative_to(folder), market):
            files.setdefault(path.name, []).append(path)

    def read(path: str) -> _Zip | None:
        name = PurePosixPath(path).name
        found = files.get(name, [])
        if not found:
            return None
        if len(found) > 1:
            raise SourceError(f"{found[0]} and {found[1]} have the same name; keep one of them")
        file, beside = found[0], found[0].with_name(f"{name}.CHECKSUM")
        try:
            body = file.read_bytes()
            if checksums:
                expected = _checksum(beside.read_bytes(), name)
                digest = hashlib.sha256(body).hexdigest()
                if digest != expected:
                    raise ValueError(
                        f"its SHA-256 is {digest}, expected {expected}; download it again"
                    )
            return _Zip(str(file), _unpack(body, PurePosixPath(path).with_suffix(".csv").name))
        except FileNotFoundError:
            raise SourceError(f"{file}: has no .CHECKSUM file; {_WAY_OUT}") from None
        except (OSError, ValueError) as error:
            raise SourceError(f"{file}: {error}") from error

    return read


def _may_be(path: Path, market: str) -> bool:
    """Say whether a file may be of a market: other markets and indices have such names too."""
    above = set(path.parts[:-1])
    kinds = {part for part in above if part.lower().endswith("klines")}
    return not (above & {"spot", "um", "cm", "option"} - {market} or kinds - {"klines"})


def _checksum(content: bytes, name: str) -> str:
    """Read a checksum as `sha256sum` writes it.

    Raises:
        ValueError: if it is malformed, or of another file.
    """
    text = content[:1000].decode("utf-8", "replace").strip()
    match = re.fullmatch(r"([0-9a-fA-F]{64})(?:\s+\*?(\S+))?", text)
    if match is None:
        raise ValueError(f"its .CHECKSUM is not SHA-256: {text[:80]!r}")
    if match[2] and PurePosixPath(match[2]).name != name:
        raise ValueError(f"its .CHECKSUM is of {match[2]}")
    return match[1].lower()


def _unpack(body: bytes, member: str) -> bytes:
    """Return the only file in a zip.

    Raises:
        ValueError: if it is damaged, or holds anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            names = archive.namelist()
            if names != [member]:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                raise ValueError(f"the zip holds {shown or 'nothing'}, expected {member} alone")
            (info,) = archive.infolist()
            if info.file_size > _MOST_BYTES:
                raise ValueError(f"{member} has {info.file_size} bytes, more than {_MOST_BYTES}")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{member} is packed with an unknown method")
            with archive.open(info) as unpacked:
                return unpacked.read(info.file_size + 1)  # `read()` would unpack without bound
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"the zip is damaged: {error}") from error


def _read_rows(
    file: _Zip, interval: Interval, begins: pd.Timestamp, ends: pd.Timestamp
) -> pd.DataFrame:
    """Read a file, in which every row must be a bar of its period.

    Raises:
        SourceError: naming file and line.
    """
    try:
        lines = file.text.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.where}: not text: {error}") from error
    first = 0
    if lines[0].startswith("open_time"):
        names = [name.strip() for name in lines[0].split(",")]
        if names[: len(_HEADER)] != _HEADER:
            raise SourceError(f"{file.where}, line 1: the columns are {names}")
        first = 1
    while lines and not lines[-1].strip():
        lines.pop()
    opened: list[int] = []
    values: list[list[float]] = []
    for i in range(first, len(lines)):
        try:
            when, numbers = _read_row(lines[i])
        except ValueError as error:
            raise SourceError(f"{file.where}, line {i + 1}: {error}") from error
        opened.append(when)
        values.append(numbers)
    if not opened:
        raise SourceError(f"{file.where}: holds no rows")
    problem = _problem(np.array(opened), np.array(values), interval, begins, ends)
    if problem is not None:
        raise SourceError(f"{file.where}, line {problem[0] + first + 1}: {problem[1]}")
    return make_bars(opened, values, COLUMNS, unit="us")


def _read_row(line: str) -> tuple[int, list[float]]:
    """Return the opening time in microseconds, and prices and volume."""
    fields = line.rstrip("\r").split(",")
    if len(fields) != _FIELDS:
        raise ValueError(f"{len(fields)} columns, expected {_FIELDS}: {line[:80]!r}")
    if not re.fullmatch(r"[0-9]{12,16}", fields[0]):
        raise ValueError(f"{fields[0][:40]!r} is not a time in milliseconds or microseconds")
    when = int(fields[0])
    try:
        numbers = [float(field) for field in fields[1:6]]
    except ValueError:
        raise ValueError(f"not all are numbers: {','.join(fields[1:6])[:80]!r}") from None
    return when * (1000 if when < _LAST_MILLISECOND else 1), numbers


def _problem(
    opened: np.ndarray,
    values: np.ndarray,
    interval: Interval,
    begins: pd.Timestamp,
    ends: pd.Timestamp,
) -> tuple[int, str] | None:
    """Return the first row that is not a bar of a period, and why."""
    times = pd.DatetimeIndex(opened.astype("datetime64[us]"), tz="UTC")
    checks = [
        ((times < begins) | (times >= ends), f"outside of {begins} to {ends}"),
        (interval.open_times(times) != times, f"not on the grid of {interval}"),
        (times.duplicated(), "twice"),
    ]
    for bad, reason in checks:
        if np.any(bad):
            row = int(np.argmax(bad))
            return row, f"a bar opens at {times[row]}, {reason}"
    good = np.isfinite(values) & np.where(np.arange(5) < 4, values > 0, values >= 0)
    if good.all():
        return None
    row, column = (int(k[0]) for k in np.nonzero(~good))
    return row, f"{COLUMNS[column]} is {values[row, column]:g} at {times[row]}"
