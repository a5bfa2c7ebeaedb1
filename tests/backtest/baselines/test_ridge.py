"""Ridge regression as a baseline: the same as written out, whatever way rows come in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_market

from maml_jax import Batch
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.backtest.baselines.ridge import PENALTIES, ridge_regression
from maml_jax.backtest.baselines.volatility import recent_regression
from maml_jax.errors import ShapeError
from maml_jax.features import Target, compute_features, find_features, fit_scaler
from maml_jax.tasks import make_panel

LEARNER = ridge_regression()


def rows_of(seed, count=40, width=5, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, width)) + 0.3
    y = x @ rng.standard_normal(width) + noise * rng.standard_normal(count) + 2
    return x, y


def fitted(x, y, at):
    batch = Batch(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)[:, None])
    start = LEARNER.init(jax.random.key(0), batch.x)
    return LEARNER.predict(LEARNER.adapt(start, batch), jnp.asarray(at, jnp.float32))


def written_out(x, y, at):
    """Choose the penalty by the hat matrix, predict by the normal equations."""
    n, width = x.shape
    centred, found = x - x.mean(axis=0), {}
    for penalty in PENALTIES:
        inverse = np.linalg.inv(centred.T @ centred + penalty * np.eye(width))
        hat = centred @ inverse @ centred.T + 1 / n
        residual = y - hat @ y
        freedom = n - np.trace(hat)
        found[penalty] = (n * residual @ residual / freedom**2, inverse, residual, freedom)
    penalty = min(found, key=lambda each: found[each][0])
    _, inverse, residual, freedom = found[penalty]
    away = at - x.mean(axis=0)
    mean = y.mean() + away @ inverse @ centred.T @ (y - y.mean())
    doubt = 1 / n + np.einsum("ij,jk,ik->i", away, inverse, away)
    return penalty, mean, np.sqrt(residual @ residual / freedom * (1 + doubt))


@pytest.mark.parametrize("noise", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_regression_that_the_formulas_say(seed, noise):
    x, y = rows_of(seed, noise=noise)
    at = np.random.default_rng(seed + 100).standard_normal((7, x.shape[1]))
    _, mean, std = written_out(x, y, at)
    found = fitted(x, y, at)
    np.testing.assert_allclose(found.mean[:, 0], mean, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.std[:, 0], std, rtol=2e-3)


def test_the_penalty_grows_with_the_noise():
    chosen = [
        np.mean([np.log(written_out(*rows_of(seed, noise=noise), np.zeros((1, 5)))[0])
                 for seed in range(20)])
        for noise in (0.1, 3.0, 30.0)
    ]  # fmt: skip
    assert chosen[0] < chosen[1] < chosen[2]


def test_rows_may_come_one_after_the_other():
    x, y = rows_of(3)
    state = LEARNER.init(jax.random.key(0), jnp.zeros((1, 5)))
    for i in range(0, len(x), 8):
        part = Batch(jnp.asarray(x[i : i + 8], jnp.float32), jnp.asarray(y[i : i + 8])[:, None])
        state = LEARNER.update(state, part)
    found, whole = LEARNER.predict(state, jnp.asarray(x, jnp.float32)), fitted(x, y, x)
    for name in ("mean", "std"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-4)


def test_of_a_sequence_the_last_bar_is_read():
    x, y = rows_of(5)
    sequences = np.stack([np.random.default_rng(1).standard_normal(x.shape), x], axis=1)
    np.testing.assert_array_equal(fitted(sequences, y, sequences).mean, fitted(x, y, x).mean)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_few_rows_and_constant_features_give_numbers(count, spread):
    x, y = rows_of(0, count=count, width=8)
    found = fitted(spread * x + 1, y, np.ones((2, 8)))
    assert np.isfinite(found.mean).all() and (np.asarray(found.std) > 0).all()
    if not spread:
        np.testing.assert_allclose(found.mean, y.mean(), rtol=1e-5)


def test_deviations_are_those_of_outcomes():
    covered = []
    for seed in range(60):
        x, y = rows_of(seed, count=90, noise=2.0)
        found = fitted(x[:60], y[:60], x[60:])
        covered.append(np.abs(y[60:] - found.mean[:, 0]) < found.std[:, 0])
    assert np.mean(covered) == pytest.approx(0.683, abs=0.04)


def test_more_than_one_target_is_refused():
    x, _ = rows_of(0)
    with pytest.raises(ShapeError, match="1 target per row"):
        fitted(x, np.ones((len(x), 2)), x)


@pytest.fixture(scope="module")
def panel():
    bars = random_market(count=120, assets=2)
    features = find_features(
        ["rsi", "return_1", "momentum"], window=5, returns=(1,), fast=3, slow=5
    )
    tables = {a: compute_features(b, features) for a, b in bars.items()}
    scaler = fit_scaler(list(tables.values()))
    scaled = {a: scaler.transform(t) for a, t in tables.items()}
    return make_panel(bars, scaled, Target(horizon=3, volatility_window=5, fill="next_close"))


def test_it_walks_forward_as_a_regression_on_the_last_complete_rows(panel):
    start = LEARNER.init(jax.random.key(0), jnp.zeros((1, len(panel.feature_names))))
    found = walk_forward(LEARNER, start, panel, find_supports(panel, 15, first=60))
    known = np.isfinite(found.mean)
    by_penalty = np.stack(
        [recent_regression(panel, window=15, penalty=p, first=60) for p in PENALTIES]
    )
    assert (known == np.isfinite(by_penalty[0])).all() and known.sum() > 100
    nearest = np.abs(by_penalty - found.mean)[:, known].min(axis=0)
    np.testing.assert_allclose(nearest, 0, atol=1e-4)
    assert np.abs(by_penalty[0] - by_penalty[-1])[known].max() > 0.1


def test_growing_windows_take_in_all_rows_so_far(panel):
    start = LEARNER.init(jax.random.key(0), jnp.zeros((1, len(panel.feature_names))))
    supports = find_supports(panel, 15, first=60, growing=True)
    found = walk_forward(LEARNER, start, panel, supports)
    x, y = np.asarray(panel.features, float), np.asarray(panel.targets, float)
    ends = np.asarray(panel.label_end)
    for time in (60, 90, 119):
        rows = ends[1] <= time
        _, mean, std = written_out(x[1, rows], y[1, rows], x[1, time : time + 1])
        assert found.mean[1, time] == pytest.approx(mean[0], abs=2e-3)
        assert found.std[1, time] == pytest.approx(std[0], rel=2e-3)
