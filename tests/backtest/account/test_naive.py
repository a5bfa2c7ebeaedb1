"""The compiled account against one written down bar by bar; money is neither made nor lost."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from naive_account import NaiveAccount

from maml_jax.backtest import Execution, Market, trade

BARS, ASSETS, CAPITAL = 48, 3, 1_000.0

STOPS = {"stop_loss": 0.03, "take_profit": 0.05, "trailing_stop": 0.04}
LIMITS = {"band": 0.15, "max_turnover": 0.9, "max_gross": 1.5}
KINDS = [
    ("next_open", "changes", {}),
    ("next_close", "always", {}),
    ("next_open", "always", STOPS),
    ("next_close", "changes", {**LIMITS, "borrow": 0.2}),
    ("next_open", "changes", {**STOPS, **LIMITS, "borrow": 1.0}),
    ("close", "changes", {**STOPS, **LIMITS, "borrow": 0.1}),
]
"""Each is a program to compile."""


def market_and_orders(seed, *, wild, gaps, endings, sparse):
    """Bars with gaps and orders of all kinds; `wild` ones ruin."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2021-01-01", periods=BARS, tz="UTC", name="timestamp")
    names = ["C", "A", "B"][:ASSETS]
    volatility = 0.4 if wild else 0.02
    close = 50 * np.exp(np.cumsum(volatility * rng.standard_t(3, (BARS, ASSETS)), axis=0))
    before = np.vstack([np.full((1, ASSETS), 50.0), close[:-1]])
    open_ = before * np.exp(volatility / 3 * rng.standard_normal((BARS, ASSETS)))
    spread = np.exp(volatility / 2 * np.abs(rng.standard_normal((2, BARS, ASSETS))))
    high, low = np.maximum(open_, close) * spread[0], np.minimum(open_, close) / spread[1]
    absent = rng.random((BARS, ASSETS)) < (0.25 if gaps else 0)
    if endings:
        absent[6:, 0] = True  # ends, and is given up on 31 days later
        absent[8:44, 1] = True  # comes back
    open_ = np.where(rng.random((BARS, ASSETS)) < (0.1 if gaps else 0), np.nan, open_)
    absent[0] = False  # bars without any open are refused
    open_[0] = close[0]
    tables = [np.where(absent, np.nan, each) for each in (open_, high, low, close)]
    market = Market(*(pd.DataFrame(each, index, names) for each in tables))
    orders = rng.choice([-1, -0.5, 0, 0.3, 0.5, 1], (BARS, ASSETS)) * (1.5 if wild else 0.7)
    orders = np.repeat(orders[::3], 3, axis=0)  # wanted weights stay for some bars
    orders = np.where(rng.random((BARS, ASSETS)) < sparse, np.nan, orders)
    return market, pd.DataFrame(orders, index, names)


@pytest.mark.parametrize(("fill", "rebalance", "bounds"), KINDS)
# A seed has no smaller case to shrink to.
@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**32 - 1),
    wild=st.booleans(),
    gaps=st.booleans(),
    endings=st.booleans(),
    sparse=st.sampled_from([0.0, 0.5, 0.9]),
    fee=st.sampled_from([0.0, 0.001, 0.2]),
    slippage=st.sampled_from([0.0, 0.0005, 0.1]),
    range_slippage=st.sampled_from([0.0, 0.3]),
    scale=st.sampled_from([0.2, 1.0, 3.0]),
)
def test_the_scan_does_what_the_naive_account_does(
    fill,
    rebalance,
    bounds,
    seed,
    wild,
    gaps,
    endings,
    sparse,
    fee,
    slippage,
    range_slippage,
    scale,
):
    market, orders = market_and_orders(seed, wild=wild, gaps=gaps, endings=endings, sparse=sparse)
    execution = Execution(
        fee=fee,
        slippage=slippage,
        range_slippage=range_slippage,
        rebalance=rebalance,
        **{name: min(0.99, scale * value) for name, value in bounds.items()},
    )
    options = {"fill": fill, "execution": execution, "capital": CAPITAL}
    account = trade(orders, market, **options)
    naive = NaiveAccount(orders, market, **options)
    size = max(CAPITAL, np.abs(naive.curve).max())
    np.testing.assert_allclose(account.equity, naive.curve, atol=1e-9 * size)
    before = np.array([CAPITAL, *naive.curve[:-1]])
    alive = before > 0
    costs = np.array(naive.costs)[alive] / before[alive]
    np.testing.assert_allclose(account.costs[alive], costs, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(account.turnover, naive.turnover, rtol=1e-8, atol=1e-11)
    compare_trades(account.trades, naive.all_trades(), size)
    conserve(account, size)


def compare_trades(trades, naive, size):
    assert list(zip(trades["asset"], trades["side"], trades["entry"], strict=True)) == [
        (t.asset, t.side, t.entry) for t in naive
    ]
    assert trades["reason"].tolist() == [t.reason for t in naive]
    assert trades["open"].tolist() == [t.exit is None for t in naive]
    ended = trades[~trades["open"]]
    assert ended["exit"].tolist() == [t.exit for t in naive if t.exit is not None]
    for name in ("result", "cost"):
        np.testing.assert_allclose(
            trades[name], [getattr(t, name) for t in naive], rtol=1e-8, atol=1e-9 * size
        )
    net = [(t.result - t.cost) / t.value for t in naive]
    np.testing.assert_allclose(trades["net"], net, rtol=1e-7, atol=1e-9)


def conserve(account, size):
    """Money at the end is capital, results and costs; returns are of assets, and of the equity."""
    trades = account.trades
    money = CAPITAL + trades["result"].sum() - trades["cost"].sum()
    assert abs(account.equity.iloc[-1] - money) <= 1e-9 * size
    before = account.equity.shift(1, fill_value=CAPITAL)
    paid = (account.costs * before).where(before > 0, 0.0)
    assert abs(paid.sum() - trades["cost"].sum()) <= 1e-9 * size
    grown = (account.equity / before - 1).where(before > 0, 0.0).clip(lower=-1)
    np.testing.assert_allclose(account.net, grown, atol=1e-12)
    np.testing.assert_allclose(account.asset_net.sum(axis=1), account.net, atol=1e-9)
    np.testing.assert_allclose(account.gross, account.net + account.costs, atol=1e-12)
    ruined = account.equity <= 0
    assert (account.weights[ruined] == 0).all(axis=None)
    assert (account.equity[ruined] == account.equity.iloc[-1]).all()
