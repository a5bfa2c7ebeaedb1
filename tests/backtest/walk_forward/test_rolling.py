import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_bars, random_market

from maml_jax import Batch, MetaLearner, Prediction, maml
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.features import Target, compute_features, fit_scaler, technical_features
from maml_jax.models import mlp
from maml_jax.tasks import SupportRows, make_panel

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
WINDOW = 12


def panel_of(bars, fill="next_close"):
    tables = {a: compute_features(b, FEATURES) for a, b in bars.items()}
    scaler = fit_scaler(tables.values())
    scaled = {a: scaler.transform(t) for a, t in tables.items()}
    return make_panel(bars, scaled, Target(horizon=3, fill=fill, volatility_window=5))


def ragged_market():
    bars = random_market(count=90)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[40, 41, 60]]).iloc[10:]
    bars["A2"] = bars["A2"].iloc[:60]
    return bars


@pytest.fixture(scope="module")
def learner():
    return maml(mlp((16, 1)), inner_optimizer=optax.sgd(0.05), inner_steps=5)


@pytest.fixture(scope="module")
def params(learner):
    return learner.init(jax.random.key(0), jnp.zeros((1, len(FEATURES))))


@pytest.mark.parametrize("fill", ["close", "next_close", "next_open"])
def test_equals_a_naive_loop_that_adapts_one_window_at_a_time(learner, params, fill):
    panel = panel_of(ragged_market(), fill)
    first, last = 30, 85
    supports = find_supports(panel, WINDOW, first=first, last=last)
    fast = walk_forward(learner, params, panel, supports, chunk=7)
    x, y = np.asarray(panel.features), np.asarray(panel.targets)
    valid, end = np.asarray(panel.valid), np.asarray(panel.label_end)
    slow = np.full(valid.shape, np.nan)
    for a in range(len(panel.assets)):
        for t in range(first, last + 1):
            rows = [s for s in range(t) if valid[a, s] and end[a, s] <= t][-WINDOW:]
            if valid[a, t] and len(rows) == WINDOW:
                adapted = learner.adapt(params, Batch(x[a, rows], y[a, rows][:, None]))
                slow[a, t] = learner.predict(adapted, x[a, t][None])[0, 0]
    assert np.isfinite(slow).sum() > 100
    np.testing.assert_array_equal(np.isfinite(fast), np.isfinite(slow))
    np.testing.assert_allclose(fast, slow, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("fewest", [0, 5])
def test_young_assets_adapt_on_what_there_is_and_old_rows_are_forgotten(learner, params, fewest):
    """As a naive loop over rows without weights 0, each weighing less than the next newer one."""
    panel = panel_of(ragged_market())
    support = SupportRows(WINDOW, fewest=fewest, forget=0.9)
    fast = walk_forward(learner, params, panel, find_supports(panel, support), chunk=7)
    x, y = np.asarray(panel.features), np.asarray(panel.targets)
    valid, end = np.asarray(panel.valid), np.asarray(panel.label_end)
    sizes = set()
    for a, t in np.ndindex(valid.shape):
        rows = [s for s in range(t) if valid[a, s] and end[a, s] <= t][-WINDOW:]
        due = valid[a, t] and len(rows) >= fewest
        assert np.isfinite(fast[a, t]) == due
        if due and (len(rows) < WINDOW or t % 10 == 0):
            sizes.add(len(rows))
            weight = jnp.asarray(0.9 ** np.arange(len(rows))[::-1], jnp.float32)
            adapted = learner.adapt(params, Batch(x[a, rows], y[a, rows][:, None], weight))
            expected = learner.predict(adapted, x[a, t][None])[0, 0]
            np.testing.assert_allclose(fast[a, t], expected, atol=1e-5)
    assert sizes == {*range(fewest, WINDOW + 1)}


@pytest.mark.parametrize("chunk", [None, 1, 10_000])
def test_the_chunk_does_not_change_the_result(learner, params, chunk):
    panel = panel_of(ragged_market())
    supports = find_supports(panel, WINDOW, first=50)
    np.testing.assert_allclose(
        walk_forward(learner, params, panel, supports, chunk=chunk),
        walk_forward(learner, params, panel, supports, chunk=3),
        atol=1e-6,
    )


def test_assets_steps_and_span_are_as_asked(learner, params):
    panel = panel_of(ragged_market())
    supports = find_supports(panel, WINDOW, first=50, last=70, assets=["A0"])
    result = walk_forward(learner, params, panel, supports, steps=0)
    assert np.isnan(result[1:]).all()
    assert np.isfinite(result[0, 50:71]).all()
    assert np.isnan(result[0, :50]).all()
    assert np.isnan(result[0, 71:]).all()
    np.testing.assert_allclose(
        result[0, 50:71], learner.predict(params, panel.features[0, 50:71])[:, 0], atol=1e-6
    )


def test_no_window_at_all_is_no_prediction(learner, params):
    panel = panel_of({"A": random_bars(count=30)})
    assert np.isnan(walk_forward(learner, params, panel, find_supports(panel, 500))).all()


def test_probabilistic_learners_give_mean_and_std():
    def predict(adapted, x):
        return Prediction(jnp.full((len(x), 1), adapted), jnp.full((len(x), 1), 2.0))

    mean_of_support = MetaLearner(
        lambda key, x: jnp.zeros(()),
        lambda meta_params, support, steps=None: support.y.mean(),
        predict,
        lambda meta_params, task, step: (task.query.y.mean(), None),
    )
    panel = panel_of({"A": random_bars(count=60)})
    supports = find_supports(panel, WINDOW)
    result = walk_forward(mean_of_support, jnp.zeros(()), panel, supports)
    assert isinstance(result, Prediction)
    t = 50
    complete = np.flatnonzero(np.asarray(panel.label_end[0]) <= t)[-WINDOW:]
    expected = np.asarray(panel.targets)[0, complete].mean()
    assert result.mean[0, t] == pytest.approx(expected, rel=1e-5)
    assert (result.std[np.isfinite(result.std)] == 2).all()


def test_supports_of_another_panel_and_impossible_ones_are_refused(learner, params):
    panel = panel_of({"A": random_bars(count=60)})
    for options, message in (
        ({"support": 0}, "at least 1 row"),
        ({"support": WINDOW, "first": -1}, "must not be negative"),
        ({"support": WINDOW, "labels": np.zeros((1, 59), int)}, r"labels are \[asset, time\]"),
        ({"support": SupportRows(WINDOW, classes=np.zeros(2, int))}, "classes are given for 2"),
        ({"support": SupportRows(WINDOW, "mixed"), "growing": True}, "all rows of one asset"),
        ({"support": SupportRows(WINDOW, forget=0.9), "growing": True}, "with equal weights"),
        ({"support": SupportRows(WINDOW, fewest=WINDOW + 1)}, "from 0 to 12 rows on, not"),
        ({"support": SupportRows(WINDOW, forget=1.5)}, "forget must be above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            find_supports(panel, **options)
    longer = panel_of({"A": random_bars(count=70)})
    with pytest.raises(ValueError, match="found in a panel of .*60.* and this one has .*70"):
        walk_forward(learner, params, longer, find_supports(panel, WINDOW))
