"""What every feature promises, on ordinary and on awkward bars."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from features.markets import BARS, BUILT_IN, COUNT, FEATURES, MARKETS
from hypothesis import given, settings

from maml_jax.features import check_feature
from maml_jax.features.feature import feature_values


def values_of(name, bars):
    return feature_values(bars, FEATURES[name])


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", FEATURES)
@settings(max_examples=12)
@given(t=st.integers(0, COUNT - 1), factor=st.floats(1e-3, 1e3), market=st.sampled_from([*MARKETS]))
def test_a_feature_is_a_function_of_the_past(name, t, factor, market):
    bars = BARS[market]
    changed = bars.copy()
    changed.iloc[t + 1 :] *= factor
    full = values_of(name, bars)[: t + 1]
    assert_same(values_of(name, bars.iloc[: t + 1]), full)
    assert_same(values_of(name, changed)[: t + 1], full)


@pytest.mark.parametrize("name", [n for n in FEATURES if FEATURES[n].start_invariant])
@pytest.mark.parametrize("market", MARKETS)
def test_after_the_warm_up_nothing_depends_on_where_the_series_begins(name, market):
    full, warm_up = values_of(name, BARS[market]), FEATURES[name].warm_up
    for first in (1, 17, 111, 112, 172):  # just before and after jumps too
        late = values_of(name, BARS[market].iloc[first:])
        assert_same(late[warm_up:], full[first + warm_up :])


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.filterwarnings("error")
def test_the_warm_up_is_exactly_as_declared_and_all_after_it_is_finite(name, market):
    values, warm_up = values_of(name, BARS[market]), FEATURES[name].warm_up
    assert np.isfinite(values[warm_up:]).all()
    assert np.isnan(values[:warm_up]).all()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_check_of_users_passes_what_is_built_in(name):
    check_feature(FEATURES[name], BARS["jumps"])


@pytest.mark.parametrize("name", [n for n in FEATURES if FEATURES[n].start_invariant])
def test_a_bar_that_is_masked_hides_what_would_read_it_and_no_more(name):
    bars, feature = BARS["random"], FEATURES[name]
    masked = bars.copy()
    masked.iloc[120] = np.nan
    values, whole = values_of(name, masked), values_of(name, bars)
    reach = 120 + feature.warm_up + 1
    assert_same(np.r_[values[:120], values[reach:]], np.r_[whole[:120], whole[reach:]])
    hidden = np.isnan(values[120:reach])
    np.testing.assert_allclose(values[120:reach][~hidden], whole[120:reach][~hidden], rtol=1e-9)


RESTING = {
    "bb_position": 0, "volatility": 0, "rsi": 50, "macd": 0, "sma_ratio": 1, "ema_ratio": 1,
    "trange": 0, "natr": 0, "garman_klass": 0, "parkinson": 0, "range_position": 0, "bop": 0,
    "volume_ratio": 1, "volume_zscore": 0, "mfi": 50, "beta": 1, "return_rank": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", RESTING)
def test_what_rests_has_exactly_the_neutral_value(name):
    values = values_of(name, BARS["all constant"])[FEATURES[name].warm_up :]
    assert (values == RESTING[name]).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", FEATURES)
def test_a_price_in_other_money_and_volume_in_other_units_change_nothing(name, scale):
    bars = BARS["random"]
    other = bars.assign(**{c: scale * bars[c] for c in ("open", "high", "low", "close", "volume")})
    found = pd.Series(values_of(name, other)).dropna()
    expected = pd.Series(values_of(name, bars)).dropna()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
