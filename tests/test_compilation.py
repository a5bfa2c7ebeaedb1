"""Nothing is traced or compiled twice for the same shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from helpers import sinusoid_sampler

from maml_jax import Batch, Model, fit, maml, meta_init, meta_step, training
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.meta import exact, first_order
from maml_jax.models import in_precision, mlp
from maml_jax.parallel import map_tasks
from maml_jax.tasks import Panel, asset_family, market_sampler

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-3)
_compiled = [0]


def _count(event, duration_secs, **_):
    _compiled[0] += event == "/jax/core/compile/backend_compile_duration"


jax.monitoring.register_event_duration_secs_listener(_count)


class Traces:
    """A model that counts how often it is traced."""

    def __init__(self):
        network = mlp((8, 1))
        self.count = 0

        def apply(params, x):
            self.count += 1
            return network.apply(params, x)

        self.model = Model(network.init, apply)


def programs_of(call):
    """Return how many programs the second and the third call compile."""
    call()
    before = _compiled[0]
    call()
    call()
    return _compiled[0] - before


@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("gradient", [exact(), first_order()], ids=["exact", "first_order"])
def test_training_compiles_once(gradient, devices):
    traces = Traces()
    learner = maml(traces.model, inner_steps=2, gradient=gradient)
    tasks = sinusoid_sampler(tasks=8)(KEY)
    state = [meta_init(learner, OPTIMIZER, KEY, tasks.support.x[0])]

    def step():
        state[0], _ = meta_step(learner, OPTIMIZER, state[0], tasks, devices=devices)

    assert programs_of(step) == 0
    traced = traces.count
    step()
    assert traces.count == traced

    sampler = sinusoid_sampler(tasks=8)
    fitted = [None]

    def train():
        options = {"steps": 3, "devices": devices, "state": fitted[0], "donate": True}
        (progress,) = training(learner, OPTIMIZER, sampler, KEY, **options)
        fitted[0] = progress.state

    assert programs_of(train) == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adapting_and_predicting_compile_once(precision):
    traces = Traces()
    learner = maml(in_precision(traces.model, precision), inner_steps=3)
    support = Batch(jnp.ones((5, 2)), jnp.ones((5, 1)))
    params = learner.init(KEY, support.x)
    learner.adapt(params, support)
    predict = jax.jit(learner.predict)
    predict(params, support.x)
    traced, before = traces.count, _compiled[0]
    for _ in range(3):
        predict(learner.adapt(params, support), support.x)
    assert (traces.count, _compiled[0]) == (traced, before)


def test_mapping_over_tasks_compiles_once():
    learner = maml(mlp((8, 1)), inner_steps=2)
    tasks = sinusoid_sampler(tasks=8)(KEY)
    params = learner.init(KEY, tasks.support.x[0])

    def adapt(support, params):
        return learner.adapt(params, support)

    adapted = map_tasks(adapt, tasks.support, params)
    assert programs_of(lambda: map_tasks(adapt, tasks.support, params)) == 0
    expected = jax.vmap(learner.adapt, (None, 0))(params, tasks.support)
    for a, b in zip(jax.tree.leaves(adapted), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def panel_of(assets, bars, seed=0):
    rng = np.random.default_rng(seed)
    shape = (assets, bars)
    return Panel(
        jnp.asarray(rng.standard_normal((*shape, 3)), jnp.float32),
        jnp.asarray(rng.standard_normal(shape), jnp.float32),
        jnp.ones(shape, bool),
        jnp.broadcast_to(jnp.minimum(jnp.arange(bars) + 2, bars), shape),
        pd.date_range("2020-01-01", periods=bars, freq="D", tz="UTC"),
        tuple(f"A{number}" for number in range(assets)),
        ("a", "b", "c"),
    )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("devices", [1, 8])
def test_new_assets_and_longer_histories_need_no_new_program(devices):
    traces = Traces()
    learner = maml(traces.model, inner_steps=2)
    params = learner.init(KEY, jnp.zeros((1, 3)))

    def walk(panel):
        return walk_forward(learner, params, panel, find_supports(panel, 5), devices=devices)

    first = walk(panel_of(2, 300))
    traced = traces.count
    for panel in (panel_of(2, 300, seed=1), panel_of(3, 300), panel_of(3, 310)):
        result = walk(panel)
        assert np.isfinite(result[:, 6:]).all()
    assert traces.count == traced
    # What stands in the room to spare changes nothing.
    np.testing.assert_allclose(walk(panel_of(2, 300))[:2], first, rtol=1e-6)

    def train(panel, steps=2):
        windows = asset_family(panel, support=5, query=3)
        sampler = market_sampler(panel, windows, meta_batch=8)
        return fit(learner, OPTIMIZER, sampler, KEY, steps=steps, devices=devices)

    train(panel_of(2, 300))
    traced = traces.count
    train(panel_of(3, 310))
    assert traces.count == traced


def test_the_longest_history_still_has_all_its_windows():
    learner = maml(mlp((4, 1)), inner_steps=1)
    params = learner.init(KEY, jnp.zeros((1, 3)))
    panel = panel_of(1, 1024)  # fills the room to the last row
    result = walk_forward(learner, params, panel, find_supports(panel, 5), devices=8)
    last = find_supports(panel, 5, first=1023)
    alone = walk_forward(learner, params, panel, last, devices=1)
    assert np.isfinite(result[0, 6:]).all()
    np.testing.assert_allclose(result[0, -1], alone[0, -1], rtol=1e-5)
