"""Simulated markets, and a small model of risk that is trained on one."""

from functools import cache

import numpy as np
import pandas as pd

from maml_jax.risk.histories import make_histories
from maml_jax.risk.training import RiskSettings, train_risk

SMALL = RiskSettings(
    network=(8, 4),
    mean_network=(8,),
    horizons=(1, 5),
    members=2,
    pooled_steps=60,
    steps=20,
    meta_batch=4,
    queries=16,
    folds=1,
)


def make_market(assets=4, count=700, seed=0, freq="D", start="2010-01-01"):
    """Make bars whose volatility follows a level of its own, the market's and the past."""
    rng = np.random.default_rng(seed)
    times = pd.date_range(start, periods=count, freq=freq, tz="UTC")
    common = np.zeros(count)
    for t in range(1, count):
        common[t] = 0.97 * common[t - 1] + 0.12 * rng.standard_normal()
    frames = {}
    for number in range(assets):
        own = rng.normal(-4.2, 0.4) + common + 0.1 * rng.standard_normal(count)
        returns = np.exp(own) * rng.standard_normal(count)
        frames[f"A{number}"] = pd.DataFrame({"close": 50 * np.exp(np.cumsum(returns))}, times)
    return frames


@cache
def small_model():
    """Train once for all tests."""
    histories = make_histories(make_market())
    return train_risk(
        histories,
        name="small",
        interval=pd.Timedelta("1D"),
        assets=[0, 1, 2],
        last=[699] * 3,
        settings=SMALL,
    )
