"""Forecasts of volatility and tail risk to beat on assets that were listed a few bars ago.

All are functions of returns `[asset, time]`, NaN where an asset has no bar, and use at bar t what
is known at its close: of an asset n bars old its last n returns, and the other assets' bars.
"""

from maml_jax.backtest.baselines.young.at_age import Cuts, age_regression
from maml_jax.backtest.baselines.young.classical import ewma_at_age, garch_t
from maml_jax.backtest.baselines.young.donors import Nearest, nearest_donors
from maml_jax.backtest.baselines.young.historical import (
    Filter,
    TailForecast,
    filtered_historical_simulation,
    garch_t_tails,
    historical_simulation,
    student_tail,
)
from maml_jax.backtest.baselines.young.outside import OutsideForecast, forecaster
from maml_jax.backtest.baselines.young.refitted import Refit, refitted_har
from maml_jax.backtest.baselines.young.rows import realised_ahead
from maml_jax.backtest.baselines.young.warping import warping_distance

__all__ = [
    "Cuts",
    "Filter",
    "Nearest",
    "OutsideForecast",
    "Refit",
    "TailForecast",
    "age_regression",
    "ewma_at_age",
    "filtered_historical_simulation",
    "forecaster",
    "garch_t",
    "garch_t_tails",
    "historical_simulation",
    "nearest_donors",
    "realised_ahead",
    "refitted_har",
    "student_tail",
    "warping_distance",
]
