"""Tasks that count for more, for less, or not at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import Batch, MetaLearner, Task, fit, maml, meta_init, meta_step
from maml_jax.meta.scan import step_key, tasks_of_step
from maml_jax.meta.steps import meta_gradient, plan_meta_step
from maml_jax.models import mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-2)
LEARNER = maml(mlp((8, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)
SAMPLER = sinusoid_sampler(4)
TASKS = SAMPLER(KEY)
STATE = meta_init(LEARNER, OPTIMIZER, KEY, jnp.zeros((10, 1)))


def assert_close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def take(tasks, state=STATE, **options):
    return meta_step(LEARNER, OPTIMIZER, state, tasks, **options)


def pick(tasks, places):
    return jax.tree.map(lambda leaf: leaf[np.array(places)], tasks)


def spoil(tasks, place):
    return jax.tree.map(lambda leaf: leaf.at[place].set(jnp.nan), tasks)


def test_a_task_counts_by_its_weight():
    weighted = spoil(TASKS, 1)._replace(weight=jnp.array([2.0, 0.0, 1.0, 0.0]))
    state, info = take(weighted)
    expected, plain = take(pick(TASKS, [0, 0, 2]))
    assert_close(state, expected)
    assert_close((info.loss, info.grad_norm), (plain.loss, plain.grad_norm))
    losses = plain.task_loss[1], 0, plain.task_loss[2]
    assert_close(info.task_loss[:3], jnp.stack([*map(jnp.asarray, losses)]))


def test_without_weights_nothing_is_computed_but_the_gradient():
    task = pick(TASKS, 0)
    plain = jax.make_jaxpr(
        lambda *arguments: jax.value_and_grad(LEARNER.loss, has_aux=True)(*arguments)
    )(STATE.params, task, STATE.step)
    found = jax.make_jaxpr(meta_gradient(LEARNER.loss))(task, STATE.params, STATE.step)
    assert len(found.eqns) == len(plain.eqns)
    more = jax.make_jaxpr(meta_gradient(LEARNER.loss, True))(task, STATE.params, STATE.step)
    assert len(more.eqns) > len(plain.eqns)


def test_a_step_without_tasks_that_count_changes_nothing_but_its_number():
    trained, _ = take(TASKS)
    state, info = take(TASKS._replace(weight=jnp.zeros(4)), trained)
    assert_close(state, trained._replace(step=trained.step + 1))
    assert (float(info.loss), int(info.skipped)) == (0, 0)


def poisoned(places_of_step):
    """Make a sampler some of whose tasks are NaN at some steps."""
    keys = {s: jax.random.key_data(step_key(KEY, s)) for s in places_of_step}

    def sample(key):
        tasks = SAMPLER(key)
        for step, places in places_of_step.items():
            now = jnp.all(jax.random.key_data(key) == keys[step])
            y = tasks.query.y
            spoiled = y.at[np.array(places)].set(jnp.nan)
            tasks = tasks._replace(query=Batch(tasks.query.x, jnp.where(now, spoiled, y)))
        return tasks

    return sample


@pytest.mark.slow
def test_bad_tasks_are_skipped_counted_and_named():
    sampler = poisoned({1: [0, 3], 2: [0, 1, 2, 3]})
    state, history = fit(LEARNER, OPTIMIZER, sampler, KEY, steps=4, on_bad="skip")
    expected = meta_init(LEARNER, OPTIMIZER, jax.random.split(KEY)[0], jnp.zeros((10, 1)))
    for step, places in enumerate(([0, 1, 2, 3], [1, 2], None, [0, 1, 2, 3])):
        if places is None:
            expected = expected._replace(step=expected.step + 1)
        else:
            expected, info = take(pick(tasks_of_step(SAMPLER, KEY, step), places), expected)
            np.testing.assert_allclose(history.loss[step], info.loss, rtol=1e-5)
    assert_close(state, expected)
    assert history.skipped.tolist() == [0, 2, 4, 0]
    assert np.isnan(history.task_loss).tolist() == [
        *([False] * 4, [True, False, False, True], [True] * 4, [False] * 4)
    ]
    assert np.isnan(history.loss).tolist() == [False, False, True, False]


def test_a_task_of_a_bad_gradient_alone_is_skipped():
    learner = MetaLearner(
        lambda key, x: jnp.zeros(1),
        lambda params, support: params,
        lambda params, x: x * params,
        lambda params, task, step: (jnp.sqrt(jnp.sum((params - task.query.y) ** 2)), ()),
    )
    y = jnp.array([0.0, 3.0]).reshape(2, 1, 1)  # the slope of the root at 0 is NaN
    batch = Batch(jnp.ones((2, 1, 1)), y)
    state = meta_init(learner, optax.sgd(1.0), KEY, batch.x[0])
    state, info = meta_step(learner, optax.sgd(1.0), state, Task(batch, batch), on_bad="skip")
    assert (float(info.loss), float(state.params[0]), int(info.skipped)) == (3, 1, 1)


def test_what_to_do_about_bad_tasks_is_said_in_one_of_two_words():
    with pytest.raises(ValueError, match="on_bad must be 'raise' or 'skip'"):
        plan_meta_step(LEARNER, STATE, TASKS, on_bad="ignore")


def test_parts_of_a_gradient_are_clipped_by_their_own_norms():
    learner = MetaLearner(
        lambda key, x: {"members": jnp.zeros((3, 2))},
        lambda params, support: params,
        lambda params, x: x,
        lambda params, task, step: (jnp.sum(params["members"] * task.query.y), ()),
        grad_norms=lambda grad: {
            "members": jnp.linalg.norm(grad["members"], axis=1, keepdims=True)
        },
    )
    grad = jnp.array([[30.0, 40.0], [0.3, 0.4], [0.0, 0.0]])
    batch = Batch(jnp.ones((1, 3, 1)), grad[None])
    optimizer = optax.sgd(1.0)
    state = meta_init(learner, optimizer, KEY, batch.x[0])
    state, info = meta_step(learner, optimizer, state, Task(batch, batch), max_grad_norm=2.0)
    expected = -jnp.array([[1.2, 1.6], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(state.params["members"], expected, rtol=1e-6)
    np.testing.assert_allclose(info.grad_norm, jnp.linalg.norm(grad), rtol=1e-6)


def mean_error(y_hat, y):
    return jnp.mean(jnp.abs(y_hat - y))


@pytest.mark.slow
def test_metrics_of_steps_are_means_over_their_tasks():
    sampler = poisoned({1: [0]})
    options = {"steps": 2, "on_bad": "skip", "metrics": {"error": mean_error}}
    _, history = fit(LEARNER, OPTIMIZER, sampler, KEY, **options)
    state, _ = fit(LEARNER, OPTIMIZER, sampler, KEY, steps=1, on_bad="skip")
    tasks = pick(tasks_of_step(SAMPLER, KEY, 1), [1, 2, 3])
    adapted = jax.vmap(LEARNER.adapt, (None, 0))(state.params, tasks.support)
    y_hat = jax.vmap(LEARNER.predict)(adapted, tasks.query.x)
    np.testing.assert_allclose(
        history.metrics["error"][1], mean_error(y_hat, tasks.query.y), rtol=1e-4
    )
    assert fit(LEARNER, OPTIMIZER, SAMPLER, KEY, steps=1)[1].metrics == {}


@pytest.mark.parametrize("weight", [[1, 2, 2], [0, 1, 0], [True, True, False]], ids=str)
def test_weights_of_any_type_mean_the_same(weight):
    tasks = jax.tree.map(lambda leaf: leaf[:3], SAMPLER(KEY))
    state = meta_init(LEARNER, OPTIMIZER, KEY, tasks.support.x[0])
    losses = [
        meta_step(LEARNER, OPTIMIZER, state, tasks._replace(weight=np.asarray(weight, kind)))[
            1
        ].loss
        for kind in (None, float)
    ]
    assert losses[0] == losses[1] > 0
