"""Walk-forward over windows that only grow."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_bars, random_market

from maml_jax import Batch, MetaLearner, Prediction, maml
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.features import Target, compute_features, technical_features
from maml_jax.models import mlp
from maml_jax.tasks import make_panel

pytestmark = pytest.mark.long

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
WINDOW = 12


def panel_of(bars, fill="next_close"):
    tables = {a: compute_features(b, FEATURES) for a, b in bars.items()}
    return make_panel(bars, tables, Target(horizon=3, fill=fill, volatility_window=5))


def ragged_market():
    bars = random_market(count=90)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[40, 41, 60]]).iloc[10:]
    bars["A2"] = bars["A2"].iloc[:60]
    return bars


def linear_regression():
    """Bayesian linear regression on the last bar's features, in information form."""

    def rows(x):
        return x if x.ndim == 2 else x[:, -1]

    def init(key, x):
        return jnp.full((), 2.0)

    def adapt(penalty, support, steps=None):
        assert steps is None
        prior = (penalty * jnp.eye(len(FEATURES)), jnp.zeros((len(FEATURES), 1)), 0)
        return update(prior, support)

    def update(adapted, batch):
        precision, moment, count = adapted
        x = rows(batch.x)
        return precision + x.T @ x, moment + x.T @ batch.y, count + len(x)

    def predict(adapted, x):
        precision, moment, count = adapted
        mean = rows(x) @ jnp.linalg.solve(precision, moment)
        return Prediction(mean, jnp.full_like(mean, count))

    return MetaLearner(init, adapt, predict, lambda *_: (jnp.zeros(()), None), update)


LEARNER = linear_regression()
PENALTY = jnp.asarray(2.0)


def walk(panel, learner=LEARNER, window=WINDOW, steps=None, chunk=None, devices=None, **span):
    supports = find_supports(panel, window, growing=True, **span)
    options = {"steps": steps, "chunk": chunk, "devices": devices}
    return walk_forward(learner, PENALTY, panel, supports, **options)


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
@pytest.mark.parametrize("length", [None, 4])
def test_equals_a_naive_loop_that_adapts_on_all_complete_rows(fill, length):
    panel = panel_of(ragged_market(), fill)
    first, last = 30, 85
    fast = walk(panel, length=length, first=first, last=last)
    x, y = np.asarray(panel.features), np.asarray(panel.targets)
    valid, end = np.asarray(panel.valid), np.asarray(panel.label_end)
    slow, seen = np.full((2, *valid.shape), np.nan)
    for a in range(len(panel.assets)):
        own = np.flatnonzero(valid[a])[(length or 1) - 1 :]
        for t in own[(own >= first) & (own <= last)]:
            rows = [s for s in own if end[a, s] <= t]
            if len(rows) >= WINDOW:
                adapted = LEARNER.adapt(PENALTY, Batch(x[a, rows], y[a, rows][:, None]))
                slow[a, t] = LEARNER.predict(adapted, x[a, t][None]).mean[0, 0]
                seen[a, t] = len(rows)
    assert np.isfinite(slow).sum() > 100
    np.testing.assert_array_equal(fast.std, seen)
    np.testing.assert_allclose(fast.mean, slow, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"chunk": 1}, {"chunk": 2}, {"devices": 3}])
def test_neither_chunk_nor_devices_change_the_result(options):
    panel = panel_of(random_market(count=70, assets=5))
    alone, other = walk(panel), walk(panel, **options)
    np.testing.assert_allclose(other.mean, alone.mean, rtol=1e-4, atol=1e-5)


def test_later_bars_change_no_earlier_prediction():
    bars = ragged_market()
    changed = {a: b.copy() for a, b in bars.items()}
    for frame in changed.values():
        frame.loc[frame.index > bars["A0"].index[70]] *= 1.3
    cut = {a: b.loc[: bars["A0"].index[70]] for a, b in bars.items()}
    whole, *others = (walk(panel_of(each)).mean for each in (bars, changed, cut))
    for other in others:
        np.testing.assert_allclose(other[:, :71], whole[:, :71], rtol=1e-4, atol=1e-5)
    assert not np.allclose(others[0][0, 71:], whole[0, 71:], atol=1e-3)


def test_assets_are_as_asked_and_no_steps_leave_the_prior():
    panel = panel_of(ragged_market())
    result = walk(panel, steps=0, first=50, assets=["A1"])
    assert np.isnan(result.mean[[0, 2]]).all()
    assert (result.mean[1, 62:] == 0).all()
    assert (result.std[1, 62:] == 0).all()
    assert (walk(panel, first=50, assets=["A1"]).std[1, 62:] > WINDOW).all()


def test_no_row_at_all_is_no_prediction():
    panel = panel_of({"A": random_bars(count=30)})
    result = walk(panel, window=500)
    assert np.isnan(result.mean).all()


def test_learners_that_cannot_take_in_rows_are_refused():
    panel = panel_of({"A": random_bars(count=60)})
    learner = maml(mlp((4, 1)))
    with pytest.raises(ValueError, match="has no `update`.*growing=False"):
        walk(panel, learner)
    with pytest.raises(ValueError, match="steps must be None, or 0 .* got 3"):
        walk(panel, steps=3)


def test_a_longer_history_and_another_asset_need_no_new_program():
    traced = [0]

    def update(adapted, batch):
        traced[0] += 1
        return LEARNER.update(adapted, batch)

    learner = LEARNER._replace(update=update)
    before = 0
    for count, assets in ((200, 3), (210, 3), (210, 4)):
        panel = panel_of(random_market(count=count, assets=assets))
        result = walk(panel, learner)
        assert np.isfinite(result.mean[:, 40:]).all()
        before = before or traced[0]
        assert traced[0] == before
