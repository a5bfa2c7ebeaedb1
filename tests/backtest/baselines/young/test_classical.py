"""Models of an asset's own variance: what their equations and a library say."""

import math

import numpy as np
import pandas as pd
import pytest
from arch import arch_model
from young_world import young_returns

from maml_jax.backtest.baselines.volatility import ewma_volatility
from maml_jax.backtest.baselines.young import ewma_at_age, garch_t

RETURNS = young_returns()


def garch_t_returns(count, *, alpha=0.1, beta=0.85, seed=0):
    """Returns of GARCH(1,1) with Student's t, and the volatility of each."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_t(5, count) / math.sqrt(5 / 3)
    variance, returns, volatility = 1e-4, np.empty(count), np.empty(count)
    for t in range(count):
        volatility[t] = math.sqrt(variance)
        returns[t] = volatility[t] * noise[t]
        variance = 1e-4 * (1 - alpha - beta) + alpha * returns[t] ** 2 + beta * variance
    return returns, volatility


@pytest.mark.parametrize("with_prior", [False, True])
def test_the_exponential_average_begins_at_the_listing(with_prior):
    prior = np.random.default_rng(0).normal(-4, 1, RETURNS.shape) if with_prior else None
    ages = [0, 1, 6, 50]
    found = ewma_at_age(RETURNS, ages=ages, decay=0.9, prior=prior)
    for asset, t in ((0, 100), (1, 111), (2, 209), (3, 301)):
        own = np.flatnonzero(np.isfinite(RETURNS[asset, : t + 1]))
        for place, age in enumerate(ages):
            seen = RETURNS[asset, own[len(own) - age :]]
            if prior is None and not age:
                assert np.isnan(found[place, asset, t])
                continue
            variance = seen[0] ** 2 if prior is None else math.exp(2 * prior[asset, own[-1 - age]])
            for r in seen:
                variance = 0.9 * variance + 0.1 * r**2
            assert found[place, asset, t] == pytest.approx(0.5 * math.log(variance))
    assert np.isnan(found[3, 1, :109]).all()  # listed at bar 60


def test_of_its_whole_history_it_is_the_usual_one():
    close = pd.DataFrame({"close": np.exp(np.cumsum(np.r_[0.0, RETURNS[0]]))})
    found = ewma_at_age(RETURNS, ages=[420])
    assert found[0, 0, -1] == pytest.approx(ewma_volatility(close).iloc[-1])


def test_garch_forecasts_as_arch_does_from_the_returns_of_its_age():
    r, _ = garch_t_returns(340)
    found = garch_t(r[None], horizon=4, ages=[100, 260], refit=10, first=300)
    assert np.isnan(found[0]).all() and np.isnan(found[1, :, :300]).all()
    for t in (300, 320):
        model = arch_model(100 * r[t + 10 - 260 : t + 1], mean="Zero", dist="t", rescale=False)
        fitted = model.fit(disp="off")
        expected = fitted.forecast(horizon=4).variance.iloc[-1].mean() / 100**2
        assert found[1, 0, t] == pytest.approx(0.5 * math.log(expected), rel=1e-6)
    omega, alpha, beta, _ = fitted.params
    variance = fitted.conditional_volatility[-1] ** 2
    for t in (320, 321, 322):
        variance = omega + alpha * (100 * r[t]) ** 2 + beta * variance
    ahead = [variance]
    for _ in range(3):
        ahead.append(omega + (alpha + beta) * ahead[-1])
    expected = 0.5 * math.log(np.mean(ahead) / 100**2)
    assert found[1, 0, 322] == pytest.approx(expected, rel=1e-6)


def test_garch_finds_the_volatility_of_its_own_world():
    r, volatility = garch_t_returns(2600, seed=3)
    found = garch_t(r[None], horizon=1, ages=[1500], refit=100, first=1600)[0, 0, 1600:-1]
    truth = np.log(volatility[1601:])
    assert abs((found - truth).mean()) < 0.08
    assert (found - truth).std() < 0.4 * truth.std()


def test_a_price_that_rests_has_no_garch():
    assert np.isnan(garch_t(np.zeros((1, 300)), horizon=1, ages=[250])).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ewma_at_age(RETURNS, ages=[1], decay=1.0), "between 0 and 1"),
        (lambda: ewma_at_age(RETURNS, ages=[1], prior=np.zeros((2, 2))), "prior is"),
        (lambda: garch_t(RETURNS, horizon=1, ages=[250], refit=0), "every 1 to"),
        (lambda: garch_t(RETURNS, horizon=0, ages=[250]), "at least 1 bar"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
