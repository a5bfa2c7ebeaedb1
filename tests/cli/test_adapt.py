"""What `maml-jax adapt` says beside its table."""

import numpy as np
import pandas as pd
import pytest
from risk_markets import make_market

from maml_jax.cli.adapt import _better, _describe
from maml_jax.experiment.learning.step_errors import AdaptationTable, RowSpan
from maml_jax.features import Target


def test_a_forecast_of_volatility_is_said_in_per_cent_a_year():
    bars = make_market(assets=1, count=100, start="2024-01-01")["A0"]
    predictions = pd.DataFrame({"mean": np.log(0.02)}, index=bars.index)
    text = _describe(predictions, bars, Target(kind="volatility", horizon=5, volatility_window=20))
    trailing = 100 * np.sqrt(365 * (np.log(bars["close"]).diff() ** 2).iloc[-20:].mean())
    assert f"{2 * np.sqrt(365):.1f} % a year" in text and f"it was {trailing:.1f} %" in text


@pytest.mark.parametrize(
    ("adapted", "scratch", "trailing", "named"),
    [
        (0.2, 0.3, np.nan, None),
        (0.2, 0.3, 0.25, None),
        (0.2, 0.3, 0.1, "the trailing volatility"),
        (0.2, 0.15, 0.1, "the trailing volatility"),
        (0.2, 0.1, 0.15, "a network from scratch"),
        (0.2, np.nan, 0.1, "the trailing volatility"),
        (0.2, 0.1, np.nan, "a network from scratch"),
    ],
)
def test_the_best_that_beats_adapting_is_named(adapted, scratch, trailing, named):
    table = pd.DataFrame([[0.9, 0, 0.9, 0], [adapted, 0, scratch, 0]])
    now = pd.Timestamp("2024-01-01", tz="UTC")
    span = RowSpan(now, now, 1)
    text = _better(AdaptationTable(table, "A", "maml", span, span, trailing))
    assert (text is None) == (named is None)
    if named is not None:
        assert text.startswith(f"{named} does better here") and "adapted 0.2000" in text
