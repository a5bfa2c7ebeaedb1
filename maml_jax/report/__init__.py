"""Figures and the tear sheet."""

from .comparisons import plot_asset_distribution as plot_asset_distribution
from .comparisons import plot_assets as plot_assets
from .comparisons import plot_assets_against as plot_assets_against
from .comparisons import plot_intervals as plot_intervals
from .comparisons import plot_regimes as plot_regimes
from .forecasts import binned_outcomes as binned_outcomes
from .forecasts import plot_adaptation as plot_adaptation
from .forecasts import plot_calibration as plot_calibration
from .forecasts import plot_predictions as plot_predictions
from .forecasts import plot_training as plot_training
from .growth import monthly_returns as monthly_returns
from .growth import plot_drawdown as plot_drawdown
from .growth import plot_equity as plot_equity
from .growth import plot_monthly_returns as plot_monthly_returns
from .growth import plot_return_distribution as plot_return_distribution
from .growth import plot_rolling_sharpe as plot_rolling_sharpe
from .run_tables import RunTables as RunTables
from .tear_sheet import TearSheet as TearSheet
from .tear_sheet import render as render
from .tear_sheet import write_page as write_page
from .trading import break_even as break_even
from .trading import cost_sensitivity as cost_sensitivity
from .trading import paid as paid
from .trading import plot_cost_sensitivity as plot_cost_sensitivity
from .trading import plot_exposure as plot_exposure
