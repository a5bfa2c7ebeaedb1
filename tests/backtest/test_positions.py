import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from scipy.optimize import minimize_scalar

from maml_jax.backtest.positions import (
    LEVELS,
    confident_positions,
    kelly_positions,
    level_positions,
    level_signals,
    proportional_positions,
    threshold_positions,
    volatility_target_positions,
)
from maml_jax.errors import DataError

BARS = pd.date_range("2024-01-01", periods=4, freq="D", tz="UTC")


def table(a, b):
    return pd.DataFrame({"A": a, "B": b}, index=BARS, dtype=float)


MEAN = table([0.3, -0.3, 0.1, np.nan], [-0.05, 0.0, 0.9, 0.2])
STD = table([1.0, 2.0, 1.0, 1.0], [0.1, 1.0, 3.0, np.nan])
NO_STD = table([1.0] * 4, [1.0, 0.0, 1.0, 1.0])


def assert_weights(found, a, b):
    pd.testing.assert_frame_equal(found, table(a, b))


def test_a_side_is_taken_where_the_mean_is_far_from_zero_for_its_uncertainty():
    assert_weights(confident_positions(MEAN, STD, 0.2), [1, 0, 0, 0], [-1, 0, 1, 0])
    assert_weights(confident_positions(MEAN, STD, 0.4), [0, 0, 0, 0], [-1, 0, 0, 0])


def test_without_a_bound_on_confidence_every_sign_is_traded():
    known = MEAN.where(STD.notna())
    pd.testing.assert_frame_equal(confident_positions(MEAN, STD, 0), threshold_positions(known))


def test_all_of_kelly_grows_fastest():
    """Among all weights, of a return whose two outcomes are 1 % times (mean +- deviation)."""
    mean, std, scale = 0.02, 1.0, 0.01
    outcomes = scale * np.array([mean + std, mean - std])
    best = minimize_scalar(
        lambda w: -np.log1p(w * outcomes).mean(), bounds=(0, 50), method="bounded"
    ).x
    one = {"index": BARS[:1], "columns": ["A"]}
    tables = [pd.DataFrame(value, **one) for value in (mean, std, scale)]
    weights = kelly_positions(*tables[:2], fraction=1.0, limit=100.0, scale=tables[2])
    assert weights.iloc[0, 0] == pytest.approx(best, rel=2e-3)


def test_kelly_without_volatilities_is_mean_over_variance():
    found = kelly_positions(MEAN, STD, fraction=0.5, limit=0.2)
    assert_weights(found, [0.15, -0.0375, 0.05, 0], [-0.2, 0, 0.05, 0])


def test_kelly_is_flat_where_a_volatility_is_missing():
    scale = table([0.5, 0.5, np.nan, 0.5], [0.5] * 4)
    found = kelly_positions(MEAN, STD, fraction=1.0, limit=10.0, scale=scale)
    assert_weights(found, [0.6, -0.15, 0, 0], [-10, 0, 0.2, 0])


VOLATILITY = table([0.05, 0.2, 0.4, np.nan], [0.1, 0.1, 0.2, 0.8])


def test_weights_make_assets_as_volatile_as_is_wanted_or_reach_the_limit():
    found = volatility_target_positions(VOLATILITY, target=0.1)
    assert_weights(found, [1, 0.5, 0.25, 0], [1, 1, 0.5, 0.125])
    wide = volatility_target_positions(VOLATILITY, target=0.1, limit=5.0)
    reached = (wide * VOLATILITY).to_numpy()
    np.testing.assert_allclose(reached[np.isfinite(reached)], 0.1)


def test_sides_give_volatility_targets_their_sign():
    side = table([-1, -1, 0, 1], [0.5, np.nan, -1, 1])
    found = volatility_target_positions(VOLATILITY, target=0.1, side=side)
    assert_weights(found, [-1, -0.5, 0, 0], [0.5, 0, -0.5, 0.125])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confident_positions(MEAN, STD, -1.0), "not negative"),
        (lambda: confident_positions(MEAN, STD, np.nan), "not negative"),
        (lambda: threshold_positions(MEAN, np.nan), "threshold must not be negative"),
        (lambda: level_positions(MEAN, 0.2, 0.2), "0 <= threshold < strong"),
        (lambda: level_positions(MEAN, -0.1, 0.2), "0 <= threshold < strong"),
        (lambda: level_signals(MEAN, 0.2, np.inf), "0 <= threshold < strong"),
        (lambda: proportional_positions(MEAN, 0.0), "scale must be a positive"),
        (lambda: proportional_positions(MEAN, 0.1, -1.0), "limit must be positive"),
        (lambda: kelly_positions(MEAN, STD, fraction=1.5), "fraction must lie above 0"),
        (lambda: kelly_positions(MEAN, STD, limit=0.0), "limit must be positive"),
        (lambda: volatility_target_positions(VOLATILITY, target=0.0), "target must be a positive"),
        (lambda: volatility_target_positions(VOLATILITY, limit=-1.0), "limit must be positive"),
        (lambda: confident_positions(MEAN, NO_STD, 1.0), "deviation of B at 2024-01-02.* it is 0"),
        (lambda: kelly_positions(MEAN, NO_STD), "deviation of B at 2024-01-02"),
        (lambda: kelly_positions(MEAN, STD, scale=NO_STD), "volatility of B at 2024-01-02"),
        (lambda: volatility_target_positions(-VOLATILITY), "volatility of A at 2024-01-01"),
        (
            lambda: volatility_target_positions(VOLATILITY, side=MEAN[["A"]]),
            "sides and what they go with",
        ),
        (lambda: kelly_positions(MEAN, STD.iloc[1:]), "deviations and what they go with"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    of_data = " at " in message or "go with" in message
    assert isinstance(caught.value, DataError) == of_data


def test_five_levels_are_whole_and_half_positions_on_both_sides():
    found = level_positions(table([0.3, 0.1, 0.05, -0.05], [-0.1, -0.3, np.nan, 0.0]), 0.05, 0.1)
    assert_weights(found, [1, 0.5, 0, 0], [-0.5, -1, 0, 0])


@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=20),
    st.floats(0, 1),
    st.floats(0.001, 1),
)
def test_levels_lie_between_the_sides_that_each_threshold_takes(values, threshold, more):
    predictions = pd.DataFrame({"A": values})
    strong = threshold + more
    found = level_positions(predictions, threshold, strong)
    parts = [threshold_positions(predictions, each) for each in (threshold, strong)]
    pd.testing.assert_frame_equal(found, (parts[0] + parts[1]) / 2)
    pd.testing.assert_frame_equal(found, -level_positions(-predictions, threshold, strong) + 0.0)
    assert set(found["A"]) <= set(LEVELS)


def test_signals_name_the_level_and_how_sure_it_is():
    found = level_signals(table([0.3, np.nan, 0.0, np.inf], [-0.06, -0.3, 0.08, 0.02]), 0.05, 0.1)
    assert list(found.columns) == [
        "timestamp", "asset", "prediction", "level", "confidence", "position",
    ]  # fmt: skip
    assert list(zip(found["asset"], found["level"], strict=True)) == [
        ("A", "strong buy"),
        ("B", "sell"),
        ("B", "strong sell"),
        ("A", "hold"),
        ("B", "buy"),
        ("B", "hold"),
    ]
    np.testing.assert_allclose(found["confidence"], [1, 0.6, 1, 0, 0.8, 0.2])
    assert list(found["position"]) == [1, -0.5, -1, 0, 0.5, 0]
    assert list(found["timestamp"]) == [BARS[i] for i in (0, 0, 1, 2, 2, 3)]
    nothing = level_signals(table([np.nan] * 4, [np.nan] * 4))
    assert len(nothing) == 0 and list(nothing.columns) == list(found.columns)


def test_proportional_positions_are_whole_at_the_scale_and_keep_the_limit():
    found = proportional_positions(MEAN, scale=0.2)
    assert_weights(found, [1, -1, 0.5, 0], [-0.25, 0, 1, 1])
    wide = proportional_positions(MEAN, scale=0.2, limit=10.0)
    assert_weights(wide, [1.5, -1.5, 0.5, 0], [-0.25, 0, 4.5, 1])
