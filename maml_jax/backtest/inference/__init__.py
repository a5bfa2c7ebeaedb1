"""What figures are worth: intervals, tests, and the risk of overfitting."""

from maml_jax.backtest.inference.alpha import Alpha, alpha_tests
from maml_jax.backtest.inference.bootstrap import (
    Resampled,
    bootstrap_differences,
    bootstrap_intervals,
    compute_differences,
    compute_intervals,
    resample,
)
from maml_jax.backtest.inference.calibration import (
    calibration_error,
    coverage,
    crps,
    measure_calibration,
    negative_log_likelihood,
)
from maml_jax.backtest.inference.confidence_set import model_confidence_set
from maml_jax.backtest.inference.exceedance_counts import (
    TrafficLight,
    coverage_table,
    exceedances,
    thin,
    traffic_light,
)
from maml_jax.backtest.inference.expected_shortfall import (
    AcerbiSzekely,
    ShortfallTest,
    acerbi_szekely,
    fz0_loss,
    pinball_loss,
)
from maml_jax.backtest.inference.forecast_tests import (
    DieboldMariano,
    Difference,
    diebold_mariano,
    qlike,
    qlike_loss,
    r_squared,
    r_squared_difference,
    shift_to_mean_variance,
)
from maml_jax.backtest.inference.overfitting import Overfitting, overfitting_probability
from maml_jax.backtest.inference.significance import (
    Roles,
    assess_significance,
    deflated_sharpe,
    probabilistic_sharpe,
    superior_ability,
)
from maml_jax.backtest.inference.tail_risk import (
    CoverageTest,
    christoffersen_independence,
    conditional_coverage,
    dynamic_quantile,
    kupiec,
)
from maml_jax.backtest.inference.utility import realised_utility

__all__ = [
    "AcerbiSzekely",
    "Alpha",
    "CoverageTest",
    "DieboldMariano",
    "Difference",
    "Overfitting",
    "Resampled",
    "Roles",
    "ShortfallTest",
    "TrafficLight",
    "acerbi_szekely",
    "alpha_tests",
    "assess_significance",
    "bootstrap_differences",
    "bootstrap_intervals",
    "calibration_error",
    "christoffersen_independence",
    "compute_differences",
    "compute_intervals",
    "conditional_coverage",
    "coverage",
    "coverage_table",
    "crps",
    "deflated_sharpe",
    "diebold_mariano",
    "dynamic_quantile",
    "exceedances",
    "fz0_loss",
    "kupiec",
    "measure_calibration",
    "model_confidence_set",
    "negative_log_likelihood",
    "overfitting_probability",
    "pinball_loss",
    "probabilistic_sharpe",
    "qlike",
    "qlike_loss",
    "r_squared",
    "r_squared_difference",
    "realised_utility",
    "resample",
    "shift_to_mean_variance",
    "superior_ability",
    "thin",
    "traffic_light",
]
