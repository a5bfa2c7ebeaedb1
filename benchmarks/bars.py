"""How long fetching, storing, reading and checking 200,000 hourly bars of 20 symbols takes.

The server plays Bybit on loopback, in a process of its own; no rate limit holds. Its replies are
made before the clock starts.
"""

import json
import multiprocessing
import statistics
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

from benchmarks.harness import arguments, show, write
from benchmarks.problems import target
from maml_jax.data import Store, bybit, check_bars, fetch

HOUR = 3_600_000
START = pd.Timestamp("2023-01-01", tz="UTC")


def reply(symbol: str, start: int, end: int) -> bytes:
    """Return what Bybit answers: a window of klines as text, newest first."""
    opened = np.arange(start, end + 1, HOUR)[::-1]
    prices = 100 + np.random.default_rng(start // HOUR).random((len(opened), 4))
    high, low = prices.max(axis=1), prices.min(axis=1)
    columns = (opened, prices[:, 0], high, low, prices[:, 3], 1e3 * prices[:, 1], 1e5 * low)
    rows = [[str(v) for v in row] for row in zip(*(c.tolist() for c in columns), strict=True)]
    result = {"symbol": symbol, "category": "linear", "list": rows}
    now = int(pd.Timestamp("2025-01-01", tz="UTC").timestamp() * 1000)
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": result, "time": now}).encode()


def serve(pipe, windows: list[tuple[str, int, int]]) -> None:
    """Answer from memory until killed."""
    replies = {window: reply(*window) for window in windows}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            body = replies[query["symbol"], int(query["start"]), int(query["end"])]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(f"http://127.0.0.1:{server.server_port}")
    server.serve_forever()


def main() -> None:
    """Fetch into new stores, and read them back."""
    quick = arguments(__doc__ or "").quick
    pages, repeats = (2, 1) if quick else (10, 5)
    symbols = [f"S{i:02}USDT" for i in range(20)]
    first = int(START.timestamp() * 1000)
    starts = [first + 1000 * HOUR * i for i in range(pages)]
    windows = [(symbol, at, at + 999 * HOUR) for symbol in symbols for at in starts]
    end = START + pd.Timedelta(hours=1000 * pages - 1)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, windows))
    server.start()
    try:
        source = bybit(address=ours.recv(), per_second=None)
        seconds: dict[str, list[float]] = {"fetch": [], "fetch again": [], "read": [], "check": []}
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(prefix="bars-") as folder:
                store = Store(folder)
                for name in ("fetch", "fetch again"):
                    begun = time.perf_counter()
                    report = fetch(source, symbols, "1h", start=START, end=end, store=store)
                    seconds[name].append(time.perf_counter() - begun)
                    assert not report.errors, report.errors
                begun = time.perf_counter()
                bars = {key.symbol: store.read(key) for key in store.keys()}
                seconds["read"].append(time.perf_counter() - begun)
                assert sum(map(len, bars.values())) == 20_000 * pages
                begun = time.perf_counter()
                check_bars(bars)
                seconds["check"].append(time.perf_counter() - begun)
    finally:
        server.kill()
        server.join()
    rows = [
        {"work": name, "seconds": statistics.median(times), "slowest": max(times)}
        for name, times in seconds.items()
    ]
    show(f"{20_000 * pages:,} hourly bars of 20 symbols", rows)
    targets = [
        target("200,000 bars of 20 symbols fetched, seconds", 30, rows[0]["seconds"]),
        target("200,000 bars of 20 symbols read, seconds", 1, rows[2]["seconds"]),
    ]
    show("targets", targets)
    if not quick:
        write("bars", {"bars": rows, "targets": targets})


if __name__ == "__main__":
    main()
