import re
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.backtest import (
    Execution,
    Market,
    make_market,
    place_orders,
    trade,
    trade_all,
    trade_alone,
    trade_many,
)
from maml_jax.backtest.account import execution as execution_module
from maml_jax.backtest.account import scan as account_scan
from maml_jax.errors import ConfigError, DataError, ShapeError

FREE = Execution(fee=0.0, slippage=0.0)
COSTS = Execution(fee=0.001, slippage=0.0005)
CAPITAL = 10_000.0


def account(orders, market, fill="next_close", execution=FREE, **options):
    options = {"bars_per_year": 365.0, "capital": CAPITAL} | options
    return trade(orders, market, fill=fill, execution=execution, **options)


def market_of(closes):
    """A market of closes alone; one column per asset."""
    closes = np.asarray(closes, float)
    closes = closes[:, None] if closes.ndim == 1 else closes
    index = pd.date_range("2024-01-01", periods=len(closes), tz="UTC", name="timestamp")
    names = list("ABCDEFGH")[: closes.shape[1]]
    close = pd.DataFrame(closes, index, names)
    return Market(close * np.nan, close * np.nan, close * np.nan, close)


def orders_of(values, market):
    values = np.asarray(values, float)
    return pd.DataFrame(
        values.reshape(market.close.shape), market.close.index, market.close.columns
    )


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


def test_shorts_and_borrowed_cash_pay_for_their_time():
    market = market_of([[10.0, 10.0]] * 4)
    execution = FREE._replace(borrow=0.365)  # a thousandth a day
    short = account(orders_of([[-0.5, 0]] * 4, market), market, execution=execution)
    assert short.equity.tolist() == pytest.approx([CAPITAL, 9_995, 9_990, 9_985])
    levered = account(orders_of([[1.5, 0.5]] * 4, market), market, execution=execution)
    assert levered.equity.tolist()[:2] == pytest.approx([CAPITAL, 9_990])
    assert levered.equity.iloc[2] == pytest.approx(9_990 - 10.01)  # interest on interest
    # Longs share the interest by their size, and trades know of it.
    cost = levered.trades.set_index("asset")["cost"]
    assert cost["A"] == pytest.approx(3 * cost["B"])
    assert cost.sum() == pytest.approx(CAPITAL - levered.equity.iloc[-1])
    idle = account(orders_of([[0.5, 0.5]] * 4, market), market, execution=execution)
    assert idle.equity.tolist() == [CAPITAL] * 4


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


def test_an_order_within_the_band_is_not_sent_except_to_close():
    market = market_of(np.full(6, 10.0))
    execution = FREE._replace(band=0.1)
    result = account(
        orders_of([0.5, 0.55, 0.58, 0.6, 0.05, 0.0], market), market, "close", execution
    )
    np.testing.assert_allclose(result.weights["A"], [0.5, 0.5, 0.5, 0.6, 0.05, 0.0], atol=1e-12)
    assert result.trades["open"].tolist() == [False]


def test_turnover_is_limited_and_the_rest_stays_wanted():
    market = market_of(np.full((6, 2), 10.0))
    execution = FREE._replace(max_turnover=0.4)
    result = account(orders_of([[0.75, -0.25]] * 6, market), market, "close", execution)
    np.testing.assert_allclose(result.turnover, [0.4, 0.4, 0.2, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(result.weights["A"], [0.3, 0.6, 0.75, 0.75, 0.75, 0.75])
    np.testing.assert_allclose(result.weights["B"], [-0.1, -0.2, -0.25, -0.25, -0.25, -0.25])
    assert len(result.trades) == 2


def test_gross_is_limited_where_orders_enlarge_it():
    market = market_of([[10, 10], [10, 10], [30, 10], [30, 10]])
    execution = FREE._replace(max_gross=1.2)
    orders = [[1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, -0.6]]
    result = account(orders_of(orders, market), market, "close", execution)
    gross = result.weights.abs().sum(axis=1)
    np.testing.assert_allclose(gross.iloc[:2], 1.2)
    np.testing.assert_allclose(result.weights.iloc[0], [0.6, -0.6])
    # Grown to 0.82 and -0.27 by themselves; turning A round to the full frees what it was.
    np.testing.assert_allclose(gross.iloc[3], 1.2)
    smaller = 0.6 / 2.2  # B is not made larger by as much as was asked, nor made smaller
    b = -result.weights["B"].iloc[3]
    assert smaller < b < 0.6
    part = (1.2 - smaller) / (1.0 + 0.6 - smaller)
    assert b == pytest.approx(smaller + part * (0.6 - smaller))


def test_slippage_goes_by_the_range_of_the_bar_that_is_filled():
    bars = {"A": random_bars(count=20)}
    market = make_market(bars)
    orders = orders_of([0.0] * 5 + [1.0] * 15, market)
    execution = Execution(fee=0.0, slippage=0.001, range_slippage=0.25)
    result = account(orders, market, "next_open", execution)
    bar = bars["A"].iloc[5]
    slip = 0.001 * bar["open"] + 0.25 * (bar["high"] - bar["low"])
    assert result.trades["cost"].iloc[0] == pytest.approx(CAPITAL * slip / bar["open"])
    assert result.costs.iloc[5] == pytest.approx(slip / bar["open"])


def test_a_seller_gets_no_less_than_nothing():
    close = market_of([10.0, 10.0, 10.0]).close
    high, low = close.add([0, 10, 0], axis=0), close.sub([0, 9, 0], axis=0)
    market = Market(close, high, low, close)
    execution = Execution(fee=0.1, slippage=0.0, range_slippage=1.0)
    result = account(orders_of([0.5, 0.0, 0.0], market), market, execution=execution)
    # Half of the money went into units, with a fee; of a slippage of 19 each, 10 can be lost.
    assert result.equity.tolist() == pytest.approx([0.95 * CAPITAL, 0.45 * CAPITAL, 0.45 * CAPITAL])


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


def test_many_strategies_are_as_each_alone():
    market = make_market(random_market(count=40, assets=3))
    rng = np.random.default_rng(0)
    tables = {n: orders_of(rng.choice([-0.4, 0, 0.3], (40, 3)), market) for n in ("one", "two")}
    options = {"fill": "next_open", "execution": COSTS, "bars_per_year": 365.0}
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
    options = {"fill": "next_open", "execution": execution, "bars_per_year": 365.0}
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
    options = {"fill": "next_open", "execution": execution, "bars_per_year": 365.0}
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

    options = {"fill": "next_close", "bars_per_year": 365.0}
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


@pytest.mark.parametrize(
    "settings",
    [
        {"fee": -0.1},
        {"slippage": 1.0},
        {"borrow": np.nan},
        {"stop_loss": 0.0},
        {"trailing_stop": 1.0},
        {"max_gross": np.inf},
        {"rebalance": "never"},
    ],
)
def test_impossible_numbers_are_refused_by_name(settings):
    market = market_of(np.full(5, 3.0))
    with pytest.raises(ConfigError, match=next(iter(settings))):
        account(orders_of(np.zeros(5), market), market, execution=Execution(**settings))


def test_what_does_not_fit_is_refused():
    market = market_of(np.full(5, 3.0))
    orders = orders_of(np.zeros(5), market)
    with pytest.raises(ShapeError, match="same index"):
        account(orders.iloc[1:], market)
    with pytest.raises(ShapeError, match="infinite"):
        account(orders + np.inf, market)
    with pytest.raises(ConfigError, match="capital"):
        account(orders, market, capital=0.0)
    with pytest.raises(ConfigError, match="bars_per_year"):
        account(orders, market, bars_per_year=np.nan)
    with pytest.raises(ConfigError, match="fill must be one of"):
        account(orders, market, "open")
    with pytest.raises(ShapeError, match="high stands at other bars"):
        account(orders, market._replace(high=market.high.iloc[1:]))
    with pytest.raises(DataError, match="A: fill 'next_open' need column 'open'"):
        account(orders, market, "next_open")
    with pytest.raises(DataError, match="A: stops and range slippage need column 'high'"):
        account(orders, market, execution=Execution(stop_loss=0.1))
    with pytest.raises(ShapeError, match="strategy, time, asset"):
        trade_many(orders.to_numpy(), market, fill="close", bars_per_year=365)


def test_what_the_documentation_shows():
    text = (Path(__file__).parents[3] / "docs" / "backtest.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    (block,) = [each for each in blocks if "make_market" in each]
    names = {}
    exec(compile(block, "docs/backtest.md", "exec"), names)
    assert names["account"].trades["exit_price"].tolist() == [9.0]
