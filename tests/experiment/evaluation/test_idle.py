"""Strategies that never trade end in a report that says so, and why."""

import re

import pandas as pd
import pytest
from market import MARKET, SMALL

from maml_jax.experiment import backtest, load, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained():
    return train(SMALL, bars=MARKET)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"threshold": 1e6}, r"no prediction exceeded backtest\.threshold \(1e\+06; the largest"),
        ({"band": 3.0}, r"no order changed .* as backtest\.band \(3 of the asset's part"),
    ],
)
def test_a_strategy_that_never_trades_is_reported_as_such(trained, tmp_path, settings, reason):
    made = backtest(trained, bars=MARKET, out=tmp_path / "idle", backtest=settings)
    assert made.stats.loc["# Trades", "maml"] == 0
    assert (made.returns["maml"] == 0).all()
    again = load(tmp_path / "idle")
    for result in (made, again):
        said = result.verdict()
        assert re.search(rf"maml took no position: {reason}", said), said
    page = (tmp_path / "idle" / "report.html").read_text()
    assert "maml took no position" in page
    assert again.stats.loc["Max. Trade Duration", "maml"] is pd.NaT
