"""Forecasts without a compiler are those of the learner that was trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maml_jax.meta import Batch
from maml_jax.risk.sliding import SUPPORT, Rows, forecast_rows
from maml_jax.risk.training import name_parameters, risk_learner


@pytest.mark.long
def test_every_bar_is_what_adapting_to_the_rows_before_it_predicts():
    learner = risk_learner((8, 4), (8,), True)
    rng = np.random.default_rng(0)
    count, horizon = 2 * SUPPORT + 70, 5
    x = rng.normal(size=(count, 3)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=count)).astype(np.float32)
    y[rng.random(count) < 0.1] = np.nan
    params = learner.init(jax.random.key(0), jnp.asarray(x))
    params = jax.tree.map(
        lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape), params
    )
    [(mean, std)] = forecast_rows([name_parameters(params)], [Rows(x, y)], horizon)
    for bar in (0, 4, 5, 6, 40, SUPPORT + 4, SUPPORT + 5, 2 * SUPPORT + 1, count - 1):
        rows = np.arange(max(0, bar - horizon - SUPPORT + 1), max(bar - horizon + 1, 1))
        there = (rows <= bar - horizon) & np.isfinite(y[rows])
        support = Batch(
            jnp.asarray(x[rows]), jnp.asarray(np.nan_to_num(y[rows]))[:, None],
            jnp.asarray(there, jnp.float32),
        )  # fmt: skip
        found = learner.predict(learner.adapt(params, support), jnp.asarray(x[bar : bar + 1]))
        np.testing.assert_allclose(mean[bar], found.mean[0, 0], rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(std[bar], found.std[0, 0], rtol=2e-4)


def test_members_are_mixed_by_mean_and_variance():
    learner = risk_learner((8, 4), (8,), True)
    x, y = np.zeros((3, 3), np.float32), np.full(3, np.nan)
    members = [
        name_parameters(learner.init(jax.random.key(seed), jnp.ones((1, 3)))) for seed in (0, 1)
    ]
    x[:] = np.random.default_rng(0).normal(size=x.shape)
    each = [forecast_rows([member], [Rows(x, y)], 1)[0] for member in members]
    [(mean, std)] = forecast_rows(members, [Rows(x, y)], 1)
    means, stds = (np.stack(values) for values in zip(*each, strict=True))
    np.testing.assert_allclose(mean, means.mean(0))
    np.testing.assert_allclose(std, np.sqrt((stds**2).mean(0) + means.var(0)))
