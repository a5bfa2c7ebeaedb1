"""Markets on which features are tried, ordinary and awkward, and all features there are."""

import numpy as np
import pandas as pd
from helpers import random_bars, random_market

from maml_jax.features import add_cross_section, feature_groups, lag_feature

COUNT = 260
PRICES = ["open", "high", "low", "close"]


def constant_bars(price=7.3):
    return random_bars(count=COUNT).assign(**dict.fromkeys(PRICES, price), volume=0.1)


def one_tick_bars(seed=0, tick=0.1):
    """A price that rests, and now and then moves by one coarse tick; mostly without trades."""
    rng = np.random.default_rng(seed)
    moves = (rng.random(COUNT) < 0.04) * rng.choice([-1, 1], COUNT)
    close = 3.3 + tick * np.cumsum(moves)
    open_ = np.r_[close[0], close[:-1]]
    table = {
        "open": open_,
        "high": np.maximum(open_, close),
        "low": np.minimum(open_, close),
        "close": close,
        "volume": np.abs(moves) * 0.3,
    }
    return pd.DataFrame(table, index=random_bars(count=COUNT).index)


def jumping_bars(seed=0):
    """A thousand times the price in one bar and back, a thousandth and back; volume likewise."""
    bars = random_bars(seed, COUNT)
    whole = bars.columns.get_indexer([*PRICES, "volume"])
    bars.iloc[110, whole] *= 1000
    bars.iloc[140, whole] /= 1000
    for place, factor in ((170, 1000), (200, 1 / 1000)):  # within the bar, from its open on
        bars.iloc[place, bars.columns.get_loc("close")] *= factor
        bars.iloc[place + 1, bars.columns.get_loc("open")] *= factor
    bars["high"] = bars[PRICES].max(axis=1)
    bars["low"] = bars[PRICES].min(axis=1)
    return bars


OTHERS = random_market(COUNT, 2)
MARKETS = {
    "random": {"own": random_bars(7, COUNT), **OTHERS},
    "constant": {"own": constant_bars(), **OTHERS},
    "all constant": {"own": constant_bars(), "other": constant_bars(0.1)},
    "one tick": {"own": one_tick_bars(), **OTHERS},
    "all one tick": {"own": one_tick_bars(), "other": one_tick_bars(1)},
    "jumps": {"own": jumping_bars(), **OTHERS},
    "jumps of another": {"own": random_bars(7, COUNT), "other": jumping_bars(1)},
    "alone": {"own": random_bars(7, COUNT)},
}
BARS = {name: add_cross_section(market)["own"] for name, market in MARKETS.items()}

BUILT_IN = {name: each for group in feature_groups().values() for name, each in group.items()}
LAGGED = [lag_feature(feature, 1 + place % 5) for place, feature in enumerate(BUILT_IN.values())]
FEATURES = BUILT_IN | {feature.name: feature for feature in LAGGED}
