"""Every method that settings can name: what it makes, and the whole way from bars to a result."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from market import MARKET, SMALL

from maml_jax import Batch, MetaParams, Prediction, Task
from maml_jax.errors import ConfigError
from maml_jax.experiment import load, run
from maml_jax.experiment.config.learning import LearnerConfig, MethodName, ModelConfig
from maml_jax.experiment.learning.methods import METHODS, learner_of

pytestmark = pytest.mark.long

MODEL = ModelConfig(hidden=(8,))
BASELINES = ["ridge regression", "momentum", "random positions", "buy and hold"]


def test_settings_know_the_methods_that_there_are():
    assert list(get_args(MethodName)) == list(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["mlp", pytest.param("gru", marks=pytest.mark.long)])
def test_every_method_makes_a_learner_of_returns(name, kind):
    learner = learner_of(ModelConfig(hidden=(8,), kind=kind), LearnerConfig(), name)
    bars = () if kind == "mlp" else (4,)
    batch = Batch(jnp.ones((6, *bars, 3)), jnp.ones((6, 1)))

    def whole(key):
        params = learner.init(key, batch.x)
        loss = learner.loss(params, Task(batch, batch), 0)[0]
        y_hat = learner.predict(learner.adapt(params, batch), batch.x)
        return loss, y_hat.mean if isinstance(y_hat, Prediction) else y_hat

    loss, y_hat = jax.eval_shape(whole, jax.random.key(0))
    assert (loss.shape, y_hat.shape) == ((), (6, 1))


@pytest.mark.slow
@pytest.mark.long
def test_settings_of_the_inner_loop_reach_it():
    batch = Batch(jnp.linspace(-1.0, 1.0, 12).reshape(6, 2), jnp.linspace(0.0, 1.0, 6)[:, None])

    def moved(name, **settings):
        learner = learner_of(MODEL, LearnerConfig(**settings), name)
        params = learner.init(jax.random.key(0), batch.x)
        start = learner.predict(learner.adapt(params, batch, steps=0), batch.x)
        return float(jnp.abs(learner.predict(learner.adapt(params, batch), batch.x) - start).max())

    for name in ("maml", "reptile", "meta_sgd"):
        near, far = (moved(name, inner_learning_rate=rate) for rate in (0.001, 0.01))
        assert 5 * near < far
    assert moved("maml", inner_steps=1) < moved("maml", inner_steps=5)
    learned = learner_of(MODEL, LearnerConfig(inner_optimizer="learned"), "maml")
    params = learned.init(jax.random.key(0), batch.x)
    assert isinstance(params, MetaParams)
    rates = [float(jnp.exp(leaf)) for leaf in jax.tree.leaves(params.settings)]
    np.testing.assert_allclose(rates, 0.005, rtol=1e-5)
    adam, sgd = (moved("maml", inner_optimizer=kind) for kind in ("adam", "sgd"))
    assert adam != sgd


@pytest.mark.slow
@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("window", ["rolling", "growing"])
def test_a_bayesian_head_from_settings_to_adapted_predictions(window, tmp_path):
    settings = {**SMALL, "learner": {"methods": ["alpaca"], "features": 4}}
    result = run(settings, bars=MARKET, out=tmp_path / "run", backtest={"window": window})
    assert list(result.stats) == ["alpaca", "no adaptation", "from scratch", *BASELINES]
    own = result.predictions.query("strategy == 'alpaca' and asset == 'A3'")
    assert (own["std"] > 0).all()
    # What is known of a head without rows is the same at every bar; with rows it is not.
    prior = result.predictions.query("strategy == 'no adaptation' and asset == 'A3'")
    assert list(prior["timestamp"]) == list(own["timestamp"])
    assert (prior["std"].to_numpy() > own["std"].to_numpy()).all()

    adapted = load(tmp_path / "run").adapt(MARKET["A3"])
    predicted = adapted.predict(MARKET["A3"]).iloc[-1]
    last = own.iloc[-1]
    assert predicted["mean"] == pytest.approx(last["prediction"], abs=1e-5)
    assert predicted["std"] == pytest.approx(last["std"], rel=1e-4)


@pytest.mark.slow
def test_methods_without_steps_stand_beside_those_that_take_them():
    methods = ["ridge", "prototypical_networks", "anil"]
    result = run(
        {**SMALL, "learner": {"methods": methods, "features": 4}},
        bars=MARKET,
        backtest={"inner_steps": 1},
    )
    assert list(result.stats) == [*methods, "from scratch", *BASELINES]
    sides = result.predictions.query("strategy == 'prototypical_networks'")["prediction"]
    assert sides.abs().max() <= 1
    assert list(result.history["method"].unique()) == methods


def test_an_unknown_method_is_told_which_there_are():
    with pytest.raises(ConfigError, match=r"'learner\.methods.*'maml'.*'alpaca'"):
        run(learner={"methods": ["mamal"]})
