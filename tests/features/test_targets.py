"""Targets: the return that is traded, known when it is and not before."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from hypothesis import given, settings

from maml_jax.errors import DataError
from maml_jax.features import Target, compute_target, fill_return, forward_return, label_delay

FILLS = ("close", "next_close", "next_open")


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
