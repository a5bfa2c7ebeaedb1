"""What a cautious statistician would say of a run, in a few sentences."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from maml_jax.backtest.inference.alpha import SIZE
from maml_jax.backtest.inference.forecast_tests import Difference, r_squared_difference
from maml_jax.backtest.strategy_names import (
    BUY_AND_HOLD,
    EWMA,
    FOLLOW,
    FROM_SCRATCH,
    NO_ADAPTATION,
    POOLED_HAR,
)
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.evaluation.evaluate import Evaluation

_CAUTION = "One stretch of history proves little by itself."
_FEW_BARS = 250
_MONTH = 21
"""Bars in a block of the bootstrap of forecasts, where horizons are no longer."""


def is_significant(evaluation: Evaluation) -> bool:
    """Say whether the headline is called significant at 5 %.

    That is one test: of its alpha over buy and hold after costs, one-sided, adjusted for the number
    of trials that are known. Where the test is not defined, nothing is significant.

    Args:
        evaluation: with the table `significance`, whose headline is the first column of `stats`.
    """
    headline = next(iter(evaluation.stats.columns), "")
    return called_significant(evaluation.significance, headline)


def called_significant(table: pd.DataFrame, headline: str) -> bool:
    """Say whether a table of `assess_significance` calls the headline significant; see there."""
    if table.empty or headline not in table.index:
        return False
    return bool(table.loc[[headline], "p_adjusted"].astype(float).iloc[0] < SIZE)


def verdict(config: Config, evaluation: Evaluation) -> str:
    """Say what the headline method did, how sure that is, and against what it must beat.

    Args:
        config: the settings of a run.
        evaluation: its tables; the headline is the first column of `stats`.
    """
    stats: Any = evaluation.stats
    method = stats.columns[0]
    start, end = stats.loc["Start", method], stats.loc["End", method]
    span = f"From {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    idle, costly = _took_no_position(stats, method), _costs_exceed(stats, method)
    if config.target.kind == "volatility":
        said = _of_volatility(config, evaluation, span)
        if idle:
            return f"{said} {method} took no position{_why_idle(config, evaluation)}."
        return f"{costly}{said}"
    if idle:
        return f"{span}, {method} took no position{_why_idle(config, evaluation)}."
    if evaluation.significance.empty:
        rivals = (NO_ADAPTATION, FROM_SCRATCH, FOLLOW, BUY_AND_HOLD)
        sharpe = _against(stats.loc["Sharpe Ratio"], method, rivals)
        return f"{costly}{span}, after costs, {method} had a Sharpe ratio of {sharpe}. {_CAUTION}"
    return costly + " ".join([*_of_returns(evaluation, method, span), *_caveats(config)])


def _costs_exceed(stats: Any, method: str) -> str:
    """Say that costs were more than what was earned before them, where they were."""
    if not {"Gross Return [%]", "Return [%]"} <= {*stats.index}:
        return ""
    gross, net = (
        float(stats.loc["Gross Return [%]", method]),
        float(stats.loc["Return [%]", method]),
    )
    if not net < 0 < gross:
        return ""
    return (
        f"Costs exceed the gross profit: {method} made {gross:.2f} % before costs and lost "
        f"{-net:.2f} % after them. "
    )


def _took_no_position(stats: Any, method: str) -> bool:
    if "# Trades" in stats.index:
        return not stats.loc["# Trades", method]
    return math.isnan(stats.loc["Sharpe Ratio", method])


def _why_idle(config: Config, evaluation: Evaluation) -> str:
    """Say what kept the headline out of the market, and which setting decides that."""
    rows: Any = evaluation.predictions
    if rows.empty:
        return ""
    rows = rows[rows["strategy"] == evaluation.stats.columns[0]]
    if rows.empty:
        return ": it predicted nothing"
    settings = config.backtest
    if (rows["position"].abs() > 0).any():
        if settings.band:
            return (
                f": no order changed the weight of an asset by as much as backtest.band "
                f"({settings.band:g} of the asset's part of the capital); lower it to trade"
            )
        return ": none of its orders could be filled"
    rule = config.position_rule()
    if rule == "confident":
        return (
            f": no prediction exceeded backtest.confidence ({settings.confidence:g} of its own "
            "deviation); lower it to trade"
        )
    if rule in ("threshold", "levels", "volatility_target") and settings.threshold:
        largest = rows["prediction"].abs().max()
        return (
            f": no prediction exceeded backtest.threshold ({settings.threshold:g}; the largest "
            f"was {largest:.3g}); lower it to trade"
        )
    if settings.sides != "long_short":
        return f': backtest.sides = "{settings.sides}" left nothing of what it wanted'
    return f': backtest.positions = "{rule}" made no position of its predictions'


def _caveats(config: Config) -> list[str]:
    """Say why nobody could have traded this, where the settings make it so."""
    said = []
    if config.folds.kind == "combinatorial":
        said.append(
            "Combinatorial folds are trained on what came later too: this is not a walk-forward, "
            "and nobody could have traded it."
        )
    if config.target.fill == "close":
        said.append(
            "Orders are filled at the very close that decided them, which is optimistic; use "
            'target.fill "next_open" or "next_close" for prices that can be had.'
        )
    return said


def _of_returns(evaluation: Evaluation, method: str, span: str) -> list[str]:
    stats: Any = evaluation.stats
    row: Any = evaluation.significance.loc[method].astype(float)
    bars = len(evaluation.returns)
    sharpe = _number(stats.loc["Sharpe Ratio", method])
    interval = _interval(evaluation.intervals, "Sharpe Ratio", method)
    said = [f"{span} ({bars:,d} bars), after costs, {method} had a Sharpe ratio of {sharpe}"]
    said[0] += f" (95 % interval {interval})." if interval else "."
    lost = evaluation.returns.index[evaluation.returns[method] <= -1]
    if len(lost):
        said.insert(0, f"{method} lost the whole capital at {lost[0]}; nothing else counts.")
    said += _alpha(row, is_significant(evaluation))
    said += _luck(row)
    said += _to_no_adaptation(evaluation, method)
    if not math.isnan(row["spa_p"]):
        finds = "finds evidence" if row["spa_p"] < SIZE else "finds no evidence"
        several = evaluation.significance["trials"].notna().sum() > 1
        who = "some method of this run" if several else "it"
        said.append(
            f"Hansen's SPA test {finds} that {who} beats every baseline ({_equal(row['spa_p'])})."
        )
    overfitted = evaluation.overfitting.get("probability", math.nan)
    if not math.isnan(overfitted):
        said.append(
            f"Risk that picking the best of this run's methods is overfitted: "
            f"{100 * overfitted:.0f} %."
        )
    if bars < _FEW_BARS:
        said.append(
            f"{bars:,d} bars are few: most edges on them are indistinguishable from chance."
        )
    return [*said, _CAUTION]


def _alpha(row: Any, significant: bool) -> list[str]:
    if math.isnan(row["p_adjusted"]):
        return ["Its alpha over buy and hold cannot be tested, so no significance is claimed."]
    number = int(row["trials"])
    tried = "one-sided"
    if number > 1:
        tried += f"; adjusted for {number:,d} trials, {_equal(row['p_adjusted'])}"
    bounds = f"{_number(row['alpha low [%]'])} to {_number(row['alpha high [%]'])}"
    return [
        f"Its alpha over buy and hold is {_number(row['alpha [%]'])} % a year (90 % interval "
        f"{bounds}), {'significant' if significant else 'not significant'} at 5 % "
        f"({_equal(row['p_value'])}, {tried})."
    ]


def _luck(row: Any) -> list[str]:
    if math.isnan(row["deflated_sharpe"]):
        return []
    number, share = int(row["trials"]), 100 * row["deflated_sharpe"]
    if number == 1:
        return [
            f"The probability that its true Sharpe ratio is above 0 is {share:.0f} %. This is the "
            "only recorded trial on these bars; unrecorded trials are not counted."
        ]
    return [
        f"The probability that its true Sharpe ratio is above what luck alone gives the best of "
        f"{number:,d} recorded trials on these bars is {share:.0f} % (deflated Sharpe ratio)."
    ]


def _to_no_adaptation(evaluation: Evaluation, method: str) -> list[str]:
    table = evaluation.differences
    if table.empty or NO_ADAPTATION not in set(table["other"]):
        return []
    rows: Any = table.set_index(["other", "figure"])
    value, low, high = rows.loc[(NO_ADAPTATION, "Sharpe Ratio"), ["value", "low", "high"]]
    if math.isnan(low) or math.isnan(high):
        return []
    if not (value or low or high):
        return ["Adapting changed nothing: without it the returns are the same."]
    clear = "it helped" if low > 0 else "it hurt" if high < 0 else "not distinguishable from 0"
    interval = f"95 % interval {_number(low)} to {_number(high)}"
    return [f"Adapting changed the Sharpe ratio by {value:+z.2f} ({interval}): {clear}."]


def _of_volatility(config: Config, evaluation: Evaluation, span: str) -> str:
    rivals = (NO_ADAPTATION, POOLED_HAR, EWMA)
    method = evaluation.stats.columns[0]
    figures: Any = evaluation.stats.loc["R2"]
    explained = _against(figures, method, rivals)
    said = [f"{span}, the forecasts of log volatility by {method} had an R2 of {explained}."]
    for rival in rivals:
        difference = _r_squared_minus(config, evaluation.predictions, method, rival)
        if difference is not None:
            value, low, high = (f"{each:.3f}" for each in difference)
            said.append(f"Its R2 minus that of {rival} is {value} (95 % interval {low} to {high}).")
    if not evaluation.significance.empty:
        row: Any = evaluation.significance.loc[method].astype(float)
        (alpha,) = _alpha(row, is_significant(evaluation))
        said.append(f"Of positions sized by these forecasts: {alpha[0].lower()}{alpha[1:]}")
    return " ".join([*said, *_caveats(config)])


def _r_squared_minus(
    config: Config, predictions: pd.DataFrame, method: str, rival: str
) -> Difference | None:
    if rival not in set(predictions["strategy"]):
        return None
    tables: Any = {
        name: rows.pivot_table(index="asset", columns="timestamp", values=["prediction", "target"])
        for name, rows in predictions.groupby("strategy")
        if name in (method, rival)
    }
    first = tables[method]["prediction"]
    outcome = tables[method]["target"].reindex_like(first).to_numpy(float)
    second = tables[rival]["prediction"].reindex_like(first).to_numpy(float)
    block = max(_MONTH, 3 * config.target.horizon)
    try:
        return r_squared_difference(
            first.to_numpy(float), second, outcome, block=block, seed=config.seed
        )
    except ValueError:  # there is no bar that both forecast
        return None


def _interval(table: pd.DataFrame, figure: str, strategy: str) -> str:
    if table.empty:
        return ""
    rows = table[(table["strategy"] == strategy) & (table["figure"] == figure)]
    if not len(rows) or rows[["low", "high"]].isna().to_numpy().any():
        return ""
    return f"{_number(rows['low'].iloc[0])} to {_number(rows['high'].iloc[0])}"


def _against(figures: pd.Series, method: str, rivals: tuple[str, ...]) -> str:
    """Set a figure against those of rivals, greater being better."""
    own = figures[method]
    others = [
        f"{figures[name]:.2f} for {name} ({'beaten' if own > figures[name] else 'not beaten'})"
        for name in rivals
        if name in figures.index and not math.isnan(figures[name])
    ]
    return f"{own:.2f}, against {', '.join(others)}" if others else f"{own:.2f}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:z.2f}"


def _equal(probability: float) -> str:
    if probability < 0.001:
        return "p < 0.001"
    return f"p = {probability:.3f}" if probability < 0.1 else f"p = {probability:.2f}"
