"""What figures are worth: intervals, tests, and the risk of overfitting."""

__all__ = [
    "alpha",
    "bootstrap",
    "bootstrap_metrics",
    "calibration",
    "forecast_tests",
    "overfitting",
    "significance",
]
