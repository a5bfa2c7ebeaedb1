import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from hypothesis import given, settings

from maml_jax.errors import DataError
from maml_jax.features import (
    Target,
    compute_features,
    compute_target,
    fill_return,
    fit_scaler,
    forward_return,
    label_delay,
    longest_warm_up,
    technical_features,
)
from maml_jax.features.scaling import scaler_from_dict, scaler_to_dict
from maml_jax.features.technical import exponential_average

CATALOGUE = technical_features()
FILLS = ("close", "next_close", "next_open")


def altered_after(bars, t, factor):
    """Other bars after place t, the same up to it."""
    changed = bars.copy()
    changed.iloc[t + 1 :] *= factor
    return changed


@pytest.mark.parametrize("name", CATALOGUE)
@settings(max_examples=20)
@given(t=st.integers(0, 299), factor=st.floats(0.1, 10), seed=st.integers(0, 5))
def test_a_feature_is_a_function_of_the_past(name, t, factor, seed):
    bars = random_bars(seed)
    full = CATALOGUE[name].compute(bars).iloc[: t + 1]
    pd.testing.assert_series_equal(CATALOGUE[name].compute(bars.iloc[: t + 1]), full)
    pd.testing.assert_series_equal(
        CATALOGUE[name].compute(altered_after(bars, t, factor)).iloc[: t + 1], full
    )


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_warm_up_is_exactly_as_declared(name):
    bars, feature = random_bars(), CATALOGUE[name]
    values = feature.compute(bars)
    assert values.iloc[feature.warm_up :].notna().all()
    assert values.iloc[: feature.warm_up].isna().all()


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("cut", [1, 17, 100])
def test_after_the_warm_up_nothing_depends_on_where_the_series_begins(name, cut):
    bars, feature = random_bars(), CATALOGUE[name]
    late = feature.compute(bars.iloc[cut:]).iloc[feature.warm_up :]
    np.testing.assert_allclose(late, feature.compute(bars).loc[late.index], rtol=1e-8, atol=1e-10)


def test_features_are_what_their_formulas_say():
    bars = random_bars()
    table = compute_features(bars, list(CATALOGUE.values()))
    close, volume = bars["close"], bars["volume"]
    t = 200
    last = close.iloc[t - 19 : t + 1]
    returns = close.pct_change()
    moves = close.diff().iloc[t - 19 : t + 1]
    expected = {
        "return_1": close.iloc[t] / close.iloc[t - 1] - 1,
        "return_5": close.iloc[t] / close.iloc[t - 5] - 1,
        "return_10": close.iloc[t] / close.iloc[t - 10] - 1,
        "sma_ratio": close.iloc[t] / last.mean(),
        "volatility": returns.iloc[t - 19 : t + 1].std(),
        "momentum": close.iloc[t] / close.iloc[t - 20] - 1,
        "rsi": 100 - 100 / (1 + moves.clip(lower=0).mean() / -moves.clip(upper=0).mean()),
        "bb_position": (close.iloc[t] - last.mean()) / (2 * last.std()),
        "volume_ratio": volume.iloc[t] / volume.iloc[t - 19 : t + 1].mean(),
    }
    for name, value in expected.items():
        assert table[name].iloc[t] == pytest.approx(value, rel=1e-9), name


def test_the_exponential_average_is_close_to_the_infinite_one():
    close = random_bars(count=500)["close"]
    finite = exponential_average(close, 20).iloc[100:]
    np.testing.assert_allclose(finite, close.ewm(span=20).mean().iloc[100:], rtol=2e-3)


def test_a_price_that_rests_gives_finite_features():
    bars = random_bars()
    bars.iloc[100:200, :4] = bars["close"].iloc[100]
    bars.iloc[100:200, 4] = 0.0
    table = compute_features(bars, list(CATALOGUE.values()))
    assert table.iloc[longest_warm_up(list(CATALOGUE.values())) :].notna().all(axis=None)
    assert table["rsi"].iloc[150] == 50
    assert table["bb_position"].iloc[150] == 0
    assert table["volume_ratio"].iloc[150] == 1


def test_a_column_that_is_needed_and_missing_is_named():
    with pytest.raises(DataError, match=r"XY: feature 'volume_ratio' needs column 'volume'"):
        compute_features(random_bars(columns="close"), list(CATALOGUE.values()), asset="XY")


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("horizon", [1, 5])
def test_the_forward_return_is_the_return_that_is_traded(fill, horizon):
    bars = random_bars(count=60)
    values = forward_return(bars, fill, horizon)
    price = bars["open" if fill == "next_open" else "close"].to_numpy()
    entry = 0 if fill == "close" else 1
    for t in range(60):
        if t + entry + horizon < 60:
            expected = price[t + entry + horizon] / price[t + entry] - 1
            assert values.iloc[t] == pytest.approx(expected)
        else:
            assert np.isnan(values.iloc[t])
    assert label_delay(fill, horizon) == entry + horizon


@pytest.mark.parametrize("fill", FILLS)
@settings(max_examples=15)
@given(t=st.integers(0, 119), horizon=st.integers(1, 7), factor=st.floats(0.5, 2))
def test_a_label_exists_once_its_delay_is_over_and_not_before(fill, t, horizon, factor):
    bars = random_bars(count=120)
    target = Target(horizon, fill, clip=None)
    known = compute_target(bars.iloc[: t + 1], target)[0]
    full = compute_target(bars, target)[0]
    delay = target.label_delay
    complete = known.iloc[: max(0, t + 1 - delay)]
    pd.testing.assert_series_equal(complete, full.iloc[: len(complete)])
    assert known.iloc[len(complete) :].isna().all()


@pytest.mark.parametrize("fill", FILLS)
def test_held_returns_are_the_one_bar_targets_once_known(fill):
    bars = random_bars(count=50)
    delay = label_delay(fill, 1)
    ahead = forward_return(bars, fill, 1).shift(delay)
    pd.testing.assert_series_equal(
        fill_return(bars, fill).iloc[delay:], ahead.iloc[delay:], check_names=False
    )


def test_the_target_is_in_units_of_trailing_volatility():
    bars = random_bars(count=4000)
    values, scale = compute_target(bars, Target(horizon=5))
    assert 0.8 < values.std() < 1.4
    t = 300
    expected = bars["close"].pct_change().iloc[t - 19 : t + 1].std() * np.sqrt(5)
    assert scale.iloc[t] == pytest.approx(expected)


def test_targets_are_clipped_and_resting_prices_have_none():
    bars = random_bars()
    bars.iloc[150, 3] *= 2
    values, _ = compute_target(bars, Target(horizon=1, fill="close", clip=3.0))
    assert values.abs().max() == 3.0
    bars = random_bars()
    bars.iloc[100:200, 3] = 77.0
    values, scale = compute_target(bars, Target(horizon=1))
    assert values.iloc[125:195].isna().all()
    assert scale.iloc[125:195].isna().all()


def test_constant_prices_are_refused_with_asset_and_dates():
    bars = random_bars(count=30)
    bars["close"] = 5.0
    with pytest.raises(DataError, match=r"FLAT: the close is 5 at every one of its 30 bars \(2020"):
        compute_target(bars, Target(), asset="FLAT")


def test_next_open_needs_opens():
    with pytest.raises(DataError, match=r"XY: fill 'next_open' needs column 'open'"):
        compute_target(random_bars(columns="close"), Target(fill="next_open"), asset="XY")


def test_scaling_standardises_what_it_was_fitted_on_and_clips():
    table = compute_features(random_bars(count=500), list(CATALOGUE.values()))
    scaler = fit_scaler([table], clip=None)
    scaled = scaler.transform(table).dropna()
    np.testing.assert_allclose(scaled.mean(), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(ddof=0), 1, rtol=1e-9)
    assert scaler._replace(clip=2.0).transform(table).abs().max(axis=None) == 2.0
    restored = scaler_from_dict(scaler_to_dict(scaler))
    pd.testing.assert_frame_equal(restored.transform(table), scaler.transform(table))


def test_scaling_refuses_other_features_and_passes_constants():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 3.0]})
    scaler = fit_scaler([table])
    assert scaler.transform(table)["b"].tolist() == [0, 0]
    with pytest.raises(DataError, match=r"fitted on features \['a', 'b'\]"):
        scaler.transform(table[["b", "a"]])


@pytest.mark.parametrize(
    "options", [{"window": 1}, {"fast": 26, "slow": 26}, {"returns": (0,)}, {"fast": 0}]
)
def test_windows_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError):
        technical_features(**options)
