"""Bars after t change nothing up to t: not a feature, not the scaling, not a net return."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from lookahead import (
    COUNT,
    MARKET,
    TEST_FIRST,
    TRAIN_LAST,
    alter_after,
    assert_same_up_to,
    config_for,
    cut_off_after,
    whole,
)

from maml_jax.experiment.learning.train import meta_train
from maml_jax.experiment.preparation.prepare import prepare

pytestmark = pytest.mark.long


@pytest.mark.slow
@pytest.mark.parametrize(
    "fill",
    ["close", "next_open", "next_close"],
)
@settings(max_examples=4)
@given(t=st.integers(TEST_FIRST + 5, COUNT - 2), seed=st.integers(0, 1000))
def test_altered_bars_after_t_change_nothing_up_to_t(fill, t, seed):
    assert_same_up_to(t, config_for(fill), alter_after(t, seed))


@pytest.mark.long
@pytest.mark.parametrize(
    "fill",
    [pytest.param(f, marks=pytest.mark.slow) for f in ("close", "next_close", "next_open")],
)
@settings(max_examples=2)
@given(t=st.integers(TEST_FIRST + 5, COUNT - 2))
def test_bars_cut_off_after_t_change_nothing_up_to_t(fill, t):
    assert_same_up_to(t, config_for(fill), cut_off_after(t))


ONLINE = {"variants": ["online", "retrained"], "every": 7, "steps": 2, "retrain_every": 20}
VARIANTS = {
    "regimes": {"task.family": "regime", "task.support": 5, "task.query": 2},
    "regimes of the market": {
        "task.family": {"regime": 1.0, "month": 2.0},
        "task.support": 5,
        "task.query": 2,
        "regimes.of": "market",
        "online": ONLINE,
    },
    "a Markov chain": {"task.support": 5, "backtest.same_regime": True, "regimes.kind": "markov"},
    "online": {"task.support_from": "mixed", "online": ONLINE},
    "online, recent": {"task.support_from": "cross_section", "online": {**ONLINE, "recent": 30}},
    "strategies": {
        "task.family": "strategy",
        "task.strategies": ["mean_reversion", "breakout"],
        "task.support": 5,
        "task.query": 2,
        "online": {**ONLINE, "variants": ["online"]},
    },
    "volatility": {"target.kind": "volatility"},
    "volatility from whole bars": {"target.kind": "volatility", "target.estimator": "garman_klass"},
    "direction": {"target.kind": "direction", "target.flat": 0.2},
    "sized by volatility": {"backtest.positions": "volatility_target"},
    "trees, neutral": {
        "backtest.baselines": ["ridge", "momentum", "trees"],
        "backtest.positions": "proportional",
        "backtest.sides": "market_neutral",
        "backtest.max_weight": 0.4,
    },
    "young": {"task.min_support": 0, "task.forget": 0.9},
    "growing": {"backtest.window": "growing", "learner": {"methods": ["alpaca"], "features": 4}},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("t", [113, 137])
def test_every_variant_knows_nothing_of_what_comes(changes, t):
    if "trees" in changes.get("backtest.baselines", ()):
        pytest.importorskip("sklearn")
    config = config_for("next_close", **changes)
    assert_same_up_to(t, config, alter_after(t, seed=t))
    assert_same_up_to(t, config, cut_off_after(t))


@pytest.mark.slow
def test_regimes_matter_for_what_is_compared():
    """The variants test what they name: labels differ in time, and so do predictions."""
    prepared, result = whole(config_for("next_close", **VARIANTS["regimes"]))
    labels = prepared.panel.regimes[:, TEST_FIRST:]
    assert len(np.unique(labels[labels >= 0])) >= 3
    names = set(whole(config_for("next_close", **VARIANTS["online"]))[1].stats)
    assert {"maml online", "maml retrained"} <= names
    _, other = whole(config_for("next_close", **{**VARIANTS["regimes"], "task.family": "asset"}))
    a, b = (
        table.predictions.query("strategy == 'maml'")["prediction"] for table in (result, other)
    )
    assert not np.allclose(a, b, atol=1e-4)


def test_the_check_would_see_a_leak():
    """Altering a bar at or before t is noticed: the comparison is not blind."""
    changed = {a: b.copy() for a, b in MARKET.items()}
    changed["A0"].iloc[120] *= 1.05
    with pytest.raises(AssertionError):
        assert_same_up_to(120, config_for("close"), changed)


@pytest.mark.slow
@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
def test_meta_training_uses_no_bar_after_its_span(fill):
    changed = {a: b.copy() for a, b in MARKET.items()}
    for bars in changed.values():
        bars.iloc[TRAIN_LAST + 1 :] *= 1.7
    (params, _), (other, _) = (
        meta_train(prepare(config_for(fill), bars), "maml") for bars in (MARKET, changed)
    )
    np.testing.assert_array_equal(params["layers"][0]["kernel"], other["layers"][0]["kernel"])
