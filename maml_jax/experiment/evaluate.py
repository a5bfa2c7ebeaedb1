"""Walk-forward of a method and its baselines, and what each would have earned."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import (
    Costs,
    held_weights,
    list_trades,
    simulate,
    skill,
    summarise,
    threshold_positions,
    walk_forward,
)
from maml_jax.backtest.walk_forward import due_predictions
from maml_jax.experiment.learn import initial_params, make_learner
from maml_jax.experiment.methods import METHODS
from maml_jax.experiment.prepare import Prepared
from maml_jax.experiment.stages import stage
from maml_jax.features import fill_returns, label_delay
from maml_jax.meta import Prediction
from maml_jax.meta.types import Params

NO_ADAPTATION = "no adaptation"
FROM_SCRATCH = "from scratch"
BUY_AND_HOLD = "buy and hold"


class _Predicted(NamedTuple):
    mean: pd.DataFrame
    std: pd.DataFrame | None


class Evaluation(NamedTuple):
    """What every strategy did on the same bars at the same costs.

    Attributes:
        stats: one column per strategy, one row per figure.
        predictions: one row per strategy, asset and bar that was predicted: `timestamp`, `asset`,
            `strategy`, `prediction` (volatilities over the horizon), `std` (where the learner has
            one), `position`, `target` (NaN where it is not known yet).
        returns: net return of the portfolio per bar, one column per strategy.
        gross: the same before costs.
        trades: all trades of all strategies, with the column `strategy`.
        assets: one row per strategy and asset traded alone.
        notes: what a reader must know, such as predictions that are not finite.
    """

    stats: pd.DataFrame
    predictions: pd.DataFrame
    returns: pd.DataFrame
    gross: pd.DataFrame
    trades: pd.DataFrame
    assets: pd.DataFrame
    notes: tuple[str, ...] = ()


def predict_all(prepared: Prepared, trained: Mapping[str, Params]) -> dict[str, _Predicted]:
    """Walk forward with every trained method, the unadapted start and an untrained network.

    Args:
        prepared: settings and panel.
        trained: meta-parameters of each method; the baselines are those of the first.

    Returns:
        For each strategy what it predicts, `[time, asset]` over the test span; `std` is None where
        the learner has none. The start is left out where the first method has none that predicts.
    """
    config, panel = prepared.config, prepared.panel
    headline = next(iter(trained))

    growing = config.backtest.window == "growing"

    def predict(name, method, params, steps=config.backtest.inner_steps, growing=growing):
        with stage(f"walk-forward {name}"):
            result = walk_forward(
                make_learner(config, method),
                params,
                panel,
                window=config.task.support,
                first=prepared.test_first,
                last=prepared.test_last,
                assets=prepared.test_assets,
                steps=steps if METHODS[method].takes_steps or growing else None,
                length=config.model.length,
                growing=growing,
                chunk=config.backtest.chunk,
                devices=config.backtest.devices,
            )
        if not isinstance(result, Prediction):
            return _Predicted(_table(prepared, result), None)
        return _Predicted(_table(prepared, result.mean), _table(prepared, result.std))

    untrained = initial_params(config, make_learner(config, headline), len(panel.feature_names))
    predictions = {method: predict(method, method, params) for method, params in trained.items()}
    # Where a head is fitted in closed form only a prior can do without its support set.
    prior = make_learner(config, headline).update is not None
    if prior or METHODS[headline].takes_steps:
        predictions[NO_ADAPTATION] = predict(
            NO_ADAPTATION, headline, trained[headline], steps=0, growing=prior
        )
    predictions[FROM_SCRATCH] = predict(FROM_SCRATCH, headline, untrained)
    return predictions


def evaluate(prepared: Prepared, trained: Mapping[str, Params]) -> Evaluation:
    """Walk forward and simulate every strategy.

    Each asset has an equal share of the capital, long, short or idle. Every strategy is judged on
    every bar of the test span, the first of which nobody can have traded on yet.
    """
    predicted = predict_all(prepared, trained)
    with stage("simulation and figures"):
        return _simulated(prepared, predicted)


def _simulated(prepared: Prepared, predicted: Mapping[str, _Predicted]) -> Evaluation:
    config = prepared.config
    assets = prepared.test_assets
    span = slice(prepared.test_first, prepared.test_last + 1)
    returns = fill_returns({a: prepared.bars[a] for a in assets}, config.target.fill)
    returns = returns.reindex(prepared.panel.timestamps[span]).dropna(how="all")
    costs = Costs(config.backtest.fee, config.backtest.slippage)
    delay = label_delay(config.target.fill, 1)
    known = np.asarray(prepared.panel.label_end) < len(prepared.panel.timestamps)
    targets = _table(prepared, np.where(known, np.asarray(prepared.panel.targets), np.nan))
    decisions = {
        name: threshold_positions(mean, config.backtest.threshold)
        for name, (mean, _) in predicted.items()
    }
    decisions[BUY_AND_HOLD] = returns.notna().astype("float64")

    stats, net, gross, trades, per_asset = {}, {}, {}, [], []
    for name, decided in decisions.items():
        full = held_weights(decided, returns, delay)
        weights = full / len(assets)
        simulation = simulate(weights, returns, costs)
        made = list_trades(full, returns, costs)
        made.insert(0, "strategy", name)
        settings = {"bars_per_year": prepared.bars_per_year, "capital": config.backtest.capital}
        figures = summarise(simulation, weights, made, **settings)
        if name in predicted:
            figures = pd.concat([figures, skill(predicted[name][0], targets)])
        for asset in assets:
            alone = simulate(full[asset], returns[asset], costs)
            row = summarise(alone, full[[asset]], made[made["asset"] == asset], **settings)
            if name in predicted:
                row = pd.concat([row, skill(predicted[name][0][[asset]], targets[[asset]])])
            per_asset.append({"strategy": name, "asset": asset, **row.drop(["Start", "End"])})
        stats[name], net[name], gross[name] = figures, simulation.net, simulation.gross
        trades.append(made)
    return Evaluation(
        pd.DataFrame(stats).reindex(next(iter(stats.values())).index),
        _long_predictions(predicted, decisions, targets),
        pd.DataFrame(net).rename_axis("timestamp"),
        pd.DataFrame(gross).rename_axis("timestamp"),
        pd.concat([t for t in trades if len(t)] or trades[:1], ignore_index=True),
        pd.DataFrame(per_asset),
        (*_not_finite(prepared, predicted), *_ruined(net)),
    )


def _not_finite(prepared: Prepared, predicted: Mapping[str, _Predicted]) -> tuple[str, ...]:
    """Say where a prediction was due and is not finite: no position was taken there."""
    due = _table(prepared, _due(prepared))
    notes = []
    for name, (mean, _) in predicted.items():
        bad = (due > 0) & ~np.isfinite(mean)
        if bad.any(axis=None):
            time = bad.index[bad.any(axis="columns")][0]
            asset = bad.columns[bad.loc[time]][0]
            notes.append(
                f"{name}: {int(bad.to_numpy().sum())} of {int((due > 0).to_numpy().sum())} "
                f"predictions are not finite, the first for {asset} at {time}; no position was "
                "taken there. Adapting diverged: try a smaller inner learning rate or fewer steps."
            )
    return tuple(notes)


def _ruined(net: Mapping[str, pd.Series]) -> tuple[str, ...]:
    lost = {name: returns.index[returns <= -1] for name, returns in net.items()}
    return tuple(
        f"{name}: lost the whole capital at {times[0]}; its equity is 0 from there on."
        for name, times in lost.items()
        if len(times)
    )


def _due(prepared: Prepared) -> np.ndarray:
    return due_predictions(
        prepared.panel,
        window=prepared.config.task.support,
        first=prepared.test_first,
        last=prepared.test_last,
        assets=prepared.test_assets,
        length=prepared.config.model.length,
    )


def _table(prepared: Prepared, values: Any) -> pd.DataFrame:
    """Turn `[asset, time]` into a table of the test assets over the test span."""
    panel = prepared.panel
    table = pd.DataFrame(
        np.asarray(values, np.float64).T, index=panel.timestamps, columns=list(panel.assets)
    )
    span = slice(prepared.test_first, prepared.test_last + 1)
    return table.iloc[span].loc[:, prepared.test_assets]


def _long_predictions(predicted, decisions, targets) -> pd.DataFrame:
    def long(table: pd.DataFrame) -> np.ndarray:
        return table.melt()["value"].to_numpy()

    tables = []
    for name, (mean, std) in predicted.items():
        table = mean.melt(ignore_index=False, var_name="asset", value_name="prediction")
        table = table.rename_axis("timestamp").reset_index()
        table.insert(2, "strategy", name)
        if std is not None:
            table["std"] = long(std)
        table["position"] = long(decisions[name])
        table["target"] = long(targets)
        tables.append(table[table["prediction"].notna()])
    return pd.concat(tables, ignore_index=True)
