"""Direction and volatility as targets: what they are, and when they are known."""

import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market
from hypothesis import given, settings

from maml_jax.errors import DataError
from maml_jax.features import Target, compute_features, compute_target, find_features, fit_scaler
from maml_jax.features.scaling import scaler_from_dict, scaler_to_dict
from maml_jax.features.targets import compute_scaled_target, fit_target, forward_volatility

ESTIMATORS = ("close", "garman_klass")
FILLS = ("close", "next_close", "next_open")


def slow_volatility(bars, t, horizon, estimator):
    """Read the definition, bar by bar."""
    total = 0.0
    for k in range(t + 1, t + horizon + 1):
        bar = bars.iloc[k]
        if estimator == "close":
            total += math.log(bar["close"] / bars["close"].iloc[k - 1]) ** 2
        else:
            total += 0.5 * math.log(bar["high"] / bar["low"]) ** 2
            total -= (2 * math.log(2) - 1) * math.log(bar["close"] / bar["open"]) ** 2
    return math.sqrt(total / horizon)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("horizon", [1, 5])
def test_volatility_is_that_of_the_bars_to_come(estimator, horizon):
    bars = random_bars(count=80)
    target = Target(horizon, kind="volatility", estimator=estimator)
    values, scale = compute_target(bars, target)
    ahead = forward_volatility(bars, horizon, estimator)
    for t in range(80):
        if t + horizon < 80:
            expected = slow_volatility(bars, t, horizon, estimator)
            assert ahead.iloc[t] == pytest.approx(expected, rel=1e-9)
            if t >= 20:
                assert values.iloc[t] == pytest.approx(math.log(expected), rel=1e-9)
        else:
            assert np.isnan(values.iloc[t])
    assert scale.iloc[:20].isna().all()
    assert scale.iloc[20:].notna().all()


@pytest.mark.parametrize("fill", FILLS)
def test_the_label_of_a_volatility_waits_for_its_horizon_alone(fill):
    assert Target(5, fill, kind="volatility").label_delay == 5
    assert Target(5, fill, kind="direction").label_delay == Target(5, fill).label_delay


@pytest.mark.parametrize(
    "target",
    [
        *(Target(4, kind="volatility", estimator=each) for each in ESTIMATORS),
        *(Target(4, fill, kind="direction") for fill in FILLS),
    ],
)
@settings(max_examples=15)
@given(t=st.integers(0, 119))
def test_a_label_exists_once_its_delay_is_over_and_not_before(target, t):
    bars = random_bars(count=120)
    known, full = (compute_target(b, target)[0] for b in (bars.iloc[: t + 1], bars))
    complete = known.iloc[: max(0, t + 1 - target.label_delay)]
    pd.testing.assert_series_equal(complete, full.iloc[: len(complete)])
    assert known.iloc[len(complete) :].isna().all()
    if t + 1 < 120:
        changed = bars.copy()
        changed.iloc[t + 1 :] *= 1.5
        altered = compute_target(changed, target)[0]
        pd.testing.assert_series_equal(altered.iloc[: len(complete)], complete)


def test_a_horizon_at_rest_has_no_volatility():
    bars = random_bars(count=120)
    bars.iloc[60:70, :4] = 77.0
    values = compute_target(bars, Target(3, kind="volatility"))[0]
    at_rest = [t for t in range(20, 117) if np.ptp(bars["close"].iloc[t : t + 4]) == 0]
    assert at_rest == list(range(60, 67))
    assert np.flatnonzero(values.iloc[20:117].isna()).tolist() == [t - 20 for t in at_rest]
    assert np.isfinite(values.iloc[20:60]).all()


def test_a_masked_bar_hides_the_horizons_that_hold_it():
    bars = random_bars(count=120)
    bars.iloc[60] = np.nan
    values = forward_volatility(bars, 3)
    # The move into the masked bar and the one out of it are unknown.
    assert np.flatnonzero(values.iloc[:117].isna()).tolist() == [57, 58, 59, 60]


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("flat", [0.0, 0.5])
def test_direction_is_the_sign_of_the_return_that_is_traded(fill, flat):
    bars = random_bars(count=200)
    returns, _ = compute_target(bars, Target(3, fill, clip=None))
    values, _ = compute_target(bars, Target(3, fill, kind="direction", flat=flat))
    for t in range(200):
        if np.isnan(returns.iloc[t]):
            assert np.isnan(values.iloc[t])
        elif abs(returns.iloc[t]) <= flat:
            assert values.iloc[t] == 0
        else:
            assert values.iloc[t] == (1 if returns.iloc[t] > 0 else -1)
    assert (values == 0).any() == (flat > 0)
    assert {-1.0, 1.0} <= set(values.dropna())


def test_garman_klass_needs_whole_bars():
    target = Target(kind="volatility", estimator="garman_klass")
    with pytest.raises(DataError, match=r"XY: estimator 'garman_klass' needs columns \['open'"):
        compute_target(random_bars(columns="close"), target, asset="XY")


def market_scaler(bars, target, first=30, last=199):
    tables = [compute_features(b, find_features(["volatility"])) for b in bars.values()]
    dates = bars["A0"].index
    return fit_target(fit_scaler(tables), bars, target, dates[first], dates[last])


def test_a_volatility_is_standardised_by_the_labels_of_the_span_alone():
    bars, target = random_market(count=300), Target(5, kind="volatility", clip=None)
    scaler = market_scaler(bars, target)
    within = np.concatenate(
        [
            [math.log(slow_volatility(b, t, 5, "close")) for t in range(30, 200 - 5)]
            for b in bars.values()
        ]
    )
    assert scaler.target_mean == pytest.approx(within.mean(), rel=1e-9)
    assert scaler.target_std == pytest.approx(within.std(), rel=1e-9)
    changed = {a: b.copy() for a, b in bars.items()}
    for frame in changed.values():
        frame.iloc[200:] *= 3
    assert market_scaler(changed, target)[3:] == scaler[3:]
    learned = compute_scaled_target(bars["A0"], target, scaler)[0]
    plain = compute_target(bars["A0"], target)[0]
    np.testing.assert_allclose(scaler.restore_target(learned), plain, rtol=1e-9)
    assert abs(learned.mean()) < 0.3
    assert 0.5 < learned.std() < 2
    clipped = compute_scaled_target(bars["A0"], target._replace(clip=1.0), scaler)[0]
    pd.testing.assert_series_equal(clipped, learned.clip(-1, 1))


def test_other_targets_are_of_order_one_as_they_are():
    bars = random_market(count=300)
    for target in (Target(3), Target(3, kind="direction")):
        scaler = market_scaler(bars, target)
        assert scaler[3:] == (0.0, 1.0)
        odd = scaler._replace(target_mean=2.0, target_std=3.0)
        pd.testing.assert_series_equal(
            compute_scaled_target(bars["A0"], target, odd)[0], compute_target(bars["A0"], target)[0]
        )


def test_a_span_without_a_label_is_refused():
    with pytest.raises(DataError, match="no label in the meta-training span"):
        market_scaler(random_market(count=300), Target(5, kind="volatility"), first=0, last=10)


def test_the_target_scaling_is_kept_and_old_records_have_none():
    bars = random_market(count=300)
    scaler = market_scaler(bars, Target(5, kind="volatility"))
    record = scaler_to_dict(scaler)
    assert scaler_from_dict(record)[3:] == scaler[3:]
    del record["target_mean"], record["target_std"]
    assert scaler_from_dict(record)[3:] == (0.0, 1.0)
