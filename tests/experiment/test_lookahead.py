"""Bars after t change nothing up to t: not a feature, not the scaling, not a net return."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_market
from hypothesis import given, settings

from maml_jax.experiment import load_config
from maml_jax.experiment.evaluate import evaluate
from maml_jax.experiment.learn import meta_train
from maml_jax.experiment.prepare import prepare

COUNT, TRAIN_LAST, TEST_FIRST = 160, 99, 100
MARKET = random_market(count=COUNT, assets=3)
DATES = next(iter(MARKET.values())).index


def config_for(fill):
    return load_config(
        {
            "data": {
                "path": "memory",
                "train_assets": ["A0", "A1"],
                "test_assets": ["A0", "A2"],
                "train_end": DATES[TRAIN_LAST].isoformat(),
                "test_start": DATES[TEST_FIRST].isoformat(),
            },
            "features": {"window": 5, "fast": 3, "slow": 5},
            "target": {"fill": fill, "horizon": 3, "volatility_window": 5},
            "task": {"support": 10, "query": 4},
            "model": {"hidden": [8]},
            "learner": {"methods": ["maml"], "inner_steps": 2},
            "training": {"steps": 3, "meta_batch": 4},
            "backtest": {"threshold": 0.0, "bars_per_year": 365},
        }
    )


def pipeline(fill, bars):
    prepared = prepare(config_for(fill), bars)
    params, _ = meta_train(prepared, "maml")
    return prepared, evaluate(prepared, {"maml": params})


WHOLE = {}


def whole(fill):
    if fill not in WHOLE:
        WHOLE[fill] = pipeline(fill, MARKET)
    return WHOLE[fill]


def assert_same_up_to(t, fill, changed):
    """Compare all that is known at the close of bar t."""
    prepared, evaluation = whole(fill)
    other, result = pipeline(fill, changed)
    time = DATES[t]
    np.testing.assert_array_equal(prepared.scaler.mean, other.scaler.mean)
    np.testing.assert_array_equal(prepared.scaler.std, other.scaler.std)
    for name in ("features", "returns", "valid"):
        a, b = (np.asarray(getattr(p.panel, name))[:, : t + 1] for p in (prepared, other))
        np.testing.assert_array_equal(a, b, err_msg=name)

    def known(table):
        table = table[table["timestamp"] <= time].reset_index(drop=True)
        return table[["timestamp", "asset", "strategy", "prediction", "position"]]

    before, after = known(evaluation.predictions), known(result.predictions)
    assert len(before) > 0
    pd.testing.assert_frame_equal(before, after, rtol=1e-5, atol=1e-6)
    for name in ("returns", "gross"):
        a, b = (getattr(e, name).loc[:time] for e in (evaluation, result))
        pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
@settings(max_examples=4)
@given(t=st.integers(TEST_FIRST + 5, COUNT - 2), seed=st.integers(0, 1000))
def test_altered_bars_after_t_change_nothing_up_to_t(fill, t, seed):
    rng = np.random.default_rng(seed)
    changed = {}
    for asset, bars in MARKET.items():
        factors = np.exp(0.3 * rng.standard_normal((COUNT - t - 1, 1)))
        changed[asset] = bars.copy()
        changed[asset].iloc[t + 1 :] *= factors
    assert_same_up_to(t, fill, changed)


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
@settings(max_examples=2)
@given(t=st.integers(TEST_FIRST + 5, COUNT - 2))
def test_bars_cut_off_after_t_change_nothing_up_to_t(fill, t):
    assert_same_up_to(t, fill, {a: b.iloc[: t + 1] for a, b in MARKET.items()})


def test_the_check_would_see_a_leak():
    """Altering a bar at or before t is noticed: the comparison is not blind."""
    changed = {a: b.copy() for a, b in MARKET.items()}
    changed["A0"].iloc[120] *= 1.05
    with pytest.raises(AssertionError):
        assert_same_up_to(120, "close", changed)


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
def test_meta_training_uses_no_bar_after_its_span(fill):
    changed = {a: b.copy() for a, b in MARKET.items()}
    for bars in changed.values():
        bars.iloc[TRAIN_LAST + 1 :] *= 1.7
    (params, _), (other, _) = (
        meta_train(prepare(config_for(fill), bars), "maml") for bars in (MARKET, changed)
    )
    np.testing.assert_array_equal(params["layers"][0]["kernel"], other["layers"][0]["kernel"])
