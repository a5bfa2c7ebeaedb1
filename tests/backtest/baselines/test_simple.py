"""Positions at random times, the past return, and pooled trees."""

import sys

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market
from hypothesis import given, settings

from maml_jax.backtest.baselines.simple import (
    boosted_trees,
    past_return,
    require_trees,
    shift_decisions,
)
from maml_jax.errors import ConfigError
from maml_jax.features import Target, compute_features, compute_target, find_features, fit_scaler
from maml_jax.tasks import make_panel


def decisions_of(count=200, assets=3, seed=0):
    rng = np.random.default_rng(seed)
    sides = np.repeat(rng.choice([-1.0, 0.0, 0.5, 1.0], (count // 5 + 1, assets)), 5, axis=0)
    index = pd.date_range("2024-01-01", periods=count, freq="D", tz="UTC")
    return pd.DataFrame(sides[:count], index=index, columns=[f"A{i}" for i in range(assets)])


def around(table):
    """Sum up what is traded, the seam from the end to the beginning included."""
    values = table.to_numpy()
    return np.abs(values - np.roll(values, 1, axis=0)).sum(axis=0)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(4, 120), st.integers(1, 500))
def test_shifted_decisions_are_the_same_at_another_time(seed, count, least):
    decisions = decisions_of(count)
    found = shift_decisions(decisions, np.random.default_rng(seed), least=least)
    lags = [
        lag
        for lag in range(count)
        if np.array_equal(np.roll(decisions.to_numpy(), lag, axis=0), found.to_numpy())
    ]
    assert lags
    np.testing.assert_array_equal(around(found), around(decisions))
    margin = min(least, count / 4)
    assert any(margin - 1 <= lag <= count - margin + 1 and 0 < lag for lag in lags)
    np.testing.assert_array_equal(
        np.sort(found.abs().sum(axis=1)), np.sort(decisions.abs().sum(axis=1))
    )


def test_lags_are_drawn_from_all_that_are_far_enough():
    decisions = pd.DataFrame({"A": np.arange(100.0)})
    rng = np.random.default_rng(0)
    first = [shift_decisions(decisions, rng, least=20)["A"].iloc[0].astype(int) for _ in range(600)]
    lags = (100 - np.array(first)) % 100
    assert lags.min() >= 20 and lags.max() <= 80
    assert len(set(lags)) > 50
    assert np.mean(lags) == pytest.approx(50, abs=2.5)


def test_the_same_seed_draws_the_same():
    decisions = decisions_of()
    one, other, third = (
        shift_decisions(decisions, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, other)
    assert not one.equals(third)


def test_an_asset_is_moved_within_its_own_bars():
    decisions = decisions_of(120, assets=2)
    present = pd.DataFrame(True, decisions.index, decisions.columns)
    present.iloc[:40, 1] = False  # begins late
    present.iloc[60:70, 1] = False
    found = shift_decisions(decisions, np.random.default_rng(3), present=present, least=10)
    own = present["A1"]
    assert not found.loc[~own, "A1"].to_numpy().any()
    lags = [
        [k for k in range(len(each)) if np.array_equal(np.roll(each, k), moved)]
        for each, moved in (
            (decisions["A0"].to_numpy(), found["A0"].to_numpy()),
            (decisions.loc[own, "A1"].to_numpy(), found.loc[own, "A1"].to_numpy()),
        )
    ]
    assert lags[0][0] / 120 == pytest.approx(lags[1][0] / own.sum(), abs=0.02)


def test_without_bars_there_is_nothing_to_move():
    decisions = decisions_of(6, assets=1)
    nowhere = pd.DataFrame(False, decisions.index, decisions.columns)
    found = shift_decisions(decisions, np.random.default_rng(0), present=nowhere)
    assert not found.to_numpy().any()
    with pytest.raises(ValueError, match="at least 1 bar"):
        shift_decisions(decisions, np.random.default_rng(0), least=0)


TARGET = Target(horizon=4, volatility_window=10)


def test_momentum_is_the_past_return_at_the_pace_of_the_horizon():
    bars = random_bars(seed=1, count=80)
    scale = compute_target(bars, TARGET)[1]
    found = past_return(bars, scale, window=8, horizon=4)
    close = bars["close"].to_numpy()
    for time in (30, 79):
        expected = 0.5 * np.log(close[time] / close[time - 8]) / scale.iloc[time]
        assert found.iloc[time] == pytest.approx(expected, rel=1e-9)
    assert (found.iloc[:8] == 0).all()


def test_following_a_rule_has_a_momentum_of_its_own():
    bars = random_bars(seed=2, count=80)
    scale = compute_target(bars, TARGET)[1]
    side = pd.Series(np.where(np.arange(80) % 7 < 3, 1.0, -1.0), bars.index)
    found = past_return(bars, scale, window=8, horizon=4, side=side)
    returns = np.diff(np.log(bars["close"].to_numpy()))
    paid = returns * side.to_numpy()[:-1]
    assert found.iloc[60] == pytest.approx(0.5 * paid[52:60].sum() / scale.iloc[60], rel=1e-9)
    short = past_return(bars, scale, window=8, horizon=4, side=side * 0 - 1)
    np.testing.assert_allclose(short, -past_return(bars, scale, window=8, horizon=4), atol=1e-9)


def test_momentum_knows_nothing_of_what_comes_and_is_nothing_where_nothing_is_known():
    bars = random_bars(seed=3, count=80)
    changed = bars.copy()
    changed.iloc[51:] *= np.linspace(0.5, 3, 29)[:, None]
    masked = bars.copy()
    masked.iloc[40:43] = np.nan
    tables = [
        past_return(each, compute_target(each, TARGET)[1], window=8, horizon=4)
        for each in (bars, changed, masked)
    ]
    pd.testing.assert_series_equal(tables[0].iloc[:51], tables[1].iloc[:51])
    assert not np.allclose(tables[0].iloc[51:], tables[1].iloc[51:])
    assert all(np.isfinite(each).all() for each in tables)
    resting = bars.assign(close=bars["close"].where(np.arange(80) < 40, 50.0))
    found = past_return(resting, compute_target(resting, TARGET)[1], window=8, horizon=4)
    assert (found.iloc[60:] == 0).all()
    with pytest.raises(ValueError, match="at least 1 bar"):
        past_return(bars, tables[0], window=0, horizon=4)


def panel_of(market):
    names = ["rsi", "return_1", "momentum"]
    features = find_features(names, window=5, returns=(1,), fast=3, slow=5)
    tables = {a: compute_features(b, features) for a, b in market.items()}
    scaler = fit_scaler(list(tables.values()))
    scaled = {a: scaler.transform(t) for a, t in tables.items()}
    return make_panel(market, scaled, Target(horizon=3, volatility_window=5, fill="next_close"))


class TestTrees:
    """Of scikit-learn, where it is installed."""

    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("sklearn")

    def test_they_find_a_step_that_no_line_has(self):
        panel = panel_of(random_market(count=600, assets=2))
        x = np.asarray(panel.features)
        step = np.where(np.abs(x[..., 0]) > 0.7, 1.0, -1.0).astype(np.float32)
        panel = panel._replace(targets=step)
        found = boosted_trees(panel, train_assets=["A0"], train_last=400, seed=1)
        valid = np.asarray(panel.valid)
        assert (np.isfinite(found) == valid).all()
        away = np.abs(np.abs(x[1, :, 0]) - 0.7) > 0.1
        assert (np.sign(found[1]) == step[1])[valid[1] & away].mean() > 0.95

    def test_they_know_labels_that_the_span_completes_and_no_others(self):
        panel = panel_of(random_market(count=300, assets=3))
        ends = np.asarray(panel.label_end)
        options = {"train_assets": ["A0", "A2"], "train_first": 50, "train_last": 200}
        known = np.zeros(ends.shape, bool)
        known[[0, 2], 50:] = True
        known &= ends <= 200
        targets = np.asarray(panel.targets)
        noise = np.random.default_rng(0).standard_normal(ends.shape).astype(np.float32)
        other = panel._replace(targets=np.where(known, targets, noise))
        first, second = (boosted_trees(each, **options) for each in (panel, other))
        np.testing.assert_array_equal(first, second)
        time = int(np.flatnonzero(known[0]).max())
        targets = targets.copy()
        targets[0, time - 40 : time + 1] += 5
        third = boosted_trees(panel._replace(targets=targets), **options)
        assert not np.allclose(first[np.isfinite(first)], third[np.isfinite(third)])

    def test_without_labels_there_are_none(self):
        panel = panel_of(random_market(count=100, assets=2))
        assert boosted_trees(panel, train_assets=[], train_last=80) is None
        assert boosted_trees(panel, train_assets=["A0"], train_last=3) is None


def test_trees_name_the_extra_where_it_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r"maml-jax\[trees\]"):
        require_trees()
