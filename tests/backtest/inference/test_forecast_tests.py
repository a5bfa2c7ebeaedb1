"""Measures of forecasts against plain computations; intervals and tests that err as told."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import integrate

from maml_jax.backtest.inference.forecast_tests import (
    diebold_mariano,
    qlike,
    qlike_loss,
    r_squared,
    r_squared_difference,
    shift_to_mean_variance,
)


def ragged(seed=0, assets=3, times=200):
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=(assets, 1))
    outcome = levels + rng.normal(size=(assets, times))
    forecast = 0.8 * outcome + 0.5 * rng.normal(size=(assets, times))
    outcome[0, :20] = np.nan
    forecast[1, 150:] = np.nan
    return forecast, outcome


@pytest.mark.parametrize("within", [False, True])
def test_r_squared_is_measured_from_one_mean_or_from_each_assets_own(within):
    forecast, outcome = ragged()
    pairs = [
        (a, outcome[a, t], forecast[a, t])
        for a in range(3)
        for t in range(200)
        if math.isfinite(outcome[a, t] + forecast[a, t])
    ]
    everything = sum(y for _, y, _ in pairs) / len(pairs)
    own = {a: np.mean([y for b, y, _ in pairs if b == a]) for a in range(3)}
    spread = sum((y - (own[a] if within else everything)) ** 2 for a, y, _ in pairs)
    expected = 1 - sum((y - f) ** 2 for _, y, f in pairs) / spread
    assert r_squared(forecast, outcome, within=within) == pytest.approx(expected)


def test_r_squared_of_known_forecasts():
    _, outcome = ragged()
    mean = np.full_like(outcome, np.nanmean(outcome))
    own = np.broadcast_to(np.nanmean(outcome, axis=1, keepdims=True), outcome.shape)
    assert r_squared(outcome, outcome) == 1
    assert r_squared(mean, outcome) == pytest.approx(0)
    assert r_squared(own, outcome, within=True) == pytest.approx(0)
    assert r_squared(own, outcome) > 0.1
    assert np.isnan(r_squared(outcome, np.ones_like(outcome)))


def test_seeds_are_averaged_over():
    forecast, outcome = ragged()
    other = forecast + 0.3
    expected = (r_squared(forecast, outcome) + r_squared(other, outcome)) / 2
    assert r_squared(np.stack([forecast, other]), outcome) == pytest.approx(expected)
    expected = (qlike(forecast, outcome) + qlike(other, outcome)) / 2
    assert qlike(np.stack([forecast, other]), outcome) == pytest.approx(expected)


def test_qlike_is_the_gaussian_likelihood_less_its_least():
    """Twice the Kullback-Leibler divergence of one centred Gaussian from the other."""
    for forecast, outcome in [(-4.0, -4.0), (-4.0, -3.5), (-3.5, -4.0), (-4.0, -5.5)]:
        h, s = math.exp(forecast), math.exp(outcome)

        def integrand(x, s=s, h=h):
            density = math.exp(-(x**2) / (2 * s**2)) / (s * math.sqrt(2 * math.pi))
            return density * (math.log(h / s) + x**2 / (2 * h**2) - x**2 / (2 * s**2))

        divergence, _ = integrate.quad(integrand, -20 * s, 20 * s, points=[0])
        assert qlike_loss(forecast, outcome) == pytest.approx(2 * divergence, abs=1e-7)
    assert qlike_loss(-4.0, -3.5) > qlike_loss(-3.5, -4.0)
    forecast, outcome = ragged()
    losses = qlike_loss(forecast, outcome)
    assert qlike(forecast, outcome) == pytest.approx(losses[np.isfinite(losses)].mean())


def test_the_mean_of_the_variance_has_the_least_qlike():
    rng = np.random.default_rng(1)
    variances = np.exp(rng.normal(size=(1, 4000)))
    best = 0.5 * np.log(variances.mean())
    grid = best + np.linspace(-0.2, 0.2, 41)
    losses = [qlike(np.full((1, 4000), f), 0.5 * np.log(variances)) for f in grid]
    assert int(np.argmin(losses)) == 20


def slow_diebold_mariano(d, horizon):
    n, mean = len(d), sum(d) / len(d)
    long_run = 0.0
    for i in range(n):
        for j in range(n):
            if abs(i - j) < horizon:
                long_run += (d[i] - mean) * (d[j] - mean) / n
    harvey = (n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n
    return mean / math.sqrt(long_run / n) * math.sqrt(harvey)


@pytest.mark.parametrize("horizon", [1, 5])
def test_diebold_mariano_is_what_its_formula_says(horizon):
    forecast, outcome = ragged(times=120)
    first, second = (forecast - outcome) ** 2, (forecast - 0.1 - outcome) ** 2
    d = [np.nanmean((first - second)[:, t]) for t in range(120)]
    found = diebold_mariano(first, second, horizon)
    assert found.statistic == pytest.approx(slow_diebold_mariano(d, horizon))
    assert found.times == 120
    back = diebold_mariano(second, first, horizon)
    assert back.statistic == pytest.approx(-found.statistic)
    assert back.p_value == pytest.approx(found.p_value)


def test_one_step_ahead_it_is_students_test():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(3)
    d = rng.normal(0.1, 1, (1, 50))
    found, expected = diebold_mariano(d, np.zeros((1, 50)), 1), ttest_1samp(d[0], 0)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)


def moving_average(rng, count, horizon):
    noise = rng.normal(size=count + horizon - 1)
    return np.convolve(noise, np.ones(horizon), mode="valid")[None]


def test_diebold_mariano_refuses_as_often_as_it_says_where_horizons_overlap():
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        d = moving_average(rng, 300, 5)
        refused += diebold_mariano(d, np.zeros_like(d), 5).p_value < 0.05
    naive = sum(
        abs(d.mean() / d.std() * 300**0.5) > 1.96
        for d in (moving_average(rng, 300, 5) for _ in range(400))
    )
    assert 0.025 < refused / 400 < 0.085
    assert naive / 400 > 0.3


def test_diebold_mariano_refuses_what_it_cannot_test():
    losses = np.ones((1, 5))
    with pytest.raises(ValueError, match="at least 1 bar"):
        diebold_mariano(losses, losses, 0)
    with pytest.raises(ValueError, match="needs more than 5 times, and there are 5"):
        diebold_mariano(losses, losses, 5)
    assert np.isnan(diebold_mariano(losses, losses, 2).p_value)


def test_the_difference_is_that_of_r_squared_where_all_is_known():
    forecast, outcome = ragged()
    other = np.where(np.arange(200) < 190, forecast - 0.4, np.nan)
    found = r_squared_difference(forecast, other, outcome, draws=200)
    both = np.where(np.isfinite(other), forecast, np.nan)
    expected = r_squared(both, outcome) - r_squared(other, outcome)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    seeds = np.stack([forecast, forecast])
    again = r_squared_difference(seeds, other, outcome, draws=200)
    assert again == pytest.approx(found)


def test_its_interval_covers_as_often_as_it_says():
    """Of independent times the interval is that of the known spread of the difference."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        signal, noise = rng.normal(size=(2, 2, 300))
        outcome = signal + noise
        found = r_squared_difference(signal, 0.5 * signal, outcome, block=2, draws=200, seed=trial)
        # Expected gain 0.25 of a variance of 2.
        covered += found.low <= 0.125 <= found.high
    assert covered >= 50


def test_assets_that_move_together_are_no_more_evidence_than_one():
    rng = np.random.default_rng(5)
    signal, noise = rng.normal(size=(2, 1, 400))
    one = r_squared_difference(signal, 0.7 * signal, signal + noise)
    copies = [np.repeat(each, 20, axis=0) for each in (signal, 0.7 * signal, signal + noise)]
    twenty = r_squared_difference(copies[0], copies[1], copies[2])
    assert twenty == pytest.approx(one)


def test_nothing_known_of_all_three_is_refused():
    with pytest.raises(ValueError, match="no bar with both forecasts"):
        r_squared_difference(*np.full((3, 1, 5), np.nan))


def test_forecasts_of_variance_are_shifted_by_what_is_known():
    rng = np.random.default_rng(0)
    index = pd.date_range("2020-01-01", periods=60, freq="D", tz="UTC")
    forecast = pd.DataFrame(rng.normal(-4, 0.3, (60, 2)), index, ["A", "B"])
    outcome = forecast + rng.normal(0, 0.5, (60, 2))
    outcome.iloc[10:20, 0] = np.nan
    forecast.iloc[3, 1] = np.inf  # diverged: no error of it counts
    # The labels of B take twice as long; the last ones are never known.
    known = pd.DataFrame({"A": np.arange(60) + 5, "B": 2 * np.arange(60) + 8}, index)
    shifted = shift_to_mean_variance(forecast, outcome, known)
    assert shifted.iloc[:5].isna().all(axis=None)
    errors = (outcome - forecast).replace([np.inf, -np.inf], np.nan)
    for place in (5, 23, 59):
        seen = errors[known <= place].to_numpy()
        constant = 0.5 * np.log(np.nanmean(np.exp(2 * seen)))
        np.testing.assert_allclose(shifted.iloc[place], forecast.iloc[place] + constant)
    later = outcome.copy()
    later.iloc[40:] += 3
    pd.testing.assert_frame_equal(
        shift_to_mean_variance(forecast, later, known).iloc[:45], shifted.iloc[:45]
    )
    # Of many rows it is the constant with the least loss.
    truth = pd.DataFrame(np.zeros((4000, 1)))
    noisy = truth + rng.normal(0, 0.5, (4000, 1))
    next_bar = pd.DataFrame(np.arange(4000)[:, None] + 1)
    best = shift_to_mean_variance(truth, noisy, next_bar).iloc[-1, 0]
    losses = [qlike_loss(np.full(4000, c), noisy.to_numpy()[:, 0]).mean() for c in (best, 0.0, 0.4)]
    assert losses[0] == min(losses)
