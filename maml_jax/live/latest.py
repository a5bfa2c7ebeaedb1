"""Signals and paper accounts of a run directory or a result."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment import Result, load
from maml_jax.experiment.config.config import STORED
from maml_jax.experiment.learning.checkpoint import digests as digests_of
from maml_jax.experiment.preparation.bars import MEMORY, file_options, is_stored, load_bars
from maml_jax.live.book import Book
from maml_jax.live.holdings import Holdings, read_holdings
from maml_jax.live.signals import SignalTable, make_signal
from maml_jax.live.state import State, Step, advance, begin
from maml_jax.live.strategy import Strategy, strategy_of

Frames = dict[str, pd.DataFrame]
Source = pd.DataFrame | Mapping[str, pd.DataFrame] | str | Path | None

_DIGITS = 12


def digests(result: Result) -> dict[str, str]:
    """Return short digests of what was trained and of the settings."""
    settings = hashlib.sha256(result.config.to_toml().encode()).hexdigest()
    parts = hashlib.sha256()
    for name, checkpoint in result.checkpoints.items():
        parts.update(repr((name, sorted(digests_of(checkpoint.params).items()))).encode())
    return {"run": parts.hexdigest()[:_DIGITS], "settings": settings[:_DIGITS]}


def read_source(result: Result, bars: Source) -> dict[str, pd.DataFrame]:
    """Return bars in normal form: those given, or those that the run names, as they are now.

    Raises:
        ConfigError: if the run was of bars in memory, and none are given.
        DataError: as the readers.
    """
    config = result.config
    if isinstance(bars, str | Path):
        if is_stored(str(bars)):
            return load_bars(config.changed(data={"path": str(bars), "assets": None}))
        return read_bars(bars, **file_options(config))
    if bars is None and config.data.path == MEMORY:
        raise ConfigError("the bars of this run were passed in memory: name the latest ones")
    return load_bars(config, bars)


def refresher(result: Result, bars: str | None, read: Callable[[], Frames]) -> Callable[[], Frames]:
    """Return the function that brings the bars up to date and reads them.

    Bars of the store that came from Bybit are fetched anew; files are read again.

    Args:
        result: of the run.
        bars: what was named instead of the run's own bars.
        read: reads them.
    """
    path = bars or result.config.data.path
    if not isinstance(path, str) or not path.startswith(f"{STORED}bybit-"):
        return read
    from maml_jax.data import Store, bybit, fetch

    store = Store(result.config.data.store)
    keys = store.find(path.removeprefix(STORED))
    address = os.environ.get("MAML_JAX_BYBIT", "https://api.bybit.com")

    def refresh() -> Frames:
        for interval in {key.interval for key in keys}:
            category: Any = keys[0].source.removeprefix("bybit-")
            symbols = [key.symbol for key in keys if key.interval == interval]
            report = fetch(bybit(category, address=address), symbols, interval, store=store)
            if report.errors:
                raise next(iter(report.errors.values()))
        return read()

    return refresh


def signal(
    run: Result | str | Path,
    bars: Source = None,
    *,
    capital: float | None = None,
    holdings: Holdings | Mapping[str, float] | str | Path | None = None,
    method: str | None = None,
    now: pd.Timestamp | None = None,
    trust: bool = False,
) -> SignalTable:
    """Say what a trained run wants to hold now, and what is to be ordered.

    It adapts to the latest bars and decides by the settings of the run, as its backtest does.

    Args:
        run: a result, or a run directory.
        bars: a table in any layout that `maml_jax.data.to_bars` reads, `{asset: table}`, a file, or
            `store:...`; default what the run names, read anew.
        capital: equity in money, cash and positions together; default that of the settings.
        holdings: `{asset: units}`, or a file; default what was decided a bar before.
        method: which of the run's methods; default the first.
        now: the time; default the present.
        trust: run the code of the modules that a run directory names for its features.

    Returns:
        One row an asset, see `maml_jax.live.signals.make_signal`.

    Raises:
        ConfigError, DataError, RunError: as `load`, the readers and `make_signal`.
    """
    result = run if isinstance(run, Result) else load(run, trust=trust, page=False)
    frames = read_source(result, bars)
    strategy = strategy_of(result, frames, method=method)
    if isinstance(holdings, str | Path):
        holdings = read_holdings(holdings)
    elif holdings is not None and not isinstance(holdings, Holdings):
        units = {str(asset): float(units) for asset, units in holdings.items()}
        holdings = Holdings(units, dict.fromkeys(units, float("nan")))
    moment = pd.Timestamp.now("UTC") if now is None else pd.Timestamp(now)
    return make_signal(
        strategy,
        frames,
        now=moment,
        capital=capital,
        holdings=holdings,
        digests=digests(result),
    )


def open_paper(
    result: Result,
    book: Book,
    bars: Mapping[str, pd.DataFrame],
    *,
    method: str | None = None,
    capital: float | None = None,
    since: pd.Timestamp | None = None,
) -> tuple[Strategy, State]:
    """Begin a paper account, or go on with the one that a book holds.

    Args:
        result: of the run.
        book: of the account.
        bars: in normal form.
        method: which of the run's methods; default the first.
        capital: money at the beginning; default that of the settings.
        since: first bar of the account; default the last one given.

    Raises:
        ConfigError: if the book is of another run or method.
        RunError: if it cannot be read or written.
    """
    own = digests(result)
    if not book.exists():
        if since is None:
            since = max(frame.index[-1] for frame in bars.values() if len(frame))
        strategy = strategy_of(result, bars, method=method, since=since)
        book.create(strategy, capital or result.config.backtest.capital, own["run"])
    about = book.about()
    if about["run"] != own["run"] or method not in (None, about["method"]):
        raise ConfigError(
            f"{book.path}: the account of run {about['run']}, method {about['method']}, and this "
            f"is run {own['run']}; name another book"
        )
    strategy = strategy_of(*(result, bars), method=about["method"], assets=tuple(about["assets"]))
    strategy = book.strategy(strategy)
    return strategy, book.state(strategy, begin(strategy, about["capital"]))


def go_on(
    strategy: Strategy, state: State, book: Book, bars: Mapping[str, pd.DataFrame], **options
) -> tuple[State, Step | None]:
    """Take in new bars, and write what happened into the book; options as of `advance`."""
    after, step = advance(strategy, state, bars, **options)
    if step is not None:
        book.add(after, step)
    return after, step
