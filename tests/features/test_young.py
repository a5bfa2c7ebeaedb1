"""Features from the first return on: what a loop says, and nothing of later bars."""

import numpy as np
import pandas as pd
import pytest

from maml_jax.errors import DataError, LookAheadError
from maml_jax.features import Feature, add_cross_section, check_feature, compute_features
from maml_jax.features.catalogue import feature_groups
from maml_jax.features.young import DOWNSIDE_WINDOWS, WINDOWS, own_columns, young_features


def make_bars(count=400, seed=0):
    rng = np.random.default_rng(seed)
    returns = 0.02 * rng.standard_t(4, count) * rng.choice([0.0, 1.0], count, p=[0.1, 0.9])
    close = 100 * np.exp(np.cumsum(returns))
    times = pd.date_range("2020-01-01", periods=count, tz="UTC")
    high, low = close * np.exp(rng.uniform(0, 0.02, count)), close * np.exp(-0.01)
    return pd.DataFrame({"high": high, "low": low, "close": close}, index=times)


def test_own_columns_are_those_of_a_loop():
    returns = np.diff(np.log(make_bars()["close"].to_numpy()), prepend=np.nan)
    found = own_columns(returns)
    for age in (1, 2, 3, 7, 22, 61, 250, 399):
        last = returns[1 : age + 1]
        least = max(0.1 * np.sqrt((last[-22:] ** 2).mean()), 1e-6)
        expected = [np.sqrt((last[-k:] ** 2).mean()) for k in WINDOWS]
        expected += [np.sqrt((np.minimum(last[-k:], 0) ** 2).mean()) for k in DOWNSIDE_WINDOWS]
        np.testing.assert_allclose(found[age], np.log(np.maximum(expected, least)), rtol=1e-9)


@pytest.mark.parametrize("group", ["young", "young_range", "young_market"])
def test_they_know_nothing_of_later_bars_and_begin_with_the_first_return(group):
    bars = add_cross_section({"A": make_bars(), "B": make_bars(seed=1)})["A"]
    features = list(feature_groups()[group].values())
    table = compute_features(bars, features)
    assert table.iloc[1:].notna().all(axis=None)
    for feature in features:
        assert not feature.start_invariant
        check_feature(feature, bars)


def test_a_masked_bar_hides_the_windows_that_hold_its_returns_and_no_more():
    bars = make_bars()
    masked = bars.copy()
    masked.iloc[300] = np.nan
    for k in (5, 60):
        feature = young_features()[f"young_volatility_{k}"]
        values, whole = feature.compute(masked), feature.compute(bars)
        hidden = values.isna().to_numpy()[1:]
        assert hidden[299 : 300 + max(k, 22)].all() and not hidden[300 + max(k, 22) :].any()
        pd.testing.assert_series_equal(values[values.notna()], whole[values.notna()])


def test_a_feature_that_does_not_say_that_it_depends_on_the_start_is_refused():
    honest = young_features()["young_volatility_250"]
    with pytest.raises(DataError, match="depends on where the bars begin"):
        check_feature(honest._replace(start_invariant=True), make_bars())


def test_a_leak_in_a_young_feature_is_caught():
    leak = Feature(
        "leak", lambda b: own_columns(np.log(b["close"]).diff(-1).to_numpy())[:, 1], 1,
        start_invariant=False,
    )  # fmt: skip
    with pytest.raises((LookAheadError, DataError), match="leak"):
        check_feature(leak, make_bars())
