import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.backtest import (
    Costs,
    held_weights,
    list_trades,
    metrics,
    simulate,
    summarise,
    threshold_positions,
)
from maml_jax.errors import ShapeError
from maml_jax.features import fill_return, fill_returns, label_delay

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


def test_perfect_foresight_earns_every_move_less_the_costs():
    returns = fill_return(random_bars(), "close")
    weights = np.sign(returns)
    result = simulate(weights, returns, COSTS)
    turnover = weights.diff().fillna(weights.iloc[:1]).abs().sum()
    assert result.gross.sum() == pytest.approx(returns.abs().sum())
    assert result.net.sum() == pytest.approx(returns.abs().sum() - COSTS.rate * turnover)


def test_always_long_is_buying_and_holding_less_one_entry():
    bars = random_bars()
    returns = fill_return(bars, "close").iloc[1:]
    result = simulate(returns * 0 + 1, returns, COSTS)
    np.testing.assert_allclose(result.gross, bars["close"].pct_change().iloc[1:])
    np.testing.assert_allclose(result.net.iloc[1:], result.gross.iloc[1:])
    assert result.net.iloc[0] == pytest.approx(result.gross.iloc[0] - COSTS.rate)
    growth = bars["close"].iloc[-1] / bars["close"].iloc[0]
    assert (1 + result.gross).prod() == pytest.approx(growth)


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


def test_a_flip_pays_twice():
    result = simulate(series([0, 1, -1, 0]), series([0, 0, 0, 0]), COSTS)
    assert result.turnover.tolist() == [0, 1, 2, 1]
    np.testing.assert_allclose(result.net, -COSTS.rate * result.turnover)


def test_many_assets_add_up():
    rng = np.random.default_rng(1)
    weights, returns = (pd.DataFrame(rng.standard_normal((50, 3)), INDEX[:50]) for _ in range(2))
    result = simulate(weights, returns, COSTS)
    alone = [simulate(weights[a], returns[a], COSTS) for a in weights]
    np.testing.assert_allclose(result.net, sum(s.net for s in alone))
    np.testing.assert_allclose(result.turnover, sum(s.turnover for s in alone))
    np.testing.assert_allclose(result.asset_net.sum(axis=1), result.net)


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


def test_no_trades_is_an_empty_table():
    trades = list_trades(series([0, 0, 0]), series([0.1, 0.1, 0.1]), COSTS)
    assert len(trades) == 0
    assert "net" in trades.columns


def test_threshold_positions():
    predictions = pd.DataFrame({"A": [0.2, 0.1, -0.1, -0.2, np.nan]})
    assert threshold_positions(predictions, 0.1)["A"].tolist() == [1, 0, 0, -1, 0]
    assert threshold_positions(predictions)["A"].tolist() == [1, 1, -1, -1, 0]
    with pytest.raises(ValueError, match="negative"):
        threshold_positions(predictions, -1)


def test_weights_and_returns_must_go_together():
    with pytest.raises(ShapeError, match="same index"):
        simulate(series([1, 1]), series([0.1, 0.1, 0.1]))
    with pytest.raises(ShapeError, match="finite"):
        simulate(series([1, np.nan]), series([0.1, 0.1]))
