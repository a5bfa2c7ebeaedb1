"""Fetching from a server that plays Binance's archive, and what must be true afterwards."""

import pandas as pd
from binance_server import serving

from maml_jax.data.sources.binance import binance
from maml_jax.data.sources.http import Retries
from maml_jax.data.store.fetch import fetch

QUICK = {"per_second": None, "retries": Retries(3, first=0.001), "timeout": 2.0}
BTC = ("BTCUSDT", "1h")
JANUARY = "2024-01"


def get(archive, store, start, end, symbols="BTCUSDT", interval="1h", **options):
    made = {key: options.pop(key) for key in [*options] if key in ("checksums", "retries")}
    with serving(archive) as address:
        source = binance(archive.market, address=address, **{**QUICK, **made})
        return fetch(source, symbols, interval, start=start, end=end, store=store, **options)


def one_error(report):
    (error,) = report.errors.values()
    return str(error)


def assert_same(found, expected):
    pd.testing.assert_frame_equal(found, expected, check_freq=False)


def until(report):
    (series,) = report.series
    ((_, ends),) = report.store.covered(series.key)
    return ends
