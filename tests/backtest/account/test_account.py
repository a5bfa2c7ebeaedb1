"""What becomes of money, units and trades."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accounts import CAPITAL, COSTS, FREE, account, market_of, orders_of
from helpers import random_bars, random_market

from maml_jax.backtest import (
    Execution,
    Market,
    make_market,
    place_orders,
    trade_many,
)
from maml_jax.errors import ConfigError, DataError, ShapeError


def test_a_constant_price_with_flips_loses_exactly_the_costs():
    market = market_of(np.full(100, 7.0))
    orders = orders_of(np.where(np.arange(100) % 2 == 0, 1.0, -1.0), market)
    result = account(orders, market, execution=COSTS)
    # Each fill trades units of the equity before it, at a price moved against the trader; what is
    # sold is worth a little less of a fee.
    equity = CAPITAL
    units = 0.0
    for bar in range(100):
        change = (1 if bar % 2 == 0 else -1) * equity / 7 - units
        units += change
        moved = 7 * (1 + 0.0005 * np.sign(change))
        equity -= abs(change) * (7 * 0.0005 + 0.001 * moved)
        assert result.equity.iloc[bar] == pytest.approx(equity, rel=1e-12)
    np.testing.assert_allclose(result.turnover, [1.0] + [2.0] * 99, rtol=0.002)
    np.testing.assert_allclose(result.gross, 0, atol=1e-12)
    assert len(result.trades) == 100
    np.testing.assert_allclose(result.trades["result"], 0, atol=1e-9)
    assert result.trades["cost"].sum() == pytest.approx(CAPITAL - equity)
    assert (result.trades["net"] < 0).all()


def test_perfect_foresight_earns_every_move():
    market = make_market({"A": random_bars()})
    moves = market.close["A"].pct_change().shift(-1).fillna(0.0)
    free = FREE._replace(rebalance="always")
    result = account(np.sign(moves).to_frame(), market, "close", free)
    np.testing.assert_allclose(result.net.iloc[1:], moves.abs().iloc[:-1], atol=1e-12)
    costly = account(np.sign(moves).to_frame(), market, "close", COSTS)
    before = costly.equity.shift(fill_value=CAPITAL)
    np.testing.assert_allclose(costly.net, costly.equity / before - 1, atol=1e-12)
    assert costly.equity.iloc[-1] < result.equity.iloc[-1]
    # Of two units traded a flip pays about 30 basis points.
    assert costly.costs.max() == pytest.approx(2 * 0.0015, rel=0.1)


@pytest.mark.parametrize("fill", ["next_open", "next_close", "close"])
def test_always_long_is_buying_and_holding_less_one_entry(fill):
    market = make_market({"A": random_bars()})
    decided = orders_of(np.ones(300), market)
    result = account(place_orders(decided, market, fill), market, fill, COSTS)
    first = 0 if fill == "close" else 1
    price = (market.open if fill == "next_open" else market.close)["A"].iloc[first]
    cost = 0.0005 + 0.001 * 1.0005
    growth = market.close["A"].iloc[first:] / price
    np.testing.assert_allclose(result.equity.iloc[first:], CAPITAL * (growth - cost))
    assert result.equity.iloc[:first].tolist() == [CAPITAL] * first
    assert (result.turnover.drop(result.turnover.index[first]) == 0).all()
    trade_made = result.trades.iloc[0]
    assert (len(result.trades), trade_made["open"], trade_made["reason"]) == (1, True, "end")
    assert trade_made["cost"] == pytest.approx(CAPITAL * cost)
    assert trade_made["bars"] == 299 - first
    assert trade_made["gross"] == pytest.approx(growth.iloc[-1] - 1)
    assert (trade_made["entry_price"], trade_made["exit_price"]) == pytest.approx(
        (price, market.close["A"].iloc[-1])
    )


def test_equal_parts_drift_between_orders_and_return_to_their_weights_when_asked_always():
    market = market_of([[1, 1], [2, 1], [4, 1], [4, 1]])
    orders = orders_of([[0.5, 0.5]] * 4, market)
    drifted = account(orders, market)
    assert drifted.equity.tolist() == pytest.approx([CAPITAL, 15_000, 25_000, 25_000])
    np.testing.assert_allclose(drifted.weights["A"], [0.5, 2 / 3, 0.8, 0.8])
    assert drifted.turnover.tolist() == [1, 0, 0, 0]
    held = account(orders, market, execution=FREE._replace(rebalance="always"))
    assert held.equity.tolist() == pytest.approx([CAPITAL, 15_000, 22_500, 22_500])
    np.testing.assert_allclose(held.weights, 0.5)
    # One half grew to 2/3 of the whole: a sixth is sold of it, and bought of the other.
    assert held.turnover.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 0])
    result = held.trades.set_index("asset")["result"]
    assert result.to_dict() == pytest.approx({"A": 12_500, "B": 0})
    assert len(held.trades) == 2  # an open position that changes in size stays one trade


def test_a_missing_bar_trades_nothing_and_earns_nothing():
    gap = np.nan
    market = market_of([[10, 5], [gap, 5], [gap, 6], [20, 6], [20, 6]])
    orders = orders_of([[0.5, 0.5], [0.0, 0.5], [gap, 0.5], [gap, 0.0], [gap, 0.0]], market)
    result = account(orders, market)
    # The order to close stands at a bar that is not there: it waits for the next one.
    assert result.net.tolist() == pytest.approx([0, 0, 0.1, 5_000 / 11_000, 0])
    assert result.turnover.tolist() == pytest.approx([1, 0, 0, 1.0, 0])
    assert result.asset_net["A"].tolist() == pytest.approx([0, 0, 0, 5_000 / 11_000, 0])
    trade_made = result.trades.set_index("asset").loc["A"]
    assert trade_made["exit"] == market.close.index[3]
    assert trade_made["bars"] == 1  # of its own
    assert trade_made["result"] == pytest.approx(5_000)


def test_what_ended_is_closed_at_its_last_price_and_may_come_back():
    closes = np.full((90, 2), 10.0)
    closes[10:60, 1] = np.nan
    closes[60:, 1] = 5.0
    market = market_of(closes)
    orders = place_orders(orders_of(np.full((90, 2), 0.5), market), market, "close")
    result = account(orders, market, execution=COSTS)
    trades = result.trades.set_index("asset").loc[["B"]]
    assert trades["reason"].tolist() == ["end", "end"]
    assert trades["open"].tolist() == [False, True]
    # 30 days after its last bar; it lost nothing but costs, though it came back at half the price.
    assert trades["exit"].iloc[0] == market.close.index[40]
    assert trades["result"].iloc[0] == 0
    assert trades["bars"].iloc[0] == 9
    assert trades["entry"].iloc[1] == market.close.index[60]
    assert (result.weights["B"].iloc[40:60] == 0).all()
    # It is closed whether or not an order says so.
    silent = account(orders.where(market.close.notna()), market, execution=COSTS)
    pd.testing.assert_series_equal(silent.equity, result.equity)


def test_an_account_that_is_worth_nothing_closes_and_trades_no_more():
    market = market_of([[10, 10], [25, 10], [10, 10], [1, 10]])
    orders = orders_of([[-1, 0.5], [-1, 0.5], [1, 1], [1, 1]], market)
    result = account(orders, market, execution=COSTS)
    assert result.equity.iloc[1] < -5_000
    assert (result.equity.iloc[1:] == result.equity.iloc[1]).all()  # what it owes stays owed
    assert result.net.tolist()[1:] == [-1, 0, 0]
    assert result.asset_net.sum(axis=1).tolist()[1:] == pytest.approx([-1, 0, 0])
    assert (result.weights.iloc[1:] == 0).all(axis=None)
    assert result.turnover.tolist()[2:] == [0, 0]
    assert result.costs.tolist()[2:] == [0, 0]
    assert result.trades["reason"].tolist() == ["ruin", "ruin"]
    money = CAPITAL + result.trades["result"].sum() - result.trades["cost"].sum()
    assert result.equity.iloc[-1] == pytest.approx(money, rel=1e-12)


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_later_bars_change_nothing_before_them(fill):
    bars = random_market(count=60, assets=2)
    execution = Execution(stop_loss=0.02, take_profit=0.02, trailing_stop=0.02, max_turnover=0.8)
    rng = np.random.default_rng(0)
    market = make_market(bars)
    decided = orders_of(rng.choice([-0.5, 0, 0.5], (60, 2)), market)
    whole = account(place_orders(decided, market, fill), market, fill, execution)
    cut = 35
    other = {name: table.copy() for name, table in bars.items()}
    for table in other.values():
        table.iloc[cut:] *= 1.3
    altered = decided.copy()
    altered.iloc[cut:] = 0.5
    market = make_market(other)
    changed = account(place_orders(altered, market, fill), market, fill, execution)
    for name in ("equity", "net", "gross", "costs", "turnover", "weights", "asset_net"):
        before, after = getattr(whole, name), getattr(changed, name)
        np.testing.assert_array_equal(before.iloc[:cut], after.iloc[:cut])
        assert not before.iloc[cut:].equals(after.iloc[cut:])
    closed = whole.trades[whole.trades["exit"] < market.close.index[cut]]
    again = changed.trades[changed.trades["exit"] < market.close.index[cut]]
    assert len(closed) > 10
    pd.testing.assert_frame_equal(closed, again)


def test_no_bars_and_no_trades_leave_the_capital():
    market = market_of(np.full(5, np.nan))
    nothing = account(orders_of([1, -1, np.nan, 0, 1], market), market)
    assert nothing.equity.tolist() == [CAPITAL] * 5
    assert len(nothing.trades) == 0
    assert nothing.trades["entry"].dtype == market.close.index.dtype
    market = market_of(np.full(5, 3.0))
    still = account(orders_of(np.full(5, np.nan), market), market)
    assert (still.net == 0).all()
    empty = Market(*(table.iloc[:0] for table in market))
    assert len(account(orders_of([], empty), empty).equity) == 0


def test_prices_without_sense_are_no_prices():
    market = market_of([10, 0.0, -5.0, np.inf, 20.0, 20.0])
    result = account(orders_of([0, 1, 1, 1, 1, 1], market), market)
    assert result.turnover.tolist() == [0, 0, 0, 0, 1, 0]
    assert result.equity.tolist() == [CAPITAL] * 6


def test_what_does_not_fit_is_refused():
    market = market_of(np.full(5, 3.0))
    orders = orders_of(np.zeros(5), market)
    with pytest.raises(ShapeError, match="same index"):
        account(orders.iloc[1:], market)
    with pytest.raises(ShapeError, match="infinite"):
        account(orders + np.inf, market)
    with pytest.raises(ConfigError, match="capital"):
        account(orders, market, capital=0.0)
    with pytest.raises(ConfigError, match="fill must be one of"):
        account(orders, market, "open")
    with pytest.raises(ShapeError, match="high and close have different"):
        account(orders, market._replace(high=market.high.iloc[1:]))
    with pytest.raises(DataError, match="A: fill 'next_open' need column 'open'"):
        account(orders, market, "next_open")
    with pytest.raises(DataError, match="A: stops and range slippage need column 'high'"):
        account(orders, market, execution=Execution(stop_loss=0.1))
    with pytest.raises(ShapeError, match="strategy, time, asset"):
        trade_many(orders.to_numpy(), market, fill="close")


def test_what_the_documentation_shows():
    text = (Path(__file__).parents[3] / "docs" / "backtest.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    (block,) = [each for each in blocks if "make_market" in each]
    names = {}
    exec(compile(block, "docs/backtest.md", "exec"), names)
    assert names["account"].trades["exit_price"].tolist() == [9.0]
