"""Walk-forward of models that read several bars."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_market

from maml_jax import Batch, maml
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.backtest.walk_forward.rolling import prediction_at
from maml_jax.features import Target, compute_features, technical_features
from maml_jax.models import gru
from maml_jax.parallel.map import plan_tasks
from maml_jax.tasks import Layout, labelled_rows, make_panel
from maml_jax.tasks.rows import row_table

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
WINDOW, LENGTH = 12, 5


@pytest.fixture(scope="module")
def panel():
    bars = random_market(count=90)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[40, 41, 60]]).iloc[10:]
    bars["A2"] = bars["A2"].iloc[:60]
    tables = {a: compute_features(b, FEATURES) for a, b in bars.items()}
    return make_panel(bars, tables, Target(horizon=3, volatility_window=5))


@pytest.fixture(scope="module")
def learner():
    return maml(gru(6), inner_optimizer=optax.sgd(0.05), inner_steps=3)


@pytest.fixture(scope="module")
def params(learner):
    return learner.init(jax.random.key(0), jnp.zeros((1, LENGTH, len(FEATURES))))


def test_equals_a_naive_loop(learner, params, panel):
    supports = find_supports(panel, WINDOW, length=LENGTH, first=20)
    fast = walk_forward(learner, params, panel, supports, chunk=7)
    x, y = np.asarray(panel.features), np.asarray(panel.targets)
    valid, end = np.asarray(panel.valid), np.asarray(panel.label_end)
    adapt, predict = jax.jit(learner.adapt), jax.jit(learner.predict)
    slow = np.full(valid.shape, np.nan)
    for a in range(len(panel.assets)):
        own = np.flatnonzero(valid[a])
        read = {t: x[a, own[i - LENGTH + 1 : i + 1]] for i, t in enumerate(own) if i + 1 >= LENGTH}
        for t in range(20, 90):
            rows = [s for s in read if end[a, s] <= t][-WINDOW:]
            if t in read and len(rows) == WINDOW:
                support = Batch(np.stack([read[s] for s in rows]), y[a, rows][:, None])
                slow[a, t] = predict(adapt(params, support), read[t][None])[0, 0]
    assert np.isfinite(slow).sum() > 100
    np.testing.assert_array_equal(np.isfinite(fast), np.isfinite(slow))
    np.testing.assert_allclose(fast, slow, atol=1e-5)
    np.testing.assert_array_equal(np.isfinite(fast), supports.due)


@pytest.mark.slow
def test_later_bars_change_no_earlier_prediction(learner, params, panel):
    late = np.arange(90) > 70
    changed = panel._replace(
        features=jnp.where(late[:, None], -panel.features, panel.features),
        targets=jnp.where(panel.label_end > 70, -panel.targets, panel.targets),
    )
    before, after = (
        walk_forward(*(learner, params, each), find_supports(each, WINDOW, length=LENGTH, first=40))
        for each in (panel, changed)
    )
    np.testing.assert_allclose(after[:, :71], before[:, :71], atol=1e-6)
    assert not np.allclose(after[0, 71:], before[0, 71:], atol=1e-3)


@pytest.mark.slow
def test_no_array_of_all_sequences_is_ever_made(learner, params, panel):
    """A program for many windows holds the sequences of one chunk."""
    length, windows, chunk = 32, 4096, 4
    table = row_table(panel, labelled_rows(panel))
    asks, count = jnp.zeros((windows, 2), jnp.int32), jnp.asarray(windows, jnp.int32)
    static = (learner, Layout((WINDOW,)), None, length)
    plan = plan_tasks(prediction_at, static, asks, params, table, chunk=chunk, devices=1)
    compiled = plan.compiled.lower(asks, (params, table), count).compile()
    of_all = windows * WINDOW * length * len(FEATURES) * 4
    assert compiled.memory_analysis().temp_size_in_bytes < of_all / 20
