"""Tables of a run that never was, of any size, for tests of figures and pages."""

from dataclasses import replace

import numpy as np
import pandas as pd

from maml_jax.backtest.regime_results import summarise_by_regime
from maml_jax.backtest.summary import summarise
from maml_jax.report import RunTables, TearSheet
from maml_jax.report.sections.assets import describe_assets
from maml_jax.report.sections.forecasts import describe_forecasts, describe_regimes
from maml_jax.report.sections.returns import (
    describe_equity,
    describe_luck,
    describe_periods,
    describe_strategies,
    describe_trading,
    make_tiles,
)

STRATEGIES = (
    "maml", "fomaml", "no adaptation", "from scratch", "random", "momentum", "ridge", "trees",
    "incremental", "retrained", "reptile", "meta_sgd", "buy and hold",
)  # fmt: skip

SECTIONS = (
    describe_equity, describe_luck, describe_strategies, describe_periods, describe_trading,
    describe_forecasts, describe_assets, describe_regimes,
)  # fmt: skip


def returns(bars=400, strategies=STRATEGIES, *, start="2019-03-01", step="D", seed=0):
    """Gross returns, `[time, strategy]`, with fat tails."""
    rng = np.random.default_rng(seed)
    index = pd.date_range(start, periods=bars, freq=step, tz="UTC", name="timestamp")
    drawn = 0.004 * rng.standard_t(4, (bars, len(strategies))) + 0.0002
    return pd.DataFrame(drawn, index, list(strategies))


def run_tables(bars=400, assets=3, strategies=STRATEGIES, **options) -> RunTables:
    rng = np.random.default_rng(1)
    gross = returns(bars, strategies, **options)
    turnover = pd.DataFrame(rng.random(gross.shape), gross.index, gross.columns)
    exposure = pd.DataFrame(rng.random(gross.shape), gross.index, gross.columns)
    net = gross - 0.0015 * turnover
    names = [f"A{number}" for number in range(assets)]
    trades = trades_of(net, names)
    stats, alone = {}, []
    for name in net:
        account = _Account(gross[name], net[name], turnover[name])
        made = trades[trades["strategy"] == name]
        figures = summarise(account, exposure[[name]], made, bars_per_year=252.0)
        figures["Correlation"] = 0.01
        stats[name] = figures
        alone += [{"strategy": name, "asset": asset, **figures} for asset in names]
    regimes = pd.Series(np.arange(bars) // 50 % 6 - 1, net.index)
    return RunTables(
        headline=strategies[0],
        methods=strategies[:2],
        bars_per_year=252.0,
        stats=pd.DataFrame(stats),
        returns=net,
        gross=gross,
        turnover=turnover,
        exposure=exposure,
        predictions=predictions(net.index, names, strategies[:4]),
        trades=trades,
        assets=pd.DataFrame(alone),
        regimes=summarise_by_regime(net, regimes, 252.0),
        history=pd.DataFrame(
            {"method": "maml", "fold": np.repeat([0, 1], 30), "step": [*range(30), *range(30)],
             "loss": rng.random(60)}
        ),
        adaptation=pd.DataFrame({"maml": [1.1, 1.0, 0.95], "fomaml": [1.2, 1.1, 1.3]}, [0, 2, 5]),
        intervals=intervals(net, "strategy"),
        differences=intervals(net.drop(columns=strategies[0]), "other"),
        significance=pd.DataFrame(
            {"alpha [%]": 1.0, "alpha low [%]": -3.0, "alpha high [%]": 5.0, "beta": 0.2,
             "p_value": 0.3,
             "trials": 4, "p_adjusted": 0.76, "deflated_sharpe": 0.4, "spa_p": np.nan},
            index=list(strategies),
        ),
        overfitting={"probability": 0.4, "splits": 12870, "methods": ["maml", "fomaml"],
                     "paths": {name: [0.5, None, -0.25, 1.5] for name in strategies}},
        cost=0.0015,
        units="trailing volatilities",
        overlap=5,
    )  # fmt: skip


def with_unlike_assets(tables, *, seed=5):
    """Give every asset its own figures: those that `run_tables` makes are all alike."""
    rng = np.random.default_rng(seed)
    assets = tables.assets.copy()
    for name in ("Return [%]", "Sharpe Ratio", "Max. Drawdown [%]", "Win Rate [%]"):
        assets[name] = rng.standard_normal(len(assets))
    return replace(tables, assets=assets)


def sheet_of(tables, notes=(), **options):
    return TearSheet(
        title="a <title>",
        verdict="One stretch of history proves little.",
        notes=notes,
        sections=[describe(tables) for describe in SECTIONS],
        settings={"run": {"seed": 3, "assets": ("A", "B"), "modules": ()}},
        versions={"maml-jax": "0"},
        tiles=make_tiles(tables),
        **options,
    )


class _Account:
    def __init__(self, gross, net, turnover):
        self.gross, self.net, self.turnover = gross, net, turnover
        self.costs = gross - net
        self.asset_net = net.to_frame("all")


def trades_of(net, assets):
    rows = []
    for name in net:
        for number in range(0, len(net) - 5, 20):
            rows.append({
                "strategy": name, "asset": assets[number % len(assets)],
"side": 1 - number // 20 % 2 * 2,
                "entry": net.index[number], "exit": net.index[number + 5], "bars": 5,
                "gross": 0.01, "net": 0.01 * np.sin(number), "result": 1.0, "cost": 0.1,
                "reason": "order", "open": number + 25 > len(net),
            })  # fmt: skip
    columns = ["strategy", "asset", "side", "entry", "exit", "bars", "gross", "net", "open"]
    return pd.DataFrame(rows) if rows else pd.DataFrame({name: [] for name in columns})


def predictions(index, assets, strategies, *, slope=0.5, std=1.0):
    rng = np.random.default_rng(2)
    tables = []
    for name in strategies:
        for asset in assets:
            predicted = rng.standard_normal(len(index))
            tables.append(pd.DataFrame({
                "timestamp": index, "asset": asset, "strategy": name, "prediction": predicted,
                "std": std, "target": slope * predicted + rng.standard_normal(len(index)),
            }))  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def intervals(net, name):
    rows = []
    for place, strategy in enumerate(net):
        for figure, value in (("Sharpe Ratio", 0.1 * place - 0.4), ("CAGR [%]", float(place))):
            rows.append({name: strategy, "figure": figure, "value": value, "low": value - 0.6,
                         "high": value + 0.7})  # fmt: skip
    return pd.DataFrame(rows)
