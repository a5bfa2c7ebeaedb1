"""Log volatilities: what they say at rest, and what they leave to jumps."""

import math

import numpy as np
import pytest
from features.markets import BARS, BUILT_IN
from helpers import random_bars, random_market

from maml_jax.features import (
    Target,
    add_cross_section,
    compute_features,
    compute_target,
    find_features,
)
from maml_jax.features.volatility import log_volatility, realised_volatility


def test_groups_name_them_beside_the_feature_called_volatility():
    names = [f.name for f in find_features(["har", "market_volatility", "volatility"])]
    lengths = [f"log_volatility_{n}" for n in (1, 5, 22, 60)]
    market = [f"market_volatility_{n}" for n in (5, 22)]
    assert names == [*lengths, "log_downside_22", *market, "volatility"]


@pytest.mark.parametrize(
    "name", [name for name in BUILT_IN if name.startswith(("log_", "market_v"))]
)
def test_a_price_at_rest_has_the_floor(name):
    values = BUILT_IN[name].compute(BARS["all constant"])[BUILT_IN[name].warm_up :]
    np.testing.assert_allclose(values, math.log(1e-6), rtol=1e-12)


def test_a_bar_at_rest_is_a_tenth_of_the_month():
    bars = random_bars(count=60)
    bars.iloc[50, 3] = bars["close"].iloc[49]
    month = realised_volatility(bars, 22).iloc[50]
    assert log_volatility(bars, 1).iloc[50] == pytest.approx(math.log(month / 10))


def test_the_past_of_a_volatility_is_what_its_target_becomes():
    """The feature over n bars, seen n bars later, is the target over n bars."""
    bars = random_bars(count=200)
    target, _ = compute_target(bars, Target(5, kind="volatility"))
    later = log_volatility(bars, 5).shift(-5)
    np.testing.assert_allclose(target.iloc[30:195], later.iloc[30:195], rtol=1e-12)


def test_one_assets_jump_is_not_the_markets_volatility():
    market = random_market(count=80, assets=20)
    jumped = {a: b.copy() for a, b in market.items()}
    jumped["A3"].iloc[60:, 3] *= 1.5  # forty times the usual move
    feature = find_features(["market_volatility_22"])
    calm, jump = (
        compute_features(add_cross_section(m)["A0"], feature).iloc[60, 0] for m in (market, jumped)
    )
    assert 0 < jump - calm < 0.2
