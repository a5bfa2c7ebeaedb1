"""Learned optimizers in a row, and with settings for each step."""

import jax
import numpy as np
import optax
import pytest
from helpers import one_task

from maml_jax import MetaParams, curvature, learned_rates, maml
from maml_jax.meta.optimizers import chain, per_step
from maml_jax.models import mlp

NETWORK = mlp((4, 1))


def adapt(optimizer, settings=None):
    task = one_task()
    learner = maml(NETWORK, inner_optimizer=optimizer, inner_steps=3)
    params = learner.init(jax.random.key(0), task.support.x)
    if settings is not None:
        params = MetaParams(params.start, settings(params.settings))
    return learner.adapt(params, task.support)


def assert_close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "others", [(optax.clip_by_global_norm(0.5), optax.trace(0.9)), ()], ids=["optax", "alone"]
)
def test_a_chain_is_that_of_optax(others):
    expected = optax.chain(*others, optax.sgd(0.02))
    assert_close(adapt(chain(*others, learned_rates(0.02))), adapt(expected))


def test_several_links_may_be_learned():
    # A negative rate makes curvature hand gradients on as they are.
    assert_close(adapt(chain(curvature(-1.0), learned_rates(0.02))), adapt(optax.sgd(0.02)))


def test_each_step_has_settings_of_its_own():
    def scale(settings):
        return jax.tree.map(lambda leaf: leaf * np.array([1.0, 0.5, 2.0]), settings)

    one = adapt(per_step(learned_rates(0.02), 3), scale)
    assert_close(one, adapt(learned_rates(0.02, steps=3), scale))


def test_settings_for_each_step_need_a_step():
    with pytest.raises(ValueError, match="at least 1 step"):
        per_step(learned_rates(), 0)
