"""Many strategies, and assets traded alone, against one account at a time."""

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
import pytest
from accounts import COSTS, account, orders_of
from helpers import random_market

from maml_jax.backtest import (
    Execution,
    make_market,
    trade,
    trade_all,
    trade_alone,
    trade_many,
)
from maml_jax.backtest.account import execution as execution_module
from maml_jax.backtest.account import scan as account_scan
from maml_jax.errors import ShapeError


def test_many_strategies_are_as_each_alone():
    market = make_market(random_market(count=40, assets=3))
    rng = np.random.default_rng(0)
    tables = {n: orders_of(rng.choice([-0.4, 0, 0.3], (40, 3)), market) for n in ("one", "two")}
    options = {"fill": "next_open", "execution": COSTS}
    accounts = trade_all(tables, market, **options)
    totals = trade_many(np.stack([t.to_numpy() for t in tables.values()]), market, **options)
    for number, (name, table) in enumerate(tables.items()):
        alone = trade(table, market, **options)
        pd.testing.assert_frame_equal(accounts[name].trades, alone.trades)
        np.testing.assert_allclose(accounts[name].equity, alone.equity, rtol=1e-14)
        for figure in ("net", "gross", "costs", "turnover"):
            np.testing.assert_allclose(
                getattr(totals, figure)[number], getattr(alone, figure), atol=1e-14
            )
        np.testing.assert_allclose(totals.exposure[number], alone.weights.abs().sum(axis=1))
    assert trade_all({}, market, **options) == {}


def test_more_strategies_than_go_at_once_are_spread_and_none_is_lost():
    rng = np.random.default_rng(0)
    bars = {name: bars.iloc[rng.random(30) < 0.8] for name, bars in random_market(30, 2).items()}
    market = make_market(bars)
    orders = rng.choice([-0.6, 0, 0.5, np.nan], (75, len(market.close), 2))
    execution = Execution(stop_loss=0.01, max_gross=0.8, borrow=0.1)
    options = {"fill": "next_open", "execution": execution}
    totals = trade_many(orders, market, **options)
    tables = {str(n): orders_of(each, market) for n, each in enumerate(orders)}
    for name, each in trade_all(tables, market, **options).items():
        np.testing.assert_allclose(totals.net[int(name)], each.net, atol=1e-14)
        np.testing.assert_allclose(totals.costs[int(name)], each.costs, atol=1e-14)
        np.testing.assert_allclose(totals.turnover[int(name)], each.turnover, atol=1e-14)
    assert len(np.unique(totals.net.sum(axis=1))) == 75
    orders[70, 3, 1] = -np.inf
    with pytest.raises(ShapeError, match="infinite"):
        trade_many(orders, market, **options)


@pytest.mark.parametrize("room", [2**21, 200])
def test_an_asset_alone_is_as_an_account_that_orders_no_other(monkeypatch, room):
    """Whatever the other columns hold, and however many assets go at once."""
    monkeypatch.setattr(execution_module, "_NUMBERS", room)
    rng = np.random.default_rng(0)
    bars = {name: bars.iloc[rng.random(60) < 0.8] for name, bars in random_market(60, 5).items()}
    market = make_market(bars)
    tables = {
        name: orders_of(rng.choice([-0.8, 0, 0.9, np.nan], market.close.shape), market)
        for name in ("one", "two", "three")
    }
    execution = Execution(stop_loss=0.02, take_profit=0.05, max_gross=0.7, borrow=0.1)
    options = {"fill": "next_open", "execution": execution}
    found = dict(trade_alone(tables, market, **options))
    assert list(found) == list(market.close.columns)
    for asset, accounts in found.items():
        for name, each in accounts.items():
            own = tables[name] * (market.close.columns == asset)
            expected = trade(own, market, **options)
            np.testing.assert_allclose(each.equity, expected.equity, rtol=1e-13)
            np.testing.assert_allclose(each.costs, expected.costs, atol=1e-15)
            np.testing.assert_allclose(each.weights[asset], expected.weights[asset], atol=1e-13)
            assert list(each.weights) == [asset]
            trades = (table.trades.astype({"asset": str}) for table in (each, expected))
            pd.testing.assert_frame_equal(*trades, rtol=1e-9)
    assert not dict(trade_alone({}, market, **options))


def test_orders_may_be_made_when_they_are_asked_for():
    market = make_market(random_market(30, 2))
    orders = np.random.default_rng(0).choice([-0.4, 0, 0.3], (70, *market.close.shape))
    alive = []

    class Made(Sequence):
        def __len__(self):
            return len(orders)

        def __getitem__(self, place):
            alive.append(place)
            return orders[place]

    options = {"fill": "next_close"}
    lazy, whole = (trade_many(each, market, **options) for each in (Made(), orders))
    np.testing.assert_array_equal(lazy.net, whole.net)
    assert alive == list(range(70))


@pytest.mark.long
def test_nothing_is_compiled_twice_for_the_same_rules(monkeypatch):
    traced = []
    step = account_scan.step
    monkeypatch.setattr(account_scan, "step", lambda *a: traced.append(1) or step(*a))
    jax.clear_caches()
    for number, fee in enumerate([0.0, 0.001, 0.002]):
        market = make_market(random_market(count=33 + number, assets=2, start="2020-02-01"))
        orders = orders_of(np.full(market.close.shape, 0.1 * number), market)
        execution = Execution(fee=fee, stop_loss=0.01 + fee, band=0.1 + fee)
        account(orders, market, execution=execution)
    assert len(traced) == 1
