"""Value at risk and expected shortfall of past returns: what sorting and a loop over paths give."""

import math

import numpy as np
import pytest
from scipy import stats
from young_world import young_returns

from maml_jax.backtest.baselines.young import (
    Filter,
    filtered_historical_simulation,
    garch_t,
    garch_t_tails,
    historical_simulation,
    student_tail,
)
from maml_jax.backtest.baselines.young.classical import fit_garch_t
from maml_jax.backtest.baselines.young.historical import empirical_tail

RETURNS, LEVELS = young_returns(times=330), (0.01, 0.07, 0.1)


def naive_tail(sample, level):
    """The quantile, and the mean of the share `level` of the distribution below it."""
    ordered, mass = sorted(sample), level * len(sample)
    total, left = 0.0, mass
    for x in ordered:
        used = min(1.0, left)
        total, left = total + used * x, left - used
        if left < 1e-9:
            return x, total / mass
    raise AssertionError


@pytest.mark.parametrize("count", [20, 100, 137])
def test_the_tail_of_a_sample_is_that_of_its_order(count):
    sample = np.random.default_rng(count).standard_t(3, (4, count))
    var, es = empirical_tail(sample, LEVELS)
    for place, level in enumerate(LEVELS):
        for row in range(4):
            quantile, mean = naive_tail(sample[row], level)
            assert var[place, row] == quantile
            assert es[place, row] == pytest.approx(mean)
    for place in (0, 2):
        library = np.quantile(sample, LEVELS[place], axis=1, method="inverted_cdf")
        np.testing.assert_array_equal(var[place], library)


def test_the_tail_is_that_of_the_known_overlapping_returns():
    found = historical_simulation(RETURNS, horizon=4, window=90, levels=LEVELS, least=15)
    for asset, t in ((0, 17), (0, 18), (0, 88), (0, 89), (0, 300), (1, 160), (2, 208)):
        known = RETURNS[asset, : t + 1]
        known = known[np.isfinite(known)][-90:]
        ahead = [known[s : s + 4].sum() for s in range(len(known) - 3)]
        if len(ahead) < 15:
            assert np.isnan(found.var[:, asset, t]).all()
            continue
        for place, level in enumerate(LEVELS):
            expected = naive_tail(ahead, level)
            got = found.var[place, asset, t], found.es[place, asset, t]
            assert got == pytest.approx(expected)
    np.testing.assert_array_equal(np.isnan(found.var[0, 2, 200:207]), True)


@pytest.mark.parametrize("kind", ["ewma", "garch"])
def test_filtered_paths_are_those_of_a_loop(kind):
    setting = Filter(kind=kind, paths=300, refit=7, seed=4)
    found = filtered_historical_simulation(
        RETURNS, horizon=3, window=260, levels=LEVELS, first=300, targets=[0], setting=setting
    )
    t, fit = 309, 307
    uniform = np.random.default_rng(4).random((300, 3))
    if kind == "ewma":
        seen, omega, alpha, beta = RETURNS[0, t - 259 : t + 1], 0.0, 0.06, 0.94
        start = np.mean(seen**2)
    else:
        seen = RETURNS[0, fit + 7 - 260 : t + 1]
        model = fit_garch_t(seen[: fit - t or None])
        assert model is not None
        omega, alpha, beta, start = model.omega, model.alpha, model.beta, model.variances[0]
    variance, z = start, []
    for r in seen:
        z.append(r / math.sqrt(variance))
        variance = omega + alpha * r**2 + beta * variance
    sums = []
    for path in uniform:
        now, total = variance, 0.0
        for u in path:
            r = math.sqrt(now) * z[int(u * len(z))]
            total, now = total + r, omega + alpha * r**2 + beta * now
        sums.append(total)
    for place, level in enumerate(LEVELS):
        got = found.var[place, 0, t], found.es[place, 0, t]
        assert got == pytest.approx(naive_tail(sums, level), rel=1e-6)
    assert np.isnan(found.var[:, 1:]).all() and np.isnan(found.var[:, 0, :300]).all()


def test_filtered_tails_are_as_rare_as_they_say_and_know_the_volatility():
    rng = np.random.default_rng(0)
    volatility = 0.01 * np.exp(np.sin(np.arange(1500) / 60))
    returns = (volatility * rng.standard_normal(1500))[None]
    filtered = filtered_historical_simulation(
        returns, horizon=1, window=500, levels=[0.05], first=500, setting=Filter(paths=1000)
    )
    plain = historical_simulation(returns, horizon=1, window=500, levels=[0.05])
    for found, least in ((filtered, 0.85), (plain, -1.0)):
        below = returns[0, 501:] < found.var[0, 0, 500:-1]
        assert below.mean() == pytest.approx(0.05, abs=0.02)
        assert np.corrcoef(-found.var[0, 0, 500:-1], volatility[501:])[0, 1] > least


def test_fewer_bars_have_the_same_filtered_tails():
    options = {"horizon": 2, "window": 60, "levels": LEVELS, "first": 300}
    each, some = (
        filtered_historical_simulation(RETURNS, **options, setting=Filter(paths=50, every=every))
        for every in (1, 7)
    )
    np.testing.assert_array_equal(some.es[..., 300::7], each.es[..., 300::7])
    assert np.isnan(np.delete(some.var, np.s_[300::7], axis=-1)).all()


def test_the_tail_of_student_is_the_mean_of_its_quantiles():
    """Of variance 1, and the normal distribution in the limit."""
    for degrees in (2.5, 5.0, np.inf):
        var, es = student_tail(np.array(degrees), 0.05)
        family = stats.norm() if np.isinf(degrees) else stats.t(degrees)
        unit = family.std()
        assert var == pytest.approx(family.ppf(0.05) / unit)
        assert es == pytest.approx(family.expect(ub=family.ppf(0.05)) / 0.05 / unit, rel=1e-4)


def test_tails_of_garch_are_those_of_its_volatility_and_degrees():
    options = {"horizon": 3, "refit": 20, "first": 320, "targets": [0]}
    found = garch_t_tails(RETURNS, window=260, levels=LEVELS, **options)
    volatility = np.exp(garch_t(RETURNS, ages=[260], **options)[0, 0, 320])
    known = RETURNS[0, :321][np.isfinite(RETURNS[0, :321])]
    fit = fit_garch_t(known[max(len(known) - 1 + 20 - 260, 0) :])
    assert fit is not None
    for place, level in enumerate(LEVELS):
        expected = np.sqrt(3) * volatility * np.array(student_tail(np.array(fit.degrees), level))
        got = found.var[place, 0, 320], found.es[place, 0, 320]
        assert got == pytest.approx(tuple(expected), rel=1e-6)
    assert np.isnan(found.var[:, 1:]).all() and np.isnan(found.var[:, 0, :320]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: historical_simulation(RETURNS, horizon=4, window=3), "window holds the 4 bars"),
        (lambda: historical_simulation(RETURNS, horizon=1, window=9, levels=[1]), "probabilities"),
        (
            lambda: filtered_historical_simulation(
                RETURNS, horizon=1, window=99, setting=Filter(kind="garch")
            ),
            "window of at least 250",
        ),
        (
            lambda: filtered_historical_simulation(
                RETURNS, horizon=1, window=99, setting=Filter(decay=0.0)
            ),
            "between 0 and 1",
        ),
        (
            lambda: filtered_historical_simulation(RETURNS, horizon=1, window=9),
            "and 20 of 9",
        ),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
