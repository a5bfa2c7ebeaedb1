"""An archive of klines as Binance has it, on loopback or in a folder."""

import hashlib
import io
import threading
import zipfile
from urllib.parse import unquote

import loopback
import numpy as np
import pandas as pd

PLACES = {"spot": "spot", "um": "futures/um", "cm": "futures/cm"}
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    "taker_buy_quote_volume,ignore"
)
STEPS = {"1m": "min", "1h": "h", "1d": "D", "1w": "W-MON", "1mo": "MS"}


def utc(text):
    return pd.Timestamp(text, tz="UTC")


def opens(interval, start, end):
    """Opening times of the bars from a moment to before another."""
    return pd.date_range(start, end, freq=STEPS[interval], inclusive="left", unit="us")


def prices(symbol, time):
    """Open, high, low, close and volume of a bar, as text."""
    rng = np.random.default_rng([int(time.timestamp()), sum(map(ord, symbol))])
    a, b, up, down = 100 + 10 * rng.random(4)
    high, low = max(a, b) + up, min(a, b) - down / 4
    return [f"{value:.8f}" for value in (a, high, low, b, 1000 * rng.random())]


def rows(symbol, interval, start, end, *, microseconds=None):
    """Lines of a file; times in microseconds from 2025 on, unless said otherwise."""
    result = []
    for time in opens(interval, start, end):
        fine = time.year >= 2025 if microseconds is None else microseconds
        when = int(time.timestamp()) * (1_000_000 if fine else 1_000)
        closes = when + 59_999
        result.append(f"{when},{','.join(prices(symbol, time))},{closes},1.5,7,0.5,0.7,0")
    return result


def bars(symbol, interval, start, end, lacking=()):
    """What a fetch must bring."""
    times = [t for t in opens(interval, start, end) if t.floor("D") not in lacking]
    index = pd.DatetimeIndex(times, name="timestamp").as_unit("us")
    table = np.array([prices(symbol, time) for time in times]).astype(float)
    return pd.DataFrame(table, index, ["open", "high", "low", "close", "volume"])


def packed(name, lines, **members):
    """A zip of one CSV, and of others that are named."""
    content = lines if isinstance(lines, bytes) else "\n".join(lines) + "\n"
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as file:
        for member, each in {name: content, **members}.items():
            file.writestr(member, each)
    return body.getvalue()


class Archive:
    """Files by path, and what happened to them.

    Attributes:
        files: contents by path below the root.
        faults: replies `(status, body)` that come first, by path, and are used up.
        requests: paths asked for, in order.
    """

    def __init__(self, market="spot"):
        self.market = market
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()

    def path(self, symbol, interval, period):
        kind = "monthly" if len(period) == 7 else "daily"
        folder = f"data/{PLACES[self.market]}/{kind}/klines/{symbol}/{interval}"
        return f"{folder}/{symbol}-{interval}-{period}.zip"

    def add(self, symbol, interval, period, start=None, end=None, *, lines=None, header=False):
        """Add a month (`2024-01`) or a day (`2024-01-31`), all of it or a part."""
        begins = utc(period)
        ends = begins + (pd.DateOffset(months=1) if len(period) == 7 else pd.Timedelta(days=1))
        if lines is None:
            lines = rows(symbol, interval, start or begins, end or ends)
        path = self.path(symbol, interval, period)
        name = path.rpartition("/")[2].replace(".zip", ".csv")
        self.put(path, packed(name, [HEADER, *lines] if header else lines))
        return path

    def add_days(self, symbol, interval, first, last):
        for day in pd.date_range(first, last, freq="D"):
            self.add(symbol, interval, day.strftime("%Y-%m-%d"))

    def put(self, path, body):
        name = path.rpartition("/")[2]
        self.files[path] = body
        self.files[f"{path}.CHECKSUM"] = f"{hashlib.sha256(body).hexdigest()}  {name}\n".encode()

    def write(self, folder, *, flat=False):
        for path, body in self.files.items():
            file = folder / (path.rpartition("/")[2] if flat else path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)

    def answer(self, path):
        with self.lock:
            self.requests.append(path)
            faults = self.faults.get(path)
            if faults:
                return faults.pop(0)
            if path not in self.files:
                return 404, b"<Error><Code>NoSuchKey</Code></Error>"
            return 200, self.files[path]


def serving(archive):
    """Return the address, within a `with`, of a server that has the archive."""

    class Files(loopback.Handler):
        def do_GET(self):
            self.send(*archive.answer(unquote(self.path).lstrip("/")))

    return loopback.serving(Files)
