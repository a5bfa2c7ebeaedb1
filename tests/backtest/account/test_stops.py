"""What happens between high and low, one hand-made bar at a time."""

import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import Execution, Market, trade

FREE = Execution(fee=0.0, slippage=0.0)
FAR = {"stop_loss": 0.9, "take_profit": 9.0, "trailing_stop": 0.95}
"""Never reached here, but compiled in: one program serves all tests of a fill."""

CAPITAL, BARS = 1_000.0, 6


def market_of(*bars):
    """Bars of (open, high, low, close); the last one stands still for the rest."""
    last = (bars[-1][3],) * 4
    table = np.array([*bars, *[last] * (BARS - len(bars))], float)
    index = pd.date_range("2024-01-01", periods=BARS, tz="UTC")
    return Market(*(pd.DataFrame({"A": table[:, k]}, index) for k in range(4)))


def run(market, orders, fill="close", **execution):
    orders = [*orders, *[orders[-1]] * (BARS - len(orders))]
    table = pd.DataFrame({"A": np.array(orders, float)}, market.close.index)
    settings = FREE._replace(**{**FAR, **execution})
    return trade(table, market, fill=fill, execution=settings, capital=CAPITAL)


def mirrored(market):
    """What a short sees as a long sees the market: prices on the other side of 100."""
    flipped = (200 - table for table in (market.open, market.low, market.high, market.close))
    return Market(*flipped)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize(
    ("bar", "settings", "price", "reason"),
    [
        ((100, 104, 95, 101), {"stop_loss": 0.05}, 95, "stop loss"),
        ((100, 104, 95.01, 101), {"stop_loss": 0.05}, None, None),
        ((93, 97, 90, 96), {"stop_loss": 0.05}, 93, "stop loss"),  # a gap beyond
        ((100, 105, 99, 101), {"take_profit": 0.05}, 105, "take profit"),
        ((100, 104.99, 99, 101), {"take_profit": 0.05}, None, None),
        ((107, 108, 99, 101), {"take_profit": 0.05}, 107, "take profit"),
        # Both in one bar: the worse.
        ((100, 110, 90, 105), {"stop_loss": 0.05, "take_profit": 0.05}, 95, "stop loss"),
        ((107, 110, 90, 105), {"stop_loss": 0.05, "take_profit": 0.05}, 95, "stop loss"),
        ((100, 102, 97, 101), {"trailing_stop": 0.03}, 97, "trailing stop"),
        # Prices come to the nearer stop first.
        ((100, 101, 90, 95), {"trailing_stop": 0.03, "stop_loss": 0.05}, 97, "trailing stop"),
        ((100, 101, 90, 95), {"trailing_stop": 0.05, "stop_loss": 0.03}, 97, "stop loss"),
        ((96, 101, 90, 95), {"trailing_stop": 0.03, "stop_loss": 0.05}, 96, "trailing stop"),
    ],
)
def test_a_bar_after_the_entry(side, bar, settings, price, reason):
    market = market_of((100, 100, 100, 100), bar)
    market = market if side > 0 else mirrored(market)
    result = run(market, [side], **settings)
    first = result.trades.iloc[0]
    if reason is None:
        assert (len(result.trades), first["open"]) == (1, True)
        return
    assert (first["reason"], first["open"]) == (reason, False)
    assert first["exit"] == market.close.index[1]
    move = (price - 100) / 100
    assert first["gross"] == pytest.approx(move, abs=1e-12)
    assert first["exit_price"] == pytest.approx(price if side > 0 else 200 - price)
    # Flat from there on, though the same side is still wanted.
    assert result.equity.iloc[1:].tolist() == pytest.approx([CAPITAL * (1 + move)] * 5)
    assert len(result.trades) == 1
    assert result.turnover.tolist()[1] == pytest.approx(first["exit_price"] / 100)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_trailing_stop_follows_completed_bars_alone(side):
    # The third bar's own high, 130, would put the stop at 117; what is known is 120 of the second.
    market = market_of(
        (100, 100, 100, 100), (100, 120, 100, 118), (118, 130, 108.5, 125), (125, 126, 116, 120)
    )
    result = run(market if side > 0 else mirrored(market), [side], trailing_stop=0.1)
    made = result.trades.iloc[0]
    # A short's best is 80, from 120 mirrored: its stop is 88, mirrored 112.
    if side > 0:
        assert made["exit"] == market.close.index[3]
        assert made["exit_price"] == pytest.approx(117)
    else:
        assert made["exit"] == market.close.index[2]
        assert made["exit_price"] == pytest.approx(88)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_position_that_enters_at_the_open_can_be_stopped_in_the_same_bar(side):
    market = market_of((90, 90, 90, 90), (100, 101, 94, 99))
    market = market if side > 0 else mirrored(market)
    result = run(market, [0, side], "next_open", stop_loss=0.05)
    made = result.trades.iloc[0]
    assert made["entry"] == made["exit"] == market.close.index[1]
    assert (made["bars"], made["reason"]) == (0, "stop loss")
    assert result.net.iloc[1] == pytest.approx(-0.05)
    assert result.turnover.iloc[1] == pytest.approx(1 + made["exit_price"] / 100)


def test_a_position_that_enters_at_the_close_is_not_stopped_by_what_was_before():
    market = market_of((100, 101, 50, 100), (100, 101, 99, 100))
    result = run(market, [1.0], stop_loss=0.05, trailing_stop=0.05)
    assert result.trades["open"].tolist() == [True]
    # Nor does the high of the bar of its entry raise its trailing stop.
    market = market_of((100, 200, 99, 100), (100, 101, 96, 100))
    result = run(market, [1.0], trailing_stop=0.05)
    assert result.trades["open"].tolist() == [True]


def test_an_order_at_the_open_comes_before_the_stops_of_the_bar():
    market = market_of((100, 100, 100, 100), (100, 101, 99, 100), (99, 100, 80, 85))
    result = run(market, [1.0, 1.0, 0.0], "next_open", stop_loss=0.05)
    assert result.trades["reason"].tolist() == ["order"]
    assert result.trades["exit_price"].tolist() == [99]


def test_the_stops_of_a_bar_come_before_orders_at_its_close():
    market = market_of((100, 100, 100, 100), (100, 101, 90, 98))
    result = run(market, [1.0, -1.0], stop_loss=0.05)
    assert result.trades["reason"].tolist() == ["stop loss", "end"]
    assert result.trades["side"].tolist() == [1, -1]
    assert result.trades["entry_price"].tolist() == [100, 98]


@pytest.mark.parametrize(
    ("orders", "sides"),
    [
        ([1, 1, 1, 1], [1]),
        ([1, 1, 0.5, 1], [1]),  # another size of the same side
        ([1, 1, np.nan, 1], [1]),
        ([1, 1, 0, 1], [1, 1]),
        ([1, 1, -1, -1], [1, -1]),
        ([1, 0, 1, 1], [1, 1]),
    ],
)
@pytest.mark.parametrize("rebalance", ["changes", "always"])
def test_after_a_stop_the_asset_stays_flat_until_another_side_is_wanted(orders, sides, rebalance):
    market = market_of((100, 100, 100, 100), (100, 101, 90, 98), (98, 98, 98, 98))
    result = run(market, orders, stop_loss=0.05, rebalance=rebalance)
    assert result.trades["side"].tolist() == sides
    assert result.trades["reason"].iloc[0] == "stop loss"


def test_a_position_that_grows_has_its_average_price():
    market = market_of(
        (100, 100, 100, 100), (110, 110, 110, 110), (110, 110, 97, 104), (104, 104, 99, 100)
    )
    # 5 units at 100, and as many as make the whole weight: (1050 / 110 - 5) more at 110.
    result = run(market, [0.5, 1.0], stop_loss=0.05)
    average = (5 * 100 + (1050 / 110 - 5) * 110) / (1050 / 110)
    made = result.trades.iloc[0]
    assert made["entry_price"] == pytest.approx(average)
    assert made["exit"] == market.close.index[2]
    assert made["exit_price"] == pytest.approx(0.95 * average)
    # One that shrinks keeps it.
    result = run(market, [1.0, 0.5], stop_loss=0.05)
    assert result.trades["open"].tolist() == [True]


def test_a_stop_slips_and_a_profit_does_not():
    costs = {"fee": 0.001, "slippage": 0.002, "range_slippage": 0.1}
    entry = 0.002 + 0.001 * 1.002
    market = market_of((100, 100, 100, 100), (100, 104, 94, 101))
    result = run(market, [1.0], stop_loss=0.05, **costs)
    slip = 0.002 * 95 + 0.1 * (104 - 94)
    cost = 10 * (slip + 0.001 * (95 - slip))
    assert result.costs.iloc[1] * result.equity.iloc[0] == pytest.approx(cost)
    assert result.trades["cost"].iloc[0] == pytest.approx(cost + CAPITAL * entry)
    assert result.trades["result"].iloc[0] == pytest.approx(-50)
    result = run(market, [1.0], take_profit=0.03, **costs)
    assert result.trades["cost"].iloc[0] == pytest.approx(10 * 0.001 * 103 + CAPITAL * entry)


def test_levels_do_not_depend_on_what_trading_costs():
    market = market_of((100, 100, 100, 100), (100, 104, 95.05, 101))
    dear = run(market, [1.0], stop_loss=0.05, slippage=0.01)
    assert dear.trades["open"].tolist() == [True]


def test_bars_without_open_high_and_low_are_not_looked_into():
    market = market_of((100, 100, 100, 100), (100, 104, 90, 101))
    blind = [table.copy() for table in market]
    for table in blind[:3]:
        table.iloc[1] = np.nan
    result = run(Market(*blind), [1.0], stop_loss=0.05, range_slippage=0.1)
    assert result.trades["open"].tolist() == [True]
