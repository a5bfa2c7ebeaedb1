"""Learners whose adaptation, or meta-gradient, is a formula, against the formula in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from maml_jax import Batch, Model, Task, alpaca, imaml, meta_init, meta_step, reptile, ridge
from maml_jax.learners._alpaca import AlpacaParams
from maml_jax.learners._ridge import RidgeParams

pytestmark = pytest.mark.long

LINEAR = Model(lambda key, x: jnp.zeros(x.shape[1]), lambda w, x: x @ w)
FEATURES = Model(lambda key, x: jax.random.normal(key, (2, 6)), lambda w, x: jnp.tanh(x @ w))
"""Six features; with the constant a linear head has seven weights."""


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64():
        yield


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


def batch(x, y):
    return Batch(jnp.asarray(x), jnp.asarray(y))


def meta_grad(learner, params, task):
    return jax.grad(lambda p: learner.loss(p, task, 0)[0])(params)


@pytest.mark.long
@pytest.mark.parametrize("damping", [0.0, 3.0])
@pytest.mark.parametrize("proximal", [0.5, 4.0])
def test_imaml_is_implicit_differentiation_of_the_regularised_minimum(proximal, damping):
    """Of a quadratic, with Hessian H: (I + H / (lambda + delta))^-1 times the query gradient."""
    x, y, xq, yq, theta = draw(0, (12, 3), (12,), (9, 3), (9,), (3,))
    learner = imaml(
        LINEAR,
        proximal=proximal,
        damping=damping,
        inner_optimizer=optax.sgd(0.1),
        inner_steps=300,
    )
    task = Task(batch(x, y), batch(xq, yq))

    hessian = 2 * x.T @ x / len(y)
    lowest = np.linalg.solve(
        hessian + proximal * np.eye(3), 2 * x.T @ y / len(y) + proximal * theta
    )
    np.testing.assert_allclose(learner.adapt(jnp.asarray(theta), task.support), lowest, rtol=1e-8)
    slope = 2 * xq.T @ (xq @ lowest - yq) / len(yq)
    expected = np.linalg.solve(np.eye(3) + hessian / (proximal + damping), slope)
    np.testing.assert_allclose(meta_grad(learner, jnp.asarray(theta), task), expected, rtol=1e-6)


def with_constant(w, x):
    return np.column_stack([np.tanh(x @ w), np.ones(len(x))])


@pytest.mark.parametrize("rows", [4, 20], ids=["fewer rows than features", "more"])
def test_ridge_is_the_normal_equations(rows):
    w, x, y, xq = draw(1, (2, 6), (rows, 2), (rows, 3), (5, 2))
    penalty = 0.7
    learner = ridge(FEATURES)
    params = RidgeParams(jnp.asarray(w), jnp.asarray(np.log(penalty) / 10))
    phi = with_constant(w, x)
    weights = np.linalg.solve(phi.T @ phi + penalty * np.eye(7), phi.T @ y)
    adapted = learner.adapt(params, batch(x, y))
    np.testing.assert_allclose(adapted.weights, weights, rtol=1e-6)
    np.testing.assert_allclose(
        learner.predict(adapted, jnp.asarray(xq)), with_constant(w, xq) @ weights, rtol=1e-6
    )


def test_ridge_begins_with_the_penalty_that_it_is_given():
    x, y = draw(2, (8, 2), (8, 1))
    learner = ridge(FEATURES, penalty=2.5)
    params = learner.init(jax.random.key(0), jnp.asarray(x))
    phi = with_constant(np.asarray(params.features), x)
    weights = np.linalg.solve(phi.T @ phi + 2.5 * np.eye(7), phi.T @ y)
    np.testing.assert_allclose(learner.adapt(params, batch(x, y)).weights, weights, rtol=1e-5)


def bayesian(seed, width=6):
    """A Bayesian head of two targets with an arbitrary prior: in JAX, and in numpy."""
    w, mean, factor, log_noise = draw(
        seed, (2, width), (width + 1, 2), (width + 1, width + 1), (2,)
    )
    factor = 0.3 * factor
    params = AlpacaParams(*map(jnp.asarray, (w, mean, factor, log_noise / 10)))
    lower = np.tril(factor, -1) + np.diag(np.exp(np.diag(factor)))
    return alpaca(FEATURES, targets=2), params, (w, mean, lower @ lower.T, np.exp(log_noise))


def bayesian_formula(numbers, x, y, xq):
    """Weights of the posterior, and what it predicts."""
    w, prior_mean, prior_precision, noise = numbers
    phi, asked = with_constant(w, x), with_constant(w, xq)
    precision = prior_precision + phi.T @ phi
    weights = np.linalg.solve(precision, prior_precision @ prior_mean + phi.T @ y)
    doubt = np.einsum("ni,ij,nj->n", asked, np.linalg.inv(precision), asked)
    return asked @ weights, np.sqrt(1 + doubt)[:, None] * noise


@pytest.mark.parametrize("rows", [0, 3, 30])
def test_alpaca_is_bayesian_linear_regression(rows):
    """With no rows it is the prior."""
    learner, params, numbers = bayesian(3)
    x, y, xq, yq = draw(4, (rows, 2), (rows, 2), (5, 2), (5, 2))
    mean, std = bayesian_formula(numbers, x, y, xq)
    task = Task(batch(x, y), batch(xq, yq))
    predicted = learner.predict(learner.adapt(params, task.support), task.query.x)
    np.testing.assert_allclose(predicted.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(predicted.std, std, rtol=1e-6)
    if rows:
        loss = learner.loss(params, task, 0)[0]
        np.testing.assert_allclose(loss, -norm(mean, std).logpdf(yq).mean(), rtol=1e-6)


@pytest.mark.parametrize("rows", [0, 30])
def test_noise_that_depends_on_the_input_is_weighted_least_squares_around_a_mean_function(rows):
    _, params, (w, prior_mean, prior_precision, noise) = bayesian(3)
    learner = alpaca(FEATURES, targets=2, heteroscedastic=True, mean_function=FEATURES)
    slope, mean_weights = draw(5, (7,), (2, 2))
    params = params._replace(
        noise_slope=jnp.asarray(slope), mean_function=jnp.asarray(mean_weights)
    )
    x, y, xq = draw(4, (rows, 2), (rows, 2), (5, 2))
    phi, asked = with_constant(w, x), with_constant(w, xq)
    ratio, ratio_asked = (np.exp(3 * np.tanh(each @ slope / 3)) for each in (phi, asked))
    precision = prior_precision + (phi / ratio[:, None] ** 2).T @ phi
    rest = y - np.asarray(FEATURES.apply(mean_weights, x))
    information = prior_precision @ prior_mean + (phi / ratio[:, None] ** 2).T @ rest
    expected = asked @ np.linalg.solve(precision, information)
    expected += np.asarray(FEATURES.apply(mean_weights, xq))
    doubt = np.einsum("ni,ij,nj->n", asked, np.linalg.inv(precision), asked)
    std = np.sqrt(ratio_asked**2 + doubt)[:, None] * noise
    adapted = learner.adapt(params, batch(x, y))
    predicted = learner.predict(adapted, jnp.asarray(xq))
    np.testing.assert_allclose(predicted.mean, expected, rtol=1e-6)
    np.testing.assert_allclose(predicted.std, std, rtol=1e-6)


def test_alpaca_begins_with_the_noise_and_the_precision_that_it_is_given():
    learner = alpaca(FEATURES, noise=0.2, prior_precision=3.0)
    x = jnp.ones((1, 2))
    params = learner.init(jax.random.key(0), x)
    nothing = learner.adapt(params, Batch(x[:0], jnp.zeros((0, 1))))
    predicted = learner.predict(nothing, x)
    phi = with_constant(np.asarray(params.features), np.asarray(x))
    np.testing.assert_allclose(predicted.mean, 0.0)
    np.testing.assert_allclose(predicted.std, 0.2 * np.sqrt(1 + (phi**2).sum() / 3), rtol=1e-5)


def test_a_thousand_updates_in_single_precision_are_one_adaptation():
    learner, params, numbers = bayesian(5, width=2)  # what is lost grows with the condition number
    x, noise, xq = draw(6, (1000, 2), (1000, 2), (20, 2))
    w, mean, _, std = numbers
    y = with_constant(w, x) @ mean + std * noise
    with jax.enable_x64(False):
        rows = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), Batch(x, y))
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)

        def take_in(known, row):
            return learner.update(known, jax.tree.map(lambda leaf: leaf[None], row)), None

        nothing = learner.adapt(params, jax.tree.map(lambda leaf: leaf[:0], rows))
        one_by_one = jax.jit(lambda known: jax.lax.scan(take_in, known, rows)[0])(nothing)
        predicted = learner.predict(one_by_one, jnp.asarray(xq, jnp.float32))
    expected = bayesian_formula(numbers, x, y, xq)
    for ours, theirs in zip(predicted, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def reptile_task(seed):
    x, y, xq, yq = draw(seed, (6, 3), (6,), (4, 3), (4,))
    return Task(batch(x, y), batch(xq, yq))


def trained(theta, task, batch_size):
    """Five steps of descent on the support rows followed by the query rows, in turn."""
    x, y = (np.concatenate(pair) for pair in zip(task.support[:2], task.query[:2], strict=True))
    for step in range(5):
        rows = [(step * batch_size + i) % len(y) for i in range(batch_size)]
        theta = theta - 0.05 * 2 * x[rows].T @ (x[rows] @ theta - y[rows]) / batch_size
    return theta


@pytest.mark.parametrize("batch_size", [4, 10])
def test_reptile_moves_towards_what_training_reaches(batch_size):
    """Serial with a task to a meta-step, batched with several."""
    learner = reptile(LINEAR, inner_optimizer=optax.sgd(0.05), inner_steps=5, batch_size=batch_size)
    tasks, epsilon = [reptile_task(seed) for seed in range(3)], 0.3
    outer = optax.sgd(epsilon)
    begin = meta_init(learner, outer, jax.random.key(0), tasks[0].support.x)

    def step(state, *several):
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
        return meta_step(learner, outer, state, stacked, max_grad_norm=None, devices=1)[0]

    state, theta = begin, np.zeros(3)
    for task in tasks:
        state = step(state, task)
        theta = theta + epsilon * (trained(theta, task, batch_size) - theta)
    np.testing.assert_allclose(state.params, theta, rtol=1e-10)

    reached = [trained(np.zeros(3), task, batch_size) for task in tasks]
    np.testing.assert_allclose(
        step(begin, *tasks).params, epsilon * np.mean(reached, axis=0), rtol=1e-10
    )
