"""A server on loopback that plays Bybit's klines, and misbehaves on demand."""

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from functools import cache
from urllib.parse import parse_qs, urlsplit

import loopback
import numpy as np
import pandas as pd

MINUTES = {str(n): n for n in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)} | {"D": 1440, "W": 10080}
LISTED = pd.Timestamp("2022-06-01", tz="UTC")


@cache
def random_row(symbol, opened):
    rng = np.random.default_rng([opened // 1000 % 2**31, sum(map(ord, symbol))])
    a, b = 100 + 10 * rng.random(2)
    high, low = max(a, b) + rng.random(), min(a, b) - rng.random()
    prices = [f"{price:.2f}" for price in (a, high, low, b)]
    return (str(opened), *prices, f"{1000 * rng.random():.3f}", f"{1e5 * rng.random():.2f}")


class Exchange:
    """What Bybit knows and how it answers.

    A fault is called with (server, query, reply) before the reply is sent. It returns the reply to
    send instead, or None after it has written to the connection itself. Faults are used up one per
    request, in order.
    """

    def __init__(self, now="2024-01-10T12:34:56Z", symbols=("BTCUSDT", "ETHUSDT")):
        self.now = pd.Timestamp(now)
        self.symbols = set(symbols)
        self.listed = LISTED
        self.rows_most = 1000
        self.absent: set[int] = set()
        self.changed: dict[int, str] = {}
        self.headers: Callable[[], dict] = dict
        self.faults: list = []
        self.always = None
        self.delay = 0.0
        self.requests: list[dict] = []
        self.lock = threading.Lock()
        self._rows: dict = {}

    def opens(self, interval):
        """All opening times in ms from the listing to the unfinished bar, ascending."""
        if interval not in self._rows:
            listed, now = (int(t.timestamp() * 1000) for t in (self.listed, self.now))
            if interval == "M":
                months = pd.date_range(self.listed.normalize(), self.now, freq="MS")
                self._rows[interval] = (months.as_unit("ms").asi8).astype(int)
            else:
                step = MINUTES[interval] * 60_000
                offset = 4 * 86_400_000 if interval == "W" else 0  # weeks begin on Mondays
                first = -(-(listed - offset) // step) * step + offset
                self._rows[interval] = np.arange(first, now + 1, step)
        return self._rows[interval]

    def row(self, symbol, opened):
        row = [*random_row(symbol, opened)]
        row[4] = self.changed.get(opened, row[4])
        return row

    def bars(self, symbol, interval, start, end):
        """What a fetch must bring, as [opened, open, high, low, close, volume] floats."""
        first, last = (int(pd.Timestamp(t).timestamp() * 1000) for t in (start, end))
        opens = self.opens(interval)[:-1]
        rows = [self.row(symbol, int(t)) for t in opens if first <= t < last]
        return np.array(
            [[float(v) for v in row[:6]] for row in rows if int(row[0]) not in self.absent]
        )

    def answer(self, query):
        if query["symbol"] not in self.symbols:
            return self.reply({}, 10001, "Not supported symbols")
        opens = self.opens(query["interval"])
        first, last = int(query["start"]), int(query["end"])
        chosen = opens[(opens >= first) & (opens <= last)]
        most = min(int(query["limit"]), self.rows_most)
        chosen = [int(t) for t in chosen if int(t) not in self.absent][-most:][::-1]
        rows = [self.row(query["symbol"], t) for t in chosen]
        result = {"symbol": query["symbol"], "category": query["category"], "list": rows}
        return self.reply(result)

    def reply(self, result, code=0, message="OK"):
        content = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {},
                   "time": int(self.now.timestamp() * 1000)}  # fmt: skip
        return {"status": 200, "headers": self.headers(), "body": json.dumps(content)}


def serving(exchange):
    """Return the address, within a `with`, of a server that plays the exchange."""

    class Kline(loopback.Handler):
        def do_GET(self):
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query).items()}
            with exchange.lock:
                exchange.requests.append(query)
                fault = exchange.faults.pop(0) if exchange.faults else exchange.always
                reply = exchange.answer(query)
            if parts.path != "/v5/market/kline":
                reply = {"status": 404, "headers": {}, "body": "<html>not found</html>"}
            if exchange.delay:
                time.sleep(exchange.delay)
            if fault is not None:
                reply = fault(self, query, reply)
            if reply is not None:
                self.send(**reply)

    return loopback.serving(Kline)


def status(code, body="", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda server, query, reply: {"status": code, "headers": names, "body": body}


def code(number, message="no", **headers):
    def fault(server, query, reply):
        content = json.dumps({"retCode": number, "retMsg": message, "result": {}, "time": 0})
        return status(200, content, **headers)(server, query, reply)

    return fault


def altered(change):
    """A fault that changes the content of a good reply."""

    def fault(server, query, reply):
        content = json.loads(reply["body"])
        changed = change(content)
        return reply | {"body": json.dumps(content if changed is None else changed)}

    return fault


def altered_rows(change):
    def apply(content):
        content["result"]["list"] = change(content["result"]["list"])

    return altered(apply)


def cut_off(server, query, reply):
    """Promise the whole body, send half of it, and hang up."""
    half = reply["body"][: len(reply["body"]) // 2]
    server.send(200, half, {"Content-Length": str(len(reply["body"]))})
    server.close_connection = True


def compressed(server, query, reply):
    """A good reply, compressed."""
    headers = {**reply["headers"], "Content-Encoding": "gzip"}
    return reply | {"headers": headers, "body": gzip.compress(reply["body"].encode())}


def chunked(server, query, reply, whole=True):
    """A good reply in chunks, the last of which may be missing."""
    server.send_response(200)
    server.send_header("Transfer-Encoding", "chunked")
    server.end_headers()
    data = reply["body"].encode()
    for place in range(0, len(data), 5000):
        chunk = data[place : place + 5000]
        server.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if not whole and place > 0:
            server.close_connection = True
            return
    server.wfile.write(b"0\r\n\r\n")


def chunks_cut_off(server, query, reply):
    """A reply in chunks that ends before its time."""
    chunked(server, query, reply, whole=False)


def reset(server, query, reply):
    """Send half of the page and reset the connection."""
    cut_off(server, query, reply)
    server.wfile.flush()
    linger = struct.pack("ii", 1, 0)
    server.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    server.connection.close()


def hang(server, query, reply):
    """Accept the question and never answer."""
    server.connection.settimeout(10)
    try:
        server.connection.recv(1)  # returns when the client hangs up
    except OSError:
        pass
    server.close_connection = True


def drip(server, query, reply):
    """Send one byte at a time, fast enough for the time-out of a part."""
    server.send_response(200)
    server.send_header("Content-Length", str(len(reply["body"])))
    server.end_headers()
    gone = threading.Event()
    for byte in reply["body"].encode():
        server.wfile.write(bytes([byte]))
        if gone.wait(0.02):
            break
