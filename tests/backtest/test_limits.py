"""Sides across assets and the largest weight: what is kept, and of what size."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays

from maml_jax.backtest.limits import apply_limits, cap_weights, long_only, market_neutral
from maml_jax.errors import DataError

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=6)
SIZES = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 0.1, 1 / 3])


@st.composite
def wanted_and_known(draw):
    shape = draw(SHAPES)
    known = pd.DataFrame(draw(arrays(bool, shape)))
    return pd.DataFrame(draw(arrays(float, shape, elements=SIZES))), known


@settings(max_examples=40)
@given(wanted_and_known())
def test_neutral_weights_sum_to_zero_and_are_of_the_same_size_or_nothing(case):
    wanted, known = case
    found = market_neutral(wanted, known)
    gross = wanted.where(known).abs().sum(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    assert not found.where(~known, 0.0).to_numpy().any()
    for row in range(len(wanted)):
        own = wanted.loc[row, known.loc[row]]
        alike = len(own) < 2 or np.ptp(own) < 1e-12
        assert found.loc[row].abs().sum() == pytest.approx(0 if alike else gross[row], abs=1e-9)


@settings(max_examples=40)
@given(wanted_and_known())
def test_neutral_weights_keep_the_order_and_the_distances_of_what_was_wanted(case):
    wanted, known = case
    found = market_neutral(wanted, known)
    for row in range(len(wanted)):
        own = known.loc[row]
        gaps = np.subtract.outer(*[wanted.loc[row, own].to_numpy()] * 2)
        kept = np.subtract.outer(*[found.loc[row, own].to_numpy()] * 2)
        if np.abs(kept).max(initial=0) > 0:
            ratio = kept[gaps != 0] / gaps[gaps != 0]
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
            assert ratio[0] > 0


def test_a_rounded_mean_makes_no_position_of_weights_that_are_alike():
    alike = pd.DataFrame([[0.1, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    assert not market_neutral(alike, alike > 0).to_numpy().any()


def test_an_asset_without_a_prediction_has_no_part_in_the_mean():
    wanted = pd.DataFrame([[1.0, 0.0, 1.0]])
    known = pd.DataFrame([[True, True, False]])
    assert market_neutral(wanted, known).loc[0].tolist() == [0.5, -0.5, 0.0]


@settings(max_examples=40)
@given(wanted_and_known(), st.floats(0.05, 2))
def test_no_weight_is_larger_than_may_be_held_and_neutral_stays_neutral(case, most):
    wanted, known = case
    found = apply_limits(wanted, known, sides="market_neutral", most=most)
    assert (found.abs() <= most + 1e-12).all(axis=None)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    free = market_neutral(wanted, known)
    assert (found.abs() <= free.abs() + 1e-12).all(axis=None)
    assert ((found * free) >= 0).all(axis=None)
    long_short = apply_limits(wanted, known, sides="long_short", most=most)
    pd.testing.assert_frame_equal(long_short, wanted.clip(-most, most))


def test_the_heavier_side_is_made_smaller_where_one_weight_is_cut():
    wanted = pd.DataFrame([[2.0, -1.0, -1.0]])
    found = cap_weights(wanted, 1.0, neutral=True)
    assert found.loc[0].tolist() == [1.0, -0.5, -0.5]
    assert cap_weights(wanted, 5.0, neutral=True).loc[0].tolist() == [2.0, -1.0, -1.0]


@settings(max_examples=40)
@given(wanted_and_known())
def test_long_only_takes_the_long_side_and_nothing_else(case):
    wanted, known = case
    found = apply_limits(wanted, known, sides="long_only")
    assert (found >= 0).all(axis=None)
    pd.testing.assert_frame_equal(found - long_only(-wanted), wanted)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda w: market_neutral(w[["A"]], w[["A"]] > 0), DataError, "at least 2"),
        (lambda w: market_neutral(w, w.iloc[1:] > 0), DataError, "different timestamps or assets"),
        (lambda w: cap_weights(w, 0.0), ValueError, "must be positive"),
        (lambda w: cap_weights(w, np.nan), ValueError, "must be positive"),
        (lambda w: apply_limits(w, w > 0, sides="short_only"), ValueError, "no 'short_only'"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(pd.DataFrame({"A": [1.0, 0.0], "B": [0.5, 1.0]}))
