"""Fetching from a server that plays Bybit, and what must be true afterwards."""

import numpy as np

from maml_jax.data.interval import parse_interval
from maml_jax.data.sources.bybit import bybit
from maml_jax.data.sources.http import Retries
from maml_jax.data.store.fetch import fetch
from maml_jax.data.store.series_files import SeriesKey

START, END = "2023-09-01", "2024-01-10T12:00Z"
KEY = SeriesKey("bybit-linear", "BTCUSDT", parse_interval("1h"))
QUICK = {"per_second": None, "retries": Retries(4, first=0.001), "timeout": 60.0, "deadline": 60.0}
IMPATIENT = {"timeout": 0.4, "deadline": 1.0}
"""For servers that hang: others answer when a busy machine lets them."""


def source(address, category="linear", **options):
    return bybit(category, address=address, **{**QUICK, **options})


def get(address, store, symbols="BTCUSDT", interval="60", start=START, end=END, **options):
    category = options.pop("category", "linear")
    known = {key: options.pop(key) for key in [*options] if key in (*QUICK, "retries")}
    made = source(address, category, **known)
    return fetch(made, symbols, interval, start=start, end=end, store=store, **options)


def assert_bars(bars, expected):
    opened = bars.index.as_unit("ms").asi8
    np.testing.assert_array_equal(opened, expected[:, 0].astype(np.int64))
    np.testing.assert_array_equal(bars.to_numpy(), expected[:, 1:])


def assert_sound(store, exchange, key=KEY, minutes="60"):
    """Whatever happened: what is noted as fetched is there, without a hole, and nothing else."""
    if not store.covered(key):
        assert not list(store.root.glob("**/*.parquet"))
        return
    assert store.verify(key) == []
    for begins, ends in store.covered(key):
        assert_bars(store.read(key, begins, ends), exchange.bars(key.symbol, minutes, begins, ends))
