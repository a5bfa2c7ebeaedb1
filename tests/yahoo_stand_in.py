"""A stand-in for yfinance, and fetching from it."""

import logging
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd

from maml_jax.data.sources.http import Retries
from maml_jax.data.sources.yahoo import yahoo
from maml_jax.data.store.fetch import fetch
from maml_jax.errors import SourceError

NOW = "2024-03-15T18:00Z"  # a Friday, two in the afternoon in New York
FIELDS = ["Open", "High", "Low", "Close", "Volume"]
FREQUENCIES = {"1m": "min", "15m": "15min", "1h": "h", "1d": "B", "1wk": "W-MON", "1mo": "MS"}


class YFTickerMissingError(Exception):
    pass


class YFRateLimitError(Exception):
    pass


class Yahoo:
    """What a stand-in for yfinance answers.

    Attributes:
        faults: exceptions or tables that come first, used up one per request.
        change: what is done to each table before it is sent.
        requests: arguments of each request.
    """

    def __init__(self, zone="America/New_York", listed="1980-12-12"):
        self.zone = zone
        self.listed = pd.Timestamp(listed, tz=zone)
        self.now = pd.Timestamp(NOW)
        self.symbols = {"AAPL", "MSFT"}
        self.faults: list = []
        self.change = lambda table: table
        self.scale = 1.0
        self.requests: list[dict] = []
        self.hidden: list[bool] = []
        self.cleared = 0

    def module(self):
        debug = SimpleNamespace(hide_exceptions=True)

        class Ticker:
            def __init__(ticker, symbol):
                ticker.symbol = symbol

            def history(ticker, **options):
                logging.getLogger("yfinance").error("yfinance says so")
                self.hidden.append(debug.hide_exceptions)
                return self.answer(ticker.symbol, **options)

        def clear():
            self.cleared += 1

        module = ModuleType("yfinance")
        module.Ticker = Ticker
        module.config = SimpleNamespace(debug=debug)
        kept = SimpleNamespace(cache_get=SimpleNamespace(cache_clear=clear))
        module.data = SimpleNamespace(YfData=kept)
        return module

    def answer(self, symbol, **options):
        self.requests.append({"symbol": symbol, **options})
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        if symbol not in self.symbols:
            raise YFTickerMissingError(f"${symbol}: possibly delisted; no timezone found")
        first, last = (self.moment(options[name]) for name in ("start", "end"))
        return self.change(self.table(options["interval"], first, last))

    def moment(self, text):
        moment = pd.Timestamp(text)
        return moment.tz_localize(self.zone) if moment.tz is None else moment

    def table(self, interval, first, last):
        local = [max(first, self.listed), min(last, self.now)]
        begins, ends = (time.tz_convert(self.zone).tz_localize(None) for time in local)
        if interval in ("1m", "15m", "1h"):
            days = pd.date_range(begins.normalize(), ends, freq="B")
            opens = [pd.date_range(f"{day:%F} 09:30", f"{day:%F} 15:59", freq=FREQUENCIES[interval])
                     for day in days]  # fmt: skip
            times = pd.DatetimeIndex(np.concatenate(opens) if opens else [])
        else:
            begins = begins.normalize()
            times = pd.date_range(begins, ends, freq=FREQUENCIES[interval])
        index = times.tz_localize(self.zone)
        index = index[(index >= first) & (index < min(last, self.now)) & (index >= self.listed)]
        seconds = index.tz_convert("UTC").as_unit("s").asi8
        close = np.float32(100 + seconds // 60 % 977 / 100).astype(float) * self.scale
        prices = {"Open": close + 0.5, "High": close + 1, "Low": close - 1, "Close": close}
        return pd.DataFrame({**prices, "Volume": seconds // 60 % 5003}, index)


def get(market, store, start, end=None, symbols="AAPL", interval="1d", adjusted=True, **options):
    retries = Retries(3, first=0.001)
    source = yahoo(adjusted=adjusted, retries=retries, now=lambda: market.now)
    return fetch(source, symbols, interval, start=start, end=end or NOW, store=store, **options)


def one_error(report):
    (error,) = report.errors.values()
    assert isinstance(error, SourceError)
    return str(error)
