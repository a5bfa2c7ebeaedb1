"""Particles against Stein's formula in loops of numpy, and against learners that they become."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task
from jax.flatten_util import ravel_pytree

from maml_jax import (
    Batch,
    Model,
    Prediction,
    exact,
    first_order,
    gaussian_nll,
    imaml,
    implicit,
    learned_rates,
    maml,
    mixed_mode,
)
from maml_jax.errors import GradientError
from maml_jax.learners import bayesian_maml
from maml_jax.meta import AdaptationInfo, MetaParams
from maml_jax.meta.optimizers._stein import SteinSettings, rbf_kernel, stein
from maml_jax.models import gaussian, mlp

pytestmark = pytest.mark.slow

STD = 0.7


def apply(params, x):
    (w, b), v = params
    return jnp.tanh(x @ w + b) @ v


def init(key, x):
    first, second = jax.random.split(key)
    w = jax.random.normal(first, (x.shape[-1], 6)) / x.shape[-1] ** 0.5
    return (w, jnp.full(6, 0.1)), jax.random.normal(second, (6, 1)) / 6**0.5


NETWORK = Model(init, apply)
FIXED_NOISE = Model(init, lambda p, x: Prediction(apply(p, x), jnp.full((len(x), 1), STD)))
TASK = one_task(3, 6)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64():
        yield


def task():
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), TASK)


def started(learner, key=0):
    params = learner.init(jax.random.key(key), task().support.x)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)


def value_and_grad(learner, params):
    return jax.jit(jax.value_and_grad(lambda p: learner.loss(p, task(), 0), has_aux=True))(params)


def make(**options):
    options = {"particles": 3, "inner_steps": 2, "noise": STD} | options
    return bayesian_maml(NETWORK, **options)


def numpy_particles(particles):
    flat = [ravel_pytree(jax.tree.map(lambda leaf, j=j: leaf[j], particles))[0] for j in range(3)]
    return np.array(flat), ravel_pytree(jax.tree.map(lambda leaf: leaf[0], particles))[1]


@pytest.mark.parametrize("prior_precision", [0.0, 2.0])
def test_adapting_is_steins_formula_in_loops(prior_precision):
    """Liu and Wang, equation 8: the posterior's score, and the kernel's by finite differences."""
    rate, count = 0.3, 3
    learner = make(inner_optimizer=optax.sgd(rate), prior_precision=prior_precision)
    params = started(learner)
    rows, n = task().support, len(task().support.y)
    starts, unflatten = numpy_particles(params.particles)

    def log_posterior(theta, start):
        likelihood = -n * gaussian_nll(
            Prediction(apply(unflatten(theta), rows.x), jnp.full((n, 1), STD)), rows.y
        )
        return likelihood - prior_precision / 2 * jnp.sum((theta - start) ** 2)

    score = jax.jit(jax.grad(log_posterior))
    theta = starts.copy()
    for _ in range(2):
        pairs = [np.sum((theta[i] - theta[j]) ** 2) for i in range(3) for j in range(i)]
        h = np.median(pairs) / np.log(count)

        def kernel(a, b, h=h):
            return np.exp(-np.sum((a - b) ** 2) / h)

        after = theta.copy()
        for i in range(count):
            for j in range(count):
                slope = np.zeros_like(theta[j])
                for place in range(len(slope)):
                    step = np.zeros_like(slope)
                    step[place] = 1e-5
                    higher, lower = (kernel(theta[j] + s, theta[i]) for s in (step, -step))
                    slope[place] = (higher - lower) / 2e-5
                pull = kernel(theta[j], theta[i]) * np.asarray(score(theta[j], starts[j]))
                after[i] += rate * STD**2 / (count * n) * (pull + slope)
        theta = after
    found, _ = numpy_particles(learner.adapt(params, rows).particles)
    assert np.abs(theta - starts).max() > 0.01
    np.testing.assert_allclose(found, theta, atol=1e-8)


def test_the_prediction_is_the_mixtures_moments():
    learner = make()
    adapted = learner.adapt(started(learner), task().support)
    outputs = np.stack(
        [
            apply(jax.tree.map(lambda leaf, j=j: leaf[j], adapted.particles), TASK.query.x)
            for j in range(3)
        ]
    )
    y_hat = learner.predict(adapted, task().query.x)
    np.testing.assert_allclose(y_hat.mean, outputs.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(y_hat.std**2, outputs.var(axis=0) + STD**2, rtol=1e-6)


@pytest.mark.parametrize("prior_precision", [0.0, 2.0])
@pytest.mark.parametrize("mode", [exact(), first_order()], ids=["exact", "first order"])
def test_one_particle_is_a_learner_that_descends(prior_precision, mode):
    """MAML of the same likelihood; with a prior, one that is held to its start."""
    inner = {"inner_steps": 3, "gradient": mode}
    rate = {"inner_optimizer": optax.sgd(0.2)}
    learner = make(particles=1, prior_precision=prior_precision, **rate, **inner)
    inner["inner_optimizer"] = optax.sgd(0.2 * STD**2)
    params = started(learner)
    theta = jax.tree.map(lambda leaf: leaf[0], params.particles)
    if prior_precision:
        proximal = prior_precision / len(task().support.y)
        other = imaml(FIXED_NOISE, loss=gaussian_nll, proximal=proximal, **inner)
    else:
        other = maml(FIXED_NOISE, loss=gaussian_nll, **inner)
    (loss, info), grad = value_and_grad(learner, params)
    (expected, told), slope = value_and_grad(other, theta)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose([*info], [*told], rtol=1e-6)
    found = jax.tree.map(lambda leaf: leaf[0], grad.particles)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), found, slope)


@pytest.mark.parametrize("mode", [exact(), mixed_mode()], ids=["exact", "mixed mode"])
def test_the_meta_gradient_goes_through_kernel_and_bandwidth(mode):
    learner = make(gradient=mode, inner_optimizer=optax.sgd(0.5))
    flat, unflatten = ravel_pytree(started(learner))
    loss = jax.jit(lambda at: learner.loss(unflatten(at), task(), 0)[0])
    grad = jax.jit(jax.grad(loss))(flat)
    for way in np.random.default_rng(0).standard_normal((3, flat.size)):
        h = 1e-4
        ahead, behind = (loss(flat + s * way) for s in (h, -h))
        np.testing.assert_allclose(grad @ way, (ahead - behind) / (2 * h), rtol=1e-5)


def test_rates_can_be_learned():
    learner = make(inner_optimizer=learned_rates(0.1))
    params = started(learner)
    assert isinstance(params, MetaParams)
    (_, info), grad = value_and_grad(learner, params)
    assert isinstance(info, AdaptationInfo)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grad))
    plain = make(inner_optimizer=optax.sgd(0.1))
    same = plain.adapt(params.start, task().support)
    found = learner.adapt(params, task().support)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, same)


def test_particles_in_one_place_move_as_one():
    learner = make()
    params = started(learner)
    together = params._replace(
        particles=jax.tree.map(lambda leaf: jnp.stack([leaf[0]] * 3), params.particles)
    )
    (loss, _), grad = value_and_grad(learner, together)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, grad)))
    moved = learner.adapt(together, task().support).particles
    jax.tree.map(lambda leaf: np.testing.assert_allclose(leaf[1], leaf[0], atol=1e-12), moved)


def test_particles_repel_one_another():
    """Without a potential all that is left is the kernel's push."""
    points = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    optimizer = stein(optax.sgd(0.1))
    updates, _ = optimizer.update(
        jnp.zeros_like(points), optimizer.init(points), points, settings=SteinSettings(1.0, 1.0)
    )

    def spread(at):
        return float(sum(jnp.sum((at[i] - at[j]) ** 2) for i in range(3) for j in range(i)))

    assert spread(points + updates) > spread(points)
    np.testing.assert_allclose(updates.sum(axis=0), 0, atol=1e-12)


def test_stein_descent_samples_a_normal_distribution():
    """Many small steps of twenty particles bring them to the mean and deviation of the target."""
    optimizer = stein(optax.sgd(0.5))
    points = jax.random.normal(jax.random.key(0), (20, 1)) * 0.1
    state = optimizer.init(points)

    def step(points, _):
        updates, _ = optimizer.update(
            (points - 3.0) / 4.0, state, points, settings=SteinSettings(1.0, 1.0)
        )
        return points + updates, None

    points, _ = jax.lax.scan(step, points, None, length=2000)
    assert abs(points.mean() - 3.0) < 0.05
    assert abs(points.std() - 2.0) < 0.25


def test_the_bandwidth_is_the_median_of_pairs():
    points = jnp.array([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9
    kernel, bandwidth = rbf_kernel(points)
    assert bandwidth == pytest.approx(4 / np.log(3))
    np.testing.assert_allclose(kernel[0], np.exp(-np.array([0, 1, 9]) * np.log(3) / 4))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"particles": 0}, ValueError, "at least 1 particle"),
        ({"noise": 0.0}, ValueError, "positive noise"),
        ({"prior_precision": -1.0}, ValueError, "not negative"),
        ({"inner_steps": -1}, ValueError, "not be negative"),
        ({"gradient": implicit()}, GradientError, "no common objective"),
        ({"gradient": exact}, TypeError, "exact"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


def test_a_network_with_deviations_of_its_own_is_refused():
    learner = bayesian_maml(gaussian(mlp((4, 2))))
    with pytest.raises(TypeError, match="ensemble"):
        learner.init(jax.random.key(0), jnp.ones((3, 2)))


def test_noise_has_the_shape_of_a_target():
    learner, x = bayesian_maml(mlp((4, 2)), particles=2, inner_steps=1), jnp.ones((3, 2))
    params = learner.init(jax.random.key(0), x)
    assert params.tenth_log_noise.shape == (2,)
    adapted = learner.adapt(params, Batch(x, jnp.ones((3, 2))))
    assert learner.predict(adapted, x).std.shape == (3, 2)
