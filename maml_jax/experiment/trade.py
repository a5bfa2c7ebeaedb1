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
from maml_jax.experiment.forecast import Predicted
from maml_jax.experiment.needs import target_of
from maml_jax.experiment.prepare import Prepared
from maml_jax.experiment.series import PAIRS, rule_of
from maml_jax.features import compute_target
from maml_jax.features.ohlc import garman_klass
from maml_jax.features.volatility import realised_volatility

BUY_AND_HOLD = "buy and hold"
FOLLOW = "follow every rule"

_MEANT = 50.0
"""Logarithms of a volatility beyond this size come of divergence."""

_YEAR = 250

NEED_DEVIATION = ("confident", "kelly")
"""Rules that need a predicted deviation."""


def decide(
    prepared: Prepared, predicted: Mapping[str, Predicted], returns: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the weights that each strategy and baseline wants, at the bars where it decides.

    A strategy that predicts what a rule pays follows the rule where that is positive, and never
    trades against it.

    Args:
        prepared: settings and bars.
        predicted: what strategies predict.
        returns: from fill to fill, `[time, asset]`, NaN where an asset has no bar.
    """
    decided = {name: _positions(prepared, each) for name, each in predicted.items()}
    there = returns.notna()
    if not prepared.sides:
        return {**decided, BUY_AND_HOLD: there.astype("float64")}
    sides = pd.DataFrame({name: prepared.sides[name] for name in prepared.test_assets})
    sides = sides.fillna(0.0).astype("float64")

    def followed(table: pd.DataFrame) -> pd.DataFrame:
        return table.clip(lower=0).fillna(0.0) * sides.reindex(table.index, fill_value=0.0)

    decided = {name: followed(table) for name, table in decided.items()}
    decided[FOLLOW] = sides.reindex(returns.index, fill_value=0.0)
    # Holding a pair is no investment in a market; the capital is spread over the others.
    assets = np.array([rule_of(name) != PAIRS for name in returns.columns])
    if assets.any():
        decided[BUY_AND_HOLD] = (there & assets).astype("float64") / assets.mean()
    return decided


def _positions(prepared: Prepared, predicted: Predicted) -> pd.DataFrame:
    config, settings = prepared.config, prepared.config.backtest
    rule, (mean, std) = config.position_rule(), predicted
    if rule == "volatility_target":
        sizing: Any = {"target": settings.target_volatility, "limit": settings.limit}
        if config.target.kind == "volatility":
            # What diverged is no forecast.
            volatility = mean.where(mean.abs() < _MEANT).apply(np.exp)
            volatility *= _with_gaps(prepared, mean) * _root_bars_per_year(prepared)
            return volatility_target_positions(volatility, **sizing)
        volatility = _scales(prepared, mean) * _root_bars_per_year(prepared)
        side = threshold_positions(mean, settings.threshold)
        volatility = volatility / np.sqrt(config.target.horizon)
        return volatility_target_positions(volatility, side=side, **sizing)
    if rule == "confident" and std is not None:
        return confident_positions(mean, std, settings.confidence)
    if rule == "kelly" and std is not None:
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
    known = prepared.config.backtest.bars_per_year
    years = {
        asset: known or bars_per_year(pd.DatetimeIndex(prepared.bars[asset].index))
        for asset in prepared.test_assets
    }
    return pd.Series(years) ** 0.5
