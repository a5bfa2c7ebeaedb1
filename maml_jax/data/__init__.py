"""Where bars come from. Pandas only; nothing here knows of arrays on a device."""

from maml_jax.data.bars import as_bars, bar_interval, require_same_interval, to_bars
from maml_jax.data.files import read_bars, write_bars
from maml_jax.data.interval import Interval, parse_interval, parse_moment
from maml_jax.data.quality.checks import Finding, check_bars, findings_table
from maml_jax.data.quality.cleaning import clean_bars
from maml_jax.data.sources.binance import binance
from maml_jax.data.sources.builtin import builtin_bars
from maml_jax.data.sources.bybit import bybit
from maml_jax.data.sources.source import Page, Source, frames_source, make_bars
from maml_jax.data.sources.yahoo import yahoo
from maml_jax.data.store.fetch import fetch
from maml_jax.data.store.series_files import SeriesKey
from maml_jax.data.store.store import Store
from maml_jax.data.synthetic import (
    Market,
    Simulated,
    garch_bars,
    known_answer_bars,
    known_answer_oracle,
    random_walk_bars,
    regime_bars,
    trend_bars,
)

__all__ = [
    "Finding",
    "Interval",
    "Market",
    "Page",
    "SeriesKey",
    "Simulated",
    "Source",
    "Store",
    "as_bars",
    "bar_interval",
    "make_bars",
    "binance",
    "builtin_bars",
    "bybit",
    "check_bars",
    "clean_bars",
    "fetch",
    "findings_table",
    "frames_source",
    "garch_bars",
    "known_answer_bars",
    "known_answer_oracle",
    "parse_interval",
    "parse_moment",
    "random_walk_bars",
    "read_bars",
    "regime_bars",
    "require_same_interval",
    "to_bars",
    "trend_bars",
    "write_bars",
    "yahoo",
]
