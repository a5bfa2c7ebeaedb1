"""A small market and small settings, for tests of the main job."""

from helpers import random_market

MARKET = random_market(count=260, assets=4)
SMALL = {
    "data": {
        "train_assets": ["A0", "A1", "A2"],
        "test_assets": ["A2", "A3"],
        "train_end": "2020-06-08",
        "test_start": "2020-06-09",
    },
    "features": {"window": 5, "fast": 3, "slow": 5},
    "target": {"horizon": 3, "volatility_window": 5},
    "task": {"support": 10, "query": 5},
    "model": {"hidden": [8]},
    "learner": {"inner_steps": 2},
    "training": {"steps": 4, "meta_batch": 4},
    "backtest": {"samples": 50},
}
