"""Signals: the latest decision, with orders against what is held."""

import numpy as np
import pandas as pd
import pytest
from live.small import START, bars_to, result
from market import MARKET

from maml_jax.errors import ConfigError, DataError
from maml_jax.live.state import advance, begin
from maml_jax.live.strategy import strategy_of

pytestmark = pytest.mark.long

NOW = START + pd.Timedelta(days=31, hours=3)
BARS = bars_to(30)


def ask(run=None, bars=BARS, **options):
    return (run or result()).signal(bars, **{"now": NOW, **options})


def test_weights_and_orders_are_those_of_the_account():
    run = result(backtest={"samples": 50, "band": 0.1, "max_turnover": 0.5, "max_gross": 0.9})
    strategy = strategy_of(run, MARKET, since=START)
    state, _ = advance(strategy, begin(strategy, 10_000.0), BARS, every=True)
    price = np.array([BARS[a]["close"].iloc[-1] for a in strategy.assets])
    units = state.held.units[:, 0]
    money = float(state.held.cash[0] + units @ price)
    held = dict(zip(strategy.assets, units, strict=True))
    table = ask(run, capital=money, holdings=held)
    np.testing.assert_allclose(table["target_weight"], state.decided.iloc[-1], atol=1e-12)
    np.testing.assert_allclose(table["weight"], units * price / money, atol=1e-12)
    assert (table["units"].abs() @ price) / money <= 0.5 + 1e-9
    after = units + table["units"].to_numpy()
    before = np.abs(units * price).sum() / money  # what is held drifts, also beyond the bound
    assert np.abs(after * price).sum() / money <= max(0.9, before) + 1e-9
    assert table.about["run"] != table.about["settings"]
    assert table.complete


def test_whoever_holds_nothing_opens_all_and_whoever_holds_it_orders_nothing():
    table = ask(capital=5000.0, holdings={})
    wanted = table["target_weight"] != 0
    assert wanted.any()
    assert (table.loc[wanted, "reason"].str.startswith("open")).all()
    np.testing.assert_allclose(table["value"], 5000 * table["target_weight"], rtol=1e-9)
    held = dict(zip(table.index, table["units"], strict=True))
    yesterday = ask(bars=bars_to(29), now=NOW - pd.Timedelta(days=1), holdings={})
    again = ask(capital=5000.0, holdings=held)
    same = table["target_weight"].to_numpy() == yesterday["target_weight"].to_numpy()
    assert (again["units"].to_numpy()[same] == 0).all()
    np.testing.assert_allclose(again["value"], 0, atol=1e-6)


def test_stops_are_prices_on_the_right_side():
    stops = {"samples": 50, "stop_loss": 0.02, "trailing_stop": 0.05, "take_profit": 0.04}
    table = ask(result(backtest=stops), holdings={})
    sign = table["side"].map({"long": 1, "short": -1, "flat": 0})
    traded = sign != 0
    price, sign = table["price"][traded], sign[traded]
    np.testing.assert_allclose(table["stop"][traded], price * (1 - 0.02 * sign))
    np.testing.assert_allclose(table["take_profit"][traded], price * (1 + 0.04 * sign))


def test_stale_and_missing_assets_get_no_order():
    bars = {**BARS, "A3": BARS["A3"].iloc[:-4]}
    table = ask(bars=bars, holdings={"A3": 3.0})
    assert not table.complete
    assert table.loc["A3", "units"] == 0
    assert "stale" in table.loc["A3", "reason"]
    assert table.loc["A2", "units"] != 0
    del bars["A3"]
    table = ask(bars=bars, holdings={})
    assert "missing" in table.loc["A3", "reason"]
    assert ask(now=NOW + pd.Timedelta(days=9))["stale"].all()


def test_a_young_asset_has_no_forecast_yet():
    bars = {**BARS, "A3": BARS["A3"].iloc[-4:]}
    table = ask(bars=bars, holdings={})
    assert table.loc["A3", "reason"] == "no forecast: too few bars"
    assert not table.loc["A3", "stale"]


def test_later_bars_and_other_holdings_change_no_decision():
    table, other = ask(holdings={}), ask(holdings={"A2": 100.0}, capital=1e6)
    np.testing.assert_array_equal(table["target_weight"], other["target_weight"])
    longer = result().signal(bars_to(60), now=NOW)  # the last bar has not closed by then
    assert longer["reason"].str.startswith("unfinished").all()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"capital": -1.0}, ConfigError, "capital -1"),
        ({"holdings": {"XYZ": 1.0}}, DataError, "XYZ is held"),
        ({"method": "reptile"}, ConfigError, "no method 'reptile'"),
        ({"bars": None}, ConfigError, "name the latest"),
    ],
)
def test_what_cannot_be_is_refused(options, error, said):
    run = result()
    run = type(run)(
        run.config.changed(data={"path": "memory"}), *(getattr(run, each) for each in
        ("checkpoints", "history", "notes"))
    )  # fmt: skip
    with pytest.raises(error, match=said):
        ask(run, **options)
