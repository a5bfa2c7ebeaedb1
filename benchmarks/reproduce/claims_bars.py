"""What is claimed of trading, measured on bars: one market, one seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from benchmarks.reproduce.claims_race import run_race, summarise_race
from maml_jax.backtest import metrics
from maml_jax.backtest.strategy_names import FROM_SCRATCH, NO_ADAPTATION
from maml_jax.data.synthetic import known_answer_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment import Result, backtest, train
from maml_jax.experiment.learning.methods import network
from maml_jax.experiment.learning.train import initial_params, make_learner
from maml_jax.experiment.preparation.prepare import prepare
from maml_jax.meta.types import Task
from maml_jax.tasks import asset_family, market_sampler

METHOD, JOINT = "maml", "joint_training"
STRATEGIES = (METHOD, NO_ADAPTATION, FROM_SCRATCH, JOINT)
GROUPS = ("unseen", "seen")
RESAMPLES, BLOCK = 300, 20
"""Draws of the bootstrap, and the mean length in bars of its blocks."""

CLAIMED_GAIN = 0.15
"""The least relative gain in Sharpe that is claimed."""

Bars = Mapping[str, pd.DataFrame]
Measure = dict[str, float]
"""A `value` and, where there is one history only, its deviation `sd` over histories like it."""


@dataclass(frozen=True)
class Market:
    """Bars, and how they are split.

    Attributes:
        key: its name in files.
        name: its name in tables.
        bars: makes or returns the bars for a seed.
        settings: of the run.
        seen: assets to meta-train on.
        unseen: the others.
        tested: of the seen ones those that are walked forward on, beside the unseen.
        one_history: whether all seeds meet the same bars, so that intervals need the bootstrap.
        identity: what else a result depends on, such as where the bars come from.
    """

    key: str
    name: str
    bars: Callable[[int], Bars]
    settings: Mapping[str, Any]
    seen: Sequence[str]
    unseen: Sequence[str]
    tested: Sequence[str]
    one_history: bool
    identity: Mapping[str, Any] = field(default_factory=dict)


def simulated_market(snr: float, *, bars: int = 1500, seen: int = 20, unseen: int = 8) -> Market:
    """Return a market whose next return depends on the last ten, on each asset in its own way."""
    names = [f"A{i}" for i in range(seen + unseen)]
    protocol = {"snr": snr, "count": bars, "assets": len(names)}
    last = pd.Timestamp("2000-01-01") + pd.Timedelta(days=int(0.6 * bars))
    settings = {
        "data": {"train_end": f"{last:%Y-%m-%d}"},
        "features": {"names": ["return_1", *(f"return_1_lag_{k}" for k in range(1, 10))]},
        "target": {"horizon": 1, "fill": "close"},
    }
    return Market(
        key=f"simulated-snr{snr:g}",
        name=f"simulated bars, SNR {snr:g}",
        bars=lambda seed: known_answer_bars(**protocol, seed=seed).bars,
        settings=settings,
        seen=names[:seen],
        unseen=names[seen:],
        tested=names[:unseen],
        one_history=False,
        identity=protocol,
    )


def real_market(bars: Bars, identity: Mapping[str, Any]) -> Market:
    """Split real bars: a quarter of the assets, the last by name, are unseen until the test.

    Raises:
        ConfigError: if there are fewer than four assets.
    """
    names = sorted(bars)
    if len(names) < 4:
        raise ConfigError(f"--bars: needs at least 4 assets, there are {len(names)}: {names}")
    count = max(1, len(names) // 4)
    first = min(frame.index[0] for frame in bars.values())
    last = max(frame.index[-1] for frame in bars.values())
    dates = {"train_end": "2009-12-31", "test_start": "2010-01-01"}
    inside = first < pd.Timestamp("2005-01-01", tz="UTC") < pd.Timestamp("2012", tz="UTC") < last
    return Market(
        key="real",
        name=f"real bars, {first:%Y}-{last:%Y}",
        bars=lambda seed: bars,
        settings={"data": dates} if inside else {},
        seen=names[:-count],
        unseen=names[-count:],
        tested=names[:-count],
        one_history=True,
        identity=identity,
    )


def settings_of(market: Market, seed: int, steps: int) -> dict[str, Any]:
    """Return the settings of a run, as `maml_jax.experiment.run` takes them."""
    data = {"train_assets": list(market.seen), "test_assets": list(market.unseen)}
    return {
        **market.settings,
        "seed": seed,
        "data": {**market.settings.get("data", {}), **data},
        "learner": {"methods": [METHOD, JOINT]},
        "training": {"steps": steps},
    }


def measure_market(market: Market, seed: int, steps: int, *, windows: int) -> dict[str, Any]:
    """Meta-train on the seen assets, walk forward on both kinds, and measure.

    Args:
        market: the bars.
        seed: of the weights and tasks, and of bars that are simulated.
        steps: meta-steps.
        windows: tasks of the race against training from scratch; 0 for none.
    """
    bars = market.bars(seed)
    settings: dict[str, Any] = settings_of(market, seed, steps)
    trained = train(bars=dict(bars), **settings)
    generator = np.random.default_rng(seed) if market.one_history else None
    measured: dict[str, Any] = {}
    for group, assets in zip(GROUPS, (market.unseen, market.tested), strict=True):
        tested: dict[str, Any] = {"data": {"test_assets": list(assets)}}
        result = backtest(trained, bars=dict(bars), **tested)
        measured[group] = {
            **_sharpes(result, generator),
            **_errors(result, generator),
            "portfolio": _portfolio(result, generator),
        }
        if group == "unseen" and windows:
            measured["race"] = _race(result, bars, windows)
    return measured


def _measure(
    function: Callable[..., float], generator, *series: np.ndarray, block=BLOCK
) -> Measure:
    """Measure, and resample all series together in blocks (Politis and Romano, 1994)."""
    value = {"value": float(function(*series))}
    if generator is not None:
        count = len(series[0])
        draws = []
        for _ in range(RESAMPLES):
            places = _draw_blocks(generator, count, block)
            draws.append(function(*(each[places] for each in series)))
        value["sd"] = float(np.std(draws, ddof=1))
    return value


def _draw_blocks(generator: np.random.Generator, count: int, block: int) -> np.ndarray:
    """Draw places of the stationary bootstrap: blocks of geometric length, wrapped around."""
    begins = generator.random(count) < 1 / block
    begins[0] = True
    start = generator.integers(count, size=count)
    since = np.arange(count) - np.maximum.accumulate(np.where(begins, np.arange(count), 0))
    first = start[np.maximum.accumulate(np.where(begins, np.arange(count), 0))]
    return (first + since) % count


def _sharpes(result: Result, generator) -> dict[str, dict[str, Measure]]:
    years = float(result.stats.loc["Bars per Year", METHOD])  # pyright: ignore[reportArgumentType]

    def sharpe(returns):
        return metrics.sharpe_ratio(returns, years)

    def beyond(after, before):
        low = sharpe(before)
        return sharpe(after) - low - CLAIMED_GAIN * abs(low)

    ratios = {}
    for name, table in (("net", result.returns), ("gross", result.gross)):
        after, before = (table[each].to_numpy(float) for each in (METHOD, NO_ADAPTATION))
        ratios[name] = {
            "after": _measure(sharpe, generator, after),
            "before": _measure(sharpe, generator, before),
            "gain": _measure(lambda a, b: sharpe(a) - sharpe(b), generator, after, before),
            "beyond_claim": _measure(beyond, generator, after, before),
        }
    return ratios


def _errors(result: Result, generator) -> dict[str, dict[str, Measure]]:
    """Measure 1 - error / error of predicting nothing, and what adapting is ahead of the others."""
    table = result.predictions.dropna(subset=["prediction", "target"])
    error = (table["prediction"] - table["target"]) ** 2
    by_date = (
        table.assign(error=error, zero=table["target"] ** 2)
        .groupby(["strategy", "timestamp"])[["error", "zero"]]
        .sum()
    )
    columns = {name: by_date.loc[name]["error"].to_numpy(float) for name in STRATEGIES}
    zero = by_date.loc[METHOD]["zero"].to_numpy(float)

    def skill(error, zero):
        return 1 - error.sum() / zero.sum()

    def ahead(other, own, zero):
        return (other.sum() - own.sum()) / zero.sum()

    own = columns[METHOD]
    return {
        "r2": {name: _measure(skill, generator, each, zero) for name, each in columns.items()},
        "ahead": {
            name: _measure(ahead, generator, each, own, zero)
            for name, each in columns.items()
            if name != METHOD
        },
        "correlation": {
            name: {"value": float(result.stats.loc["Correlation", name])}  # pyright: ignore[reportArgumentType]
            for name in STRATEGIES
        },
    }


def _portfolio(result: Result, generator) -> dict[str, Measure]:
    years = float(result.stats.loc["Bars per Year", METHOD])  # pyright: ignore[reportArgumentType]
    net = result.returns[METHOD].to_numpy(float)
    trades = result.trades
    closed = trades.loc[trades["strategy"] == METHOD, "net"].to_numpy(float)
    by_bar = {
        "sharpe": lambda r: metrics.sharpe_ratio(r, years),
        "sortino": lambda r: metrics.sortino_ratio(r, years),
        "drawdown": lambda r: -100 * metrics.max_drawdown(r),
    }
    by_trade = {
        "win_rate": lambda r: 100 * metrics.win_rate(r),
        "profit_factor": metrics.profit_factor,
    }
    return {
        **{name: _measure(f, generator, net) for name, f in by_bar.items()},
        **{name: _measure(f, generator, closed, block=1) for name, f in by_trade.items()},
    }


def _race(result: Result, bars: Bars, count: int) -> dict[str, Any]:
    """Race on windows of the unseen assets in the test span, evenly spread over each."""
    checkpoint = result.checkpoints[METHOD]
    prepared = prepare(result.config, bars, checkpoint.fitted)
    config, panel = prepared.config, prepared.panel
    windows = asset_family(
        panel,
        support=config.task.support,
        query=config.task.query,
        embargo=config.task.embargo,
        assets=prepared.test_assets,
        first=prepared.test_first,
    )
    sampler = market_sampler(panel, windows, meta_batch=1)
    chosen = np.unique(np.linspace(0, len(windows.asset) - 1, count).astype(int))
    tasks: Task = jax.vmap(sampler.task)(jnp.asarray(chosen))
    learner = make_learner(config, METHOD)
    untrained = initial_params(config, learner, len(panel.feature_names))
    race = run_race(learner, checkpoint.params, network(config.model), untrained, tasks)
    return summarise_race(race)
