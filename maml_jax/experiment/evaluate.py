"""Walk-forward of a method and its baselines, and what each would have earned."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import (
    Costs,
    calibration,
    held_weights,
    list_trades,
    of_variance,
    qlike,
    r_squared,
    regime_results,
    simulate,
    skill,
    summarise,
)
from maml_jax.backtest.walk_forward import due_predictions
from maml_jax.experiment.families import supports
from maml_jax.experiment.forecast import Forecasts, Predicted, on_test_span, predict_all
from maml_jax.experiment.prepare import Prepared
from maml_jax.experiment.regimes import regimes_of_report
from maml_jax.experiment.stages import stage
from maml_jax.experiment.trade import decide
from maml_jax.features import fill_returns, label_delay
from maml_jax.meta.types import Params


class Evaluation(NamedTuple):
    """What every strategy did on the same bars at the same costs.

    Attributes:
        stats: one column per strategy, one row per figure.
        predictions: one row per strategy, asset and bar that was predicted: `timestamp`, `asset`,
            `strategy`, `prediction` (in the target's own units), `std` (where the learner has one),
            `position`, `target` (NaN where it is not known yet).
        returns: net return of the portfolio per bar, one column per strategy.
        gross: the same before costs.
        trades: all trades of all strategies, with the column `strategy`.
        assets: one row per strategy and asset traded alone.
        regimes: one row per strategy and regime of the market, as `regime_results` returns them.
        notes: what a reader must know, such as predictions that are not finite.
    """

    stats: pd.DataFrame
    predictions: pd.DataFrame
    returns: pd.DataFrame
    gross: pd.DataFrame
    trades: pd.DataFrame
    assets: pd.DataFrame
    regimes: pd.DataFrame
    notes: tuple[str, ...] = ()


def evaluate(prepared: Prepared, trained: Mapping[str, Params]) -> Evaluation:
    """Walk forward and simulate every strategy.

    Each asset has an equal share of the capital, long, short or idle. Every strategy is judged on
    every bar of the test span, the first of which nobody can have traded on yet.
    """
    forecasts = predict_all(prepared, trained)
    with stage("simulation and figures"):
        return _simulated(prepared, forecasts)


def _simulated(prepared: Prepared, forecasts: Forecasts) -> Evaluation:
    config, predicted = prepared.config, forecasts.predicted
    assets = prepared.test_assets
    span = slice(prepared.test_first, prepared.test_last + 1)
    bars = {a: prepared.bars[a] for a in assets}
    returns = fill_returns(bars, config.target.fill)
    returns = returns.reindex(prepared.panel.timestamps[span]).dropna(how="all")
    costs = Costs(config.backtest.fee, config.backtest.slippage)
    delay = label_delay(config.target.fill, 1)
    targets = _outcomes(prepared)
    decisions = decide(prepared, predicted, returns)

    stats, net, gross, trades, per_asset = {}, {}, {}, [], []
    for name, decided in decisions.items():
        full = held_weights(decided, returns, delay)
        weights = full / len(assets)
        simulation = simulate(weights, returns, costs)
        made = list_trades(full, returns, costs)
        made.insert(0, "strategy", name)
        settings = {"bars_per_year": prepared.bars_per_year, "capital": config.backtest.capital}
        figures = [summarise(simulation, weights, made, **settings)]
        if name in predicted:
            figures += _skills(prepared, predicted[name], targets)
        for asset in assets:
            alone = simulate(full[asset], returns[asset], costs)
            row = summarise(alone, full[[asset]], made[made["asset"] == asset], **settings)
            if name in predicted:
                row = pd.concat([row, skill(predicted[name].mean[[asset]], targets[[asset]])])
            per_asset.append({"strategy": name, "asset": asset, **row.drop(["Start", "End"])})
        stats[name] = pd.concat(figures)
        net[name], gross[name] = simulation.net, simulation.gross
        trades.append(made)
    rows = dict.fromkeys(row for figures in stats.values() for row in figures.index)
    known = regimes_of_report(config, prepared.market).reindex(returns.index, fill_value=-1)
    return Evaluation(
        pd.DataFrame(stats).reindex(list(rows)),
        _long_predictions(predicted, decisions, targets),
        pd.DataFrame(net).rename_axis("timestamp"),
        pd.DataFrame(gross).rename_axis("timestamp"),
        pd.concat([t for t in trades if len(t)] or trades[:1], ignore_index=True),
        pd.DataFrame(per_asset),
        regime_results(pd.DataFrame(net), known, prepared.bars_per_year),
        (*forecasts.notes, *_not_finite(prepared, predicted), *_ruined(net)),
    )


def _outcomes(prepared: Prepared) -> pd.DataFrame:
    """Lay out what came, in the target's own units; NaN where it is not known yet."""
    panel = prepared.panel
    known = np.asarray(panel.label_end) < len(panel.timestamps)
    values = prepared.scaler.restore_target(np.asarray(panel.targets, np.float64))
    return on_test_span(prepared, np.where(known, values, np.nan))


def _known_at(prepared: Prepared) -> pd.DataFrame:
    """Return when outcomes are known, as places on the test span."""
    ends = on_test_span(prepared, np.asarray(prepared.panel.label_end))
    return ends.astype(int) - prepared.test_first


def _skills(prepared: Prepared, predicted: Predicted, targets: pd.DataFrame) -> list[pd.Series]:
    """Return how predictions and their deviations agree with what came."""
    mean, std = predicted
    found = [skill(mean, targets)]
    if prepared.config.target.kind == "volatility":
        outcome = targets.to_numpy().T
        variance = of_variance(mean, targets, _known_at(prepared)).to_numpy().T
        found.append(
            pd.Series(
                {"R2": r_squared(mean.to_numpy().T, outcome), "QLIKE": qlike(variance, outcome)}
            )
        )
    if std is not None and prepared.config.target.kind != "direction":  # -1, 0 or 1
        found.append(calibration(mean, std, targets))
    return found


def _not_finite(prepared: Prepared, predicted: Mapping[str, Predicted]) -> tuple[str, ...]:
    """Say where a prediction was due and is not finite: no position was taken there."""
    due = on_test_span(prepared, _due(prepared))
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
        **supports(prepared),
    )


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
