"""Metrics against scikit-learn, SciPy and numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import accuracy_score, r2_score

from maml_jax import Prediction, accuracy, crps, gaussian_nll, nll, r_squared
from maml_jax.errors import ShapeError

pytestmark = pytest.mark.long

RNG = np.random.default_rng(0)
N = 20
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 2.0], N)
CLASSES = RNG.integers(3, size=N)
LOGITS = RNG.standard_normal((N, 3)) + 1.5 * np.eye(3)[CLASSES]
TARGETS = RNG.standard_normal((N, 2))
POINTS = TARGETS + 0.5 * RNG.standard_normal((N, 2))
STD = np.exp(0.3 * RNG.standard_normal((N, 2)))


def cast(tree):
    return jax.tree.map(jnp.asarray, tree)


def crps_of(y_hat, y):
    """The definition, integrated; the integrand jumps at y."""

    def of_one(mean, std, y):
        below, _ = quad(lambda t: norm.cdf(t, mean, std) ** 2, -np.inf, y)
        above, _ = quad(lambda t: norm.sf(t, mean, std) ** 2, y, np.inf)
        return below + above

    return np.vectorize(of_one)(y_hat.mean, y_hat.std, y)


def average(rows, weight):
    return np.average(rows.reshape(N, -1).mean(axis=1), weights=weight)


CASES = {
    "accuracy": (
        accuracy,
        LOGITS,
        CLASSES,
        lambda y_hat, y, w: accuracy_score(y, y_hat.argmax(axis=1), sample_weight=w),
    ),
    "r_squared": (
        r_squared,
        POINTS,
        TARGETS,
        lambda y_hat, y, w: r2_score(y, y_hat, sample_weight=w),
    ),
    "nll": (
        nll,
        Prediction(POINTS, STD),
        TARGETS,
        lambda y_hat, y, w: average(-norm.logpdf(y, y_hat.mean, y_hat.std), w),
    ),
    "crps": (
        crps,
        Prediction(POINTS, STD),
        TARGETS,
        lambda y_hat, y, w: average(crps_of(y_hat, y), w),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "y_hat", "y", "oracle"), CASES.values(), ids=CASES)
def test_metrics_are_those_of_others(metric, y_hat, y, oracle):
    for weight in (None, WEIGHT):
        expected = oracle(y_hat, y, weight)
        found = jax.jit(metric)(cast(y_hat), cast(y), weight=cast(weight))
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Rows of weight 0 may hold anything.
    absent = WEIGHT == 0
    y_hat = jax.tree.map(lambda leaf: np.where(absent[:, None], np.nan, leaf), y_hat)
    nothing = np.nan if y.dtype == float else -1
    y = np.where(absent.reshape(-1, *(1,) * (y.ndim - 1)), nothing, y)
    np.testing.assert_allclose(
        metric(cast(y_hat), cast(y), weight=cast(WEIGHT)), expected, rtol=1e-4
    )
    assert np.isnan(metric(cast(y_hat), cast(np.where(y == -1, 0, y))))


def test_one_target_may_lack_its_axis_and_others_are_refused():
    mean, y, std = POINTS[:, 0], TARGETS[:, 0], STD[:, 0]
    for metric, flat in (
        (r_squared, mean),
        (nll, Prediction(mean, std)),
        (crps, Prediction(mean, std)),
    ):
        column = jax.tree.map(lambda leaf: leaf[:, None], flat)
        expected = metric(cast(flat), cast(y))
        np.testing.assert_allclose(metric(cast(column), cast(y)), expected, rtol=1e-5)
        np.testing.assert_allclose(metric(cast(flat), cast(y[:, None])), expected, rtol=1e-5)
        with pytest.raises(ShapeError, match=r"\(20,\).*\(20, 2\)"):
            metric(cast(flat), cast(TARGETS))


def test_r_squared_judges_means_and_needs_targets_that_vary():
    expected = r_squared(cast(POINTS), cast(TARGETS))
    np.testing.assert_array_equal(r_squared(cast(Prediction(POINTS, STD)), cast(TARGETS)), expected)
    assert np.isnan(r_squared(jnp.zeros(4), jnp.ones(4)))
    assert np.isnan(r_squared(jnp.zeros(1), jnp.ones(1)))


def test_accuracy_of_probabilities_and_columns():
    logits, y = cast((LOGITS, CLASSES))
    expected = accuracy(logits, y)
    np.testing.assert_array_equal(accuracy(logits, y[:, None]), expected)
    np.testing.assert_array_equal(accuracy(jax.nn.softmax(logits), jnp.eye(3)[y]), expected)
    with pytest.raises(ShapeError, match="must be integers"):
        accuracy(logits, y.astype(float))
    with pytest.raises(ShapeError, match=r"\[n, classes\]"):
        accuracy(logits[:, 0], y)


def test_predictions_of_the_wrong_kind_are_refused():
    both = cast(Prediction(POINTS, STD))
    with pytest.raises(TypeError, match="means and deviations"):
        accuracy(both, cast(CLASSES))
    with pytest.raises(TypeError, match="Prediction"):
        crps(both.mean, cast(TARGETS))
    with pytest.raises(TypeError, match="Prediction"):
        nll(both.mean, cast(TARGETS))
    np.testing.assert_array_equal(nll(both, cast(TARGETS)), gaussian_nll(both, cast(TARGETS)))
