import numpy as np
import pandas as pd
import pytest
from simulate_oracle import Costs, list_trades, simulate

from maml_jax.backtest import metrics
from maml_jax.backtest.period_tables import by_month, by_year, drawdowns
from maml_jax.backtest.summary import skill, summarise


def daily(values, start="2020-01-30"):
    return pd.Series(values, pd.date_range(start, periods=len(values), tz="UTC"), dtype=float)


def test_falls_are_listed_from_maximum_to_recovery():
    net = daily([0.1, -0.1, 0.05, 0.2, 0.0, -0.5, 0.1])
    table = drawdowns(net)
    day = net.index
    assert table["start"].tolist() == [day[0], day[4]]
    assert table["bottom"].tolist() == [day[1], day[5]]
    assert table["recovery"].tolist()[0] == day[3] and table["recovery"].isna().tolist()[1]
    assert table["depth [%]"].tolist() == pytest.approx([-10, -50])
    assert table["duration"].dt.days.tolist() == [3, 2]
    assert table["to bottom"].dt.days.tolist() == [1, 1]
    assert table["to recovery"].iloc[0].days == 2


def test_falls_agree_with_a_loop():
    rng = np.random.default_rng(0)
    for length in (1, 2, 5, 200):
        net = daily(rng.normal(0, 0.02, length))
        highest, equity, under, found = 1.0, 1.0, False, []
        for r in net:
            equity *= 1 + r
            if equity < highest:
                found = [*found, equity / highest - 1] if not under else found
                under = True
                found[-1] = min(found[-1], equity / highest - 1)
            else:
                highest, under = equity, False
        assert drawdowns(net)["depth [%]"].tolist() == pytest.approx([100 * d for d in found])


@pytest.mark.parametrize("values", [[], [0.0], [0.01, 0.01], [-1.0, 0.5], [-0.1]])
def test_odd_series_have_falls_or_none(values):
    table = drawdowns(daily(values))
    assert len(table) == (1 if values and min(values) < 0 else 0)
    deepest = min([0, *table["depth [%]"]])
    assert deepest == (100 * metrics.max_drawdown(daily(values)) if values else 0)


def test_years_and_months_compound_to_the_whole():
    net = daily(np.random.default_rng(1).normal(0, 0.01, 800))
    years = by_year(pd.DataFrame({"a": net, "b": -net}))
    assert years.index.tolist() == [2020, 2021, 2022] and list(years) == ["a", "b"]
    whole = 100 * metrics.total_return(net)
    assert 100 * ((1 + years["a"] / 100).prod() - 1) == pytest.approx(whole)
    months = by_month(net)
    assert months.columns.tolist() == list(range(1, 13))
    assert months.loc[2020].isna().tolist() == [False] * 12
    assert months.loc[2022].notna().sum() == 4
    assert 100 * ((1 + months.fillna(0).to_numpy() / 100).prod() - 1) == pytest.approx(whole)
    first = net[net.index < "2020-02-01"]
    assert months.loc[2020, 1] == pytest.approx(100 * metrics.total_return(first))
    assert by_year(pd.DataFrame({"ruined": daily([0.1, -2.0])})).loc[2020, "ruined"] == -100


def test_alpha_and_beta_are_those_of_a_line():
    rng = np.random.default_rng(2)
    market = rng.normal(0, 0.01, 300)
    r = 0.0002 + 0.7 * market + rng.normal(0, 0.005, 300)
    slope, intercept = np.polyfit(market, r, 1)
    assert metrics.beta(r, market) == pytest.approx(slope)
    assert metrics.alpha(r, market, 252) == pytest.approx(252 * intercept)
    for still in (np.zeros(300), np.full(300, 0.01), np.array([0.1])):
        assert np.isnan(metrics.beta(r[: len(still)], still))
        assert np.isnan(metrics.alpha(r[: len(still)], still, 252))


def test_measures_of_trades_are_those_of_backtesting_py():
    """Formulas of its `compute_stats`, on returns of trades."""
    pl = np.array([0.02, -0.01, 0.03, -0.02, 0.01])
    rate = np.mean(pl > 0)
    kelly = rate - (1 - rate) / (pl[pl > 0].mean() / -pl[pl < 0].mean())
    assert metrics.kelly_criterion(pl) == pytest.approx(kelly)
    quality = np.sqrt(len(pl)) * pl.mean() / pl.std(ddof=1)
    assert metrics.system_quality(pl) == pytest.approx(quality)
    mean = np.exp(np.log1p(pl).mean()) - 1
    assert metrics.geometric_mean(pl) == pytest.approx(mean)
    for odd in ([], [0.01], [0.01, 0.02]):
        assert np.isnan(metrics.kelly_criterion(np.array(odd)))
    assert np.isnan(metrics.system_quality(np.array([0.01])))
    assert metrics.geometric_mean(np.array([0.5, -1.0])) == -1


def test_a_cost_of_the_break_even_leaves_nothing():
    rng = np.random.default_rng(3)
    returns = daily(rng.normal(0.001, 0.01, 300))
    weights = daily(np.where(rng.random(300) < 0.3, 1.0, 0.2))
    free = simulate(weights, returns, Costs(0.0, 0.0))
    cost = metrics.break_even_cost(free.gross, free.turnover)
    assert simulate(weights, returns, Costs(cost / 1e4, 0.0)).net.sum() == pytest.approx(0)
    assert np.isnan(metrics.break_even_cost(returns, returns * 0))


def test_a_hit_is_a_sign_that_came_true():
    p = pd.DataFrame({"a": [0.1, -0.2, 0.0, np.nan], "b": [1.0, 1.0, -1.0, 1.0]})
    y = pd.DataFrame({"a": [0.3, 0.1, 1.0, 1.0], "b": [2.0, 0.0, -3.0, np.nan]})
    assert metrics.hit_rate(p, y) == pytest.approx(3 / 4)
    assert skill(p, y)["Hit Rate [%]"] == pytest.approx(75)
    assert np.isnan(metrics.hit_rate(p * 0, y))


def summary(weights, returns, benchmark=None):
    made = list_trades(weights, returns, Costs())
    return summarise(
        simulate(weights, returns, Costs()),
        weights.to_frame(),
        made,
        bars_per_year=365,
        benchmark=benchmark,
    ), made


def test_the_summary_tells_falls_exposure_costs_trades_and_the_market():
    rng = np.random.default_rng(4)
    returns = daily(rng.normal(0.0005, 0.01, 400))
    weights = daily(np.repeat(rng.choice([-0.5, 0.0, 1.0], 80), 5))
    stats, made = summary(weights, returns, returns)
    net = simulate(weights, returns, Costs()).net
    falls = drawdowns(net)
    assert stats["Avg. Drawdown [%]"] == pytest.approx(falls["depth [%]"].mean())
    assert stats["Max. Drawdown [%]"] == pytest.approx(falls["depth [%]"].min())
    assert stats["Max. Drawdown Duration"] == falls["duration"].max()
    assert stats["Avg. Drawdown Duration"] == falls["duration"].mean()
    assert stats["Avg. Exposure [%]"] == pytest.approx(100 * weights.abs().mean())
    assert stats["Alpha [%]"] == pytest.approx(100 * metrics.alpha(net, returns, 365))
    assert stats["Beta"] == pytest.approx(metrics.beta(net, returns))
    assert stats["Buy & Hold Return [%]"] == pytest.approx(100 * metrics.total_return(returns))
    assert stats["Max. Trade Duration"] == (made["exit"] - made["entry"]).max()
    assert stats["Expectancy [%]"] == pytest.approx(100 * made["net"].mean())
    turnover = weights.diff().fillna(weights.iloc[0]).abs()
    assert stats["Costs (Ann.) [%]"] == pytest.approx(36_500 * Costs().rate * turnover.mean())


@pytest.mark.parametrize("length", [1, 2, 30])
def test_a_summary_of_nothing_held_is_a_summary(length):
    stats, _ = summary(daily(np.zeros(length)), daily(np.full(length, 0.01)))
    assert stats["# Trades"] == 0 and stats["Max. Drawdown [%]"] == 0
    unknown = ["Alpha [%]", "Beta", "SQN", "Kelly Criterion", "Avg. Trade Duration",
               "Avg. Drawdown [%]", "Avg. Drawdown Duration", "Break-Even Cost [bp]"]  # fmt: skip
    assert stats[unknown].isna().all()
    assert stats["Max. Drawdown Duration"] == pd.Timedelta(0)
