"""The evidence as tables: what each method predicted and earned, and whether adapting helped."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from arch.bootstrap import SPA

from benchmarks.reproduce.estimate import Estimate, estimate
from benchmarks.reproduce.evidence_rows import BASELINES, EvidenceMarket, EvidenceRow
from benchmarks.reproduce.results import read_number
from benchmarks.reproduce.table import Table
from maml_jax.backtest import metrics
from maml_jax.backtest.inference.bootstrap import draws
from maml_jax.backtest.inference.significance import deflated_sharpe
from maml_jax.backtest.strategy_names import BUY_AND_HOLD, FROM_SCRATCH, NO_ADAPTATION

SAMPLES = 500
SEED = 0
"""Of the bootstrap."""

MISSING = "–"

INTERVALS = (
    "± is half the 95 % interval: the spread over seeds by Student's t, with that over histories"
    " like the one there is (stationary bootstrap, blocks of about {block} {unit}s) added in"
    " quadrature. Yes: the whole interval of a gain lies above 0; no: below; else not shown. Of"
    " forty rows in which adapting does nothing, one would say yes and one no by chance."
)
PREDICTED_NOTE = INTERVALS + (
    " Correlation, rank IC and R2 are of predictions and outcomes, in per cent. Gains are over the"
    " same meta-parameters with 0 steps, or with the prior, on the same bars."
)
EARNED_NOTE = INTERVALS + (
    " Sharpe ratios are annualised. Costs are 0.15 % of what is traded; gross is before them."
)
RIVALS_NOTE = (
    "Hansen's test of superior predictive ability: the p value of the best of all {count} rows of"
    " methods (their mean over seeds) having a higher mean net return than the baseline by chance"
    " alone. The best of them by net Sharpe ratio, {best} ({sharpe:.2f}), has a deflated Sharpe"
    " ratio of {deflated:.3f}: the probability that its true ratio is above what luck shows as the"
    " best of {count} rows."
)


class Strategy(NamedTuple):
    """What one strategy did in one run.

    Attributes:
        figures: by name.
        net: net return per bar.
        error: sum over assets of squared errors per bar; NaN where nothing was predicted. None of
            strategies that predict nothing.
        zero: likewise, of predicting 0.
    """

    figures: dict[str, float]
    net: np.ndarray
    error: np.ndarray | None
    zero: np.ndarray | None


class Outcome(NamedTuple):
    """The outcome of a run of one row and seed."""

    row: EvidenceRow
    seed: int
    headline: str
    strategies: dict[str, Strategy]

    @classmethod
    def of(cls, row: EvidenceRow, seed: int, result: dict[str, Any]) -> "Outcome":
        """Read what a file holds."""

        def array(values: Sequence[float | None]) -> np.ndarray:
            return np.array([read_number(each) for each in values], float)

        strategies = {
            name: Strategy(
                {key: read_number(value) for key, value in each["figures"].items()},
                np.nan_to_num(array(each["net"])),
                array(each["error"]) if "error" in each else None,
                array(each["zero"]) if "zero" in each else None,
            )
            for name, each in result["strategies"].items()
        }
        return cls(row, seed, result["headline"], strategies)


Figure = Callable[[np.ndarray], float]
"""A figure of the bars that it is given the places of."""


def make_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Make the tables of all markets that there are outcomes of."""
    made = []
    for market in dict.fromkeys(each.row.market for each in outcomes):
        own = [each for each in outcomes if each.row.market == market]
        made.append(_predicted(market, own))
        made.append(_earned(market, own))
        rivals = _rivals(market, own)
        made += [] if rivals is None else [rivals]
    return made


def _groups(outcomes: Iterable[Outcome]) -> dict[EvidenceRow, list[Outcome]]:
    groups: dict[EvidenceRow, list[Outcome]] = {}
    for each in outcomes:
        groups.setdefault(each.row, []).append(each)
    return groups


def _lines(outcomes: Sequence[Outcome]) -> list[tuple[str, str, list[Outcome], str]]:
    """List the lines of a table: method, its support set, its outcomes, its strategy in them."""
    lines = []
    for row, group in _groups(outcomes).items():
        if row.method != BASELINES:
            lines.append((row.method, row.support.name, group, group[0].headline))
    for row, group in _groups(outcomes).items():
        if row.method == BASELINES:
            names = [name for name in group[0].strategies if name != group[0].headline]
            lines += [(name, "", group, name) for name in names]
    return lines


def _estimate(
    market: EvidenceMarket, group: list[Outcome], figure: Callable[[Outcome], Figure]
) -> Estimate:
    """Estimate a figure over seeds, and over histories like the one that all seeds met."""
    values, deviations = [], []
    for outcome in group:
        of_bars = figure(outcome)
        length = len(outcome.strategies[outcome.headline].net)
        rng = np.random.default_rng(SEED)
        values.append(of_bars(np.arange(length)))
        drawn = [
            of_bars(places) for some in draws(length, SAMPLES, market.block, rng) for places in some
        ]
        deviations.append(float(np.nanstd(drawn, ddof=1)))
    return estimate(values, deviations)


def _r2(name: str, minus: str | None = None) -> Callable[[Outcome], Figure]:
    """Return the R2 of a strategy in per cent, or that minus another's."""

    def of(outcome: Outcome) -> Figure:
        own = outcome.strategies[name]
        assert own.error is not None and own.zero is not None
        error, zero = np.nan_to_num(own.error), np.nan_to_num(own.zero)
        other = zero if minus is None else outcome.strategies[minus].error
        assert other is not None
        other = np.nan_to_num(other)
        return lambda places: 100 * (other[places].sum() - error[places].sum()) / zero[places].sum()

    return of


def _sharpe(name: str, minus: str | None = None) -> Callable[[Outcome], Figure]:
    def of(outcome: Outcome) -> Figure:
        own = outcome.strategies[name]
        years = own.figures["Bars per Year"]
        other = None if minus is None else outcome.strategies[minus].net

        def figure(places: np.ndarray) -> float:
            value = metrics.sharpe_ratio(own.net[places], years)
            return value if other is None else value - metrics.sharpe_ratio(other[places], years)

        return figure

    return of


def _mean(group: list[Outcome], name: str, figure: str, digits: int, times: float = 1.0) -> str:
    known = [each.strategies[name].figures.get(figure, math.nan) for each in group]
    value = times * float(np.mean(known))
    return f"{value:,.{digits}f}" if math.isfinite(value) else MISSING


def _predicted(market: EvidenceMarket, outcomes: list[Outcome]) -> Table:
    """Show how predictions agree with outcomes."""
    rows = []
    for method, support, group, name in _lines(outcomes):
        own = group[0].strategies[name]
        if own.error is None:
            continue
        before = NO_ADAPTATION in group[0].strategies and name == group[0].headline
        gain = _estimate(market, group, _r2(name, NO_ADAPTATION)) if before else None
        rows.append(
            (
                method,
                support,
                _mean(group, name, "Correlation", 2, 100),
                _mean(group, NO_ADAPTATION, "Correlation", 2, 100) if before else MISSING,
                _mean(group, name, "Rank IC", 2, 100),
                _estimate(market, group, _r2(name)).text(),
                MISSING if gain is None else gain.text(),
                MISSING if gain is None else gain.holds(),
            )
        )
    columns = (
        "method",
        "adapted on",
        "correlation, %",
        "... unadapted, %",
        "rank IC, %",
        "R2, %",
        "R2 gained by adapting",
        "helps?",
    )
    note = PREDICTED_NOTE.format(block=market.block, unit=market.unit)
    return Table(f"{market.name}: what was predicted", columns, rows, note)


def _earned(market: EvidenceMarket, outcomes: list[Outcome]) -> Table:
    """Show what following the predictions earned."""
    rows = []
    for method, support, group, name in _lines(outcomes):
        before = NO_ADAPTATION in group[0].strategies and name == group[0].headline
        gain = _estimate(market, group, _sharpe(name, NO_ADAPTATION)) if before else None
        rows.append(
            (
                method,
                support,
                _estimate(market, group, _sharpe(name)).text(),
                _mean(group, NO_ADAPTATION, "Sharpe Ratio", 2) if before else MISSING,
                MISSING if gain is None else gain.text(),
                MISSING if gain is None else gain.holds(),
                _mean(group, name, "Gross Sharpe Ratio", 2),
                _mean(group, name, "CAGR [%]", 1),
                _mean(group, name, "Max. Drawdown [%]", 0),
                _mean(group, name, "Turnover (Ann.)", 0),
            )
        )
    columns = (
        "method",
        "adapted on",
        "net Sharpe",
        "... unadapted",
        "gained by adapting",
        "helps?",
        "gross Sharpe",
        "CAGR, %",
        "max. drawdown, %",
        "turnover a year",
    )
    note = EARNED_NOTE.format(block=market.block, unit=market.unit)
    return Table(f"{market.name}: what was earned", columns, rows, note)


def _rivals(market: EvidenceMarket, outcomes: list[Outcome]) -> Table | None:
    """Test the methods against each baseline, the best of many tries being what is tested."""
    groups = _groups(outcomes)
    baselines = next((g for row, g in groups.items() if row.method == BASELINES), None)
    methods = {row: g for row, g in groups.items() if row.method != BASELINES}
    if baselines is None or not methods:
        return None
    mean = {
        row: np.mean([each.strategies[each.headline].net for each in group], axis=0)
        for row, group in methods.items()
    }
    rivals = {
        name: np.mean([each.strategies[name].net for each in baselines], axis=0)
        for name in baselines[0].strategies
        if name != baselines[0].headline  # it stands among the methods
    }
    rivals |= {
        name: np.mean([e.strategies[name].net for g in methods.values() for e in g], axis=0)
        for name in (NO_ADAPTATION, FROM_SCRATCH)
        if all(name in e.strategies for g in methods.values() for e in g)
    }
    models = np.column_stack(list(mean.values()))
    years = baselines[0].strategies[BUY_AND_HOLD].figures["Bars per Year"]
    rows = []
    for name, returns in rivals.items():
        test = SPA(-returns, -models, block_size=market.block, reps=1000, seed=SEED)
        test.compute()
        rows.append(
            (
                name,
                f"{metrics.sharpe_ratio(returns, years):.2f}",
                f"{float(test.pvalues['consistent']):.3f}",
            )
        )
    per_bar = [r.mean() / r.std(ddof=1) for r in mean.values() if r.std() > 0]
    best = max(mean, key=lambda row: metrics.sharpe_ratio(mean[row], years))
    variance = float(np.var(per_bar, ddof=1)) if len(per_bar) > 1 else 0.0
    deflated = deflated_sharpe(mean[best], trials=len(mean), trial_variance=variance)
    note = RIVALS_NOTE.format(
        count=len(mean),
        best=f"{best.method} on {best.support.name}",
        sharpe=metrics.sharpe_ratio(mean[best], years),
        deflated=deflated,
    )
    columns = ("baseline", "net Sharpe (of the mean over seeds)", "p of any method beating it")
    return Table(f"{market.name}: against the baselines", columns, rows, note)
