"""A small market and settings without dates, for tests of several folds."""

import pandas as pd
from helpers import random_market
from market import SMALL

COUNT = 200
MARKET = random_market(count=COUNT, assets=3)
DATES = pd.DatetimeIndex(next(iter(MARKET.values())).index)
OPEN = {
    **SMALL,
    "data": {"train_assets": ["A0", "A1"], "test_assets": ["A0", "A2"]},
    "learner": {"methods": ["maml"], "inner_steps": 2},
    "training": {"steps": 2, "meta_batch": 4},
    "backtest": {"baselines": [], "bars_per_year": 365},
    "regimes": {"trend_window": 10, "volatility_window": 5, "history": 20},
}
ROLLING = {"kind": "rolling", "train_size": 90, "test_size": 40}
GROUPS = {"kind": "combinatorial", "groups": 4, "test_groups": 2}
