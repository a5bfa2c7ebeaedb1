"""Forecasts and positions that a learner has to beat."""

from maml_jax.backtest.baselines.ridge import ridge_regression
from maml_jax.backtest.baselines.simple import (
    boosted_trees,
    past_return,
    require_trees,
    shift_decisions,
)
from maml_jax.backtest.baselines.volatility import (
    HAR,
    align_to_panel,
    ewma_volatility,
    garch_volatility,
    pooled_regression,
    recent_regression,
    remove_mean_error,
)

__all__ = [
    "HAR",
    "align_to_panel",
    "boosted_trees",
    "ewma_volatility",
    "garch_volatility",
    "past_return",
    "pooled_regression",
    "recent_regression",
    "remove_mean_error",
    "require_trees",
    "ridge_regression",
    "shift_decisions",
]
