import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import summarise_by_regime
from maml_jax.backtest.metrics import sharpe_ratio
from maml_jax.features import REGIMES


def test_bars_are_parted_by_regime_and_none_is_lost():
    rng = np.random.default_rng(0)
    index = pd.date_range("2020-01-01", periods=200, freq="D", tz="UTC")
    net = pd.DataFrame({"a": rng.normal(0.001, 0.01, 200), "b": rng.normal(0, 0.02, 200)}, index)
    place = pd.Series(rng.integers(-1, 4, 200), index)
    table = summarise_by_regime(net, place, 365.0).set_index(["strategy", "regime"])
    assert list(table.loc["a"].index) == [*REGIMES[:4], "unknown"]  # the last one never occurs
    for strategy in net:
        own = table.loc[strategy]
        assert own["bars"].sum() == 200
        assert own["Share of Bars [%]"].sum() == pytest.approx(100)
        growth = np.prod(1 + own["Return [%]"] / 100) - 1
        assert growth == pytest.approx(np.prod(1 + net[strategy]) - 1)
        weighted = (own["Mean Return (Ann.) [%]"] * own["bars"]).sum() / 200
        assert weighted == pytest.approx(100 * 365 * net[strategy].mean())
        bear = net[strategy][place == REGIMES.index("bear")]
        row = own.loc["bear"]
        assert row["Sharpe Ratio"] == pytest.approx(sharpe_ratio(bear, 365.0))
        assert row["Volatility (Ann.) [%]"] == pytest.approx(100 * bear.std() * np.sqrt(365))
