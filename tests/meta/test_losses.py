import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax
from scipy.stats import norm

from maml_jax import Prediction, cross_entropy, gaussian_nll, huber, mean_squared_error
from maml_jax.errors import ShapeError

RNG = np.random.default_rng(0)


def test_a_trailing_axis_of_one_is_not_broadcast():
    y = jnp.arange(5.0)
    np.testing.assert_allclose(mean_squared_error(y[:, None] + 1, y), 1.0)
    np.testing.assert_allclose(mean_squared_error(y + 1, y[:, None]), 1.0)
    np.testing.assert_allclose(huber()(y[:, None] + 1, y), 0.5)
    likely = Prediction(y[:, None], jnp.ones((5, 1)))
    np.testing.assert_allclose(gaussian_nll(likely, y), 0.5 * np.log(2 * np.pi), rtol=1e-6)


@pytest.mark.parametrize("loss", [mean_squared_error, huber(0.5)], ids=["squared", "huber"])
def test_other_shapes_are_refused(loss):
    with pytest.raises(ShapeError, match=r"\(5, 2\).*\(5,\)"):
        loss(jnp.ones((5, 2)), jnp.ones(5))


@pytest.mark.parametrize("delta", [0.3, 1.0, 4.0])
def test_huber_is_quadratic_near_zero_and_linear_beyond(delta):
    error = np.linspace(-3 * delta, 3 * delta, 61)
    each = jax.vmap(lambda e: huber(delta)(e[None], jnp.zeros(1)))(jnp.asarray(error))
    far = np.abs(error) > delta
    expected = np.where(far, delta * (np.abs(error) - delta / 2), error**2 / 2)
    np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6)
    slope = jax.grad(lambda e: huber(delta)(e[None], jnp.zeros(1)))
    np.testing.assert_allclose(slope(3 * delta), delta, rtol=1e-6)


def test_huber_is_scaled_as_in_optax():
    y_hat, y = (jnp.asarray(RNG.standard_normal((20, 2))) for _ in range(2))
    expected = optax.losses.huber_loss(y_hat, y, delta=0.7).mean()
    np.testing.assert_allclose(huber(0.7)(y_hat, y), expected, rtol=1e-6)


@pytest.mark.parametrize("delta", [0.0, -1.0])
def test_delta_must_be_positive(delta):
    with pytest.raises(ValueError, match="delta must be positive"):
        huber(delta)


def test_gaussian_nll_is_that_of_a_normal_distribution():
    mean, y = RNG.standard_normal((2, 20, 3))
    std = np.exp(RNG.standard_normal((20, 3)))
    loss = gaussian_nll(Prediction(jnp.asarray(mean), jnp.asarray(std)), jnp.asarray(y))
    np.testing.assert_allclose(loss, -norm(mean, std).logpdf(y).mean(), rtol=1e-5)


def test_gaussian_nll_needs_a_prediction_of_the_targets_shape():
    with pytest.raises(TypeError, match="Prediction"):
        gaussian_nll(jnp.ones((5, 2)), jnp.ones((5, 1)))
    with pytest.raises(ShapeError, match=r"\(5, 2\).*\(5,\)"):
        gaussian_nll(Prediction(jnp.ones((5, 2)), jnp.ones((5, 2))), jnp.ones(5))


@pytest.mark.parametrize("column", [False, True], ids=["[n]", "[n, 1]"])
def test_cross_entropy_of_classes_by_number(column):
    logits, classes = 3 * RNG.standard_normal((12, 4)), RNG.integers(4, size=12)
    y = jnp.asarray(classes)[:, None] if column else jnp.asarray(classes)
    expected = -log_softmax(logits, axis=1)[np.arange(12), classes].mean()
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), y), expected, rtol=1e-5)


def test_cross_entropy_of_probabilities_and_of_log_probabilities():
    logits, y = 3 * RNG.standard_normal((12, 4)), RNG.dirichlet(np.ones(4), size=12)
    expected = -(y * log_softmax(logits, axis=1)).sum(axis=1).mean()
    for outputs in (logits, log_softmax(logits, axis=1)):
        loss = cross_entropy(jnp.asarray(outputs), jnp.asarray(y))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (jnp.zeros(4, jnp.int32), "one class each"),
        (jnp.zeros((5, 3), jnp.int32), "one class each"),
        (jnp.zeros(5), "must be integers"),
        (jnp.zeros((5, 2)), "must be integers"),
    ],
)
def test_targets_that_are_no_classes_of_the_logits_are_refused(y, words):
    with pytest.raises(ShapeError, match=words):
        cross_entropy(jnp.zeros((5, 3)), y)


def test_logits_have_two_axes():
    with pytest.raises(ShapeError, match=r"\[n, classes\]"):
        cross_entropy(jnp.zeros(5), jnp.zeros(5, jnp.int32))
