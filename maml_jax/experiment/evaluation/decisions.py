"""From what strategies predict to the positions that they decide on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.backtest import (
    bars_per_year,
    confident_positions,
    kelly_positions,
    threshold_positions,
    volatility_target_positions,
)
from maml_jax.backtest.baselines.simple import shift_decisions
from maml_jax.backtest.limits import apply_limits
from maml_jax.backtest.positions import level_positions, proportional_positions
from maml_jax.backtest.strategy_names import BUY_AND_HOLD, FOLLOW, RANDOM
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.backtest import NEED_DEVIATION
from maml_jax.experiment.evaluation.predicted import Predicted
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.preparation.requirements import before_first_row, target_of
from maml_jax.experiment.preparation.series import PAIRS, rule_of
from maml_jax.features import compute_target
from maml_jax.features.ohlc import garman_klass
from maml_jax.features.volatility import realised_volatility

_MEANT = 50.0
"""Logarithms of a volatility beyond this size come of divergence."""

_YEAR = 250
_MONTH = 20
"""Bars of an asset, at least, from which its bars per year are inferred."""

_SEED = 2
"""Beside the seed of a run, of the random times of positions."""


def decide(
    prepared: Prepared, predicted: Mapping[str, Predicted], returns: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the weights that each strategy and baseline wants, at the bars where it decides.

    All make positions by the rule of the settings, and keep to its sides and its largest weight.
    A strategy that predicts the return of a rule follows the rule where that is positive, and never
    trades against it. Buy and hold knows no bounds.

    Args:
        prepared: settings and bars.
        predicted: what strategies predict, the headline first.
        returns: from fill to fill, `[time, asset]`, NaN where an asset has no bar.

    Returns:
        Weights as shares of each asset's equal part of the capital, `[time, asset]`.

    Raises:
        ConfigError: if the rule needs a deviation and a strategy predicts none.
    """
    config = prepared.config
    sides = _sides(prepared)

    def bound(wanted: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
        most = config.backtest.max_weight
        most = None if most is None else most * len(prepared.test_assets)
        return apply_limits(wanted, known, sides=config.backtest.sides, most=most)

    decided = {}
    for name, each in predicted.items():
        finite = _finite(each)
        wanted = _positions(prepared, name, finite)
        if sides is not None:
            taken = sides.reindex(wanted.index, fill_value=0.0)
            wanted = wanted.clip(lower=0).fillna(0.0) * taken
        decided[name] = bound(wanted, finite.mean.notna())
    if decided and "random" in config.backtest.baselines:
        headline = next(iter(decided))
        decided[RANDOM] = random_positions(prepared, decided[headline], returns)
    there = returns.notna()
    if sides is None:
        return {**decided, BUY_AND_HOLD: there.astype("float64")}
    followed = sides.reindex(returns.index, fill_value=0.0)
    decided[FOLLOW] = bound(followed, followed.notna())
    # Holding a pair is not an investment in a market; the capital is spread over the others.
    assets = np.array([rule_of(name) != PAIRS for name in returns.columns])
    if assets.any():
        decided[BUY_AND_HOLD] = (there & assets).astype("float64") / assets.mean()
    return decided


def random_positions(
    prepared: Prepared, decided: pd.DataFrame, returns: pd.DataFrame, *, draw: int = 0
) -> pd.DataFrame:
    """Take the positions of a strategy at another time, see `shift_decisions`.

    The lag keeps away from none by what features and target look at: the warm-up and the label
    delay.

    Args:
        prepared: settings, with the seed.
        decided: wanted weights of the strategy, `[time, asset]`.
        returns: as for `decide`.
        draw: number of the draw; the same one is the same in every run of the seed.
    """
    config = prepared.config
    present = returns.notna().reindex(decided.index, fill_value=False)
    seen = before_first_row(config, config.features.named()).bars + target_of(config).label_delay
    return shift_decisions(
        decided,
        np.random.default_rng([config.seed, _SEED, draw]),
        present=present[decided.columns],
        least=seen,
    )


def _sides(prepared: Prepared) -> pd.DataFrame | None:
    """Return the sides that the rules of the test series take; None where they are assets."""
    if not prepared.sides:
        return None
    sides = pd.DataFrame({name: prepared.sides[name] for name in prepared.test_assets})
    return sides.fillna(0.0).astype("float64")


def _finite(predicted: Predicted) -> Predicted:
    """Leave out what is not finite: what diverged is not a prediction."""
    mean, std = predicted
    known = np.isfinite(mean)
    if std is not None:
        known &= np.isfinite(std)
        std = std.where(known)
    return Predicted(mean.where(known), std)


def _positions(prepared: Prepared, name: str, predicted: Predicted) -> pd.DataFrame:
    config, settings = prepared.config, prepared.config.backtest
    rule, (mean, std) = config.position_rule(), predicted
    if std is None and rule in NEED_DEVIATION:
        raise ConfigError(
            f"key 'backtest.positions': {rule!r} needs a predicted deviation, and {name} predicts "
            "none; use methods that do, such as alpaca or ensemble, or another rule"
        )
    if rule == "volatility_target":
        sizing: Any = {"target": settings.target_volatility, "limit": settings.limit}
        if config.target.kind == "volatility":
            # What diverged is not a forecast.
            volatility = mean.where(mean.abs() < _MEANT).apply(np.exp)
            volatility *= _with_gaps(prepared, mean) * _root_bars_per_year(prepared)
            return volatility_target_positions(volatility, **sizing)
        volatility = _scales(prepared, mean) * _root_bars_per_year(prepared)
        side = threshold_positions(mean, settings.threshold)
        volatility = volatility / np.sqrt(config.target.horizon)
        return volatility_target_positions(volatility, side=side, **sizing)
    if rule == "levels":
        return level_positions(mean, settings.threshold, settings.strong())
    if rule == "proportional":
        return proportional_positions(mean, settings.scale, settings.limit)
    if std is not None and rule == "confident":
        return confident_positions(mean, std, settings.confidence)
    if std is not None and rule == "kelly":
        return kelly_positions(
            mean,
            std,
            fraction=settings.kelly_fraction,
            limit=settings.limit,
            scale=_scales(prepared, mean),
        )
    return threshold_positions(mean, settings.threshold)


def _with_gaps(prepared: Prepared, like: pd.DataFrame) -> pd.DataFrame:
    """Return by what a volatility that leaves gaps out is to be multiplied: 1 where it does not.

    What is held earns from close to close. The ratio of the two is that of the last year of bars.
    """
    if prepared.config.target.estimator == "close":
        return pd.DataFrame(1.0, like.index, like.columns)
    ratios = {}
    for asset in like.columns:
        bars = prepared.bars[asset]
        whole = realised_volatility(bars, _YEAR)
        ratios[asset] = (whole / garman_klass(bars, _YEAR)).ffill()
    return pd.DataFrame(ratios).reindex(like.index).replace([0.0, np.inf], np.nan)


def _scales(prepared: Prepared, like: pd.DataFrame) -> pd.DataFrame:
    """Return the trailing volatility over the horizon, as a share of the price."""
    target = target_of(prepared.config)
    return pd.DataFrame(
        {
            asset: compute_target(prepared.bars[asset], target, asset=asset)[1]
            for asset in like.columns
        }
    ).reindex(like.index)


def _root_bars_per_year(prepared: Prepared) -> pd.Series:
    """Return what annualises the volatility per bar of each asset."""
    years = bars_per_year_of(prepared) if prepared.yearly is None else prepared.yearly
    return pd.Series(years) ** 0.5


def bars_per_year_of(prepared: Prepared) -> dict[str, float]:
    """Return the bars per year of each test asset, by the bars before the test."""
    known = prepared.config.backtest.bars_per_year
    start = prepared.panel.timestamps[prepared.test_first]
    years = {}
    for asset in prepared.test_assets:
        index = pd.DatetimeIndex(prepared.bars[asset].index)
        before = index[index < start]
        usual = bars_per_year(before if len(before) >= _MONTH else index)
        years[asset] = usual if known is None else known
    return years
