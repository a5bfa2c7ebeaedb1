"""Windows against NumPy on each window alone, and what a jump leaves behind: nothing."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from maml_jax.features import windows

WEIGHTS = {n: np.arange(1.0, n + 1) / (n * (n + 1) / 2) for n in (2, 5, 20)}
STATISTICS = {
    "mean": (windows.rolling_mean, np.mean),
    "std": (windows.rolling_std, lambda w: np.std(w, ddof=1)),
    "max": (windows.rolling_max, np.max),
    "min": (windows.rolling_min, np.min),
    "average": (
        lambda v, n: windows.rolling_average(v, WEIGHTS[n]),
        lambda w: np.average(w, weights=WEIGHTS[len(w)]),
    ),
    "covariance": (
        lambda v, n: windows.rolling_covariance(v, v**2, n),
        lambda w: np.cov(w, w**2)[0, 1],
    ),
}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("window", WEIGHTS)
def test_every_window_has_its_own_statistic(name, window):
    fast, slow = STATISTICS[name]
    values = random_bars(count=90)["close"]
    result = fast(values, window)
    assert result.index is values.index
    assert result.iloc[: window - 1].isna().all()
    for t in range(window - 1, len(values)):
        expected = slow(values.to_numpy()[t - window + 1 : t + 1])
        assert result.iloc[t] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("name", STATISTICS)
@settings(max_examples=25)
@given(
    values=arrays(float, st.integers(0, 40), elements=st.floats(-1e6, 1e6)),
    cut=st.integers(0, 40),
    data=st.data(),
)
def test_nothing_outside_a_window_touches_it(name, values, cut, data):
    fast, series = STATISTICS[name][0], pd.Series(values)
    whole = fast(series, 5)
    pd.testing.assert_series_equal(fast(series.iloc[:cut], 5), whole.iloc[:cut], rtol=0, atol=0)
    late = fast(series.iloc[cut:], 5).iloc[4:]
    pd.testing.assert_series_equal(late, whole.loc[late.index], rtol=0, atol=0)


@pytest.mark.parametrize("name", STATISTICS)
def test_long_series_are_worked_through_in_pieces(name, monkeypatch):
    fast, values = STATISTICS[name][0], random_bars(count=103)["close"]
    whole = fast(values, 5)
    monkeypatch.setattr(windows, "PIECE", 40)
    pd.testing.assert_series_equal(fast(values, 5), whole, rtol=0, atol=0)


@given(value=st.floats(-1e9, 1e9), window=st.integers(2, 50))
def test_equal_values_have_exactly_their_mean_and_no_deviation(value, window):
    values = pd.Series([1e12, *[value] * window])
    assert windows.rolling_mean(values, window).iloc[-1] == value
    assert windows.rolling_std(values, window).iloc[-1] == 0
    assert windows.rolling_covariance(values, values, window).iloc[-1] == 0
    assert windows.rolling_average(values, np.full(window, 1 / window)).iloc[-1] == value


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.filterwarnings("error")
def test_a_value_that_is_missing_or_out_of_all_measure_is_gone_with_its_window(name):
    fast, values = STATISTICS[name][0], random_bars(count=60)["close"]
    whole = fast(values, 5)
    for wrong in (np.nan, np.inf, 1e300):
        broken = values.copy()
        broken.iloc[30] = wrong
        result = fast(broken, 5)
        assert np.isnan(wrong) <= result.iloc[30:35].isna().all()
        pd.testing.assert_series_equal(result.iloc[35:], whole.iloc[35:], rtol=0, atol=0)
