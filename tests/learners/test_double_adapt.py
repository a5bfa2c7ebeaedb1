"""DoubleAdapt against numpy, and against MAML where its adapters do nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task

from maml_jax import (
    Batch,
    Task,
    double_adapt,
    first_order,
    gaussian_nll,
    learned_rates,
    maml,
)
from maml_jax.errors import ShapeError
from maml_jax.learners._anil import paths_of
from maml_jax.learners._double_adapt import adapt_features, adapt_labels, restore_labels
from maml_jax.models import gaussian, gru, mlp

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
HEADS, TAU = 3, 2.0


def drawn(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def rows(seed=0, count=8, shape=(4,)) -> Batch:
    return Batch(drawn((count, *shape), seed), drawn((count, 1), seed + 1))


def task(shape=(4,)) -> Task:
    return Task(rows(0, shape=shape), rows(10, shape=shape))


def adapters(x, seed=3):
    """Adapters as they might be once trained: every entry counts."""
    learner = double_adapt(mlp((4, 1)), heads=HEADS, temperature=TAU)
    params = learner.init(KEY, x)
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(leaf.dtype), params[1:]
    )


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("shape", [(4,), (5, 4)], ids=["rows", "sequences"])
def test_features_are_adapted_bar_by_bar(shape):
    x = drawn((6, *shape))
    adapter = jax.tree.map(lambda leaf: np.asarray(leaf, float), adapters(x)[0])

    def by_hand(bar):
        s = softmax(np.array([cosine(bar, p) for p in adapter.prototypes]) / TAU)
        heads = [w @ bar + b for w, b in zip(adapter.weights, adapter.biases, strict=True)]
        return bar + sum(weight * head for weight, head in zip(s, heads, strict=True))

    expected = np.apply_along_axis(by_hand, -1, np.asarray(x, float))
    np.testing.assert_allclose(
        adapt_features(adapters(x)[0], x, TAU), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(4,), (5, 4)], ids=["rows", "sequences"])
@pytest.mark.parametrize("targets", [(), (1,), (2,)], ids=str)
def test_labels_are_adapted_and_restored_head_by_head(shape, targets):
    x, y = drawn((6, *shape)), drawn((6, *targets), 1)
    adapter = adapters(x)[1]
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, float), adapter)
    there, back = np.zeros(y.shape), np.zeros(y.shape)
    for row, (inputs, target) in enumerate(zip(x, np.asarray(y, float), strict=True)):
        seen = np.asarray(inputs, float).ravel() @ exact.projection
        s = softmax(np.array([cosine(seen, q) for q in exact.prototypes]) / TAU)
        for weight, log_scale, shift in zip(s, exact.log_scales, exact.shifts, strict=True):
            there[row] += weight * (np.exp(log_scale) * target + shift)
            back[row] += weight * (target - shift) / np.exp(log_scale)
    np.testing.assert_allclose(adapt_labels(adapter, x, y, TAU), there, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(restore_labels(adapter, x, y, TAU), back, rtol=1e-4, atol=1e-5)


def test_one_head_is_its_own_inverse():
    x, y = drawn((6, 4)), drawn((6, 1), 1)
    learner = double_adapt(mlp((4, 1)), heads=1)
    adapter = learner.init(KEY, x).labels._replace(shifts=jnp.array([0.7]))
    there = adapt_labels(adapter, x, y, 1.0)
    assert jnp.abs(there - y).max() > 0.1
    np.testing.assert_allclose(restore_labels(adapter, x, there, 1.0), y, rtol=1e-5, atol=1e-6)


def without_adapting(params):
    """The same network, behind adapters that change nothing."""
    features, labels = params.features, params.labels
    return params._replace(
        features=features._replace(weights=0 * features.weights, biases=0 * features.biases),
        labels=labels._replace(log_scales=0 * labels.log_scales, shifts=0 * labels.shifts),
    )


def test_where_adapters_do_nothing_it_is_maml():
    network, options = mlp((4, 1)), {"inner_optimizer": optax.sgd(0.02), "inner_steps": 2}
    ours, theirs, tasks = double_adapt(network, **options), maml(network, **options), task()
    params = without_adapting(ours.init(KEY, tasks.support.x))
    adapted = ours.adapt(params, tasks.support)
    expected = theirs.adapt(params.model, tasks.support)
    for a, b in zip(jax.tree.leaves(adapted.model), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adapted.features.weights, params.features.weights)
    (value, info), grad = jax.jit(
        jax.value_and_grad(lambda p: ours.loss(p, tasks, 0), has_aux=True)
    )(params)
    (same, told), slope = jax.jit(
        jax.value_and_grad(lambda p: theirs.loss(p, tasks, 0), has_aux=True)
    )(params.model)
    for a, b in zip(
        jax.tree.leaves((value, info, grad.model)),
        jax.tree.leaves((same, told, slope)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_network_descends_the_loss_of_adapted_rows():
    network, tasks = mlp((4, 1)), task()
    learner = double_adapt(network, heads=HEADS, inner_optimizer=optax.sgd(0.1), inner_steps=1)
    params = learner.init(KEY, tasks.support.x)
    params = params._replace(features=adapters(tasks.support.x)[0])
    x = adapt_features(params.features, tasks.support.x, 10.0)
    y = adapt_labels(params.labels, *tasks.support, 10.0)
    slope = jax.grad(lambda p: jnp.mean((network.apply(p, x) - y) ** 2))(params.model)
    adapted = learner.adapt(params, tasks.support)
    for a, b, s in zip(*map(jax.tree.leaves, (adapted.model, params.model, slope)), strict=True):
        np.testing.assert_allclose(a, b - 0.1 * s, rtol=1e-4, atol=1e-6)


def test_changing_targets_has_its_price():
    tasks = task()
    losses = []
    for penalty in (0.0, 2.0):
        learner = double_adapt(mlp((4, 1)), penalty=penalty, inner_steps=1)
        params = learner.init(KEY, tasks.support.x)
        losses.append(learner.loss(params, tasks, 0)[0])
    moved = adapt_labels(params.labels, *tasks.support, 10.0) - tasks.support.y
    np.testing.assert_allclose(losses[1] - losses[0], 2 * jnp.mean(moved**2), rtol=1e-4)


def test_sequences_and_learned_rates_and_deviations():
    tasks = task((3, 4))
    learner = double_adapt(
        gaussian(gru(3, 2)),
        inner_optimizer=learned_rates(0.01),
        inner_steps=1,
        loss=gaussian_nll,
    )
    params = learner.init(KEY, tasks.support.x)
    value, grad = jax.jit(jax.value_and_grad(lambda p: learner.loss(p, tasks, 0)[0]))(params)
    assert np.isfinite(value)
    for path, leaf in zip(paths_of(grad), jax.tree.leaves(grad), strict=True):
        assert np.isfinite(leaf).all(), path
        assert (leaf != 0).any(), path
    adapted = learner.adapt(params, tasks.support)
    plain = learner.predict(adapted, tasks.query.x)
    wide = adapted._replace(labels=adapted.labels._replace(log_scales=jnp.full(8, -np.log(3.0))))
    same = adapted._replace(labels=adapted.labels._replace(log_scales=jnp.zeros(8)))
    ratio = learner.predict(wide, tasks.query.x).std / learner.predict(same, tasks.query.x).std
    np.testing.assert_allclose(ratio, 3, rtol=1e-5)
    assert plain.mean.shape == plain.std.shape == (8, 1)


def test_rows_of_zeros_have_a_gradient():
    tasks = jax.tree.map(jnp.zeros_like, task())
    learner = double_adapt(mlp((4, 1)), inner_steps=1, gradient=first_order())
    params = learner.init(KEY, tasks.support.x)
    grad = jax.grad(lambda p: learner.loss(p, tasks, 0)[0])(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


def test_classes_and_impossible_settings_are_refused():
    tasks = one_task(0)
    learner = double_adapt(mlp((4, 1)))
    params = learner.init(KEY, tasks.support.x)
    with pytest.raises(ShapeError, match="classes"):
        learner.adapt(params, Batch(tasks.support.x, jnp.zeros(len(tasks.support.y), int)))
    for fault in ({"heads": 0}, {"temperature": 0.0}, {"penalty": -1.0}):
        with pytest.raises(ValueError, match="at least 1 head"):
            double_adapt(mlp((4, 1)), **fault)
