"""Realised utility: what its own investor would choose."""

import numpy as np
import pytest

from maml_jax.backtest.inference import realised_utility


def test_it_is_the_mean_variance_utility_of_the_position():
    rng = np.random.default_rng(0)
    forecast, outcome = np.log(rng.uniform(0.1, 0.5, (2, 7, 30)))
    for sharpe_ratio, risk_aversion in ((0.4, 2.0), (1.0, 5.0)):
        weight = sharpe_ratio / (risk_aversion * np.exp(forecast))
        sigma = np.exp(outcome)
        expected = weight * sharpe_ratio * sigma - risk_aversion / 2 * (weight * sigma) ** 2
        found = realised_utility(
            forecast, outcome, sharpe_ratio=sharpe_ratio, risk_aversion=risk_aversion
        )
        np.testing.assert_allclose(found, 100 * expected)
        assert found.max() <= 100 * sharpe_ratio**2 / (2 * risk_aversion)


def test_the_best_constant_is_the_mean_square_over_the_mean():
    outcome = np.random.default_rng(1).normal(-4, 0.5, 5000)
    sigma = np.exp(outcome)
    best = np.log(np.mean(sigma**2) / np.mean(sigma))
    shifts = np.linspace(-0.3, 0.3, 61)
    utility = [realised_utility(np.full(5000, best + s), outcome).mean() for s in shifts]
    assert shifts[np.argmax(utility)] == pytest.approx(0.0, abs=1e-9)


def test_what_diverges_loses_everything_and_what_is_missing_stays_missing():
    found = realised_utility(np.array([-800.0, np.nan, np.log(0.5)]), np.log([1.0, 1.0, 1.0]))
    assert found[0] == -np.inf and np.isnan(found[1])
    assert found[2] == pytest.approx(0.0)
    with pytest.raises(ValueError, match="above 0"):
        realised_utility(found, found, risk_aversion=0.0)
