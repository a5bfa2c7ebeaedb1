"""Settings of the backtest: walk-forward, positions, limits, execution, baselines, statistics."""

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, field_validator, model_validator

from maml_jax.backtest.account.execution import Execution
from maml_jax.backtest.inference.bootstrap import SAMPLES
from maml_jax.experiment.config.fields import (
    MOST,
    AnnualRate,
    Bound,
    Count,
    NotNegative,
    Positive,
    Rate,
    Section,
    ShareBound,
    Switch,
    Whole,
)

_TRADING = Execution()
"""Its defaults are those of the settings."""

PositionRule: TypeAlias = Literal[
    "threshold", "levels", "proportional", "confident", "kelly", "volatility_target"
]
"""See `BacktestConfig.positions`."""

BaselineName: TypeAlias = Literal["random", "momentum", "ridge", "trees"]
"""See `BacktestConfig.baselines`."""

NEED_DEVIATION = ("confident", "kelly")
"""Rules that need a predicted deviation."""

STRONGER = 0.1
"""By how much the strong threshold exceeds the threshold where the settings do not say."""


class BacktestConfig(Section, frozen=True):
    """Walk-forward, positions, limits, execution, baselines and statistics."""

    window: Literal["rolling", "growing"] = "rolling"
    """Adapt at each bar on the last `task.support` complete rows, or on all of them: by methods
    that take in one row after the other."""
    same_regime: Switch | None = None
    """Adapt on past bars of the regime in force, so that adaptation changes at once when it does;
    default: where `task.family` has regimes."""

    positions: PositionRule | None = None
    """How predictions become positions: a whole one beyond `threshold`; a half one beyond it and a
    whole one beyond `strong_threshold` ("levels"); as large as the prediction, whole at `scale`
    ("proportional"); one where the mean exceeds `confidence` deviations; a `kelly_fraction` of
    Kelly's share; as much as makes an asset as volatile as `target_volatility`, in the direction of
    the prediction (of a volatility: long). Default: "threshold", of a volatility
    "volatility_target"."""
    sides: Literal["long_short", "long_only", "market_neutral"] = "long_short"
    """Which sides are taken: both; long alone, out where short is wanted; or both such that the
    weights of all assets with a prediction sum to zero at every bar."""
    threshold: NotNegative = 0.0
    """Positions are taken where the prediction exceeds it, in volatilities over the horizon (of
    `prototypical_networks` and `matching_networks_direction`: in probability up minus down); 0
    follows its sign. (A threshold near the usual size of predictions trades more, not less.)"""
    strong_threshold: Positive | None = None
    """Of "levels", in the same units, above `threshold`; default: 0.1 more."""
    scale: Positive = 0.2
    """Of "proportional", in the same units: the prediction at which a position is whole."""
    confidence: NotNegative = 0.1
    kelly_fraction: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.5
    target_volatility: Annotated[AnnualRate, Field(gt=0)] = 0.15
    """Annualised, of each asset alone; 0.15 for 15 %."""
    limit: Positive = 1.0
    """Bound on a weight of "proportional", "kelly" and "volatility_target", as a share of the
    asset's equal part of the capital. More than 1 borrows, which `max_gross` must allow too."""
    max_weight: Bound = None
    """Bound on the weight of any one asset, as a share of the capital; "none" for no bound."""

    max_gross: Bound = 1.0
    """Bound on the sum of all sizes, as a share of equity: orders that enlarge positions are scaled
    to keep it. 1 borrows nothing; "none" for no bound."""
    max_turnover: Bound = None
    """Bound on what is traded in a bar, as a share of equity: the orders of the bar are scaled to
    keep it, and the rest stays wanted; "none" for no bound."""
    band: NotNegative = _TRADING.band
    """Orders that would change a weight by less, as a share of the asset's equal part of the
    capital (0.1 for a tenth of it), are not sent, unless they close the position; 0 sends all."""
    rebalance: Literal["changes", "always"] = _TRADING.rebalance
    """Trade when the wanted weight changes, and let weights drift between; or at every bar."""

    fee: Rate = _TRADING.fee
    slippage: Rate = _TRADING.slippage
    """Difference between the fill and its price, against the trader, as a share of the price."""
    range_slippage: Rate = _TRADING.range_slippage
    """Added to it: so much of the range, high minus low, of the bar of the fill."""
    borrow: AnnualRate = _TRADING.borrow
    """Annual rate on the value of what is sold short and on borrowed cash (0.02 for 2 %)."""
    stop_loss: ShareBound = None
    """A position is closed within the bar where it has lost so much of its entry price (0.02 for
    2 %); "none" for no stop. So with the next two, of which all need bars with high and low."""
    take_profit: Bound = None
    """Closed where it has won so much of its entry price."""
    trailing_stop: ShareBound = None
    """Closed where the price is so much below the highest since the entry (short: above the
    lowest), as a share of it."""

    capital: Annotated[Positive, Field(le=1e15)] = 10_000.0
    bars_per_year: Annotated[Positive, Field(le=1e8)] | None = None
    """Default: inferred from the timestamps."""

    baselines: tuple[BaselineName, ...] = ("random", "momentum", "ridge")
    """Baselines beside those of every run (buy and hold, and the first method without adaptation
    and from scratch): the positions of the first method at random times; the past return; ridge
    regression on the rows that the first method adapts on; gradient-boosted trees fitted on the
    meta-training span ("trees", which needs scikit-learn: the extra `trees`)."""
    momentum_window: Count | None = None
    """Bars of the return of "momentum"; default: `features.window`."""
    samples: Annotated[int, Field(ge=20, le=MOST, strict=True)] = SAMPLES
    """Bootstrap samples of intervals and tests."""

    inner_steps: Whole | None = None
    """Adaptation steps in the walk-forward, of methods that take any; default: as trained."""
    chunk: Count | None = None
    devices: Count | None = None

    @field_validator("baselines")
    @classmethod
    def _are_baselines(cls, value):
        if len({*value}) < len(value):
            names = ", ".join(get_args(BaselineName))
            raise ValueError(f"must list some of {names}, without repeats")
        return value

    @model_validator(mode="after")
    def _takes_rows_in_once(self):
        if self.window == "growing" and self.inner_steps is not None:
            raise ValueError(
                "growing windows take in each row once, without steps; leave inner_steps out"
            )
        return self

    @model_validator(mode="after")
    def _is_stronger(self):
        if self.strong_threshold is not None and self.strong_threshold <= self.threshold:
            raise ValueError(
                f"strong_threshold ({self.strong_threshold:g}) must exceed threshold "
                f"({self.threshold:g})"
            )
        return self

    def strong(self) -> float:
        """Return the prediction beyond which the position of "levels" is whole."""
        given = self.strong_threshold
        return self.threshold + STRONGER if given is None else given

    def stops(self) -> list[str]:
        """List the settings in force that ask what happened within a bar."""
        asked = ("stop_loss", "take_profit", "trailing_stop")
        found = [name for name in asked if getattr(self, name) is not None]
        return [*found, *(["range_slippage"] if self.range_slippage else [])]
