"""Walk-forward of methods and baselines, and the results of each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import (
    Market,
    has_ended,
    measure_calibration,
    qlike,
    r_squared,
    shift_to_mean_variance,
    skill,
    summarise_by_regime,
)
from maml_jax.backtest.positions import level_signals
from maml_jax.backtest.strategy_names import BUY_AND_HOLD
from maml_jax.backtest.summary import compute_figures, compute_skill, summarise
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.evaluation.accounts import (
    Traded,
    market_of_test_span,
    trade_assets,
    trade_decisions,
)
from maml_jax.experiment.evaluation.decisions import decide
from maml_jax.experiment.evaluation.forecasts import Forecasts, predict_all
from maml_jax.experiment.evaluation.inference import Judgement, judge
from maml_jax.experiment.evaluation.long_tables import long_predictions, long_trades, long_weights
from maml_jax.experiment.evaluation.predicted import Predicted, on_test_span
from maml_jax.experiment.learning.step_errors import adaptation_errors
from maml_jax.experiment.learning.tasks import find_test_supports
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.preparation.regimes import regimes_of_report
from maml_jax.experiment.timing import stage
from maml_jax.features import fill_returns
from maml_jax.listing import FEW, join_names
from maml_jax.meta.types import Params
from maml_jax.notes import Note


class Evaluation(NamedTuple):
    """What every strategy did on the same bars at the same costs.

    Attributes:
        stats: one column per strategy, one row per figure.
        predictions: one row per strategy, asset and bar that was predicted: `timestamp`, `asset`,
            `strategy`, `prediction` (in the target's own units), `std` (where the learner has one),
            `position`, `target` (NaN where it is not known yet), and `level` and `confidence` where
            positions are made by levels.
        returns: net return of the account per bar, one column per strategy.
        gross: the same before costs.
        turnover: value traded per bar as a share of equity, one column per strategy.
        exposure: sizes of all positions at each close as a share of equity, likewise.
        weights: one row per strategy, asset and bar: `timestamp`, `strategy`, `asset`, `order` (the
            share of equity that was wanted where orders are executed; NaN where nothing could be
            done) and `weight` (what is held at the close).
        trades: all trades of all strategies, with the column `strategy`.
        assets: one row per strategy and asset traded alone.
        regimes: one row per strategy and regime of the market, by `summarise_by_regime`.
        adaptation: errors before and after each step, as `adaptation_errors` returns them.
        intervals: of figures of every strategy, as `compute_intervals` returns them.
        differences: of the first method's figures from all others, by `compute_differences`.
        significance: one row per strategy, by `assess_significance`, and `random_share`: by how
            many of its own positions at random times the first method was not beaten.
        overfitting: what choosing the best of the methods is worth; `probability` and others.
        notes: what a reader must know, such as predictions that are not finite.
    """

    stats: pd.DataFrame
    predictions: pd.DataFrame
    returns: pd.DataFrame
    gross: pd.DataFrame
    trades: pd.DataFrame
    assets: pd.DataFrame
    regimes: pd.DataFrame
    turnover: pd.DataFrame = pd.DataFrame()
    exposure: pd.DataFrame = pd.DataFrame()
    weights: pd.DataFrame = pd.DataFrame()
    adaptation: pd.DataFrame = pd.DataFrame()
    intervals: pd.DataFrame = pd.DataFrame()
    differences: pd.DataFrame = pd.DataFrame()
    significance: pd.DataFrame = pd.DataFrame()
    overfitting: Mapping[str, Any] = {}
    notes: tuple[Note, ...] = ()


def evaluate(
    prepared: Prepared, trained: Mapping[str, Params], *, ledger: Path | None = None
) -> Evaluation:
    """Walk forward and trade every strategy.

    Each asset has an equal share of the capital, long, short or idle. Every strategy is judged on
    every bar of the test span, the first of which nobody can have traded on yet.

    Args:
        prepared: settings and panel.
        trained: meta-parameters of each method, the headline first.
        ledger: folder in which trials are recorded; None counts those of this call alone.
    """
    forecasts = predict_all(prepared, trained)
    with stage("errors after each step"):
        adaptation = adaptation_errors(prepared, trained).table
    found = evaluate_forecasts(prepared, forecasts, ledger=ledger)
    return found._replace(adaptation=adaptation)


def evaluate_forecasts(
    prepared: Prepared, forecasts: Forecasts, *, ledger: Path | None = None
) -> Evaluation:
    """Trade what was predicted, and measure; arguments as for `evaluate`."""
    with stage("trading"):
        market = market_of_test_span(prepared)
        decisions = _decisions(prepared, forecasts, market.close.index)
        traded = trade_decisions(prepared, market, decisions)
    with stage("figures"):
        found = _measure(prepared, forecasts, decisions, traded)
    with stage("statistics"):
        judgement = judge(prepared, found.returns, decisions, market, ledger=ledger)
    return _add_judgement(found, judgement)


def net_returns(prepared: Prepared, forecasts: Forecasts) -> pd.DataFrame:
    """Return net returns per bar of every strategy, `[time, strategy]`, and nothing else."""
    market = market_of_test_span(prepared)
    decisions = _decisions(prepared, forecasts, market.close.index)
    accounts = trade_decisions(prepared, market, decisions).accounts
    return pd.DataFrame({name: account.net for name, account in accounts.items()})


def _decisions(
    prepared: Prepared, forecasts: Forecasts, index: pd.Index
) -> dict[str, pd.DataFrame]:
    bars = {asset: prepared.bars[asset] for asset in prepared.test_assets}
    returns = fill_returns(bars, prepared.config.target.fill).reindex(index)
    return decide(prepared, forecasts.predicted, returns)


def _measure(
    prepared: Prepared,
    forecasts: Forecasts,
    decisions: Mapping[str, pd.DataFrame],
    traded: Traded,
) -> Evaluation:
    predicted, accounts = forecasts.predicted, traded.accounts
    terms: dict[str, Any] = {
        "bars_per_year": prepared.bars_per_year,
        "capital": prepared.config.backtest.capital,
    }
    held = accounts[BUY_AND_HOLD].net if BUY_AND_HOLD in accounts else None
    targets = _outcomes(prepared)
    stats = {}
    for name, account in accounts.items():
        figures = [summarise(account, account.weights, account.trades, benchmark=held, **terms)]
        if name in predicted:
            figures += _skills(prepared, predicted[name], targets)
        stats[name] = pd.concat(figures)
    rows = dict.fromkeys(row for figures in stats.values() for row in figures.index)
    net = _wide({name: account.net for name, account in accounts.items()})
    known = regimes_of_report(prepared.config, prepared.market).reindex(net.index, fill_value=-1)
    exposure = {n: account.weights.abs().sum(axis="columns") for n, account in accounts.items()}
    return Evaluation(
        stats=pd.DataFrame(stats).reindex(list(rows)),
        predictions=_add_levels(prepared.config, long_predictions(predicted, decisions, targets)),
        returns=net,
        gross=_wide({name: account.gross for name, account in accounts.items()}),
        trades=long_trades(traded),
        assets=_measure_assets(prepared, predicted, decisions, traded.market, targets, terms),
        regimes=summarise_by_regime(net, known, prepared.bars_per_year),
        turnover=_wide({name: account.turnover for name, account in accounts.items()}),
        exposure=_wide(exposure),
        weights=long_weights(traded),
        notes=(
            *forecasts.notes,
            *_note_not_finite(prepared, predicted),
            *_note_ruin({name: account.net for name, account in accounts.items()}),
            *_note_ended(traded.market),
        ),
    )


def _measure_assets(
    prepared: Prepared,
    predicted: Mapping[str, Predicted],
    decisions: Mapping[str, pd.DataFrame],
    market: Market,
    targets: pd.DataFrame,
    terms: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the figures of every strategy on every asset alone, strategy by strategy."""
    rows: dict[str, list[dict]] = {name: [] for name in decisions}
    for asset, accounts in trade_assets(prepared, market, decisions):
        held = accounts[BUY_AND_HOLD].net if BUY_AND_HOLD in accounts else None
        for name, alone in accounts.items():
            figures = compute_figures(alone, alone.weights, alone.trades, benchmark=held, **terms)
            row = {"strategy": name, "asset": asset, **figures}
            if name in predicted:
                row |= compute_skill(predicted[name].mean[[asset]], targets[[asset]])
            del row["Start"], row["End"]
            rows[name].append(row)
    return pd.DataFrame([row for each in rows.values() for row in each])


def _add_judgement(found: Evaluation, judgement: Judgement) -> Evaluation:
    return found._replace(
        intervals=judgement.intervals,
        differences=judgement.differences,
        significance=judgement.significance,
        overfitting=judgement.overfitting,
        notes=(*found.notes, *judgement.notes),
    )


def _wide(columns: Mapping[str, pd.Series]) -> pd.DataFrame:
    return pd.DataFrame(columns).rename_axis("timestamp")


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
        variance = shift_to_mean_variance(mean, targets, _known_at(prepared)).to_numpy().T
        found.append(
            pd.Series(
                {"R2": r_squared(mean.to_numpy().T, outcome), "QLIKE": qlike(variance, outcome)}
            )
        )
    if std is not None and prepared.config.target.kind != "direction":  # -1, 0 or 1
        found.append(measure_calibration(mean, std, targets))
    return found


def _note_not_finite(prepared: Prepared, predicted: Mapping[str, Predicted]) -> tuple[Note, ...]:
    """Say where a prediction was due and is not finite: no position was taken there."""
    due = on_test_span(prepared, find_test_supports(prepared).due)
    notes = []
    for name, (mean, _) in predicted.items():
        bad = (due > 0) & ~np.isfinite(mean)
        if bad.any(axis=None):
            time = bad.index[bad.any(axis="columns")][0]
            asset = bad.columns[bad.loc[time]][0]
            text = (
                f"{name}: {int(bad.to_numpy().sum())} of {int((due > 0).to_numpy().sum())} "
                f"predictions are not finite, the first for {asset} at {time}; no position was "
                "taken there. Adapting diverged: try a smaller inner learning rate or fewer steps."
            )
            notes.append(Note("not finite", text))
    return tuple(notes)


def _note_ruin(net: Mapping[str, pd.Series]) -> tuple[Note, ...]:
    lost = {name: returns.index[returns <= -1] for name, returns in net.items()}
    return tuple(
        Note(
            "ruin", f"{name}: lost the whole capital at {times[0]}; its equity is 0 from there on."
        )
        for name, times in lost.items()
        if len(times)
    )


def _note_ended(market: Market) -> tuple[Note, ...]:
    """Say which assets ended within the test span: nobody may have had their last price."""
    ended = has_ended(market)
    gone = list(ended.columns[ended.any()])
    first = {asset: ended.index[ended[asset]][0] for asset in gone}
    last = {asset: market.close[asset].loc[: first[asset]].last_valid_index() for asset in gone}
    if len(gone) > FEW:
        names = join_names((f"{asset} (last bar {last[asset]})" for asset in gone), kind="assets")
        text = (
            f"{len(gone):,} assets ended within the test span: {names}; what was held of each is "
            "closed at its last price, at which it may not have been possible to trade. In "
            'trades.parquet such trades have the reason "end".'
        )
        return (Note("ended", text),)
    return tuple(
        Note(
            "ended",
            f"{asset}: no bar after {last[asset]}; what was held of it is closed at its last price "
            f"on {first[asset]}, at which it may not have been possible to trade.",
        )
        for asset in gone
    )


def _add_levels(config: Config, predictions: pd.DataFrame) -> pd.DataFrame:
    """Say each prediction as a level with the confidence in it, where positions are made so."""
    if config.position_rule() != "levels":
        return predictions
    settings = config.backtest
    values = predictions[["prediction"]].reset_index(drop=True)
    signals = level_signals(values, settings.threshold, settings.strong())
    levels = signals.set_index("timestamp")[["level", "confidence"]]  # places of rows
    return predictions.join(levels)
