"""Bad tasks are skipped where there are some, and cost nothing where there are none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import maml, training
from maml_jax.models import mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
LEARNER, OPTIMIZER = maml(mlp((8, 1)), inner_steps=1), optax.adam(1e-2)
SAMPLER = sinusoid_sampler(4)


def spoilt(key):
    """Draw tasks of which one in ten is bad."""
    tasks = SAMPLER(key)
    bad = jax.random.uniform(jax.random.fold_in(key, 9), (4, 1, 1)) < 0.1
    return tasks._replace(query=tasks.query._replace(y=jnp.where(bad, jnp.nan, tasks.query.y)))


def train(sampler, **options):
    return [*training(LEARNER, OPTIMIZER, sampler, KEY, steps=20, every=2, **options)]


def joined(found):
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *(each.history for each in found))


@pytest.mark.slow
def test_without_bad_tasks_it_is_the_plain_training_to_the_bit():
    plain, retried = train(SAMPLER), train(SAMPLER, retry=True)
    for one, two in zip(plain, retried, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one[:3], two[:3])


@pytest.mark.parametrize("donate", [pytest.param(False, marks=pytest.mark.slow), True])
def test_with_bad_tasks_it_is_the_training_that_skips(donate):
    skipping, retried = train(spoilt, on_bad="skip"), train(spoilt, retry=True, donate=donate)
    one, two = joined(skipping), joined(retried)
    assert 1 < one.skipped.sum() < 20 and (one.skipped.reshape(10, 2).sum(1) == 0).any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), one, two)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        skipping[-1].state.params,
        retried[-1].state.params,
    )
    assert int(retried[-1].state.step) == 20


def test_it_decides_alone():
    with pytest.raises(ValueError, match="leave out on_bad"):
        train(SAMPLER, retry=True, on_bad="skip")
