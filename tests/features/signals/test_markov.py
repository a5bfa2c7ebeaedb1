"""Markov-switching regimes: the truth is found again, and no probability knows what comes later."""

import json

import numpy as np
import pytest
from features.markets import BARS, MARKETS
from helpers import random_bars

from maml_jax.data.synthetic import Regime, regime_bars
from maml_jax.errors import DataError
from maml_jax.features import Feature, check_feature
from maml_jax.features.signals.markov import (
    MarkovParameters,
    filter_regimes,
    filter_states,
    fit_markov,
    markov_regimes,
)
from maml_jax.features.signals.regimes import log_returns

pytestmark = pytest.mark.long

CHAIN = MarkovParameters((0.001, -0.002), (0.008, 0.02), ((0.97, 0.03), (0.06, 0.94)), memory=60)
THREE = MarkovParameters(
    (0.001, 0.0, -0.002),
    (0.006, 0.012, 0.03),
    ((0.95, 0.04, 0.01), (0.05, 0.9, 0.05), (0.01, 0.09, 0.9)),
    memory=40,
)
STAYS = {"calm": Regime(0.001, 0.006, bars=60), "wild": Regime(-0.001, 0.02, bars=40)}


def slow_filter(chain, returns):
    """Hamilton's filter over all the returns given, one bar and one state at a time."""
    p = np.array(chain.transition)
    values, vectors = np.linalg.eig(p.T)
    belief = np.real(vectors[:, np.argmax(np.real(values))])
    belief = belief / belief.sum()
    for t, r in enumerate(returns):
        if t:
            belief = np.array(
                [sum(belief[i] * p[i, j] for i in range(len(p))) for j in range(len(p))]
            )
        if np.isfinite(r):
            density = [
                np.exp(-0.5 * ((r - m) / s) ** 2) / s
                for m, s in zip(chain.means, chain.deviations, strict=True)
            ]
            belief = belief * density
            belief = belief / belief.sum()
    return belief


@pytest.mark.parametrize("chain", [CHAIN, THREE])
def test_the_filter_is_hamilton_s(chain):
    bars = random_bars(2, 150)
    bars.iloc[100] = np.nan
    probabilities = filter_regimes(chain, bars)
    returns = log_returns(bars).to_numpy()
    memory = chain.memory
    assert probabilities.iloc[:memory].isna().all(axis=None) and chain.warm_up == memory
    assert probabilities.iloc[100].isna().all()
    for t in (*range(memory, 100), *range(101, 150)):
        expected = slow_filter(chain, returns[t - memory + 1 : t + 1])
        np.testing.assert_allclose(probabilities.iloc[t], expected, rtol=1e-9)


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("state", [0, 1])
def test_a_probability_knows_neither_later_bars_nor_where_the_series_begins(market, state):
    compute = Feature("state", lambda b: filter_regimes(CHAIN, b)[state], CHAIN.warm_up)
    check_feature(compute, BARS[market], tolerance=1e-12)


def test_labels_are_the_most_probable_states():
    bars = random_bars(2, 200)
    bars.iloc[100] = np.nan
    labels, probabilities = markov_regimes(THREE, bars), filter_regimes(THREE, bars)
    assert labels.dtype == np.int8
    known = probabilities.notna().all(axis=1)
    assert (labels[~known] == -1).all() and (~known).sum() == THREE.warm_up + 1
    assert (labels[known] == probabilities[known].idxmax(axis=1)).all()
    assert (markov_regimes(THREE, bars.iloc[:20]) == -1).all()


@pytest.fixture(scope="module")
def simulated():
    return regime_bars(3000, regimes=STAYS, seed=5)


@pytest.fixture(scope="module")
def fitted(simulated):
    return fit_markov(log_returns(simulated.bars["A0"]).iloc[:2000])


def test_a_chain_is_found_again(simulated, fitted):
    np.testing.assert_allclose(fitted.deviations, (0.006, 0.02), rtol=0.1)
    stays = 1 / (1 - np.diag(fitted.transition))
    np.testing.assert_allclose(stays, (60, 40), rtol=0.5)
    np.testing.assert_allclose(np.sum(fitted.transition, axis=1), 1, rtol=1e-12)
    labels = markov_regimes(fitted, simulated.bars["A0"]).iloc[2000:]
    assert (labels == simulated.truth["A0"].cat.codes.iloc[2000:]).mean() > 0.9


@pytest.mark.filterwarnings("ignore")
def test_the_filter_is_that_of_statsmodels(simulated, fitted):
    module = pytest.importorskip("statsmodels.tsa.regime_switching.markov_regression")
    returns = log_returns(simulated.bars["A0"]).iloc[:251]
    scaled = 100 * returns.iloc[1:].to_numpy()
    model = module.MarkovRegression(scaled, k_regimes=2, switching_variance=True)
    params = np.zeros(len(model.param_names))
    params[model.parameters["regime_transition"]] = np.array(fitted.transition)[:, 0]
    params[model.parameters["exog"]] = 100 * np.array(fitted.means)
    params[model.parameters["variance"]] = (100 * np.array(fitted.deviations)) ** 2
    theirs = model.filter(params).filtered_marginal_probabilities
    ours = filter_states(fitted, returns)
    np.testing.assert_allclose(ours.iloc[250], theirs[-1], rtol=1e-6)
    # What lies further back is forgotten.
    shorter = filter_states(fitted._replace(memory=150), returns)
    np.testing.assert_allclose(shorter.iloc[150:], theirs[149:], atol=1e-3)


def test_the_fit_depends_on_its_returns_alone(simulated, fitted):
    returns = log_returns(simulated.bars["A0"]).iloc[:2000]
    assert fit_markov(returns.to_numpy()) == fitted
    # In other units it is the same chain.
    other = fit_markov(100 * returns)
    np.testing.assert_allclose(np.array(other.deviations) / 100, fitted.deviations, rtol=1e-6)
    np.testing.assert_allclose(other.transition, fitted.transition, rtol=1e-5)


def test_parameters_are_plain_numbers(fitted):
    text = json.dumps(fitted.to_dict())
    assert MarkovParameters.from_dict(json.loads(text)) == fitted
    for wrong in (
        {**fitted.to_dict(), "means": [0.0]},
        {**fitted.to_dict(), "deviations": [0.0, 1.0]},
        {**fitted.to_dict(), "transition": [[0.5, 0.6], [0.5, 0.5]]},
        {"means": [0.0]},
    ):
        with pytest.raises(DataError, match="not the parameters of a Markov chain"):
            MarkovParameters.from_dict(wrong)


def test_what_cannot_be_fitted_is_refused():
    rng = np.random.default_rng(0)
    returns = 0.01 * rng.standard_normal(400)
    with pytest.raises(ValueError, match="states must be 2 or 3"):
        fit_markov(returns, states=4)
    with pytest.raises(ValueError, match="memory"):
        fit_markov(returns, memory=0)
    with pytest.raises(DataError, match="BTC: 3 states need at least 150 returns.* there are 100"):
        fit_markov(returns[:100], states=3, asset="BTC")
    for wrong in (np.zeros(400), np.r_[returns, np.inf]):
        with pytest.raises(DataError, match="constant or not finite"):
            fit_markov(wrong)
    with pytest.raises(DataError, match="no convergence in 1 iterations.*fewer states"):
        fit_markov(returns, max_iterations=1)
    ticks = np.where(rng.random(400) < 0.05, rng.choice([-0.1, 0.1], 400), 0.0)
    with pytest.raises(DataError, match="failed"):
        fit_markov(ticks)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_three_states_are_found_again():
    stays = STAYS | {"crash": Regime(-0.01, 0.06, bars=30)}
    market = regime_bars(5000, regimes=stays, seed=2)
    fitted = fit_markov(log_returns(market.bars["A0"]).iloc[:3500], states=3)
    np.testing.assert_allclose(fitted.deviations, (0.006, 0.02, 0.06), rtol=0.1)
    labels = markov_regimes(fitted, market.bars["A0"]).iloc[3500:]
    assert (labels == market.truth["A0"].cat.codes.iloc[3500:]).mean() > 0.85
