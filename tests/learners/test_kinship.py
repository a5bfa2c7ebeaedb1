"""Learners that are others in a special case, and what each leaves as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task, sinusoid_sampler

from maml_jax import (
    Batch,
    Model,
    Task,
    anil,
    cavia,
    first_order,
    fit,
    from_scratch,
    joint_training,
    learned_rates,
    maml,
    maml_plus_plus,
    meta_curvature,
    meta_sgd,
)
from maml_jax.errors import ShapeError
from maml_jax.learners._anil import is_last_layer, paths_of
from maml_jax.learners._maml_plus_plus import step_weights
from maml_jax.meta import curvature
from maml_jax.models import gru, mlp

pytestmark = pytest.mark.long

NETWORK = mlp((4, 1))
RATE, STEPS = 0.02, 3
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def task():
    return one_task(4)


@pytest.fixture(scope="module")
def maml_gradient(task):
    learner = maml(NETWORK, inner_optimizer=optax.sgd(RATE), inner_steps=STEPS)
    params = learner.init(KEY, task.support.x)
    return learner.adapt(params, task.support), meta_grad(learner, params, task)


def meta_grad(learner, params, task, step=0):
    return jax.jit(jax.grad(lambda p: learner.loss(p, task, step)[0]))(params)


def close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "relative",
    [
        meta_sgd(NETWORK, inner_optimizer=learned_rates(RATE, per="entry"), inner_steps=STEPS),
        meta_sgd(
            NETWORK,
            inner_optimizer=learned_rates(RATE, per="entry", positive=False),
            inner_steps=STEPS,
        ),
        meta_curvature(NETWORK, inner_optimizer=curvature(RATE), inner_steps=STEPS),
    ],
    ids=["meta_sgd", "meta_sgd of any sign", "meta_curvature"],
)
def test_where_nothing_is_learned_of_the_steps_yet_it_is_maml(relative, task, maml_gradient):
    params = relative.init(KEY, task.support.x)
    close(relative.adapt(params, task.support), maml_gradient[0])
    close(meta_grad(relative, params, task).start, maml_gradient[1])


def test_anil_is_maml_whose_body_does_not_move(task):
    sgd = optax.sgd(RATE)
    params = NETWORK.init(KEY, task.support.x)
    chosen = is_last_layer(params)
    labels = jax.tree.unflatten(
        jax.tree.structure(params), ["head" if chosen(p) else "body" for p in paths_of(params)]
    )
    parts = optax.partition({"head": sgd, "body": optax.set_to_zero()}, labels)
    half, whole = (
        anil(NETWORK, inner_optimizer=sgd, inner_steps=STEPS),
        maml(NETWORK, inner_optimizer=parts, inner_steps=STEPS),
    )
    adapted = half.adapt(params, task.support)
    jax.tree.map(np.testing.assert_array_equal, adapted["layers"][0], params["layers"][0])
    close(adapted, whole.adapt(params, task.support))
    close(meta_grad(half, params, task), meta_grad(whole, params, task))


def test_anil_adapts_what_it_is_told(task):
    learner = anil(
        NETWORK, adapts=lambda path: path.endswith("bias"), inner_optimizer=optax.sgd(RATE)
    )
    params = learner.init(KEY, task.support.x)
    adapted = learner.adapt(params, task.support)
    for path, before, after in zip(
        paths_of(params), jax.tree.leaves(params), jax.tree.leaves(adapted), strict=True
    ):
        assert (before == after).all() != path.endswith("bias")
    with pytest.raises(ShapeError, match=r"selects no parameter.*layers\.1\.kernel"):
        anil(NETWORK, adapts=lambda path: False).init(KEY, task.support.x)


DENSE = {"kernel": 0, "bias": 0}


@pytest.mark.parametrize(
    ("params", "head"),
    [
        (jax.eval_shape(lambda: mlp((3, 3, 1)).init(KEY, jnp.ones((1, 2)))), "layers.2."),
        (jax.eval_shape(lambda: gru(3).init(KEY, jnp.ones((1, 2, 2)))), "head."),
        ({"params": {f"Dense_{i}": DENSE for i in range(11)}}, "params.Dense_10."),
        ({"params": {"Dense_0": DENSE, "out": DENSE}}, "params.out."),
        (([0, 0], (0,)), "1."),
    ],
    ids=["mlp", "gru", "numbered", "named", "tuples"],
)
def test_the_head_is_what_is_called_so_or_the_last_layer(params, head):
    chosen = [path for path in paths_of(params) if is_last_layer(params)(path)]
    assert chosen
    assert chosen == [path for path in paths_of(params) if path.startswith(head)]


def plus_plus(**phases):
    return maml_plus_plus(NETWORK, inner_optimizer=learned_rates(RATE), inner_steps=STEPS, **phases)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("learner", "step", "options"),
    [
        (plus_plus(multi_step_until=5, second_order_from=7), 7, {}),
        (plus_plus(multi_step_until=5, second_order_from=7), 6, {"gradient": first_order()}),
    ],
    ids=["late", "before the second order"],
)
def test_maml_plus_plus_past_its_phases_is_maml_with_rates_for_each_step(
    learner, step, options, task
):
    other = maml(
        NETWORK, inner_optimizer=learned_rates(RATE, steps=STEPS), inner_steps=STEPS, **options
    )
    params = learner.init(KEY, task.support.x)
    close(learner.adapt(params, task.support), other.adapt(params, task.support))
    close(meta_grad(learner, params, task, step), meta_grad(other, params, task))


@pytest.mark.parametrize("until", [0, 10])
def test_the_weights_of_steps_sum_to_one_and_pass_to_the_last(until):
    weights = np.array([step_weights(step, 4, until) for step in (0, 3, 9, 10, 1000)])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)
    assert (np.diff(weights[:, -1]) >= 0).all()
    np.testing.assert_array_equal(weights[-2:], [[0, 0, 0, 1]] * 2)
    np.testing.assert_allclose(weights[0], [0.25] * 4 if until else [0, 0, 0, 1])


def test_meta_curvature_bends_a_gradient_along_each_axis():
    rng = np.random.default_rng(0)
    gradients = {"matrix": rng.standard_normal((3, 2)), "cube": rng.standard_normal((2, 3, 4))}
    matrices = {
        name: tuple(rng.standard_normal((size, size)) for size in gradient.shape)
        for name, gradient in gradients.items()
    }
    optimizer = curvature(0.1).transform
    bent, _ = optimizer.update(
        jax.tree.map(jnp.asarray, gradients),
        optimizer.init(gradients),
        settings=jax.tree.map(jnp.asarray, matrices),
    )
    into, out = matrices["matrix"]
    np.testing.assert_allclose(
        bent["matrix"], -0.1 * into @ gradients["matrix"] @ out.T, rtol=1e-5, atol=1e-6
    )
    expected = np.einsum("ai,bj,ck,ijk->abc", *matrices["cube"], gradients["cube"])
    np.testing.assert_allclose(bent["cube"], -0.1 * expected, rtol=1e-5, atol=1e-6)


def test_cavia_moves_nothing_but_the_context(task):
    learner = cavia(NETWORK, context=3, start=0.5)
    params = learner.init(KEY, task.support.x)
    before, after = (learner.adapt(params, task.support, steps=steps) for steps in (0, 5))
    np.testing.assert_array_equal(before.context, [0.5] * 3)
    assert (after.context != before.context).all()
    jax.tree.map(np.testing.assert_array_equal, after.network, params)
    assert params["layers"][0]["kernel"].shape == (1 + 3, 4)


@pytest.mark.long
def test_learned_rates_stay_positive_while_they_are_trained():
    learner = maml(NETWORK, inner_optimizer=learned_rates(0.01), inner_steps=2)
    outer = optax.adam(0.5)  # such steps would take a rate below zero at once
    state, _ = fit(learner, outer, sinusoid_sampler(4), KEY, steps=20, devices=1)
    gradient = jax.tree.map(jnp.ones_like, state.params.start)
    transform = learned_rates(0.01).transform
    updates, _ = transform.update(
        gradient, transform.init(gradient), settings=state.params.settings
    )
    rates = [-leaf for leaf in jax.tree.leaves(updates)]
    assert all((rate > 0).all() for rate in rates)
    assert all(abs(float(rate.min()) - 0.01) > 1e-3 for rate in rates)


def test_joint_training_descends_the_loss_of_all_rows():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((10, 3)), rng.standard_normal(3)
    y = rng.standard_normal(10)
    rows = Batch(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    task = Task(*(jax.tree.map(lambda leaf, s=s: leaf[s], rows) for s in (slice(4), slice(4, 10))))
    linear = Model(lambda key, x: jnp.zeros(3), lambda w, x: x @ w)
    for learner in (joint_training(linear), joint_training(linear, inner_steps=2)):
        grad = meta_grad(learner, jnp.asarray(w, jnp.float32), task)
        np.testing.assert_allclose(grad, 2 * x.T @ (x @ w - y) / 10, rtol=1e-4)


def test_meta_training_changes_nothing_of_what_begins_from_scratch():
    learner = from_scratch(NETWORK, inner_steps=2)
    state, info = fit(learner, optax.adam(0.1), sinusoid_sampler(4), KEY, steps=5, devices=1)
    begun = learner.init(jax.random.split(KEY)[0], jnp.zeros((10, 1)))
    jax.tree.map(np.testing.assert_array_equal, state.params, begun)
    assert (info.grad_norm == 0).all()
