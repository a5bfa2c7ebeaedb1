"""The tables that a tear sheet is made of; any of them may be missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from maml_jax.backtest.strategy_names import BUY_AND_HOLD, FROM_SCRATCH, NO_ADAPTATION
from maml_jax.report.plots.style import choose, drop_categories

WIDE, HALF, PHONE = 9.6, 4.7, 4.3
"""Widths of figures in inches: the page, half of it, a phone."""


@dataclass(frozen=True)
class RunTables:
    """Tables of a run, as its result holds them; a section whose tables are empty is left out.

    Attributes:
        headline: the strategy that the page is about.
        methods: the run's own methods, the headline first; all other strategies are baselines.
        bars_per_year: for everything annualised.
        stats: one column per strategy, one row per figure.
        returns: net simple returns per bar, `[time, strategy]`.
        gross: the same before costs.
        turnover: value traded per bar as a share of the equity, `[time, strategy]`.
        exposure: sizes of all positions as a share of the equity, `[time, strategy]`.
        predictions: one row per strategy, asset and bar: `prediction`, `target`, maybe `std`.
        trades: one row per trade, with `strategy`.
        assets: one row per strategy and asset traded alone.
        regimes: one row per strategy and regime.
        history: of meta-training, `method`, `step`, `loss`, and `fold` where there are several.
        adaptation: mean squared errors, `[number of steps, method]`.
        intervals: one row per strategy and figure: `value`, `low`, `high`.
        differences: of the headline's figures from those of others, likewise, with `other`.
        significance: one row per strategy.
        overfitting: figures on choosing among the methods, such as the risk of overfitting.
        cost: fee and slippage of the settings, as a share of the value traded; None if they
            differ. What was paid in total is `gross` minus `returns`.
        units: of predictions and outcomes.
        overlap: bars that one outcome spans.
        benchmark: the strategy that alpha and beta are measured against.
    """

    headline: str
    methods: Sequence[str]
    bars_per_year: float
    stats: pd.DataFrame
    returns: pd.DataFrame
    gross: pd.DataFrame = field(default_factory=pd.DataFrame)
    turnover: pd.DataFrame = field(default_factory=pd.DataFrame)
    exposure: pd.DataFrame = field(default_factory=pd.DataFrame)
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    trades: pd.DataFrame = field(default_factory=pd.DataFrame)
    assets: pd.DataFrame = field(default_factory=pd.DataFrame)
    regimes: pd.DataFrame = field(default_factory=pd.DataFrame)
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    adaptation: pd.DataFrame = field(default_factory=pd.DataFrame)
    intervals: pd.DataFrame = field(default_factory=pd.DataFrame)
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)
    significance: pd.DataFrame = field(default_factory=pd.DataFrame)
    overfitting: Mapping[str, Any] = field(default_factory=dict)
    cost: float | None = None
    units: str = ""
    overlap: int = 1
    benchmark: str = BUY_AND_HOLD

    def __post_init__(self):
        """Drop categories in small tables; in large ones they save memory."""
        for name in ("assets", "regimes", "history", "intervals", "differences"):
            object.__setattr__(self, name, drop_categories(getattr(self, name)))

    @property
    def order(self) -> list[str]:
        """Strategies in the order of figures: the headline, what it must beat, and the others."""
        first = [self.headline, self.benchmark, NO_ADAPTATION, *self.methods[1:3], FROM_SCRATCH]
        names = list(self.returns.columns)
        return [*dict.fromkeys(name for name in [*first, *names] if name in names)]

    def strategies_in(self, table: pd.DataFrame) -> list[str]:
        """Return the strategies of a table, in the order of figures."""
        there = {*table["strategy"].unique()}
        return [name for name in self.order if name in there]

    @property
    def main_strategies(self) -> list[str]:
        """The strategies that figures show if there are too many lines."""
        return choose(self.order, self.headline)

    @property
    def rest_note(self) -> str:
        """A sentence on the strategies that figures leave out."""
        left = len(self.order) - len(self.main_strategies)
        if not left:
            return ""
        return f" {left} more {'strategy is' if left == 1 else 'strategies are'} in the tables."

    def figure(self, strategy: str, figure: str) -> Any:
        """Return one figure of a strategy; NaN if unknown."""
        if figure in self.stats.index and strategy in self.stats.columns:
            return self.stats.loc[figure, strategy]
        return float("nan")
