"""Figures and the tear sheet."""

from maml_jax.report.plots.comparisons import (
    plot_asset_distribution,
    plot_assets,
    plot_assets_against,
    plot_intervals,
    plot_regimes,
)
from maml_jax.report.plots.forecasts import (
    binned_outcomes,
    plot_adaptation,
    plot_calibration,
    plot_predictions,
    plot_training,
)
from maml_jax.report.plots.returns import (
    monthly_returns,
    plot_drawdown,
    plot_equity,
    plot_monthly_returns,
    plot_return_distribution,
    plot_rolling_sharpe,
)
from maml_jax.report.plots.trading import (
    break_even,
    cost_sensitivity,
    effective_cost,
    plot_cost_sensitivity,
    plot_exposure,
)
from maml_jax.report.run_tables import RunTables
from maml_jax.report.tear_sheet import TearSheet, render, write_page

__all__ = [
    "RunTables",
    "TearSheet",
    "binned_outcomes",
    "break_even",
    "cost_sensitivity",
    "effective_cost",
    "monthly_returns",
    "plot_adaptation",
    "plot_asset_distribution",
    "plot_assets",
    "plot_assets_against",
    "plot_calibration",
    "plot_cost_sensitivity",
    "plot_drawdown",
    "plot_equity",
    "plot_exposure",
    "plot_intervals",
    "plot_monthly_returns",
    "plot_predictions",
    "plot_regimes",
    "plot_return_distribution",
    "plot_rolling_sharpe",
    "plot_training",
    "render",
    "write_page",
]
