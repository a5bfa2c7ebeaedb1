"""What compares a row with the rows of a support set, against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from maml_jax import Batch, Model, direction, matching_networks, prototypical_networks
from maml_jax.learners._direction import THRESHOLD, classes_of
from maml_jax.learners._matching_networks import MatchingParams

EMBEDDING = Model(lambda key, x: jax.random.normal(key, (2, 4)), lambda w, x: jnp.tanh(x @ w))
CLASSES = np.array([0, 1, 2, 0, 1, 2, 2])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64():
        yield


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape) for shape in ((2, 4), (7, 2), (5, 2)))


def prototypes_of(w, x, y, classes=3):
    learner = prototypical_networks(EMBEDDING, classes=classes)
    return learner, learner.adapt(jnp.asarray(w), Batch(jnp.asarray(x), jnp.asarray(y)))


def test_prototypes_are_a_linear_classifier(numbers):
    """With weights 2 c and biases -|c|^2 on the embedding."""
    w, x, xq = numbers
    learner, adapted = prototypes_of(w, x, CLASSES)
    points = np.tanh(x @ w)
    centres = np.stack([points[CLASSES == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(adapted.centres, centres, rtol=1e-12)
    expected = softmax(np.tanh(xq @ w) @ (2 * centres).T - (centres**2).sum(axis=1), axis=1)
    predicted = jax.nn.softmax(learner.predict(adapted, jnp.asarray(xq)))
    np.testing.assert_allclose(predicted, expected, rtol=1e-10)


def test_a_class_without_support_stands_at_the_mean_of_all_rows(numbers):
    w, x, xq = numbers
    learner, adapted = prototypes_of(w, x, CLASSES, classes=4)
    np.testing.assert_allclose(adapted.centres[3], np.tanh(x @ w).mean(axis=0), rtol=1e-12)
    assert jnp.isfinite(learner.predict(adapted, jnp.asarray(xq))).all()


def matched(numbers, y, temperature, **options):
    w, x, xq = numbers
    learner = matching_networks(EMBEDDING, **options)
    params = MatchingParams(jnp.asarray(w), jnp.log(temperature))
    adapted = learner.adapt(params, Batch(jnp.asarray(x), jnp.asarray(y)))
    return learner.predict(adapted, jnp.asarray(xq))


def attention(numbers, temperature):
    w, x, xq = numbers
    keys, asked = (
        p / np.linalg.norm(p, axis=1)[:, None] for p in (np.tanh(x @ w), np.tanh(xq @ w))
    )
    return softmax(asked @ keys.T / temperature, axis=1)


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_matching_averages_targets_by_likeness(numbers, temperature):
    y = np.random.default_rng(1).standard_normal((7, 2))
    np.testing.assert_allclose(
        matched(numbers, y, temperature), attention(numbers, temperature) @ y, rtol=1e-9
    )


def test_matching_gives_classes_the_likeness_of_their_rows(numbers):
    """But for a part in ten thousand that all classes share, even one without a row."""
    log_probabilities = matched(numbers, CLASSES, 0.5, classes=4)
    shares = attention(numbers, 0.5) @ np.eye(4)[CLASSES]
    np.testing.assert_allclose(np.exp(log_probabilities), (1 - 1e-4) * shares + 1e-4 / 4, rtol=1e-9)
    np.testing.assert_allclose(np.exp(log_probabilities).sum(axis=1), 1.0)


def test_matching_begins_with_the_temperature_that_it_is_given():
    params = matching_networks(EMBEDDING, temperature=0.7).init(jax.random.key(0), jnp.ones((1, 2)))
    np.testing.assert_allclose(jnp.exp(params.log_temperature), 0.7, rtol=1e-6)


def test_returns_are_down_flat_or_up():
    y = jnp.array([-3.0, -0.41, -0.4, 0.0, 0.4, 0.41, 3.0])
    assert classes_of(y, 0.4).tolist() == [0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("make", [prototypical_networks, matching_networks])
def test_direction_is_the_excess_of_up_over_down_in_any_unit_of_returns(numbers, make, scale):
    _, x, xq = map(jnp.asarray, numbers)
    y = scale * np.random.default_rng(2).standard_normal(7)
    classifier = make(EMBEDDING, classes=3)
    learner = direction(classifier)
    params = learner.init(jax.random.key(0), x)
    predicted = learner.predict(learner.adapt(params, Batch(x, jnp.asarray(y))), xq)
    classes = classes_of(jnp.asarray(y), THRESHOLD * np.sqrt((y**2).mean()).item())
    logits = classifier.predict(classifier.adapt(params, Batch(x, classes)), xq)
    down, _, up = softmax(logits, axis=1).T
    assert predicted.shape == (5, 1)
    assert (jnp.abs(predicted) <= 1).all()
    np.testing.assert_allclose(predicted[:, 0], up - down, rtol=1e-6)
