"""The check for looking ahead on what strategies predict, decide and order."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.account.orders import Market
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.evaluation.accounts import Traded, market_of_test_span, trade_decisions
from maml_jax.experiment.evaluation.decisions import decide
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.experiment.evaluation.forecasts import predict_all
from maml_jax.experiment.evaluation.predicted import Predicted
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.features import fill_returns
from maml_jax.lookahead.findings import Finding, deviation, find_differences, largest_difference
from maml_jax.meta.types import Params

_PREDICTIONS = 1e-4
"""Rounding of predictions, as a share of their deviation and of their size: sums in single
precision, in another order where tables have other lengths, through several steps of descent."""

_WEIGHTS = 1e-9
"""Of wanted weights, which are made in double precision of the same predictions."""

_RECORDED = 1e-3
"""Of predictions that were made on another machine, or by other versions."""

_AHEAD = 5
"""Bars beyond a cut that are walked through as well, for rules that might look at them."""


class Walked(NamedTuple):
    """What strategies did around a cut, on one future.

    Attributes:
        prepared: panel and span.
        predicted: by strategy.
        market: prices of the span.
        returns: from fill to fill, as decisions are given them.
    """

    prepared: Prepared
    predicted: dict[str, Predicted]
    market: Market
    returns: pd.DataFrame

    def trade(self, decisions: Mapping[str, pd.DataFrame]) -> Traded:
        """Place orders and trade them."""
        return trade_decisions(self.prepared, self.market, decisions)


def walk_around(
    prepared: Prepared, trained: Mapping[str, Params], first: pd.Timestamp, cut: pd.Timestamp
) -> Walked:
    """Walk forward over the bars from one to a cut, and a few beyond it where there are any.

    Args:
        prepared: of bars that may end with the cut.
        trained: meta-parameters of each method.
        first: the first bar to predict at.
        cut: the last bar that is compared.
    """
    times = prepared.panel.timestamps
    stop = min(int(times.searchsorted(cut)) + _AHEAD, len(times) - 1)
    around = prepared._replace(
        config=_without_random(prepared.config),
        test_first=int(times.searchsorted(first)),
        test_last=stop,
    )
    predicted = predict_all(around, trained).predicted
    market = market_of_test_span(around)
    bars = {asset: around.bars[asset] for asset in around.test_assets}
    returns = fill_returns(bars, around.config.target.fill).reindex(market.close.index)
    return Walked(around, predicted, market, returns)


def _without_random(config: Config) -> Config:
    """Leave out positions at random times, which are those of other times on purpose."""
    kept = tuple(name for name in config.backtest.baselines if name != "random")
    return config.changed(backtest={"baselines": kept})


def compare_walks(base: Walked, other: Walked, cut: pd.Timestamp, how: str) -> list[Finding]:
    """Compare predictions, decisions, orders and accounts as known at the close of a cut."""
    findings = _compare_predictions(base.predicted, other.predicted, cut, how)
    # Decisions of the same predictions up to the cut, and of other ones after it: a rule that looks
    # ahead shows, and a prediction whose rounding passes a threshold does not.
    joined = {
        name: _splice(mine, other.predicted[name], cut)
        for name, mine in base.predicted.items()
        if name in other.predicted
    }
    mine = decide(base.prepared, base.predicted, base.returns)
    theirs = decide(other.prepared, joined, other.returns)
    one, two = base.trade(mine), other.trade(theirs)
    fill = base.prepared.config.target.fill
    for name, orders in one.orders.items():
        if name not in two.orders:
            continue
        a, b = mine[name].loc[:cut], theirs[name].loc[:cut]
        findings += _compare_tables("position", name, a, b, cut, how, _WEIGHTS, "weight")
        findings += _compare_orders(name, orders, two.orders[name], fill, cut, how)
        a, b = (each.accounts[name].net.loc[:cut].to_frame("") for each in (one, two))
        findings += _compare_tables("account", name, a, b, cut, how, _WEIGHTS, "return")
    return findings


def check_fills(base: Walked, cut: pd.Timestamp, seed: int) -> list[Finding]:
    """Look for orders that are executed before the bar after the one that decided them.

    Made-up decisions are placed twice, the same ones up to a cut: so are the orders up to the bar
    after it, whatever a strategy would decide.
    """
    fill = base.prepared.config.target.fill
    close = base.market.close
    rng = np.random.default_rng([seed, 13])
    one, two = (
        pd.DataFrame(rng.uniform(-1, 1, close.shape), index=close.index, columns=close.columns)
        for _ in range(2)
    )
    two.loc[:cut] = one.loc[:cut]
    how = "made-up decisions"
    placed = base.trade({"one": one, "two": two}).orders
    name = "every strategy"
    findings = _compare_orders(name, placed["one"], placed["two"], fill, cut, how)
    if fill == "close":
        findings.append(
            Finding(
                "order",
                name,
                "",
                close.index[0],
                None,
                1.0,
                "bars",
                'target.fill = "close": executed at the very close that decided it',
            )
        )
    return findings


def compare_record(
    base: Walked, recorded: pd.DataFrame, cut: pd.Timestamp, methods: tuple[str, ...]
) -> list[Finding]:
    """Compare the predictions that a run wrote down with those of its checkpoints on these bars.

    Args:
        base: on bars as they are.
        recorded: the table of predictions of the run.
        cut: the last bar that is compared.
        methods: strategies whose predictions do not depend on where the walk-forward begins.
    """
    findings = []
    for name in methods:
        if name not in base.predicted:
            continue
        mean = base.predicted[name].mean.loc[:cut]
        own = recorded[(recorded["strategy"] == name) & recorded["asset"].isin(mean.columns)]
        table = own.set_index(["timestamp", "asset"])["prediction"].unstack("asset")  # noqa: PD010
        both = mean.index.intersection(table.index)
        if not len(both):
            continue
        a = table.reindex(index=both, columns=mean.columns)
        how = "written down by the run, and not what its checkpoints make of these bars"
        findings += _compare_tables(
            "record", name, a, mean.loc[both], cut, how, _RECORDED, "deviations"
        )
    return findings


def compare_recorded_orders(prepared: Prepared, evaluation: Evaluation) -> list[Finding]:
    """Place the positions that a run wrote down once more, and compare with its orders.

    Args:
        prepared: of the bars and the test span of the run.
        evaluation: tables of the run.
    """
    weights, positions = evaluation.weights, evaluation.predictions
    if weights.empty or "order" not in weights or "position" not in positions:
        return []
    market, findings = market_of_test_span(prepared), []
    times, assets = market.close.index, list(market.close.columns)

    def lay_out(table: pd.DataFrame, name: str, column: str) -> pd.DataFrame:
        own = table[table["strategy"] == name].set_index(["timestamp", "asset"])[column]
        return own.unstack("asset").reindex(index=times, columns=assets)  # noqa: PD010

    # Bars may have come since.
    recorded = times.intersection(pd.DatetimeIndex(weights["timestamp"].unique()))
    names = dict.fromkeys(positions["strategy"])
    wanted = {name: lay_out(positions, name, "position").fillna(0.0) for name in names}
    placed = trade_decisions(prepared, market, wanted).orders
    for name, orders in placed.items():
        written = lay_out(weights, name, "order").loc[recorded]
        how = "written down by the run, and not what its positions make of these bars"
        if written.notna().any(axis=None):
            findings += _compare_tables(
                "order", name, orders.loc[recorded], written, times[-1], how, _WEIGHTS, "weight"
            )
    return findings


def _compare_predictions(
    mine: Mapping[str, Predicted], theirs: Mapping[str, Predicted], cut: pd.Timestamp, how: str
) -> list[Finding]:
    findings = []
    for name, (mean, std) in mine.items():
        if name not in theirs:
            findings.append(Finding("prediction", name, "", cut, cut, np.inf, "deviations", how))
            continue
        other = theirs[name]
        for a, b in ((mean, other.mean), (std, other.std)):
            if a is not None and b is not None:
                a, b = a.loc[:cut], b.loc[:cut]
                findings += _compare_tables(
                    "prediction", name, a, b, cut, how, _PREDICTIONS, "deviations"
                )
    return findings


def _compare_orders(
    name: str, mine: pd.DataFrame, theirs: pd.DataFrame, fill: str, cut: pd.Timestamp, how: str
) -> list[Finding]:
    """Compare orders of bars that were decided up to a cut, the next one's included.

    With `fill="close"` the next bar's orders wait for its close.
    """
    stop = cut
    if fill != "close":
        later = mine.index[mine.index > cut].intersection(theirs.index[theirs.index > cut])
        # Of the first bar after the cut, the assets that have it on both futures.
        stop = later[0] if len(later) else cut
    a, b = mine.loc[:stop], theirs.loc[:stop]
    if not a.index.equals(b.index):
        a, b = mine.loc[:cut], theirs.loc[:cut]
    both = a.notna() & b.notna() if stop != cut else a.notna() | b.notna()
    both.loc[:cut] = True
    return _compare_tables(
        "order", name, a.where(both), b.where(both), cut, how, _WEIGHTS, "weight"
    )


def _compare_tables(
    what: str,
    name: str,
    mine: pd.DataFrame,
    theirs: pd.DataFrame,
    cut: pd.Timestamp,
    how: str,
    rounding: float,
    unit: str,
) -> list[Finding]:
    theirs = theirs.reindex(index=mine.index, columns=mine.columns)
    a, b = mine.to_numpy(float), theirs.to_numpy(float)
    size = deviation(a) if unit == "deviations" else 1.0
    wrong = find_differences(b, a, absolute=rounding * size, relative=rounding)
    if not wrong.any():
        return []
    row = int(np.argmax(wrong.any(axis=1)))
    asset = str(mine.columns[int(np.argmax(wrong[row]))])
    far = largest_difference(b[wrong], a[wrong], size)
    return [Finding(what, name, asset, mine.index[row], cut, far, unit, how)]


def _splice(mine: Predicted, theirs: Predicted, cut: pd.Timestamp) -> Predicted:
    """Join predictions of one future up to a cut with those of another one after it."""

    def joined(a: pd.DataFrame | None, b: pd.DataFrame | None) -> pd.DataFrame | None:
        if a is None or b is None:
            return b
        return pd.concat([a.loc[:cut], b.loc[b.index > cut]])

    mean = joined(mine.mean, theirs.mean)
    assert mean is not None
    return Predicted(mean, joined(mine.std, theirs.std))
