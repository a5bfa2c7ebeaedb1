"""Eight devices (see conftest) stand for eight cores or accelerators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from maml_jax import fit, maml, meta_init, meta_step, training
from maml_jax.models import mlp
from maml_jax.parallel import placement
from maml_jax.parallel import schedule as schedule_module
from maml_jax.parallel.cost import Cost
from maml_jax.parallel.map import average_tasks, map_tasks, plan_tasks
from maml_jax.parallel.schedule import choose_schedule

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
OPTIMIZER = optax.sgd(0.1)
LEARNER = maml(mlp((16, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    "devices", [None, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))]
)
@pytest.mark.parametrize(("count", "chunk"), [(1, None), (2, 1), (7, 3), (8, 8), (29, 2), (30, 50)])
def test_neither_chunks_nor_devices_change_a_result(count, chunk, devices):
    tasks = {"a": jnp.arange(count, dtype=jnp.float32), "b": jnp.ones((count, 2))}

    def function(task, shared):
        return task["a"] ** 2 + task["b"].sum() * shared

    expected = np.arange(count) ** 2 + 6
    options = {"chunk": chunk, "devices": devices}
    np.testing.assert_allclose(map_tasks(function, tasks, 3.0, **options), expected)
    mean, kept = average_tasks(lambda t, s: (function(t, s), t["a"]), tasks, 3.0, **options)
    np.testing.assert_allclose(mean, expected.mean(), rtol=1e-6)
    np.testing.assert_allclose(kept, np.arange(count))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("count", [0, 1, 17, 40])
def test_only_the_real_tasks_are_worked_on(count, devices):
    tasks = jnp.arange(40.0)

    @jax.jit
    def run(count):
        return map_tasks(lambda t: t + 1, tasks, count=count, chunk=2, devices=devices)

    result = np.asarray(run(count))
    np.testing.assert_array_equal(result[:count], np.arange(count) + 1.0)
    # Whole chunks that hold no real task keep the zeros that they began with.
    assert (result[count + count % 2 :] == 0).all()


@pytest.mark.parametrize("devices", [1, 8])
def test_what_fills_an_empty_slot_does_not_count(devices):
    tasks = jnp.array([1.0, 2.0, 0.0])
    mean, kept = average_tasks(lambda t: (t, 1 / t), tasks, chunk=2, devices=devices)
    assert float(mean) == 1.0
    np.testing.assert_array_equal(kept, [1.0, 0.5, np.inf])


def test_chunks_devices_and_averages_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="chunk"):
        map_tasks(lambda t: t, jnp.ones(3), chunk=0)
    with pytest.raises(ValueError, match="no tasks"):
        average_tasks(lambda t: (t, t), jnp.ones(0))
    with pytest.raises(ValueError, match="8 devices, cannot spread tasks over 9"):
        map_tasks(lambda t: t, jnp.ones(30), devices=9)
    assert map_tasks(lambda t: {"x": t}, jnp.ones((0, 4)))["x"].shape == (0, 4)


def test_arrays_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"one leading axis of one length, got \[\(3,\), \(2,\)\]"):
        average_tasks(lambda t: (t[0], t[1]), (jnp.ones(3), jnp.ones(2)))
    with pytest.raises(ValueError, match="one leading axis"):
        map_tasks(lambda t: t, 1.0)


@pytest.mark.parametrize("devices", [1, 8])
def test_numpy_arrays_and_plain_numbers_will_do(devices):
    tasks = np.arange(10.0)
    result = map_tasks(lambda t, a, b: t * a + b, tasks, 2, np.float32(1), devices=devices)
    np.testing.assert_allclose(result, 2 * tasks + 1)


def test_a_function_may_enclose_what_is_differentiated():
    def total(scale):
        return map_tasks(lambda t: scale * t, jnp.arange(4.0), devices=1).sum()

    assert float(jax.grad(total)(2.0)) == 6.0
    assert float(total(3.0)) == 18.0


def test_half_precision_is_summed_in_single():
    tasks = jnp.full(4096, 1.001, jnp.bfloat16)
    mean, _ = average_tasks(lambda t: (t, ()), tasks, chunk=2)
    assert mean.dtype == jnp.bfloat16
    assert float(mean) == float(tasks[0])


def test_the_chunk_follows_the_cost_of_a_task(monkeypatch):
    monkeypatch.setattr(schedule_module, "usable_cache", lambda: 2**21)
    assert choose_schedule(Cost(1, 2**19), 256).chunk == 4
    assert choose_schedule(Cost(1, 2**28), 256).chunk == 2
    assert choose_schedule(Cost(1, 100), 256).chunk == 256
    monkeypatch.setattr(schedule_module, "usable_memory", lambda: 2**30)
    assert choose_schedule(Cost(1, 2**30), 256).chunk == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_schedule(Cost(1, 2**23), 256).chunk == 128
    assert choose_schedule(Cost(1, 2**23), 256, chunk=50) == (None, 43, 6)


def test_tasks_are_spread_where_the_work_is_worth_it():
    assert choose_schedule(Cost(3 * 10**5, 1000), 256).devices == 1
    assert choose_schedule(Cost(3 * 10**5, 1000), 256, repeats=10).devices == 8
    assert choose_schedule(Cost(10**4, 1000), 256, repeats=10**6).devices == 1
    assert choose_schedule(Cost(10**7, 1000), 256).devices == 8
    assert choose_schedule(Cost(10**9, 1000), 3).devices == 3
    with jax.default_device(jax.devices()[1]):
        assert choose_schedule(Cost(10**7, 1000), 256).devices == 1
    with jax.set_mesh(Mesh(np.array(jax.devices()[:4]), ("any",))):
        assert choose_schedule(Cost(10**7, 1000), 256).devices == 4
        assert choose_schedule(Cost(10**7, 1000), 256, devices=1).devices == 1


@pytest.mark.slow
def test_eight_devices_train_like_one(caplog):
    caplog.set_level("INFO", "maml_jax")
    sampler = sinusoid_sampler(tasks=19)
    options = {"steps": 5, "chunk": 2}
    one, history = fit(LEARNER, OPTIMIZER, sampler, KEY, devices=1, **options)
    eight, spread = fit(LEARNER, OPTIMIZER, sampler, KEY, devices=8, **options)
    assert "19 tasks" in caplog.text and "8 device(s), each 2 chunk(s) of 2" in caplog.text
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(eight))
    assert_close(one.params, eight.params)
    assert_close(history, spread, rtol=1e-4)

    # From the state of eight devices to one, and to steps by hand, and back.
    again, _ = fit(LEARNER, OPTIMIZER, sampler, KEY, state=eight, devices=1, **options)
    tasks = sampler(KEY)
    by_hand, info = meta_step(LEARNER, OPTIMIZER, again, tasks, devices=8)
    alone, expected = meta_step(LEARNER, OPTIMIZER, again, tasks, devices=1)
    assert_close(by_hand, alone)
    assert_close(info, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.long
def test_tasks_that_lie_on_several_devices_stay_there():
    mesh = Mesh(np.array(jax.devices()), ("rows",), axis_types=(AxisType.Auto,))
    tasks = sinusoid_sampler(tasks=16)(KEY)
    state = meta_init(LEARNER, OPTIMIZER, KEY, jnp.zeros((1, 1)))
    expected, _ = meta_step(LEARNER, OPTIMIZER, state, tasks, devices=1)
    tasks = jax.device_put(tasks, NamedSharding(mesh, P("rows")))
    state = jax.device_put(state, NamedSharding(mesh, P()))
    for devices in (None, 8):
        found, _ = meta_step(LEARNER, OPTIMIZER, state, tasks, devices=devices)
        assert_close(found, expected)
    with jax.set_mesh(mesh):
        found, _ = meta_step(LEARNER, OPTIMIZER, state, tasks)
    assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.long
def test_tasks_on_one_device_and_states_on_many_come_together():
    tasks = sinusoid_sampler(tasks=16)(KEY)
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(1)), optax.sgd(0.1))
    state = meta_init(LEARNER, noisy, KEY, jnp.zeros((1, 1)))
    expected, _ = meta_step(LEARNER, noisy, state, tasks, devices=1)
    there = jax.device_put(tasks, jax.devices()[3])
    spread, _ = meta_step(LEARNER, noisy, state, there, devices=8)
    assert_close(spread.params, expected.params)
    # A state that all devices hold makes no work for all when one is asked for.
    again, _ = meta_step(LEARNER, noisy, spread, tasks, devices=1)
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(again.params))
    fitted, _ = fit(LEARNER, noisy, sinusoid_sampler(tasks=16), KEY, steps=2, devices=8)
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(fitted))


@pytest.mark.slow
def test_seeds_and_rates_train_side_by_side():
    sampler = sinusoid_sampler(tasks=6)
    keys = jax.random.split(KEY, 8)

    def train(key, devices=1):
        return fit(LEARNER, OPTIMIZER, sampler, key, steps=3, devices=devices)[0].params

    expected = jax.vmap(train)(keys)
    assert_close(jax.vmap(lambda key: train(key, 3))(keys), expected)

    # A device for every seed: inside of shard_map tasks are not spread again.
    mesh = Mesh(np.array(jax.devices()), ("seeds",))
    spread = jax.shard_map(
        jax.vmap(lambda key: train(key, None)),
        mesh=mesh,
        in_specs=P("seeds"),
        out_specs=P("seeds"),
        check_vma=False,
    )
    assert_close(jax.jit(spread)(keys), expected)

    def train_at(rate):
        return fit(LEARNER, optax.sgd(rate), sampler, KEY, steps=3)[0].params

    def adapt_at(rate):
        learner = maml(mlp((16, 1)), inner_optimizer=optax.sgd(rate), inner_steps=2)
        return fit(learner, OPTIMIZER, sampler, KEY, steps=3)[0].params

    rates = jnp.array([0.1, 0.01])
    for train_with in (train_at, adapt_at):
        both = jax.vmap(train_with)(rates)
        assert_close(jax.tree.map(lambda leaf: leaf[1], both), train_with(0.01))


@pytest.mark.long
def test_donated_states_are_given_up_and_others_are_not():
    sampler = sinusoid_sampler(tasks=4)
    state, _ = fit(LEARNER, OPTIMIZER, sampler, KEY, steps=2)
    kept, _ = fit(LEARNER, OPTIMIZER, sampler, KEY, steps=2, state=state)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    options = {"steps": 2, "state": state, "donate": True}
    (progress,) = training(LEARNER, OPTIMIZER, sampler, KEY, **options)
    assert_close(kept, progress.state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_devices_that_a_mesh_does_not_have_are_refused_within_it():
    with jax.set_mesh(Mesh(np.array(jax.devices()[:4]), ("any",), axis_types=(AxisType.Auto,))):
        map_tasks(lambda t: t + 1, jnp.arange(8.0), devices=4)
        with pytest.raises(ValueError, match="devices=2: inside of the mesh that is set.*over 4"):
            map_tasks(lambda t: t + 2, jnp.arange(8.0), devices=2)


def test_tasks_on_a_mesh_of_explicit_axes_are_trained_on():
    mesh = jax.make_mesh((2,), ("t",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    tasks = sinusoid_sampler()(KEY)
    state = meta_init(LEARNER, OPTIMIZER, KEY, tasks.support.x[0])
    there = jax.device_put(tasks, NamedSharding(mesh, P("t")))
    _, found = meta_step(LEARNER, OPTIMIZER, state, there)
    _, expected = meta_step(LEARNER, OPTIMIZER, state, tasks)
    assert_close(found.task_loss, expected.task_loss)


def test_a_function_that_encloses_traced_values_leaves_other_plans_alone():
    def make():
        return jnp.square

    kept = plan_tasks(make, (), jnp.arange(3.0))
    jax.vmap(lambda a: map_tasks(lambda t: t * a, jnp.arange(3.0)))(jnp.arange(2.0))
    assert plan_tasks(make, (), jnp.arange(3.0)) is kept


class NumpyOfNoArrays:
    """numpy, without what would copy an array of an accelerator to the host."""

    def __getattr__(self, name):
        assert name not in ("asarray", "array"), "an array passes through the memory of the host"
        return getattr(np, name)


def test_accelerators_exchange_arrays_without_the_host(monkeypatch):
    mesh = placement.mesh_of(jax.devices())
    for where in (P(), P(placement.AXIS)):
        leaves = jax.device_put(
            (jnp.arange(8.0), jax.random.split(KEY, 8)), NamedSharding(mesh, where)
        )
        with monkeypatch.context() as patched:
            patched.setattr(jax, "default_backend", lambda: "gpu")
            patched.setattr(placement, "np", NumpyOfNoArrays())
            for moved in (placement.bring_back(mesh, leaves), placement.put_on_mesh(None, *leaves)):
                assert all(len(leaf.devices()) == 1 for leaf in moved)
        np.testing.assert_array_equal(moved[0], np.arange(8.0))
