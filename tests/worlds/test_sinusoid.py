import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maml_jax.worlds.sinusoid import sinusoid_grid_sampler, sinusoid_sampler


def fitted(x, y):
    """Amplitude and phase of y = A sin(x - p), from A cos(p) sin(x) - A sin(p) cos(x)."""
    basis = np.concatenate([np.sin(x), -np.cos(x)], axis=1)
    (c, s), residual, *_ = np.linalg.lstsq(basis, y[:, 0], rcond=None)
    assert residual < 1e-8
    return np.hypot(c, s), np.arctan2(s, c) % (2 * np.pi)


@pytest.mark.parametrize("turn", [1.0, 2.0])
def test_every_task_is_one_sinusoid_within_the_bounds(turn):
    sample = sinusoid_sampler(meta_batch=200, shots=7, query=9, phase=(0.0, turn * np.pi))
    tasks = sample(jax.random.key(0))
    assert tasks.support.x.shape == (200, 7, 1)
    assert tasks.query.y.shape == (200, 9, 1)
    x, y = (
        np.concatenate(pair, axis=1, dtype=float)
        for pair in zip(tasks.support[:2], tasks.query[:2], strict=True)
    )
    assert np.abs(x).max() <= 5
    assert np.abs(x).max() > 4.9
    a, p = np.array([fitted(*each) for each in zip(x, y, strict=True)]).T
    assert a.min() >= 0.0999
    assert a.max() <= 5.001
    assert p.max() <= turn * np.pi + 1e-3
    np.testing.assert_allclose([a.mean(), p.mean()], [2.55, turn * np.pi / 2], rtol=0.15)


def test_the_grid_is_seen_whole_in_an_order_of_each_tasks_own():
    tasks = sinusoid_grid_sampler(meta_batch=4, query=20)(jax.random.key(1))
    x = np.asarray(tasks.support.x[..., 0])
    np.testing.assert_allclose(
        np.sort(x, axis=1), np.tile(np.linspace(-5, 5, 50), (4, 1)), atol=1e-6
    )
    assert (x[0] != x[1]).any()
    for task in range(4):
        both = [
            jnp.concatenate([s[task], q[task]])
            for s, q in zip(tasks.support[:2], tasks.query[:2], strict=True)
        ]
        fitted(*(np.asarray(each, float) for each in both))


def test_as_many_are_asked_as_are_shown_by_default():
    assert sinusoid_sampler(meta_batch=2, shots=3)(jax.random.key(0)).query.x.shape == (2, 3, 1)
    assert sinusoid_grid_sampler(meta_batch=2)(jax.random.key(0)).query.x.shape == (2, 50, 1)


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="shots must be at least 1"):
        sinusoid_sampler(meta_batch=1, shots=0)
    with pytest.raises(ValueError, match="meta_batch must be at least 1"):
        sinusoid_grid_sampler(meta_batch=0)
