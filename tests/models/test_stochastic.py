"""Networks with something random in training: dropout, noise."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import sinusoid_sampler

from maml_jax import Batch, Model, Prediction, Task, exact, maml, mixed_mode
from maml_jax.models import (
    dropout,
    from_linen,
    from_nnx,
    gaussian,
    gru,
    in_precision,
    mlp,
    stochastic,
)

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
KEYS = jax.random.split(jax.random.key(1), 4)
TASKS = sinusoid_sampler(tasks=4, shots=5)(KEY)._replace(key=KEYS)


class LinenDropout(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dropout(0.25, deterministic=not train)(x)


LAYERS = {
    "own": stochastic(lambda key, x: {}, lambda params, x, key=None: dropout(x, 0.25, key)),
    "nnx": from_nnx(lambda rngs: nnx.Dropout(0.25, rngs=rngs)),
    "nnx that exists": from_nnx(nnx.Dropout(0.25, rngs=nnx.Rngs(7))),
    "linen": from_linen(LinenDropout(), rngs=["dropout"], train_kwargs={"train": True}),
}


@pytest.mark.parametrize("model", LAYERS.values(), ids=LAYERS)
def test_dropout_drops_a_share_by_the_key_alone(model):
    x = jnp.full((100, 100), 3.0)
    params = model.init(KEY, x)
    np.testing.assert_array_equal(model.apply(params, x), x)
    first, again, other = (model.apply_with_key(params, x, KEYS[i]) for i in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert 0.23 < (first == 0).mean() < 0.27
    np.testing.assert_allclose(first[first != 0], 4.0, rtol=1e-6)


DROPPING = mlp((8, 1), dropout=0.5)
INNER = {"inner_optimizer": optax.sgd(0.02), "inner_steps": 3}


def compile_loss(learner, transform=lambda loss: loss):
    def loss(params, tasks):
        return jax.vmap(learner.loss, (None, 0, None))(params, tasks, 0)[0].mean()

    return jax.jit(transform(loss))


def close(a, b, **options):
    jax.tree.map(lambda *leaves: np.testing.assert_allclose(*leaves, **options), a, b)


@pytest.mark.slow
def test_dropout_in_every_step_of_adaptation():
    learner = maml(DROPPING, **INNER)
    params = learner.init(KEY, TASKS.support.x[0])
    close(params, mlp((8, 1)).init(KEY, TASKS.support.x[0]))
    loss = compile_loss(learner)
    value = loss(params, TASKS)
    assert abs(loss(params, TASKS._replace(key=KEYS[::-1])) - value) > 0.01
    without = TASKS._replace(key=None)
    assert abs(loss(params, without) - value) > 0.01
    np.testing.assert_allclose(
        loss(params, without), compile_loss(maml(mlp((8, 1)), **INNER))(params, without), rtol=1e-5
    )
    support = jax.tree.map(lambda leaf: leaf[0], TASKS.support)
    keys = (KEYS[0], KEYS[0], None)
    first, again, off = (learner.adapt(params, support, key=key) for key in keys)
    close(first, again, rtol=0)
    assert not np.allclose(first["layers"][0]["kernel"], off["layers"][0]["kernel"])


@pytest.mark.long
def test_mixed_mode_sees_the_draws_of_exact_gradients():
    params = DROPPING.init(KEY, TASKS.support.x[0])
    found, again = (
        compile_loss(maml(DROPPING, gradient=mode, **INNER), jax.value_and_grad)(params, TASKS)
        for mode in (exact(), mixed_mode())
    )
    close(again, found, rtol=1e-4, atol=1e-5)


def test_each_step_draws_afresh():
    r"""Steps towards noisy zeros: $\theta \leftarrow \theta - r (\theta + \epsilon_k)$."""
    rate, steps, count = 0.1, 4, 4000
    model = stochastic(
        lambda key, x: jnp.zeros(()),
        lambda theta, x, key=None: (
            theta + jnp.zeros((1, 1)) + (0.0 if key is None else jax.random.normal(key))
        ),
    )
    learner = maml(model, inner_optimizer=optax.sgd(rate / 2), inner_steps=steps)
    zero = Batch(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    keys = jax.random.split(KEY, count)
    found = jax.vmap(lambda key: learner.adapt(jnp.zeros(()), zero, key=key))(keys)
    expected = rate**2 * np.sum((1 - rate) ** (2 * np.arange(steps)))
    assert 0.9 < found.var() / expected < 1.1  # one draw for all steps: 3.9 times that
    # The query set has a draw of its own: its loss is that of both variances together.
    tasks = Task(zero, zero)
    losses = jax.vmap(lambda key: learner.loss(jnp.zeros(()), tasks._replace(key=key), 0)[0])(keys)
    assert 0.9 < losses.mean() / (1 + expected) < 1.1


def test_wrappers_hand_the_key_on():
    network = stochastic(mlp((8, 2)).init, noisy(mlp((8, 2))))
    x = jnp.ones((5, 3))
    params = network.init(KEY, x)
    for precision in ("float32", "bfloat16"):
        model = in_precision(gaussian(network), precision)
        assert isinstance(model.apply_with_key(params, x, KEY), Prediction)
        drawn = (network.apply_with_key(params, x, KEY) - network.apply(params, x))[:, :1]
        shift = model.apply_with_key(params, x, KEY).mean - model.apply(params, x).mean
        np.testing.assert_allclose(shift, drawn, atol=1e-5 if precision == "float32" else 0.05)
    assert gaussian(mlp((8, 2))).apply_with_key is None
    assert gru(4).apply_with_key is None


def noisy(network):
    def apply(params, x, key=None):
        noise = 0.0 if key is None else jax.random.normal(key, (len(x), 1))
        return network.apply(params, x) + noise

    return apply


def test_a_network_without_a_key_is_not_stochastic():
    model = mlp((8, 1))
    for arguments in ((model,), (model.init, model.apply)):
        with pytest.raises(TypeError, match=r"apply\(params, x, key=None\)"):
            stochastic(*arguments)
    kept = stochastic(Model(model.init, noisy(model)))
    assert kept.apply_with_key is not None


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_out_of_bounds_are_refused(rate):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        dropout(jnp.ones(3), rate, KEY)
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        mlp((8, 1), dropout=rate)
