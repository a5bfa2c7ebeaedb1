"""Every family and every learner, from the settings of one file, on real stocks and coins."""

import numpy as np
import pytest

from maml_jax.experiment import run
from maml_jax.experiment.learning.methods import METHODS

pytestmark = pytest.mark.slow

FAMILIES = ["asset", "regime", "month", "quarter", "year", "strategy"]
STOCKS = {
    "data": {
        "train_assets": ["AAPL", "AMD", "BAC", "BBY", "CVX", "GE", "HD", "JNJ", "JPM", "KO", "LLY",
                         "MRK", "MSFT", "PEP", "PFE"],
        "test_assets": ["PG", "RRC", "UNH", "WMT", "XOM"],
        "train_end": "2009-12-31",
        "test_start": "2010-01-01",
        "test_end": "2010-06-30",
    },
}  # fmt: skip
COINS = {
    "data": {"train_end": "2024-06-30", "test_start": "2024-07-01", "test_end": "2024-07-10"},
    "regimes": {"trend_window": 48, "volatility_window": 24, "history": 240},
}
QUICK = {
    "model": {"hidden": [8]},
    "task": {"support": 20, "query": 5},
    "training": {"steps": 2, "meta_batch": 4, "devices": 1},
    "backtest": {"devices": 1},
}
MARKETS = {
    "stocks": ("stocks/us20_adjclose_daily_1990_2022.csv.gz", STOCKS),
    "coins": ("crypto/binance_20pairs_1h_2024.csv.gz", COINS),
}


def finish(shared_data, market, **changes):
    file, settings = MARKETS[market]
    changes = {"data.path": str(shared_data / file), **changes}
    result = run({**QUICK, **settings}, **changes)
    sharpe = result.stats.loc["Sharpe Ratio"]
    assert np.isfinite(sharpe.astype(float)).all(), sharpe
    assert result.regimes["bars"].groupby(result.regimes["strategy"]).sum().nunique() == 1
    return result


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("market", MARKETS)
def test_every_family_runs(shared_data, market, family):
    result = finish(
        shared_data, market, **{"task.family": family, "learner.methods": ["alpaca", "fomaml"]}
    )
    predicted = result.predictions["strategy"].value_counts()
    assert predicted[["alpaca", "fomaml"]].min() > 300


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_learner_runs(shared_data, market, method):
    finish(shared_data, market, **{"learner.methods": [method]})


@pytest.mark.parametrize("market", MARKETS)
def test_online_variants_run(shared_data, market):
    finish(
        shared_data,
        market,
        **{
            "learner.methods": ["maml", "joint_training"],
            "online.variants": ["online", "retrained", "incremental"],
            "task.support_from": "mixed",
        },
    )
