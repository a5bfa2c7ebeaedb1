"""Heavy checks against what is known: a market whose best answer can be computed, and real
stocks."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maml_jax import Batch, Task, fit, maml
from maml_jax.experiment import load_config
from maml_jax.experiment.evaluate import predict_all
from maml_jax.experiment.learn import make_learner, meta_train
from maml_jax.experiment.prepare import load_bars, prepare
from maml_jax.models import mlp

STOCKS = Path(__file__).parents[2] / "shared/data/stocks/us20_adjclose_daily_1990_2022.csv.gz"
DIRECTIONS = jax.random.normal(jax.random.key(123), (10, 3)) / 10**0.5


def market_with_a_known_answer(snr, tasks=64, support=20, query=20):
    """f = 1.5 / sqrt(3) * sum_k z_k tanh(x . b_k); z differs by task, the directions b do not."""

    def sample(key):
        x_key, z_key, noise_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (tasks, support + query, 10))
        z = jax.random.normal(z_key, (tasks, 3, 1))
        f = 1.5 / 3**0.5 * jnp.tanh(x @ DIRECTIONS) @ z
        y = f + jax.random.normal(noise_key, f.shape) / snr**0.5
        return Task(Batch(x[:, :support], y[:, :support]), Batch(x[:, support:], y[:, support:])), f

    return sample


def mean_correlation(a, b):
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    return float(jnp.mean((a * b).sum(1) / jnp.sqrt((a**2).sum(1) * (b**2).sum(1))))


@pytest.mark.slow
def test_maml_comes_close_to_the_best_possible_at_the_noise_of_markets():
    """Within a tenth of the oracle, which knows the directions, at a signal-to-noise of 0.1."""
    snr = 0.1
    train = market_with_a_known_answer(snr)
    learner = maml(mlp((64, 64, 1)))  # the defaults
    state, _ = fit(
        learner, optax.adam(1e-3), lambda key: train(key)[0], jax.random.key(0), steps=4000
    )
    tasks, f = market_with_a_known_answer(snr, tasks=1000, query=200)(jax.random.key(99))
    truth = f[:, 20:, 0]

    def predict(task):
        return learner.predict(learner.adapt(state.params, task.support), task.query.x)

    ours = mean_correlation(jax.vmap(predict)(tasks)[..., 0], truth)

    def oracle(task):
        phi, ask = (1.5 / 3**0.5 * jnp.tanh(b.x @ DIRECTIONS) for b in task)
        return ask @ jnp.linalg.solve(phi.T @ phi + jnp.eye(3) / snr, phi.T @ task.support.y)

    best = mean_correlation(jax.vmap(oracle)(tasks)[..., 0], truth)
    print(f"IC {ours:.3f}, the best possible {best:.3f}, share {ours / best:.3f}")
    assert ours > 0.9 * best


@pytest.mark.slow
@pytest.mark.skipif(not STOCKS.exists(), reason=f"needs {STOCKS.name}, which is not distributed")
def test_walk_forward_on_twenty_stocks_equals_a_naive_loop():
    config = load_config(
        Path(__file__).parents[1] / "examples/us20.toml",
        {"data.path": str(STOCKS), "learner.methods": ["maml"]},
    )
    prepared = prepare(config, load_bars(config))
    params, _ = meta_train(prepared, "maml")
    fast = predict_all(prepared, {"maml": params})["maml"].mean
    panel, learner = prepared.panel, make_learner(config, "maml")
    x, y = np.asarray(panel.features), np.asarray(panel.targets)
    valid, end = np.asarray(panel.valid), np.asarray(panel.label_end)
    window, count = config.task.support, 0
    for asset in prepared.test_assets:
        a = panel.assets.index(asset)
        for t in range(prepared.test_first, prepared.test_last + 1):
            known = np.flatnonzero(valid[a, :t] & (end[a, :t] <= t))[-window:]
            adapted = learner.adapt(params, Batch(x[a, known], y[a, known][:, None]))
            slow = float(learner.predict(adapted, x[a, t][None])[0, 0])
            assert abs(slow - fast.at[panel.timestamps[t], asset]) < 1e-5
            count += 1
    print(f"{count} windows agree")
    assert count > 16_000
