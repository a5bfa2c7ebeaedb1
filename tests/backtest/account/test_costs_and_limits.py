"""What trading costs, and the bounds that it keeps."""

import numpy as np
import pandas as pd
import pytest
from accounts import CAPITAL, FREE, account, market_of, orders_of
from helpers import random_bars

from maml_jax.backtest import (
    Execution,
    Market,
    make_market,
)
from maml_jax.errors import ConfigError


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


def test_borrowing_is_charged_by_the_days_between_bars_whatever_comes_later():
    """Friday to Monday costs three days, and a change to hourly bars changes no day before it."""
    days = pd.bdate_range("2024-01-04", periods=3, tz="UTC")  # Thursday, Friday, Monday
    hours = pd.date_range(days[-1], periods=24, freq="h")[1:]
    execution = FREE._replace(borrow=0.365)  # a thousandth a day
    found = []
    for index in (days, days.append(hours)):
        close = pd.DataFrame({"A": 10.0}, index)
        market = Market(close, close, close, close)
        short = account(orders_of(np.full(len(index), -0.5), market), market, execution=execution)
        found.append(short.equity.tolist())
    assert found[0] == pytest.approx([CAPITAL, 9_995, 9_980])
    assert found[1][:3] == found[0]
    assert found[1][-1] == pytest.approx(9_980 - 5 * 23 / 24)


def test_an_order_within_the_band_is_not_sent_except_to_close():
    market = market_of(np.full(6, 10.0))
    execution = FREE._replace(band=0.1)
    result = account(
        orders_of([0.5, 0.55, 0.58, 0.6, 0.05, 0.0], market), market, "close", execution
    )
    np.testing.assert_allclose(result.weights["A"], [0.5, 0.5, 0.5, 0.6, 0.05, 0.0], atol=1e-12)
    assert result.trades["open"].tolist() == [False]


@pytest.mark.parametrize("assets", [3, 20])
def test_the_band_is_a_share_of_each_assets_own_part(assets):
    """As many copies of one market as there may be: the account of one of them."""
    one = make_market({"A": random_bars(count=120)})
    many = Market(*(table[["A"] * assets].set_axis(range(assets), axis=1) for table in one))
    wanted = np.random.default_rng(0).uniform(-1, 1, 120)
    execution = Execution(band=0.6)
    alone = account(orders_of(wanted, one), one, execution=execution)
    spread = orders_of(np.repeat(wanted[:, None], assets, 1) / assets, many)
    together = account(spread, many, execution=execution)
    assert 10 < len(alone.trades) < 60  # some orders are sent, and some are not
    assert len(together.trades) == assets * len(alone.trades)
    np.testing.assert_allclose(together.equity, alone.equity, rtol=1e-9)


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
