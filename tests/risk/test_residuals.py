"""Quantiles of what forecasts leave over: coverage under a known truth, and its correction."""

import numpy as np
import pytest

from maml_jax.risk.residuals import (
    at_level,
    conformal_levels,
    measure_residuals,
    table_levels,
)


@pytest.fixture(scope="module")
def measured():
    rng = np.random.default_rng(0)
    count = 200_000
    age = rng.integers(1, 400, count)
    mean = rng.normal(-4, 0.5, count)
    z = rng.standard_t(5, count) * np.sqrt(3 / 5)
    total = z * np.exp(mean)
    return measure_residuals(age, mean, np.ones(count), np.log(np.abs(total)), total, 1)


def test_quantiles_and_shortfalls_are_those_of_the_truth(measured):
    from scipy import stats

    scale = np.sqrt(3 / 5)
    for level in (0.01, 0.05, 0.95, 0.99):
        expected = scale * stats.t.ppf(level, 5)
        found = at_level(measured.z, np.array([300]), np.array([level]))
        np.testing.assert_allclose(found, expected, rtol=0.06)
    beyond = -scale * stats.t.expect(lambda x: -x, (5,), ub=stats.t.ppf(0.05, 5), conditional=True)
    found = at_level(measured.tail, np.array([300]), np.array([0.05]))
    np.testing.assert_allclose(found, beyond, rtol=0.06)


def test_tables_are_monotonous_and_reach_both_tails():
    levels = table_levels()
    assert (np.diff(levels) > 0).all()
    np.testing.assert_allclose(levels + levels[::-1], 1)


@pytest.mark.parametrize("level", [0.05, 0.95])
def test_an_asset_that_is_wilder_than_it_looked_is_covered_in_the_end(measured, level):
    rng = np.random.default_rng(1)
    z = 1.5 * rng.standard_t(5, (20, 3000)) * np.sqrt(3 / 5)
    age = np.broadcast_to(np.arange(1, 3001), z.shape)
    sign = 1 if level < 0.5 else -1

    def coverage(rate):
        used = conformal_levels(z, measured, age, level=level, horizon=1, rate=rate)
        bound = at_level(measured.z, age, used)
        return float((sign * z < sign * bound)[:, 500:].mean())

    assert coverage(0.0) > 0.1
    assert abs(coverage(0.05) - 0.05) < 0.01


def test_an_exceedance_is_known_when_its_horizon_is_over(measured):
    z = np.full((1, 40), 0.0)
    z[0, 10] = -50.0
    age = np.broadcast_to(np.arange(1, 41), z.shape)
    used = conformal_levels(z, measured, age, level=0.05, horizon=7, rate=0.1)[0]
    assert (np.diff(used[:17]) >= 0).all() and used[17] < used[16]
