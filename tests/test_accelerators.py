"""Without an accelerator at hand: the programs can at least be lowered for one."""

import jax
import jax.export
import jax.numpy as jnp
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import exact, first_order, maml, meta_init
from maml_jax.backtest.walk_forward.rolling import prediction_at
from maml_jax.meta.scan import Drawn, scan_program
from maml_jax.meta.steps import plan_meta_step
from maml_jax.models import in_precision, mlp
from maml_jax.parallel import schedule as schedule_module
from maml_jax.parallel.map import plan_tasks
from maml_jax.tasks.pools import Layout
from maml_jax.tasks.rows import RowTable

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
SIDES = {"cuda": "gpu", "tpu": "tpu"}


@pytest.fixture(params=SIDES)
def platform(request, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: SIDES[request.param])
    monkeypatch.setattr(schedule_module, "usable_memory", lambda: 40 * 2**30)
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("gradient", [exact(), first_order()], ids=["exact", "first_order"])
def test_training_is_lowered_for_accelerators(platform, gradient, devices):
    optimizer = optax.adam(1e-3)
    learner = maml(in_precision(mlp((8, 1)), "bfloat16"), inner_steps=6, gradient=gradient)
    sampler = jax.tree_util.Partial(sinusoid_sampler(tasks=1000))
    tasks = jax.eval_shape(sampler, KEY)
    state = meta_init(learner, optimizer, KEY, jnp.zeros((10, 1)))
    plan = plan_meta_step(learner, state, tasks, devices=devices)
    assert plan.schedule.chunk == 1000 // devices  # memory holds them all
    program = scan_program(plan, optimizer, 1.0, 3)
    exported = jax.export.export(program, platforms=[platform])(Drawn(sampler, KEY), state)
    assert exported.platforms == (platform,)
    assert exported.nr_devices == devices


def test_walk_forward_is_lowered_for_accelerators(platform):
    learner = maml(mlp((8, 1)))
    params = learner.init(KEY, jnp.zeros((1, 3)))
    table = RowTable(jnp.zeros((64, 3)), jnp.zeros(64), jnp.zeros(64, jnp.int32))
    asks, count = jnp.zeros((64, 2), jnp.int32), jnp.asarray(50, jnp.int32)
    plan = plan_tasks(prediction_at, (learner, Layout((5,)), None), asks, params, table, devices=8)
    exported = jax.export.export(plan.compiled, platforms=[platform])(asks, (params, table), count)
    assert exported.platforms == (platform,)
