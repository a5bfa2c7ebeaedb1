import sys

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from maml_jax.backtest import measure_calibration
from maml_jax.errors import DataError

measures = sys.modules[measure_calibration.__module__]


def draw(rows=20_000, seed=0, inflated=1.0):
    """Outcomes of the distributions that are predicted, whose deviations are then inflated."""
    rng = np.random.default_rng(seed)
    mean, std = rng.standard_normal(rows), rng.uniform(0.5, 3.0, rows)
    return mean, std * inflated, mean + std * rng.standard_normal(rows)


@pytest.mark.parametrize("y", [-4.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("std", [0.2, 1.0, 7.0])
def test_crps_is_its_integral(y, std):
    def gap(u):
        return (norm.cdf(u, 1.0, std) - (u >= y)) ** 2

    edges = sorted([y, 1 - 12 * std, 1.0, 1 + 12 * std, y - 1, y + 1])
    area = sum(quad(gap, a, b, epsabs=1e-12)[0] for a, b in zip(edges, edges[1:], strict=False))
    found = measures.crps(np.array([1.0]), np.array([std]), np.array([y]))
    assert found == pytest.approx(area, abs=1e-8)


def test_crps_of_a_point_is_the_absolute_error():
    mean, _, y = draw(50)
    found = measures.crps(mean, np.full(50, 1e-9), y)
    assert found == pytest.approx(np.abs(y - mean).mean(), rel=1e-6)


def test_likelihood_is_that_of_scipy():
    mean, std, y = draw(50)
    found = measures.negative_log_likelihood(mean, std, y)
    assert found == pytest.approx(-norm.logpdf(y, loc=mean, scale=std).mean())


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("inflated", [0.5, 1.0, 2.0])
def test_coverage_is_the_probability_of_the_interval(level, inflated):
    """An interval of deviations inflated by k covers what one of k times as many does."""
    reach = inflated * norm.ppf((1 + level) / 2)
    expected = norm.cdf(reach) - norm.cdf(-reach)
    assert measures.coverage(*draw(inflated=inflated), level) == pytest.approx(expected, abs=0.015)


def test_calibration_error_is_the_mean_gap():
    rows = draw(500, inflated=1.7)
    levels = (0.2, 0.5, 0.8)
    gaps = [abs(measures.coverage(*rows, level) - level) for level in levels]
    assert measures.calibration_error(*rows, levels) == pytest.approx(np.mean(gaps))


@pytest.mark.parametrize("name", ["NLL", "CRPS", "Calibration Error [%]"])
def test_the_truth_is_judged_best(name):
    told = {
        inflated: measure_calibration(*draw(inflated=inflated))[name]
        for inflated in (0.6, 1.0, 1.7)
    }
    assert told[1.0] < min(told[0.6], told[1.7])


def test_what_is_told_of_true_distributions():
    told = measure_calibration(*draw())
    assert told["Coverage 50 % [%]"] == pytest.approx(50, abs=1)
    assert told["Coverage 90 % [%]"] == pytest.approx(90, abs=1)
    assert told["Calibration Error [%]"] < 1


def table(values, columns=("A", "B")):
    index = pd.date_range("2024-01-01", periods=len(values), freq="D", tz="UTC")
    return pd.DataFrame(values, index=index, columns=list(columns))


def test_rows_without_a_prediction_or_an_outcome_do_not_count():
    mean, std, y = (table(each.reshape(-1, 2)) for each in draw(40))
    whole = measure_calibration(mean.iloc[5:], std.iloc[5:], y.iloc[5:])
    mean.iloc[:2], std.iloc[1:3], y.iloc[3:5] = np.nan, np.nan, np.nan
    mean.iloc[0], std.iloc[0] = 1.0, np.nan
    pd.testing.assert_series_equal(measure_calibration(mean, std, y), whole)


def test_nothing_known_is_told_as_nothing():
    empty = table(np.full((3, 2), np.nan))
    assert measure_calibration(empty, empty, empty).isna().all()


def test_tables_that_do_not_fit_are_refused():
    mean, std, y = (table(each.reshape(-1, 2)) for each in draw(20))
    with pytest.raises(DataError, match="outcomes have shape"):
        measure_calibration(mean, std, y.iloc[1:])
    with pytest.raises(DataError, match="deviations have different timestamps or assets"):
        measure_calibration(mean, std[["B", "A"]], y)
    with pytest.raises(DataError, match="must be positive, one is 0"):
        measure_calibration(mean, std * 0, y)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 90])
def test_levels_that_make_no_sense_are_refused(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        measures.coverage(*draw(5), level)
    with pytest.raises(ValueError, match="between 0 and 1"):
        measures.calibration_error(*draw(5), [])
