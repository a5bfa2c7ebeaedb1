"""Statistics as other libraries compute them, and tests that err as often as they say."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import vartests
from scipy import stats

from maml_jax.backtest.inference.exceedance_counts import exceedances, thin
from maml_jax.backtest.inference.tail_risk import (
    christoffersen_independence,
    conditional_coverage,
    dynamic_quantile,
    kupiec,
)

TESTS = [kupiec, christoffersen_independence, conditional_coverage, dynamic_quantile]
Z05 = stats.norm.ppf(0.05)


def from_hits(hits):
    """Return outcomes that fall below a forecast of -1 where marked."""
    hits = np.asarray(hits)
    return np.where(hits, -2.0, 0.0), np.full(len(hits), -1.0)


def clustered(count=1500, seed=0):
    """Returns with volatility that clusters, and a forecast that follows it loosely."""
    rng = np.random.default_rng(seed)
    log_volatility = np.zeros(count)
    for t in range(1, count):
        log_volatility[t] = 0.95 * log_volatility[t - 1] + 0.2 * rng.normal()
    y = np.exp(log_volatility) * rng.normal(size=count)
    return y, Z05 * np.exp(0.3 * log_volatility)


@pytest.mark.parametrize(
    ("found", "count", "level"),
    [(0, 250, 0.01), (7, 250, 0.01), (250, 250, 0.05), (40, 1000, 0.025)],
)
def test_kupiec_agrees_with_vartests(found, count, level):
    """Of the tests here vartests (0.4.1) has this one; it names the level of confidence."""
    expected = vartests.kupiec_test(x=found, n=count, risk_conf_level=1 - level)
    result = kupiec(*from_hits(np.arange(count) < found), level)
    assert result.statistic == pytest.approx(expected["statistic"])
    assert result.chi_square_p_value == pytest.approx(expected["p-value"])
    assert (result.exceedances, result.count) == (found, count)


def test_independence_is_the_g_test_of_the_table_of_transitions():
    y, var = clustered()
    hits = exceedances(y, var, 0.05)
    table = [[np.sum((hits[:-1] == i) & (hits[1:] == j)) for j in (0, 1)] for i in (0, 1)]
    expected = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
    found = christoffersen_independence(y, var, 0.05)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.chi_square_p_value == pytest.approx(expected.pvalue)


def test_conditional_coverage_is_the_likelihood_ratio_of_a_logit():
    """A logit on the last exceedance is a Markov chain of the first order."""
    from statsmodels.api import Logit, add_constant

    y, var = clustered()
    hits = exceedances(y, var, 0.05)
    free = Logit(hits[1:], add_constant(hits[:-1])).fit(disp=0).llf
    nominal = stats.bernoulli.logpmf(hits[1:], 0.05).sum()
    found = conditional_coverage(y, var, 0.05)
    assert found.statistic == pytest.approx(2 * (free - nominal))
    assert found.chi_square_p_value == pytest.approx(stats.chi2.sf(found.statistic, 2))


@pytest.mark.parametrize("lags", [0, 1, 4])
@pytest.mark.parametrize("constant", [False, True])
def test_dynamic_quantile_is_a_regression_of_hits(lags, constant):
    """On what is no combination of others: a forecast that never moves is the constant."""
    from statsmodels.api import OLS

    y, var = clustered()
    if constant:
        var = np.full_like(var, Z05)
    hits = exceedances(y, var, 0.05) - 0.05
    columns = [np.ones(len(y) - lags)] + [var[lags:]] * (not constant)
    columns += [hits[lags - lag : len(y) - lag] for lag in range(1, lags + 1)]
    fit = OLS(hits[lags:], np.column_stack(columns)).fit()
    expected = (fit.uncentered_tss - fit.ssr) / (0.05 * 0.95)
    found = dynamic_quantile(y, var, 0.05, lags=lags)
    assert found.statistic == pytest.approx(expected)
    freedom = lags + 2 - constant
    assert found.chi_square_p_value == pytest.approx(stats.chi2.sf(expected, freedom))


@pytest.mark.parametrize("test", TESTS)
def test_the_upper_tail_is_the_lower_one_mirrored_and_absent_times_count_for_nothing(test):
    y, var = clustered(400)
    expected = test(y, var, 0.05, seed=3)
    assert test(-y, -var, 0.95, seed=3) == pytest.approx(expected)
    assert test(1e-4 * y, 1e-4 * var, 0.05, seed=3) == pytest.approx(expected)
    holes = np.sort(np.random.default_rng(1).integers(0, 400, 60))
    absent, forecast = np.insert(y, holes, np.nan), np.insert(var, holes, -1.0)
    assert test(absent, forecast, 0.05, seed=3) == expected
    assert test(forecast, absent, 0.95, seed=3).count == 400


def test_the_simulated_p_value_of_kupiec_is_the_exact_one():
    """The exact p-value lies between those that count ties for and against."""
    for found in (0, 2, 6):
        chances = stats.binom.pmf(np.arange(251), 250, 0.01)
        ratios = np.array([vartests.kupiec_test(x=x, n=250)["statistic"] for x in range(251)])
        above, tied = ratios > ratios[found] + 1e-9, np.abs(ratios - ratios[found]) < 1e-9
        values = [
            kupiec(*from_hits(np.arange(250) < found), 0.01, draws=9999, seed=seed).p_value
            for seed in range(50)
        ]
        least, most = chances[above].sum(), chances[above | tied].sum()
        assert least - 0.015 < min(values) and max(values) < most + 0.015
        if tied.sum():
            assert np.mean(values) == pytest.approx((least + most) / 2, abs=0.02)


def test_the_simulated_p_value_of_independence_counts_all_orders():
    hits = np.array([0, 1, 1, 0, 0, 0, 0, 0, 1, 0], bool)
    orders = [np.isin(np.arange(10), where) for where in itertools.combinations(range(10), 3)]
    statistics = np.array(
        [
            christoffersen_independence(*from_hits(order), 0.3, draws=19).statistic
            for order in orders
        ]
    )
    result = christoffersen_independence(*from_hits(hits), 0.3, draws=20_000)
    above = np.mean(statistics > result.statistic + 1e-9)
    assert above - 0.01 < result.p_value < np.mean(statistics > result.statistic - 1e-9) + 0.01


def rejections(test, samples, level):
    """Share of samples rejected at 5 % by simulation, for which 19 draws do, and by chi-square."""
    results = [test(y, var, level, draws=19, seed=i) for i, (y, var) in enumerate(samples)]
    return (
        np.mean([result.p_value <= 0.05 for result in results]),
        np.mean([result.chi_square_p_value <= 0.05 for result in results]),
    )


def normal(count, level, samples, seed=0):
    """Yield outcomes whose volatility is known, with the true forecasts."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        scale = np.exp(0.4 * rng.normal(size=count))
        yield scale * rng.normal(size=count), scale * stats.norm.ppf(level)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "level"), [(250, 0.01), (250, 0.95)])
@pytest.mark.parametrize("test", TESTS)
def test_right_forecasts_are_rejected_as_often_as_said(test, count, level):
    size, chi_square = rejections(test, normal(count, level, 4000), level)
    assert 0.04 < size < 0.06
    if level == 0.01 and test is not kupiec:
        assert not 0.035 < chi_square < 0.065, "the limit is no guide to a few exceedances"


def garch(count, samples, seed=0):
    """Yield GARCH(1,1) returns with their true 5 % quantiles, which react to exceedances."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(samples, count))
    variance = np.ones((samples, count))
    for t in range(1, count):
        variance[:, t] = 0.05 + variance[:, t - 1] * (0.85 + 0.1 * noise[:, t - 1] ** 2)
    yield from zip(np.sqrt(variance) * noise, np.sqrt(variance) * Z05, strict=True)


@pytest.mark.slow
def test_dynamic_quantile_keeps_its_size_where_forecasts_react_to_exceedances():
    size, _ = rejections(dynamic_quantile, garch(500, 4000), 0.05)
    assert 0.04 < size < 0.06


@pytest.mark.long
def test_overlapping_outcomes_are_rejected_though_forecasts_are_right_and_thinned_ones_are_not():
    rng = np.random.default_rng(0)
    daily = rng.normal(size=(2000, 1004))
    weekly = np.lib.stride_tricks.sliding_window_view(daily, 5, axis=1).sum(axis=-1)
    var = np.full(1000, Z05 * 5**0.5)
    naive, _ = rejections(conditional_coverage, [(y, var) for y in weekly[:200]], 0.05)
    thinned, _ = rejections(conditional_coverage, [thin(5, y, var) for y in weekly], 0.05)
    assert naive > 0.9
    assert 0.04 < thinned < 0.06


def test_wrong_forecasts_are_rejected_for_what_is_wrong_with_them():
    rng = np.random.default_rng(0)
    y = rng.normal(size=1000)
    mild = kupiec(y, np.full(1000, 0.8 * Z05), 0.05)
    assert mild.p_value == 0.001 and mild.exceedances > 70
    y, _ = clustered()
    flat = np.full(1500, np.quantile(y, 0.05))
    assert kupiec(y, flat, 0.05).p_value > 0.05
    for test in TESTS[1:]:
        assert test(y, flat, 0.05).p_value == 0.001


def test_independence_of_no_exceedances_is_unknown():
    for hits in (np.zeros(50, bool), np.ones(50, bool)):
        result = christoffersen_independence(*from_hits(hits), 0.05)
        assert np.isnan([result.statistic, result.p_value, result.chi_square_p_value]).all()
        assert result.count == 50
    none = conditional_coverage(*from_hits(np.zeros(51, bool)), 0.05)
    assert none.statistic == pytest.approx(-2 * 50 * np.log(0.95))
    assert 0 < dynamic_quantile(*from_hits(np.zeros(50, bool)), 0.05).p_value < 0.5


@pytest.mark.parametrize("test", TESTS)
def test_what_cannot_be_tested_is_refused(test):
    y, var = from_hits(np.arange(30) % 10 == 0)
    with pytest.raises(ValueError, match=r"y has \(30,\), var has \(29,\)"):
        test(y, var[1:], 0.05)
    with pytest.raises(ValueError, match=r"one series.*y has shape \(1, 30\)"):
        test(y[None], var[None], 0.05)
    with pytest.raises(ValueError, match="not 1.5"):
        test(y, var, 1.5)
    with pytest.raises(ValueError, match="y and var are all known"):
        test(np.full(30, np.nan), var, 0.05)
    with pytest.raises(ValueError, match="var has an infinite entry"):
        test(y, np.full(30, -np.inf), 0.05)
    with pytest.raises(ValueError, match="at least 19 draws, not 5"):
        test(y, var, 0.05, draws=5)


def test_too_few_outcomes_are_refused():
    y, var = from_hits([True, False])
    with pytest.raises(ValueError, match="needs 2 outcomes with forecasts, and there are 1"):
        christoffersen_independence(y[:1], var[:1], 0.05)
    with pytest.raises(ValueError, match="needs 12 outcomes with forecasts, and there are 2"):
        dynamic_quantile(y, var, 0.05)
    with pytest.raises(ValueError, match="lags must not be negative"):
        dynamic_quantile(y, var, 0.05, lags=-1)


def test_the_page_runs_and_names_what_there_is():
    from maml_jax.backtest import inference

    page = Path(__file__).parents[3] / "docs" / "tail_risk.md"
    text = page.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(code, str(page), "exec"), {})
    table = text.split("## Which to read")[1].split("\n\n")[1]
    named = re.findall(r"^\|[^|]*\| `(\w+)`", table, re.M)
    assert len(named) == 10 and {*named} <= {*inference.__all__}
