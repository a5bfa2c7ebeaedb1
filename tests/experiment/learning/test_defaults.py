"""With their defaults all methods train on any bars: real ones, and rare ones."""

import jax
import numpy as np
import pandas as pd
import pytest

from maml_jax.experiment import train
from maml_jax.experiment.learning.methods import METHODS

FILES = [
    "crypto/binance_20pairs_1h_2024.csv.gz",
    "crypto/bitstamp_BTC_ETH_LTC_daily_2014_2020.csv.gz",
    "crypto/coinbase_BTCUSD_1h_2018_2019.csv.gz",
    "crypto/coinbase_BTCUSD_4h_2016_2020.csv.gz",
    "crypto/coinbase_ETHUSD_4h_2016_2020.csv.gz",
    "fx/EURUSD_ask_1h_2017.csv.gz",
    "index/dji_ohlcv_daily_2000_2021.csv.gz",
    "index/sp500_index_daily_1990_2022.csv.gz",
    "index/us_factor_etfs_daily_2014_2022.csv.gz",
    "stocks/GOOGL_ohlcv_daily_2009_2018.csv.gz",
    "stocks/dj30_ohlc_daily_2020_2021.csv.gz",
    "stocks/us19_adjclose_daily_1990_2022_ragged.csv.gz",
    "stocks/us20_adjclose_daily_1990_2022.csv.gz",
]


@pytest.fixture(autouse=True)
def drop_compiled_programs():
    """Each test compiles dozens of learners, whose programs would fill the process."""
    yield
    jax.clear_caches()


def crashes(rng, count):
    returns = 0.01 * rng.standard_normal(count)
    returns[::97] -= 0.4
    returns[5::211] += 0.5
    return 100 * np.exp(np.cumsum(returns))


def pegged(rng, count):
    """Most bars do not move at all, and once the peg breaks for a bar."""
    returns = np.where(rng.random(count) < 0.7, 0, 1e-5 * rng.standard_normal(count))
    returns[count // 2] = -0.02
    return np.exp(np.cumsum(returns - returns.mean()))


def coarse_ticks(rng, count):
    prices = 0.2 * np.exp(np.cumsum(0.01 * rng.standard_normal(count)))
    return np.maximum(np.round(prices, 2), 0.01)


def simulated(make, count=900):
    index = pd.date_range("2019-01-01", periods=count, tz="UTC")
    bars = {}
    for number in range(3):
        close = pd.Series(make(np.random.default_rng(number), count), index=index)
        opened = close.shift(1).fillna(close.iloc[0])
        ends = pd.concat([opened, close], axis=1)
        bars[f"asset {number}"] = pd.DataFrame(
            {"open": opened, "high": ends.max(axis=1), "low": ends.min(axis=1), "close": close}
        ).assign(volume=1000.0)
    return bars


def assert_trains(methods, steps, **bars):
    result = train(
        **bars,
        **{
            "learner.methods": list(methods),
            "training.steps": steps,
            "training.meta_batch": 8,
            "training.devices": 1,
        },
    )
    assert {*result.checkpoints} == {*methods}
    assert np.isfinite(result.history[["loss", "grad_norm"]].to_numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("make", [crashes, pegged])
def test_likelihoods_survive_what_markets_do_once_in_a_while(make):
    """Their inner steps are the steepest: networks choose their own deviation."""
    assert_trains(["gaussian_maml"], 20, bars=simulated(make))


@pytest.mark.slow
@pytest.mark.parametrize("make", [crashes, pegged, coarse_ticks])
def test_all_methods_survive_what_markets_do_once_in_a_while(make):
    assert_trains(METHODS, 50, bars=simulated(make))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_all_methods_train_on_real_bars(shared_data, file):
    assert_trains(METHODS, 30, **{"data.path": str(shared_data / file)})
