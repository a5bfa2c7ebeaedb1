import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maml_jax import implicit
from maml_jax.errors import GradientError

SGD = optax.sgd(0.2)


def bowl(w, context):
    """Its minimum is at A^-1 b."""
    a, b = context
    return 0.5 * w @ a @ w - b @ w


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64():
        yield


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    root, b, start, weight = (rng.standard_normal(s) for s in ((4, 4), 4, 4, 4))
    return root @ root.T / 4 + np.eye(4), b, start, weight


def gradients(mode, problem, objective=bowl, steps=300):
    """Of a weighted sum of the minimum in start and context."""
    a, b, start, weight = map(jnp.asarray, problem)

    def total(start, context):
        return mode(objective, SGD, start, context, steps)[0] @ weight

    return jax.jit(jax.grad(total, argnums=(0, 1)))(start, (a, b))


def test_the_derivative_is_that_of_the_minimum(problem):
    """d(A^-1 b) = A^-1 (db - dA A^-1 b)."""
    a, b, _, weight = problem
    to_start, (to_a, to_b) = gradients(implicit(iterations=20, tolerance=1e-12), problem)
    pulled = np.linalg.solve(a, weight)
    np.testing.assert_allclose(to_b, pulled, rtol=1e-8)
    # The quadratic form sees the symmetric part of A alone.
    both = np.outer(pulled, np.linalg.solve(a, b))
    np.testing.assert_allclose(to_a, -(both + both.T) / 2, rtol=1e-7)
    np.testing.assert_array_equal(to_start, 0)


def test_damping_and_scale(problem):
    a, _, _, weight = problem
    mode = implicit(iterations=20, tolerance=1e-12, damping=0.5, scale=3.0)
    _, (_, to_b) = gradients(mode, problem)
    np.testing.assert_allclose(to_b, 3 * np.linalg.solve(a + 0.5 * np.eye(4), weight), rtol=1e-8)


def test_more_iterations_come_closer(problem):
    a, _, _, weight = problem
    exactly = np.linalg.solve(a, weight)
    errors = [
        np.abs(gradients(implicit(iterations=k, tolerance=0.0), problem)[1][1] - exactly).max()
        for k in (1, 2, 4)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-8  # as many as there are dimensions


def test_curved_minima_and_contexts_of_classes():
    """w - sin(w) / 2 = eta at the minimum, so that dw / deta = 1 / (1 - cos(w) / 2)."""

    def objective(w, context):
        eta, which = context
        return jnp.sum(0.5 * w**2 + 0.5 * jnp.cos(w) - eta[which] * w)

    def lowest(eta):
        mode = implicit(iterations=10, tolerance=1e-12)
        return mode(objective, SGD, jnp.zeros(3), (eta, jnp.array([1, 0, 1])), 400)[0]

    eta = jnp.array([0.3, 2.0])
    w = lowest(eta)
    np.testing.assert_allclose(w - jnp.sin(w) / 2, eta[jnp.array([1, 0, 1])], rtol=1e-9)
    slope = jax.jit(jax.jacrev(lowest))(eta)
    each = 1 / (1 - np.cos(w) / 2)
    np.testing.assert_allclose(slope, each[:, None] * [[0, 1], [1, 0], [0, 1]], rtol=1e-8)


def test_settings_of_the_optimizer_receive_nothing(problem):
    a, b, start, weight = map(jnp.asarray, problem)
    scaled = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        lambda grads, state, params=None, *, settings, **extra: (-settings * grads, state),
    )

    def total(rate):
        return implicit()(bowl, scaled, start, (a, b), 5, rate)[0] @ weight

    value, slope = jax.jit(jax.value_and_grad(total))(jnp.asarray(0.1))
    assert slope == 0
    assert value != total(jnp.asarray(0.2))


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_mode_is_refused_by_name(problem, compiled):
    a, b, start, _ = map(jnp.asarray, problem)

    def lowest(b):
        return implicit()(bowl, SGD, start, (a, b), 3)[0]

    with pytest.raises(GradientError, match=r"implicit\(\).*gradient=exact\(\)"):
        jax.jvp(jax.jit(lowest) if compiled else lowest, (b,), (b,))


@pytest.mark.parametrize("wrong", [{"iterations": 0}, {"tolerance": -1.0}, {"damping": -1.0}])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        implicit(**wrong)
