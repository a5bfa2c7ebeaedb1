"""Several runs side by side: on the bars they share, with what differs between them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from maml_jax.backtest import metrics
from maml_jax.backtest.inference import bootstrap_differences, bootstrap_intervals
from maml_jax.backtest.inference.bootstrap import SAMPLES
from maml_jax.errors import ConfigError, mask_values
from maml_jax.experiment.result import Result, load
from maml_jax.listing import MOST, join_names

Runs: TypeAlias = Mapping[str, Result] | Sequence[Result | str | Path]

_WARNED = {
    "data.test_assets": "assets",
    "target.fill": "fills",
    "backtest.fee": "fees",
    "backtest.slippage": "slippage",
    "backtest.range_slippage": "slippage",
    "backtest.borrow": "costs of borrowing",
    "backtest.max_gross": "bounds on the exposure",
}
"""Settings that make returns incomparable where they differ, and what they are called."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; all tables are of the bars of all runs where they share some.

    Attributes:
        strategies: of each run, the strategy that stands for it.
        returns: net simple returns per bar, `[time, run]`.
        stats: one column per run, one row per figure, from `returns`.
        own_stats: the figures of each run's strategy on its own test span.
        intervals: of the figures of every run.
        differences: of the first run's figures from those of the others.
        settings: those that differ, one row each, one column per run.
        warnings: why figures may not be comparable.
        bars_per_year: for everything annualised.
    """

    strategies: dict[str, str]
    returns: pd.DataFrame
    stats: pd.DataFrame
    own_stats: pd.DataFrame
    intervals: pd.DataFrame
    differences: pd.DataFrame
    settings: pd.DataFrame
    warnings: tuple[str, ...]
    bars_per_year: float
    gross: pd.DataFrame = field(default_factory=pd.DataFrame)


def compare(
    runs: Runs, *, strategy: str | None = None, seed: int = 0, samples: int = SAMPLES
) -> Comparison:
    """Compare runs.

    Args:
        runs: results by name; or results or run directories, which are named by their folders. The
            first is the one that the others are compared with.
        strategy: which strategy stands for every run; default the first method of each.
        seed: decides the samples of the bootstrap.
        samples: how many.

    Raises:
        ConfigError: if there are fewer than two runs, or one lacks the strategy.
        RunError: if a directory is not a run, or a run was not backtested.
    """
    results = _by_name(runs)
    if len(results) < 2:
        raise ConfigError("compare needs at least two runs")
    strategies = {name: _strategy(name, result, strategy) for name, result in results.items()}
    net = {name: result.returns[strategies[name]] for name, result in results.items()}
    gross = {name: result.gross[strategies[name]] for name, result in results.items()}
    shared = _shared_bars([series.index for series in net.values()])
    years = {name: _years(result) for name, result in results.items()}
    year = next(iter(years.values()))
    warnings = _warnings(results, net, years, shared)
    if len(shared):
        net = {name: series.loc[shared] for name, series in net.items()}
        gross = {name: series.loc[shared] for name, series in gross.items()}
    table = pd.DataFrame(net).rename_axis("timestamp")
    drawn: dict[str, Any] = {"seed": seed, "samples": samples}
    first, *others = net
    comparable = len(shared) > 0
    return Comparison(
        strategies=strategies,
        returns=table,
        gross=pd.DataFrame(gross).rename_axis("timestamp"),
        stats=pd.DataFrame({name: _figures(series, years[name]) for name, series in net.items()}),
        own_stats=pd.DataFrame({n: result.stats[strategies[n]] for n, result in results.items()}),
        intervals=bootstrap_intervals(table, year, **drawn) if comparable else pd.DataFrame(),
        differences=(
            bootstrap_differences(table, first, others, year, **drawn)
            if comparable
            else pd.DataFrame()
        ),
        settings=_settings(results),
        warnings=warnings,
        bars_per_year=year,
    )


def _by_name(runs: Runs) -> dict[str, Result]:
    if isinstance(runs, Mapping):
        return dict(runs)
    names = _short([run for run in runs if not isinstance(run, Result)])
    found: dict[str, Result] = {}
    for number, run in enumerate(runs, start=1):
        name = f"run {number}" if isinstance(run, Result) else names[os.fspath(run)]
        if name in found:
            raise ConfigError(f"the run {name} is named twice")
        found[name] = run if isinstance(run, Result) else load(run)
    return found


def _short(paths: Sequence[str | Path]) -> dict[str, str]:
    """Name run directories by as few of their last folders as distinguish them."""
    parts = {os.fspath(path): Path(path).absolute().parts for path in paths}
    for count in range(1, 1 + max(map(len, parts.values()), default=1)):
        names = {path: "/".join(each[-count:]) for path, each in parts.items()}
        if len(set(names.values())) == len({*parts.values()}):
            return names
    return {path: path for path in parts}


def _strategy(name: str, result: Result, strategy: str | None) -> str:
    chosen = next(iter(result.checkpoints)) if strategy is None else strategy
    if chosen not in result.returns.columns:
        raise ConfigError(
            f"run {name}: no strategy {chosen!r}; there are {list(result.returns.columns)}"
        )
    return chosen


def _years(result: Result) -> float:
    stats: Any = result.stats
    return float(stats.loc["Bars per Year"].iloc[0])


def _shared_bars(indexes: Sequence[pd.Index]) -> pd.Index:
    shared = indexes[0]
    for index in indexes[1:]:
        shared = shared.intersection(index)
    return shared.sort_values()


def _warnings(results, net, years, shared) -> tuple[str, ...]:
    found = []
    spans = {name: (series.index[0], series.index[-1], len(series)) for name, series in net.items()}
    if not len(shared):
        found.append("The runs share no bar: each is shown on its own, without differences.")
    elif len(set(spans.values())) > 1:
        texts = "; ".join(
            f"{name} {start:%Y-%m-%d} to {end:%Y-%m-%d}, {bars:,} bars"
            for name, (start, end, bars) in spans.items()
        )
        found.append(f"Test spans differ ({texts}): figures use the {len(shared):,} shared bars.")
    if len(set(years.values())) > 1:
        texts = ", ".join(f"{name} {value:g}" for name, value in years.items())
        found.append(f"Bars per year differ: {texts}.")
    flat = {name: _flat(result.config.model_dump()) for name, result in results.items()}
    for key, called in _WARNED.items():
        values = {name: each.get(key) for name, each in flat.items()}
        if len({repr(value) for value in values.values()}) > 1:
            texts = "; ".join(f"{name} {value}" for name, value in _describe_values(values).items())
            found.append(f"The {called} differ ({key}): {texts}.")
    return tuple(found)


def _figures(net: pd.Series, year: float) -> pd.Series:
    return pd.Series(
        {
            "Return [%]": 100 * metrics.total_return(net),
            "CAGR [%]": 100 * metrics.cagr(net, year),
            "Volatility (Ann.) [%]": 100 * metrics.annual_volatility(net, year),
            "Sharpe Ratio": metrics.sharpe_ratio(net, year),
            "Sortino Ratio": metrics.sortino_ratio(net, year),
            "Calmar Ratio": metrics.calmar_ratio(net, year),
            "Max. Drawdown [%]": 100 * metrics.max_drawdown(net),
            "Bars": len(net),
        },
        dtype=object,
    )


def _settings(results: Mapping[str, Result]) -> pd.DataFrame:
    """Return the settings that differ, as text; – where a run has none of that name."""
    flat = {name: _flat(result.config.model_dump()) for name, result in results.items()}
    keys = dict.fromkeys(key for each in flat.values() for key in each)
    rows = {
        key: _describe_values({name: each.get(key) for name, each in flat.items()})
        for key in keys
        if len({repr(each.get(key)) for each in flat.values()}) > 1
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(flat)).rename_axis("setting")


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and not before:
            found |= _flat(value, f"{key}.")
        else:
            found[before + key] = mask_values(value)
    return found


def _describe_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Write one setting of all runs; of long lists, how those of others differ from the first's."""
    first = next(iter(values))
    lists = {name: _entries(value) for name, value in values.items()}
    base = lists[first]
    texts = {}
    for name, value in values.items():
        own = lists[name]
        if name == first or base is None or own is None or max(len(own), len(base)) <= MOST:
            texts[name] = _describe(value)
        else:
            texts[name] = _describe_change(own, base, first)
    return texts


def _describe_change(own: list[str], base: list[str], first: str) -> str:
    """Say how a list differs from that of the first run; what it holds where they share nothing."""
    here, there = {*own}, {*base}
    added = [each for each in own if each not in there]
    gone = [each for each in base if each not in here]
    if len(added) == len(own):
        return _describe(own)
    both = (("without", gone), ("with", added))
    changes = [f"{word} {join_names(names)}" for word, names in both if names]
    return f"{len(own):,}, those of {first} {' and '.join(changes) or 'in another order'}"


def _entries(value: Any) -> list[str] | None:
    if isinstance(value, Mapping):
        return [f"{key}: {each}" for key, each in value.items()]
    return [str(each) for each in value] if isinstance(value, tuple | list) else None


def _describe(value: Any) -> str:
    if value is None:
        return "–"
    entries = _entries(value)
    if entries is not None and len(entries) > MOST:
        return f"{len(entries):,}: {join_names(entries)}"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) and np.isfinite(value) else str(value)
