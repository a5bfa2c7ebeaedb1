"""What `maml-jax adapt` says beside its table."""

import numpy as np
import pandas as pd
from risk_markets import make_market

from maml_jax.cli.adapt import _describe
from maml_jax.features import Target


def test_a_forecast_of_volatility_is_said_in_per_cent_a_year():
    bars = make_market(assets=1, count=100, start="2024-01-01")["A0"]
    predictions = pd.DataFrame({"mean": np.log(0.02)}, index=bars.index)
    text = _describe(predictions, bars, Target(kind="volatility", horizon=5, volatility_window=20))
    trailing = 100 * np.sqrt(365 * (np.log(bars["close"]).diff() ** 2).iloc[-20:].mean())
    assert f"{2 * np.sqrt(365):.1f} % a year" in text and f"it was {trailing:.1f} %" in text
