import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maml_jax.worlds.known_answer import (
    LINKS,
    NOISES,
    World,
    information_coefficient,
    known_answer_sampler,
    known_answer_tasks,
    oracle,
    signal_variance,
)

pytestmark = pytest.mark.long

DIRECTIONS = jax.random.normal(jax.random.key(123), (10, 3)) / 10**0.5


def phi_by_hand(x):
    return 1.5 / 3**0.5 * np.tanh(np.asarray(x, float) @ np.asarray(DIRECTIONS, float))


@pytest.mark.parametrize("snr", [1.0, 0.1, 0.02])
def test_the_oracle_is_bayesian_linear_regression(snr):
    drawn, _ = known_answer_tasks(World(snr), jax.random.key(0), tasks=5)
    ours = jax.vmap(lambda task: oracle(World(snr), task))(drawn)
    for task in range(5):
        phi, asked = phi_by_hand(drawn.support.x[task]), phi_by_hand(drawn.query.x[task])
        y = np.asarray(drawn.support.y[task], float)
        by_hand = asked @ np.linalg.solve(phi.T @ phi + np.eye(3) / snr, phi.T @ y)
        np.testing.assert_allclose(ours[task], by_hand, atol=2e-5)


# Means of 20,000 tasks drawn by numpy and predicted by ridge regression on functions written by
# hand; the standard error of ours is 0.0035, 0.0075 and 0.009.
@pytest.mark.long
@pytest.mark.parametrize(
    ("snr", "known", "error"),
    [
        (1.0, 0.877, 0.012),
        pytest.param(0.1, 0.539, 0.025, marks=pytest.mark.slow),
        pytest.param(0.02, 0.286, 0.03, marks=pytest.mark.slow),
    ],
)
def test_the_oracle_is_as_good_as_can_be(snr, known, error):
    drawn, truth = known_answer_tasks(World(snr), jax.random.key(0), tasks=4000, query=200)
    predictions = jax.vmap(lambda task: oracle(World(snr), task))(drawn)
    ic = float(information_coefficient(predictions, truth.query.y))
    assert ic == pytest.approx(known, abs=error)


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("link", LINKS)
def test_a_signal_to_noise_ratio_means_the_same_everywhere(link, noise):
    world = World(0.1, link=link, noise=noise)
    drawn, truth = known_answer_tasks(world, jax.random.key(1), tasks=20_000)
    f = truth.query.y
    assert float(f.mean()) == pytest.approx(0, abs=0.03)
    assert float(f.var()) == pytest.approx(signal_variance(), rel=0.03)
    assert float((drawn.query.y - f).var()) == pytest.approx(10, rel=0.03)
    by_hand = phi_by_hand(jax.random.normal(jax.random.key(2), (100_000, 10)))
    assert signal_variance() == pytest.approx((by_hand**2).sum(axis=1).mean(), rel=0.01)


@pytest.mark.long
def test_students_noise_has_heavy_tails():
    drawn, truth = known_answer_tasks(
        World(1.0, noise="student_t"), jax.random.key(1), tasks=20_000
    )
    noise = np.abs(np.asarray(drawn.query.y - truth.query.y)) * 2**0.5
    # Quantiles of Student's distribution of four degrees of freedom (tables).
    quantiles = np.quantile(noise, [0.5, 0.9, 0.99])
    np.testing.assert_allclose(quantiles, [0.741, 2.132, 4.604], rtol=0.02)


def test_coefficients_drift_as_they_are_told():
    """E[f_s f_t | x] = phi(x_s) . phi(x_t) rho^|s - t|, a regression through the origin."""
    _, truth = known_answer_tasks(World(0.1, drift=0.8), jax.random.key(3), tasks=20_000, support=8)
    pairs = zip(truth.support[:2], truth.query[:2], strict=True)
    x, f = (np.concatenate(pair, axis=1, dtype=float) for pair in pairs)
    phi, f = phi_by_hand(x), f[..., 0]

    def memory(s, t):
        kernel = (phi[:, s] * phi[:, t]).sum(axis=1)
        return (f[:, s] * f[:, t] * kernel).sum() / (kernel**2).sum()

    for s, t, lag in [(0, 1, 1), (3, 6, 3), (0, 7, 7), (7, 8, 1), (5, 20, 3), (8, 20, 0)]:
        assert memory(s, t) == pytest.approx(0.8**lag, abs=0.08), (s, t)


def test_who_knows_of_the_drift_predicts_better():
    world = World(1.0, drift=0.9)
    drawn, truth = known_answer_tasks(world, jax.random.key(4), tasks=2000)

    def ic(believed):
        predictions = jax.vmap(lambda task: oracle(believed, task))(drawn)
        return float(information_coefficient(predictions, truth.query.y))

    assert ic(world) > ic(World(1.0)) + 0.01
    assert ic(world) > ic(World(1.0, drift=0.7))


def test_the_sampler_draws_the_tasks_without_their_truth():
    world, key = World(0.1, link="step"), jax.random.key(5)
    drawn, truth = known_answer_tasks(world, key, tasks=3)
    ours = known_answer_sampler(world, meta_batch=3)(key)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, ours, drawn))
    assert jnp.array_equal(drawn.support.x, truth.support.x)
    assert ours.support.y.shape == ours.query.y.shape == (3, 20, 1)


def test_a_constant_prediction_has_no_skill():
    truth = jnp.arange(12.0).reshape(2, 6, 1)
    assert float(information_coefficient(jnp.ones_like(truth), truth)) == 0
    assert float(information_coefficient(2 * truth + 1, truth)) == pytest.approx(1)
    assert float(information_coefficient(-truth, truth)) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"snr": 0.0}, "snr must be positive"),
        ({"snr": 1.0, "drift": 1.5}, "drift must lie in"),
        ({"snr": 1.0, "link": "cubic"}, "link must be one of"),
        ({"snr": 1.0, "noise": "none"}, "noise must be one of"),
    ],
)
def test_an_impossible_world_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        World(**fault)
