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
from maml_jax.experiment.config import Config
from maml_jax.experiment.forecast import Predicted
from maml_jax.experiment.needs import target_of
from maml_jax.experiment.prepare import Prepared
from maml_jax.experiment.series import PAIRS, rule_of
from maml_jax.features import compute_target

BUY_AND_HOLD = "buy and hold"
FOLLOW = "follow every rule"

NEED_DEVIATION = ("confident", "kelly")
"""Rules that need a predicted deviation."""


def position_rule(config: Config) -> str:
    """Return the rule that makes positions of predictions."""
    if config.backtest.positions is not None:
        return config.backtest.positions
    return "volatility_target" if config.target.kind == "volatility" else "threshold"


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
    sides = sides.reindex(returns.index).fillna(0.0).astype("float64")
    decided = {
        name: table.clip(lower=0).reindex(sides.index).fillna(0.0) * sides
        for name, table in decided.items()
    }
    # Holding a pair is no investment in a market.
    assets = [rule_of(name) != PAIRS for name in returns.columns]
    return {**decided, FOLLOW: sides, BUY_AND_HOLD: (there & assets).astype("float64")}


def _positions(prepared: Prepared, predicted: Predicted) -> pd.DataFrame:
    config, settings = prepared.config, prepared.config.backtest
    rule, (mean, std) = position_rule(config), predicted
    if rule == "volatility_target":
        sizing: Any = {"target": settings.target_volatility, "limit": settings.limit}
        if config.target.kind == "volatility":
            volatility = pd.DataFrame(np.exp(mean)) * _root_bars_per_year(prepared)
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
