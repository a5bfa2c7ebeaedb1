import warnings

import empyrical
import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import metrics
from maml_jax.backtest.inference.significance import deflated_sharpe, probabilistic_sharpe
from maml_jax.backtest.metrics import bars_per_year
from maml_jax.errors import DataError


def fixture():
    """A series on which empyrical, quantstats, vectorbt and ffn agree."""
    rng = np.random.default_rng(7)
    index = pd.bdate_range("2023-01-02", periods=252)
    returns = pd.Series(rng.standard_t(4, 252) * 0.008 + 0.0004, index)
    returns.iloc[0] = -0.03
    return returns


FIXTURE = {
    "sharpe": (lambda r: metrics.sharpe_ratio(r, 252), -2.39595387),
    "sortino": (lambda r: metrics.sortino_ratio(r, 252), -2.84454957),
    "volatility": (lambda r: metrics.annual_volatility(r, 252), 0.15690107),
    "cagr": (lambda r: metrics.cagr(r, 252), -0.32197298),
    "max drawdown": (metrics.max_drawdown, -0.33745942),
    "calmar": (lambda r: metrics.calmar_ratio(r, 252), -0.95410872),
    "tail ratio": (metrics.tail_ratio, 0.60372103),
    "var": (metrics.value_at_risk, -0.02007457),
    "cvar": (metrics.conditional_value_at_risk, -0.02676145),
    "omega": (metrics.omega_ratio, 0.65723173),
    "win rate": (metrics.win_rate, 0.46825397),
    "psr": (probabilistic_sharpe, 0.00611912),
}


@pytest.mark.parametrize("name", FIXTURE)
def test_the_fixture_that_four_libraries_agree_on(name):
    function, expected = FIXTURE[name]
    assert abs(function(fixture()) - expected) < 1e-8


ORACLES = {
    "sharpe": (
        lambda r, a: metrics.sharpe_ratio(r, a),
        lambda r, a: empyrical.sharpe_ratio(r, annualization=a),
    ),
    "sortino": (
        lambda r, a: metrics.sortino_ratio(r, a),
        lambda r, a: empyrical.sortino_ratio(r, annualization=a),
    ),
    "volatility": (
        lambda r, a: metrics.annual_volatility(r, a),
        lambda r, a: empyrical.annual_volatility(r, annualization=a),
    ),
    "cagr": (lambda r, a: metrics.cagr(r, a), lambda r, a: empyrical.cagr(r, annualization=a)),
    "max drawdown": (
        lambda r, a: metrics.max_drawdown(r),
        lambda r, a: empyrical.max_drawdown(r),
    ),
    "calmar": (
        lambda r, a: metrics.calmar_ratio(r, a),
        lambda r, a: empyrical.calmar_ratio(r, annualization=a),
    ),
    "omega": (lambda r, a: metrics.omega_ratio(r), lambda r, a: empyrical.omega_ratio(r)),
    "tail ratio": (lambda r, a: metrics.tail_ratio(r), lambda r, a: empyrical.tail_ratio(r)),
    "var": (lambda r, a: metrics.value_at_risk(r), lambda r, a: empyrical.value_at_risk(r)),
    "cvar": (
        lambda r, a: metrics.conditional_value_at_risk(r),
        lambda r, a: empyrical.conditional_value_at_risk(r),
    ),
    "total": (lambda r, a: metrics.total_return(r), lambda r, a: empyrical.cum_returns_final(r)),
}


@pytest.mark.parametrize("name", ORACLES)
def test_empyrical_agrees_on_a_thousand_series(name):
    ours, theirs = ORACLES[name]
    rng = np.random.default_rng(0)
    for trial in range(1000):
        length = int(rng.integers(2, 400))
        scale = 10 ** rng.uniform(-4, -1.3)
        returns = np.clip(rng.standard_t(4, length) * scale + rng.normal() * scale / 5, -0.9, 2)
        returns[rng.random(length) < rng.choice([0, 0.3])] = 0.0
        per_year = float(rng.choice([12, 52, 252, 365, 8760]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a, b = ours(returns, per_year), theirs(returns, per_year)
        if not np.isfinite(b):
            assert not np.isfinite(a) or trial, "only degenerate series may differ"
            continue
        assert a == pytest.approx(b, rel=1e-8, abs=1e-12), (trial, length)


def test_a_drawdown_counts_from_the_starting_equity():
    assert metrics.max_drawdown(np.array([-0.1, 0.05])) == pytest.approx(-0.1)
    assert metrics.max_drawdown(np.array([0.1, 0.1])) == 0


def test_what_the_data_do_not_determine_is_nan():
    for function in (metrics.sharpe_ratio, metrics.sortino_ratio, metrics.annual_volatility):
        assert np.isnan(function(np.array([0.01]), 252))
    constant = np.full(10, 0.001)
    assert np.isnan(metrics.sharpe_ratio(constant, 252))
    assert np.isnan(metrics.sortino_ratio(constant, 252))
    assert np.isnan(metrics.calmar_ratio(constant, 252))
    assert np.isnan(metrics.profit_factor(constant))
    assert np.isnan(probabilistic_sharpe(constant))
    for function in (metrics.max_drawdown, metrics.win_rate, metrics.value_at_risk):
        assert np.isnan(function(np.array([])))


def test_losing_everything_is_a_growth_rate_of_minus_one():
    assert metrics.cagr(np.array([0.1, -1.0, 0.5]), 252) == -1
    ruined = np.array([0.1, -1.5, 0.5, -1.5])
    assert metrics.cagr(ruined, 252) == metrics.total_return(ruined) == -1
    assert metrics.max_drawdown(ruined) == -1
    assert metrics.equity_curve(ruined).tolist() == [1.1, 0, 0, 0]


def test_the_deflated_sharpe_falls_with_the_number_of_trials():
    rng = np.random.default_rng(1)
    returns = 0.0008 + 0.01 * rng.standard_normal(1000)
    alone = deflated_sharpe(returns, trials=1, trial_variance=0.001)
    assert alone == probabilistic_sharpe(returns)
    several = [deflated_sharpe(returns, trials=n, trial_variance=0.001) for n in (2, 10, 100)]
    assert [alone, *several] == sorted([alone, *several], reverse=True)


def test_the_best_of_many_random_strategies_is_seen_through():
    """The best of 200 strategies without skill passes a plain test and fails the deflated one."""
    rng = np.random.default_rng(2)
    plain, deflated = [], []
    for _ in range(20):
        trials = 0.01 * rng.standard_normal((200, 500))
        sharpe = trials.mean(axis=1) / trials.std(axis=1, ddof=1)
        best = trials[sharpe.argmax()]
        plain.append(probabilistic_sharpe(best))
        deflated.append(deflated_sharpe(best, trials=200, trial_variance=sharpe.var(ddof=1)))
    assert min(plain) > 0.95
    assert np.mean(deflated) == pytest.approx(0.5, abs=0.15)


def session(start, hours, step, days=30):
    days = pd.bdate_range("2024-01-02", periods=days, tz="UTC")
    times = np.arange(0, hours, step)
    return pd.DatetimeIndex([d + pd.Timedelta(hours=start + h) for d in days for h in times])


INDICES = {
    "daily stocks": (pd.bdate_range("2020", periods=300, tz="UTC"), 252),
    "daily crypto": (pd.date_range("2020", periods=300, tz="UTC"), 365),
    "hourly crypto": (pd.date_range("2020", periods=300, freq="h", tz="UTC"), 8760),
    "four hours of crypto": (pd.date_range("2020", periods=300, freq="4h", tz="UTC"), 2190),
    "hourly US stocks": (session(14.5, 6.5, 1), 1638),
    "half hours of US stocks": (session(14.5, 6.5, 0.5), 252 * 13),
    "minutes of crypto": (pd.date_range("2020", periods=3000, freq="min", tz="UTC"), 525600),
    "weekly": (pd.date_range("2020", periods=60, freq="W", tz="UTC"), 52),
    "monthly": (pd.date_range("2020", periods=60, freq="MS", tz="UTC"), 12),
    "quarterly": (pd.date_range("2000", periods=60, freq="QS", tz="UTC"), 4),
    "yearly": (pd.date_range("1960", periods=60, freq="YS", tz="UTC"), 1),
}


@pytest.mark.parametrize("name", INDICES)
def test_bars_per_year(name):
    index, expected = INDICES[name]
    assert bars_per_year(index) == pytest.approx(expected)


def test_one_bar_has_no_interval():
    with pytest.raises(DataError, match="fewer than two bars"):
        bars_per_year(pd.date_range("2020", periods=1))


def test_information_coefficients_are_correlations_across_assets():
    rng = np.random.default_rng(3)
    index = pd.date_range("2020", periods=40)
    outcomes = pd.DataFrame(rng.standard_normal((40, 6)), index)
    predictions = outcomes + rng.standard_normal((40, 6))
    predictions.iloc[3, :4] = np.nan
    for rank, method in ((False, "pearson"), (True, "spearman")):
        ic = metrics.information_coefficient(predictions, outcomes, rank=rank)
        assert index[3] not in ic.index
        for date in ic.index:
            expected = predictions.loc[date].corr(outcomes.loc[date], method=method)
            assert ic[date] == pytest.approx(expected)
    both = predictions.notna().to_numpy()
    expected = np.corrcoef(predictions.to_numpy()[both], outcomes.to_numpy()[both])[0, 1]
    assert metrics.pooled_correlation(predictions, outcomes) == pytest.approx(expected)
