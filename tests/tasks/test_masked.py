"""Bars that are masked: nothing reads them, and an order due in them waits for the next price."""

import numpy as np
import pytest
from helpers import random_bars

from maml_jax.features import Target, compute_features, fill_return, technical_features
from maml_jax.tasks import make_panel

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
MASKED = slice(60, 63)


@pytest.fixture(params=["close", "next_close", "next_open"])
def target(request):
    return Target(horizon=3, fill=request.param, volatility_window=5)


def masked():
    bars = random_bars(count=120)
    bars.iloc[MASKED] = np.nan
    return bars


def panel_of(bars, target):
    return make_panel({"A": bars}, {"A": compute_features(bars, FEATURES)}, target)


def test_the_panel_is_free_of_what_is_masked(target):
    panel = panel_of(masked(), target)
    for values in (panel.features, panel.targets):
        assert np.isfinite(values).all()
    valid = np.asarray(panel.valid[0])
    assert not valid[60:63].any()
    reach = max(feature.warm_up for feature in FEATURES)
    assert valid[62 + reach + 1 : -5].all()


def test_no_label_reads_a_masked_price(target):
    panel, bars = panel_of(masked(), target), masked()
    price = bars["open" if target.fill == "next_open" else "close"].to_numpy()
    entry = target.label_delay - target.horizon
    known = np.flatnonzero(np.asarray(panel.label_end[0]) < 120)
    assert len(known) > 80
    for t in known:
        assert np.isfinite(price[[t + entry, t + target.label_delay]]).all()


def test_what_is_held_earns_the_move_over_it(target):
    whole, bars = random_bars(count=120), masked()
    held = fill_return(bars, target.fill)
    through = (1 + fill_return(whole, target.fill)).iloc[60:64].prod()
    assert 1 + held.iloc[60] == pytest.approx(through)
    assert (held.iloc[61:64] == 0).all()
    np.testing.assert_allclose((1 + held).prod(), (1 + fill_return(whole, target.fill)).prod())


def test_a_decision_earns_nothing_of_its_own_bar(target):
    """The sign of a bar, traded as soon as its fill allows, has no edge in a random walk."""
    bars = random_bars(count=20_000)
    rng = np.random.default_rng(0)
    decided = np.sign(bars["close"] / bars["open"] - 1).to_numpy()
    bars[rng.random(len(bars)) < 0.1] = np.nan
    delay = target.label_delay - target.horizon + 1
    earned = decided[:-delay] * fill_return(bars, target.fill).to_numpy()[delay:]
    assert abs(earned.mean()) < 3 * earned.std() / len(earned) ** 0.5
