"""Weights as they are held, and the account beside weights times returns."""

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market
from simulate_oracle import Costs, list_trades, simulate

from maml_jax.backtest import (
    Execution,
    held_weights,
    make_market,
    metrics,
    place_orders,
    summarise,
    threshold_positions,
    trade,
)
from maml_jax.features import fill_returns, label_delay

COSTS = Costs(fee=0.001, slippage=0.0005)
INDEX = pd.date_range("2020-01-01", periods=200, tz="UTC")


def series(values):
    return pd.Series(np.asarray(values, float), INDEX[: len(values)])


def test_a_constant_price_with_flips_loses_exactly_the_costs_and_every_metric_shows_it():
    weights = series(np.where(np.arange(100) % 2 == 0, 1.0, -1.0))
    result = simulate(weights, series(np.zeros(100)), COSTS)
    assert result.turnover.sum() == 1 + 2 * 99
    assert result.net.sum() == pytest.approx(-COSTS.rate * 199)
    assert result.gross.sum() == 0
    equity = np.cumprod(1 - COSTS.rate * np.array([1.0] + [2.0] * 99))
    trades = list_trades(weights, series(np.zeros(100)), COSTS)
    stats = summarise(result, weights.to_frame(), trades, bars_per_year=365)
    assert stats["Return [%]"] == pytest.approx(100 * (equity[-1] - 1))
    assert stats["Max. Drawdown [%]"] == pytest.approx(100 * (equity[-1] - 1))
    assert stats["Sharpe Ratio"] < -50
    assert stats["Sortino Ratio"] < -10
    assert stats["Win Rate (Bars) [%]"] == 0
    assert stats["Win Rate [%]"] == 0
    assert stats["# Trades"] == 100
    assert stats["Equity Final [$]"] == pytest.approx(10_000 * equity[-1])


def test_on_a_random_walk_the_mean_net_sharpe_is_minus_the_cost():
    """Any rule that looks at the past alone earns nothing before costs."""
    rng = np.random.default_rng(0)
    bars, seeds, vol = 500, 400, 0.01
    returns = pd.DataFrame(
        vol * rng.standard_normal((bars, seeds)), pd.date_range("2020", periods=bars)
    )
    # Follow the last move, from the next bar on.
    decisions = np.sign(returns)
    held = held_weights(decisions, returns, delay=1)
    result = simulate(held, returns, COSTS)
    net = [metrics.sharpe_ratio(result.asset_net[a], 252) for a in returns.columns]
    turnover = held.diff().fillna(0.0).abs().to_numpy().mean()
    expected = -COSTS.rate * turnover / vol * np.sqrt(252)
    error = np.std(net) / np.sqrt(seeds)
    assert abs(np.mean(net) - expected) < 3 * error + 0.02 * abs(expected)
    assert expected < -2


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
def test_a_decision_earns_from_its_fill_and_not_before(fill):
    """Knowing the next traded return earns it; at any other bar it earns nothing for sure."""
    bars = {"A": random_bars(count=100)}
    returns = fill_returns(bars, fill)
    delay = label_delay(fill, 1)
    known = returns.shift(-delay)
    held = held_weights(threshold_positions(known), returns, delay)
    gross = simulate(held, returns, Costs(0, 0)).gross
    np.testing.assert_allclose(gross.iloc[delay:], returns["A"].abs().iloc[delay:])
    assert (held.iloc[:delay] == 0).all(axis=None)


def test_missing_bars_earn_nothing_trade_nothing_and_delay_by_own_bars():
    index = INDEX[:8]
    returns = pd.DataFrame(
        {"A": 0.01, "B": [0.0, 0.1, np.nan, np.nan, 0.2, 0.3, np.nan, np.nan]}, index
    )
    decisions = pd.DataFrame({"A": 1.0, "B": 1.0}, index).where(returns.notna())
    held = held_weights(decisions, returns, delay=2)
    assert held["A"].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    # B's own bars are 0, 1, 4, 5: decided at 0, it is held from 4 on.
    assert held["B"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    result = simulate(held, returns, COSTS)
    assert result.asset_net["B"].tolist() == pytest.approx(
        [0, 0, 0, 0, 0.2 - COSTS.rate, 0.3, 0, 0]
    )
    # Its trade is told in its own bars: filled at bar 1, still open.
    trade = list_trades(held["B"], returns["B"], COSTS).iloc[0]
    assert (trade["entry"], trade["exit"]) == (index[1], index[5])
    assert (trade["bars"], trade["open"]) == (2, True)


def test_a_position_in_an_asset_that_ended_is_closed_once_that_is_plain():
    index = INDEX[:60]
    returns = pd.DataFrame({"A": 0.0, "B": np.where(np.arange(60) < 20, 0.0, np.nan)}, index)
    held = held_weights(pd.DataFrame(1.0, index, ["A", "B"]), returns, delay=1)
    assert held["A"].iloc[1:].tolist() == [1.0] * 59
    assert held["B"].iloc[1:50].tolist() == [1.0] * 49  # 30 days after its last bar
    assert held["B"].iloc[50:].tolist() == [0.0] * 10
    assert simulate(held, returns, COSTS).turnover.sum() == 3
    trades = list_trades(held, returns, COSTS).set_index("asset")
    assert trades["open"].to_dict() == {"A": True, "B": False}


def test_trades_are_the_stretches_of_one_sign():
    weights = series([0, 1, 1, -1, -1, -1, 0, 0.5])
    returns = series([0.5, 0.1, 0.2, 0.1, -0.1, 0.0, 0.9, 0.2])
    trades = list_trades(weights, returns, COSTS)
    assert trades["side"].tolist() == [1, -1, 1]
    assert trades["bars"].tolist() == [2, 3, 1]
    assert trades["entry"].tolist() == [INDEX[0], INDEX[2], INDEX[6]]
    assert trades["exit"].tolist() == [INDEX[2], INDEX[5], INDEX[7]]
    assert trades["open"].tolist() == [False, False, True]
    np.testing.assert_allclose(trades["gross"], [1.1 * 1.2 - 1, 0.9 * 1.1 - 1, 0.1])
    c = COSTS.rate
    np.testing.assert_allclose(
        trades["net"],
        [(1.1 - c) * 1.2 * (1 - c) - 1, (0.9 - c) * 1.1 * (1 - c) - 1, 0.1 - 0.5 * c],
    )


def test_threshold_positions():
    predictions = pd.DataFrame({"A": [0.2, 0.1, -0.1, -0.2, np.nan]})
    assert threshold_positions(predictions, 0.1)["A"].tolist() == [1, 0, 0, -1, 0]
    assert threshold_positions(predictions)["A"].tolist() == [1, 1, -1, -1, 0]
    with pytest.raises(ValueError, match="negative"):
        threshold_positions(predictions, -1)


@pytest.mark.parametrize("fill", ["close", "next_close"])
def test_an_account_that_trades_at_every_bar_earns_weights_times_returns(fill):
    bars = random_market(count=80)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[20, 21, 50]])
    bars["A2"] = bars["A2"].iloc[:30]
    market = make_market(bars)
    shape = market.close.shape
    decided = np.random.default_rng(0).choice([-0.3, 0.0, 0.2], shape)
    decided = pd.DataFrame(decided, market.close.index, market.close.columns)
    decided = decided.where(market.close.notna())
    free = Execution(fee=0.0, slippage=0.0, rebalance="always")
    account = trade(place_orders(decided, market, fill), market, fill=fill, execution=free)
    # Where an asset misses a bar its units drift; with whole columns weights are set at every bar.
    returns = fill_returns(bars, fill)
    held = held_weights(decided, returns, label_delay(fill, 1))
    gross = simulate(held, returns, Costs(0.0, 0.0)).gross
    np.testing.assert_allclose(account.net[:20], gross[:20], atol=1e-12)
    np.testing.assert_allclose(account.net[52:60], gross[52:60], atol=1e-12)
    assert (account.net[:20] != 0).any() and (account.net[52:60] != 0).any()


def test_later_bars_end_no_asset_earlier_or_later():
    """With monthly bars six are awaited; daily ones that follow shorten no wait before them."""
    months = pd.date_range("2010-01-01", periods=24, freq="MS", tz="UTC")
    days = pd.date_range(months[-1], periods=200, freq="D", tz="UTC")[1:]
    index = months.append(days)
    held = {}
    for name, bars in {"months": months, "both": index}.items():
        own = pd.Series(0.0, bars).where(np.arange(len(bars)) < 10)
        returns = pd.DataFrame({"A": own, "B": 0.0})
        held[name] = held_weights(returns * 0 + 1, returns, delay=1)
    pd.testing.assert_frame_equal(held["both"].loc[months], held["months"], check_freq=False)
    assert held["months"]["A"].tolist() == [0.0] + [1.0] * 15 + [0.0] * 8
