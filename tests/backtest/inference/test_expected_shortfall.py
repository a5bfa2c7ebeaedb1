"""Tests of expected shortfall that err as told; losses that are least for the truth."""

import numpy as np
import pytest
from scipy import integrate, optimize, stats
from sklearn.metrics import mean_pinball_loss

from maml_jax.backtest.inference.expected_shortfall import (
    acerbi_szekely,
    fz0_loss,
    pinball_loss,
)


def tail_mean(distribution, level):
    """Mean of the tail below the quantile, or above it from one half on."""
    edge = distribution.ppf(level)
    low, high, rate = (-np.inf, edge, level) if level < 0.5 else (edge, np.inf, 1 - level)
    return integrate.quad(lambda x: x * distribution.pdf(x), low, high)[0] / rate


def forecasts(count, distribution, level=0.05, seed=0):
    """Return outcomes of known volatility and mean, the true VaR and ES, and the scale."""
    rng = np.random.default_rng(seed)
    scale, mean = np.exp(0.4 * rng.normal(size=count)), 0.1 * rng.normal(size=count)
    y = mean + scale * distribution.ppf(rng.random(count))
    var = mean + scale * distribution.ppf(level)
    return y, var, mean + scale * tail_mean(distribution, level), mean, scale


def test_statistics_are_what_their_formulas_say():
    y, var, es, mean, scale = forecasts(300, stats.t(5))
    null = mean + scale * stats.t(5).ppf(np.random.default_rng(1).random((99, 300)))
    found = acerbi_szekely(y, var, es, 0.05, null)
    # As the paper writes them: ES is a positive loss, X a return.
    losses = [x / -e for x, v, e in zip(y, var, es, strict=True) if x < v]
    assert found.z1.statistic == pytest.approx(sum(losses) / len(losses) + 1)
    assert found.z2.statistic == pytest.approx(sum(losses) / (300 * 0.05) + 1)
    assert (found.exceedances, found.count) == (len(losses), 300)
    z2 = 1 + np.where(null < var, null / -es, 0).sum(axis=1) / (300 * 0.05)
    assert found.z2.critical_value == pytest.approx(np.quantile(z2, 0.05))
    assert found.z2.p_value == pytest.approx((1 + np.sum(z2 <= found.z2.statistic)) / 100)


@pytest.mark.parametrize(("distribution", "expected"), [(stats.norm(), -0.70), (stats.t(3), -0.82)])
def test_critical_values_are_those_of_the_paper(distribution, expected):
    """Of Z2 for 250 days at 2.5 %: Acerbi and Szekely (2014), table 4."""
    edge, mean = distribution.ppf(0.025), tail_mean(distribution, 0.025)
    var, es = np.full(250, edge), np.full(250, mean)
    found = acerbi_szekely(var, var, es, 0.025, distribution.ppf, draws=9999)
    assert found.z2.critical_value == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("level", [0.05, 0.95])
def test_a_quantile_function_stands_for_draws_of_any_location_and_scale(level):
    skewed = stats.gamma(3, loc=-3)
    y, var, es, mean, scale = forecasts(250, skewed, level)
    null = mean + scale * (np.random.default_rng(1).gamma(3, size=(5000, 250)) - 3)
    drawn = acerbi_szekely(y, var, es, level, null)
    named = acerbi_szekely(y, var, es, level, skewed.ppf, draws=5000)
    assert named.z1.statistic == drawn.z1.statistic
    assert named.z1.critical_value == pytest.approx(drawn.z1.critical_value, abs=0.01)
    assert named.z2.critical_value == pytest.approx(drawn.z2.critical_value, abs=0.02)
    other = acerbi_szekely(y, var, es, level, lambda u: 3 + 7 * skewed.ppf(u), draws=5000)
    assert np.concatenate(other[:2]) == pytest.approx(np.concatenate(named[:2]))


def test_the_upper_tail_is_the_lower_one_mirrored_and_absent_times_count_for_nothing():
    y, var, es, _, _ = forecasts(300, stats.t(5))
    expected = acerbi_szekely(y, var, es, 0.05, stats.t(5).ppf)
    mirrored = acerbi_szekely(-y, -var, -es, 0.95, stats.t(5).ppf)
    assert np.concatenate(mirrored[:2]) == pytest.approx(np.concatenate(expected[:2]))
    holes = np.sort(np.random.default_rng(1).integers(0, 300, 40))
    absent, forecast, deeper = (
        np.insert(values, holes, filled)
        for values, filled in ((y, np.nan), (var, -1.0), (es, -2.0))
    )
    assert acerbi_szekely(absent, forecast, deeper, 0.05, stats.t(5).ppf) == expected
    null = np.random.default_rng(2).normal(size=(99, 300))
    drawn = acerbi_szekely(y, var, es, 0.05, null)
    null = np.insert(null, holes, np.nan, axis=1)
    assert acerbi_szekely(absent, forecast, deeper, 0.05, null) == drawn


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("level", [0.025, 0.95])
def test_right_forecasts_are_rejected_as_often_as_said(level):
    rng = np.random.default_rng(0)
    edge, beyond = stats.norm.ppf(level), tail_mean(stats.norm, level)
    found = []
    for seed in range(4000):
        scale, mean = np.exp(0.4 * rng.normal(size=250)), 0.1 * rng.normal(size=250)
        outcomes = mean + scale * rng.normal(size=(20, 250))
        var, es = mean + scale * edge, mean + scale * beyond
        found.append(acerbi_szekely(outcomes[0], var, es, level, outcomes[1:], seed=seed))
    assert 0.04 < np.mean([each.z1.p_value <= 0.05 for each in found]) < 0.06
    assert 0.04 < np.mean([each.z2.p_value <= 0.05 for each in found]) < 0.06


def test_mild_forecasts_are_rejected_and_severe_ones_stand():
    y, var, es, _, _ = forecasts(1000, stats.t(4), 0.025)
    thin_tailed = stats.norm.pdf(stats.norm.ppf(0.025)) / 0.025 / -stats.norm.ppf(0.025)
    mild = acerbi_szekely(y, var, thin_tailed * var, 0.025, stats.norm.ppf)
    assert mild.z1.p_value < 0.01 and mild.z1.statistic < mild.z1.critical_value < 0
    severe = acerbi_szekely(y, 1.3 * var, 1.3 * es, 0.025, stats.t(4).ppf)
    assert severe.z2.p_value > 0.9 and severe.z2.statistic > 0


def test_z1_without_exceedances_is_unknown():
    found = acerbi_szekely(np.zeros(20), np.full(20, -1.0), np.full(20, -2.0), 0.05, stats.norm.ppf)
    assert np.isnan(found.z1).all()
    assert found.z2.statistic == 1 and found.z2.p_value > 0.3


def test_pinball_loss_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, var = rng.normal(size=(2, 500))
    for level in (0.05, 0.5, 0.9):
        assert pinball_loss(y, var, level).mean() == pytest.approx(
            mean_pinball_loss(y, var, alpha=level)
        )
    assert np.isnan(pinball_loss(np.array([np.nan, 0.0]), np.array([0.0, np.nan]), 0.05)).all()


def test_fz0_loss_is_as_the_paper_writes_it():
    rng = np.random.default_rng(0)
    y, v, e = rng.normal(size=200), rng.normal(-1, 0.3, 200), -np.exp(rng.normal(size=200))
    hit = (y <= v).astype(float)
    expected = -hit * (v - y) / (0.05 * e) + v / e + np.log(-e) - 1
    np.testing.assert_allclose(fz0_loss(y, v, e, 0.05), expected)
    np.testing.assert_allclose(fz0_loss(-y, -v, -e, 0.95), expected)
    # Of degree 0: another unit shifts all losses alike.
    np.testing.assert_allclose(fz0_loss(9 * y, 9 * v, 9 * e, 0.05), expected + np.log(9))
    v[0] = np.nan
    assert np.isnan(fz0_loss(y, v, e, 0.05)[0])


@pytest.mark.parametrize("level", [0.01, 0.05, 0.975])
def test_fz0_is_least_for_the_true_pair(level):
    """Of outcomes at the midpoints of 100,000 equal parts of the distribution."""
    distribution = stats.t(5, loc=0.1)
    y = distribution.ppf((np.arange(100_000) + 0.5) / 100_000)
    y = y[y < 0] if level < 0.5 else y[y > 0]
    inside = 100_000 - len(y)
    sign = -1 if level < 0.5 else 1

    def loss(pair):
        v, e = pair
        if sign * e <= 0 or sign * v <= 0:
            return np.inf
        tail = fz0_loss(y, np.full(len(y), v), np.full(len(y), e), level).sum()
        return (tail + inside * float(fz0_loss(0.0, v, e, level))) / 100_000

    found = optimize.minimize(loss, (sign * 1.0, sign * 1.5), method="Nelder-Mead")
    expected = distribution.ppf(level), tail_mean(distribution, level)
    assert found.x == pytest.approx(expected, rel=3e-3)
    for step in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1), (0.1, 0.1)):
        assert loss(expected) < loss(np.add(expected, step))


def test_what_cannot_be_judged_is_refused():
    y, var, es, _, _ = forecasts(30, stats.t(5))
    null = stats.norm.ppf
    with pytest.raises(ValueError, match=r"es has \(29,\)"):
        acerbi_szekely(y, var, es[1:], 0.05, null)
    with pytest.raises(ValueError, match="of the lower tail is negative.* 30 of 30 are not"):
        acerbi_szekely(y, var, -es, 0.05, null)
    with pytest.raises(ValueError, match="of the upper tail is positive.* 30 of 30 are not"):
        fz0_loss(y, var, es, 0.95)
    with pytest.raises(ValueError, match="beyond its value at risk, and 30 of 30 do not"):
        acerbi_szekely(y, var, 0.5 * es, 0.05, null)
    with pytest.raises(ValueError, match=r"\[draw, 30\], one a time, not \(99, 31\)"):
        acerbi_szekely(y, var, es, 0.05, np.zeros((99, 31)))
    with pytest.raises(ValueError, match="must be finite"):
        acerbi_szekely(y, var, es, 0.05, np.full((99, 30), np.nan))
    with pytest.raises(ValueError, match="at least 19 draws, not 3"):
        acerbi_szekely(y, var, es, 0.05, np.zeros((3, 30)))
    with pytest.raises(ValueError, match="at least 19 draws, not 3"):
        acerbi_szekely(y, var, es, 0.05, null, draws=3)
    with pytest.raises(ValueError, match="must rise in the tail"):
        acerbi_szekely(y, var, es, 0.05, lambda u: -null(u))
    with pytest.raises(ValueError, match="not 0"):
        pinball_loss(y, var, 0)
