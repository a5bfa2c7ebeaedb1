"""Walk-forward, positions, accounts, metrics and inference: what a learner would have earned."""

from maml_jax.backtest.account.account import Account, trade, trade_all, trade_alone
from maml_jax.backtest.account.execution import Execution
from maml_jax.backtest.account.many import Totals, trade_many
from maml_jax.backtest.account.orders import Market, has_ended, make_market, place_orders
from maml_jax.backtest.inference.calibration import measure_calibration
from maml_jax.backtest.inference.forecast_tests import (
    diebold_mariano,
    qlike,
    r_squared,
    r_squared_difference,
    shift_to_mean_variance,
)
from maml_jax.backtest.metrics import bars_per_year
from maml_jax.backtest.positions import (
    confident_positions,
    held_weights,
    kelly_positions,
    threshold_positions,
    volatility_target_positions,
)
from maml_jax.backtest.regime_results import summarise_by_regime
from maml_jax.backtest.summary import skill, summarise
from maml_jax.backtest.walk_forward.folds import CombinatorialFolds, WalkForwardFolds
from maml_jax.backtest.walk_forward.online import Online, OnlineTraining, Updates, walk_online
from maml_jax.backtest.walk_forward.rolling import walk_forward
from maml_jax.backtest.walk_forward.supports import Supports, find_supports

__all__ = [
    "Account",
    "CombinatorialFolds",
    "Execution",
    "Market",
    "Online",
    "OnlineTraining",
    "Supports",
    "Totals",
    "Updates",
    "WalkForwardFolds",
    "bars_per_year",
    "measure_calibration",
    "confident_positions",
    "diebold_mariano",
    "find_supports",
    "has_ended",
    "held_weights",
    "kelly_positions",
    "make_market",
    "shift_to_mean_variance",
    "place_orders",
    "qlike",
    "r_squared",
    "r_squared_difference",
    "summarise_by_regime",
    "skill",
    "summarise",
    "threshold_positions",
    "trade",
    "trade_all",
    "trade_alone",
    "trade_many",
    "volatility_target_positions",
    "walk_forward",
    "walk_online",
]
