"""Online walk-forward against a loop in Python, and what it may know at each bar."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import random_market

from maml_jax import Task, alpaca, maml, meta_init
from maml_jax.backtest import OnlineTraining, Updates, find_supports, walk_forward, walk_online
from maml_jax.features import Target, compute_features, fit_scaler, technical_features
from maml_jax.meta import meta_step
from maml_jax.models import mlp
from maml_jax.tasks import (
    SupportRows,
    asset_family,
    make_panel,
    market_sampler,
    mix_families,
    period_family,
)

pytestmark = pytest.mark.long

FEATURES = list(technical_features(window=5, fast=3, slow=5).values())
KEY = jax.random.key(3)
FIRST, WINDOW = 50, 8
UPDATES = Updates(every=10, steps=2, meta_batch=4)


@pytest.fixture(scope="module")
def panel():
    bars = random_market(count=100)
    bars["A1"] = bars["A1"].drop(bars["A1"].index[[40, 41, 60]]).iloc[10:]
    bars["A2"] = bars["A2"].iloc[:70]
    tables = {a: compute_features(b, FEATURES) for a, b in bars.items()}
    scaler = fit_scaler(tables.values())
    scaled = {a: scaler.transform(t) for a, t in tables.items()}
    return make_panel(bars, scaled, Target(horizon=3, volatility_window=5))


@pytest.fixture(scope="module")
def learner():
    return maml(mlp((8, 1)), inner_optimizer=optax.sgd(0.05), inner_steps=2)


@pytest.fixture(scope="module")
def optimizer():
    return optax.adam(0.01)


@pytest.fixture(scope="module")
def state(learner, optimizer):
    return meta_init(learner, optimizer, jax.random.key(0), jnp.zeros((1, len(FEATURES))))


def families(panel):
    plain = asset_family(panel, support=WINDOW, query=4)
    return mix_families([(plain, 2.0), (period_family(panel, support=WINDOW, query=4), 1.0)])


def walk(learner, optimizer, state, panel, windows, *, updates=UPDATES, support=WINDOW, **options):
    supports = find_supports(panel, support, first=FIRST)
    training = OnlineTraining(optimizer, windows, updates)
    return walk_online(learner, state, panel, supports, training, KEY, **options)


def slow_walk(learner, optimizer, start, panel, windows, updates):
    """Update block by block on tasks that a table of known windows gives, then walk forward."""
    sampler = market_sampler(panel, windows, meta_batch=updates.meta_batch)
    groups = np.unique(windows.group)
    family = np.zeros(len(groups), int) if windows.family is None else windows.family
    weight = np.ones(len(groups)) if windows.weight is None else windows.weight
    predictions, state = np.full(panel.valid.shape, np.nan), start
    for number, begin in enumerate(range(FIRST, len(panel.timestamps), updates.every)):
        known = windows.known < begin
        if updates.recent is not None:
            known &= windows.known >= begin - updates.recent
        places = [np.flatnonzero(known & (windows.group == group)) for group in groups]
        there = np.array([len(p) > 0 for p in places])
        share = [  # a family's weight goes to those of its groups that are there
            weight[family == f].sum() / max((weight * there)[family == f].sum(), 1e-9)
            for f in family
        ]
        upto = np.cumsum(np.asarray(weight * there * share, np.float32))
        state = start if updates.restart else state
        for index in range(updates.steps if upto[-1] > 0 else 0):
            key = jax.random.fold_in(jax.random.fold_in(KEY, number), index)
            group_key, window_key = jax.random.split(key)
            point = jax.random.uniform(group_key, (updates.meta_batch,)) * upto[-1]
            drawn = np.searchsorted(upto, np.asarray(point), side="right")
            size = np.array([len(places[group]) for group in drawn])
            within = jax.random.randint(window_key, size.shape, 0, jnp.asarray(size))
            chosen = [places[g][w] for g, w in zip(drawn, within.tolist(), strict=True)]
            tasks = jax.vmap(sampler.task)(jnp.asarray(chosen))
            state, _ = meta_step(learner, optimizer, state, Task(*tasks))
        last = min(begin + updates.every, len(panel.timestamps)) - 1
        supports = find_supports(panel, WINDOW, first=begin, last=last)
        part = walk_forward(learner, state.params, panel, supports)
        predictions = np.where(np.isnan(part), predictions, part)
    return predictions, state


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"recent": 15}, {"restart": True}], ids=["leader", "recent", "restart"]
)
def test_equals_a_loop_over_blocks(learner, optimizer, state, panel, changes):
    updates, windows = UPDATES._replace(**changes), families(panel)
    fast = walk(learner, optimizer, state, panel, windows, updates=updates)
    slow, last = slow_walk(learner, optimizer, state, panel, windows, updates)
    assert np.isfinite(slow).sum() > 80
    np.testing.assert_array_equal(np.isfinite(fast.predictions), np.isfinite(slow))
    np.testing.assert_allclose(fast.predictions, slow, atol=2e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), fast.state, last)
    assert np.isfinite(fast.loss).all()
    assert (fast.failed == 0).all()
    np.testing.assert_array_equal(fast.bars, range(FIRST, 100, 10))


@pytest.mark.long
def test_what_comes_later_changes_no_earlier_prediction(learner, optimizer, state, panel):
    cut = 75
    late = np.arange(100) > cut
    changed = panel._replace(
        features=jnp.where(late[:, None], -panel.features, panel.features),
        targets=jnp.where(panel.label_end > cut, -panel.targets, panel.targets),
    )
    before, after = (
        walk(learner, optimizer, state, each, families(each)).predictions
        for each in (panel, changed)
    )
    np.testing.assert_array_equal(after[:, : cut + 1], before[:, : cut + 1])
    assert not np.allclose(after[0, cut + 6 :], before[0, cut + 6 :], atol=1e-3)


def test_a_block_learns_nothing_that_is_completed_at_its_first_bar_or_later(
    learner, optimizer, state, panel
):
    """Poisoned labels: those that are complete by a bar may not reach its predictions."""
    begin = FIRST + 20
    poisoned = panel._replace(
        targets=jnp.where(panel.label_end >= begin, 1e3, panel.targets),
    )
    before, after = (
        walk(learner, optimizer, state, each, families(each), steps=0).predictions
        for each in (panel, poisoned)
    )
    np.testing.assert_array_equal(after[:, : begin + 10], before[:, : begin + 10])


def test_before_anything_is_complete_the_state_stays(learner, optimizer, state, panel):
    late = asset_family(panel, support=WINDOW, query=4, first=70)
    online = walk(learner, optimizer, state, panel, late)
    supports = find_supports(panel, WINDOW, first=FIRST, last=79)
    frozen = walk_forward(learner, state.params, panel, supports)
    np.testing.assert_allclose(online.predictions[:, :80], frozen[:, :80], atol=1e-5)
    assert np.isnan(online.loss[:3]).all()
    assert np.isfinite(online.loss[-1])
    assert int(online.state.step) == 2 * np.isfinite(online.loss).sum()


def test_steps_that_are_not_finite_are_not_taken_and_counted(learner, optimizer, state, panel):
    targets = np.asarray(panel.targets).copy()
    targets[0, 30:40] = np.inf
    broken = panel._replace(targets=jnp.asarray(targets))
    online = walk(learner, optimizer, state, broken, asset_family(broken, support=WINDOW, query=4))
    assert online.failed.sum() > 0
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(online.state.params))


@pytest.mark.slow
def test_learners_with_a_deviation_and_mixed_supports(optimizer, panel):
    learner = alpaca(mlp((8, 4)))
    state = meta_init(learner, optimizer, jax.random.key(0), jnp.zeros((1, len(FEATURES))))
    mixed = SupportRows(WINDOW, "mixed")
    windows = asset_family(panel, support=mixed, query=4)
    online = walk(learner, optimizer, state, panel, windows, support=mixed, devices=2)
    alone = walk(learner, optimizer, state, panel, windows, support=mixed, devices=1)
    assert np.isfinite(online.predictions.mean).sum() > 80
    np.testing.assert_allclose(online.predictions.mean, alone.predictions.mean, atol=1e-4)
    assert (online.predictions.std[np.isfinite(online.predictions.std)] > 0).all()


def test_impossible_updates_are_refused(learner, optimizer, state, panel):
    with pytest.raises(ValueError, match="at least 1"):
        walk(learner, optimizer, state, panel, families(panel), updates=Updates(every=0))


def test_supports_must_fit_the_windows(learner, optimizer, state, panel):
    training = OnlineTraining(optimizer, families(panel), UPDATES)
    for options, message in (({"growing": True}, "growing=False"), ({"length": 4}, "length 4")):
        supports = find_supports(panel, WINDOW, **options)
        with pytest.raises(ValueError, match=message):
            walk_online(learner, state, panel, supports, training, KEY)
