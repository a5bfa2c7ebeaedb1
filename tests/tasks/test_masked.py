"""Bars that are masked: nothing reads them, and a position is held through them."""

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
    for values in (panel.features, panel.targets, panel.returns):
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


def test_a_position_is_held_through_it(target):
    whole, bars = random_bars(count=120), masked()
    held = fill_return(bars, target.fill)
    assert (held.iloc[MASKED] == 0).all()
    through = (1 + fill_return(whole, target.fill)).iloc[60:64].prod()
    assert 1 + held.iloc[63] == pytest.approx(through)
    np.testing.assert_allclose((1 + held).prod(), (1 + fill_return(whole, target.fill)).prod())
