import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import one_task

from maml_jax import maml, models


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(1, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.norm(self.hidden(x))))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(jnp.tanh(nn.Dense(8)(x)))


def adapts(model):
    task = one_task()
    learner = maml(model, inner_steps=20)
    params = learner.init(jax.random.key(0), task.support.x)
    loss, info = jax.jit(learner.loss)(params, task, 0)
    assert info.support_loss_after < info.support_loss_before
    assert jnp.isfinite(loss)
    return params


def test_mlp_shapes_and_sizes():
    model = models.mlp((7, 5, 2))
    params = model.init(jax.random.key(0), jnp.zeros((4, 3)))
    assert sorted(leaf.shape for leaf in jax.tree.leaves(params)) == sorted(
        [(3, 7), (7,), (7, 5), (5,), (5, 2), (2,)]
    )
    assert model.apply(params, jnp.zeros((4, 3))).shape == (4, 2)
    assert model.apply(params, jnp.zeros((6, 4, 3))).shape == (6, 4, 2)


def test_mlp_is_what_it_says():
    model = models.mlp((4, 1), activation=jax.nn.gelu)
    x = jax.random.normal(jax.random.key(1), (6, 3))
    params = model.init(jax.random.key(0), x)
    (w1, b1), (w2, b2) = (
        (params["layers"][i]["kernel"], params["layers"][i]["bias"]) for i in (0, 1)
    )
    np.testing.assert_allclose(
        model.apply(params, x), jax.nn.gelu(x @ w1 + b1) @ w2 + b2, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("features", [(), (3, 0, 1)])
def test_mlp_refuses_widths_below_one(features):
    with pytest.raises(ValueError, match="width"):
        models.mlp(features)


def test_linen_modules_fit_as_they_are():
    adapts(LinenNet())


def test_nnx_modules_fit_through_the_adapter():
    model = models.from_nnx(lambda rngs: Net(rngs))
    first, second = (model.init(jax.random.key(k), jnp.zeros((1, 1))) for k in (0, 1))
    assert not np.allclose(first["hidden"]["kernel"], second["hidden"]["kernel"])
    adapts(model)


def test_an_nnx_module_that_exists_keeps_its_weights():
    module = Net(nnx.Rngs(3))
    x = jnp.ones((5, 1))
    model = models.from_nnx(module)
    params = model.init(jax.random.key(0), x)
    np.testing.assert_allclose(model.apply(params, x), module(x), rtol=1e-6)
    adapts(model)
