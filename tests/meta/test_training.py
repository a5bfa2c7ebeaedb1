import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import (
    Batch,
    Model,
    Task,
    alpaca,
    fit,
    learned_rates,
    maml,
    meta_init,
    meta_step,
    training,
)
from maml_jax.errors import TrainingError
from maml_jax.meta.scan import split_steps, step_key, tasks_of_step
from maml_jax.models import mlp

pytestmark = pytest.mark.long

OPTIMIZER = optax.adam(1e-3)
KEY = jax.random.key(0)


# One learner and one sampler for all, so that `fit` compiles once for each number of steps.
LEARNER = maml(mlp((16, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)
SAMPLER = sinusoid_sampler()
STEPS = 4


def assert_close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **({"rtol": 1e-5, "atol": 1e-6} | tolerance))


def run(key=KEY, sampler=SAMPLER, steps=STEPS, **options):
    return fit(LEARNER, OPTIMIZER, sampler, key, steps=steps, **options)


def test_fit_is_a_loop_of_meta_steps():
    fitted, history = run()
    init_key, _ = jax.random.split(KEY)
    state = meta_init(LEARNER, OPTIMIZER, init_key, jnp.zeros((10, 1)))
    step = jax.jit(lambda state, tasks: meta_step(LEARNER, OPTIMIZER, state, tasks))
    losses = []
    for number in range(STEPS):
        state, info = step(state, tasks_of_step(SAMPLER, KEY, number))
        losses.append(info.loss)
    assert_close(fitted.params, state.params)
    assert_close(history.loss, jnp.stack(losses))
    assert int(fitted.step) == STEPS


def test_fit_in_two_calls_is_fit_in_one():
    whole, history = run(steps=2 * STEPS)
    half, first = run()
    rest, second = run(state=half)
    assert_close(whole, rest)
    assert_close(history.loss, jnp.concatenate([first.loss, second.loss]))


@pytest.mark.slow
@pytest.mark.parametrize("donate", [False, True])
def test_training_in_calls_is_fit_in_one(donate):
    state, history = run()
    options = {"steps": STEPS, "every": STEPS // 2, "donate": donate}
    steps, histories, last = [], [], None
    for progress in training(LEARNER, OPTIMIZER, SAMPLER, KEY, **options):
        steps.append(progress.step)
        histories.append(progress.history)
        last = progress.state
    assert steps == [2, 4]
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(last), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(history.loss, np.concatenate([each.loss for each in histories]))


def test_training_goes_on_from_a_state():
    half, _ = run(steps=2)
    (progress,) = training(LEARNER, OPTIMIZER, SAMPLER, KEY, steps=2, state=half)
    assert progress.step == 4
    assert_close(progress.state, run()[0])


@pytest.mark.parametrize(
    ("steps", "longest", "calls"),
    [
        (0, 100, []),
        (7, 100, [7]),
        (300, 100, [100] * 3),
        (150, 100, [75] * 2),
        (101, 100, [100, 1]),
        (70_000, 2000, [2000] * 35),
        (15_000, 2000, [1875] * 8),
    ],
)
def test_calls_are_of_one_length_where_a_divisor_allows_it(steps, longest, calls):
    assert split_steps(steps, longest) == calls


def test_impossible_steps_are_refused_before_anything_is_trained():
    for options in ({"steps": -1}, {"steps": 1, "every": 0}):
        with pytest.raises(ValueError, match="steps must be at least 0 and every at least 1"):
            training(LEARNER, OPTIMIZER, SAMPLER, KEY, **options)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_the_chunk_does_not_change_the_result(chunk):
    reference, history = run()
    state, other = run(chunk=chunk)
    assert_close(reference.params, state.params)
    assert_close(history.task_loss, other.task_loss)


@pytest.mark.long
def test_fit_over_seeds_is_many_fits():
    keys = jax.random.split(jax.random.key(5), 3)
    states, histories = jax.vmap(run)(keys)
    assert histories.loss.shape == (3, STEPS)
    for i, key in enumerate(keys):
        alone, _ = run(key)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], states.params), alone.params)


@pytest.mark.long
def test_the_meta_gradient_is_clipped_unless_told_otherwise():
    plain = optax.sgd(1.0)
    tasks = SAMPLER(KEY)
    state = meta_init(LEARNER, plain, KEY, jnp.zeros((10, 1)))

    def moved(**options):
        after, info = jax.jit(lambda s, t: meta_step(LEARNER, plain, s, t, **options))(state, tasks)
        away = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, state.params))
        return float(away), float(info.grad_norm)

    away, norm = moved()
    assert norm > 1
    np.testing.assert_allclose(away, 1.0, rtol=1e-5)
    away, norm = moved(max_grad_norm=None)
    np.testing.assert_allclose(away, norm, rtol=1e-5)
    away, norm = moved(max_grad_norm=1e6)
    np.testing.assert_allclose(away, norm, rtol=1e-5)


def make_poisoned_sampler(task=3, from_step=2):
    """Targets of one task become NaN from a step on; steps are known by the key they are given."""
    keys = [jax.random.key_data(step_key(KEY, step)) for step in range(from_step)]

    def sample(key):
        tasks = SAMPLER(key)
        early = jnp.any(jnp.stack([jnp.all(jax.random.key_data(key) == k) for k in keys]))
        y = tasks.query.y.at[task].set(jnp.where(early, tasks.query.y[task], jnp.nan))
        return Task(tasks.support, Batch(tasks.query.x, y))

    return sample


POISONED = make_poisoned_sampler()


def test_a_loss_that_turns_nan_stops_training_with_step_and_task():
    with pytest.raises(TrainingError, match=r"step 2: the loss of task 3 of 8") as caught:
        run(sampler=POISONED)
    assert caught.value.step == 2
    assert caught.value.tasks == [3]
    assert "smaller inner learning rate" in str(caught.value)


def test_the_step_is_counted_from_where_training_went_on():
    state, _ = run(sampler=POISONED, steps=2)
    with pytest.raises(TrainingError, match=r"step 2"):
        run(sampler=POISONED, state=state)


@pytest.mark.parametrize("donate", [False, True])
def test_training_that_diverges_hands_back_the_last_good_state(donate):
    good, _ = run(sampler=POISONED, steps=2)
    calls = training(LEARNER, OPTIMIZER, POISONED, KEY, steps=STEPS, every=1, donate=donate)
    assert next(calls).step == 1
    assert next(calls).step == 2
    with pytest.raises(TrainingError, match=r"step 2") as caught:
        next(calls)
    assert_close(caught.value.state[:2], good[:2])


def test_going_on_from_a_bad_step_meets_other_tasks():
    bad = jax.random.key_data(step_key(KEY, 1))

    def sample(key):
        tasks = SAMPLER(key)
        y = jnp.where(jnp.all(jax.random.key_data(key) == bad), jnp.nan, tasks.query.y)
        return tasks._replace(query=Batch(tasks.query.x, y))

    with pytest.raises(TrainingError) as caught:
        run(sampler=sample)
    assert (caught.value.step, int(caught.value.state.step)) == (1, 2)
    state, history = run(sampler=sample, state=caught.value.state)
    assert int(state.step) == 2 + STEPS
    assert np.isfinite(history.loss).all()


@pytest.mark.slow
@pytest.mark.long
def test_under_vmap_the_state_stays_as_it_was_before_the_bad_step():
    good, _ = run(sampler=POISONED, steps=2)
    states, history = jax.vmap(lambda key: run(key, sampler=POISONED))(KEY[None])
    assert_close(jax.tree.map(lambda leaf: leaf[0], states.params), good.params)
    assert np.isfinite(history.loss[0, :2]).all()
    assert np.isnan(history.loss[0, 2:]).all()


def test_ten_steps_are_one_trace_and_a_second_fit_is_none():
    traces = []
    network = mlp((8, 1))

    def apply(params, x):
        traces.append(x.shape)
        return network.apply(params, x)

    learner = maml(Model(network.init, apply), inner_steps=3)
    fit(learner, OPTIMIZER, SAMPLER, KEY, steps=10)
    once = len(traces)
    fit(learner, OPTIMIZER, SAMPLER, jax.random.key(1), steps=10)
    assert len(traces) == once
    assert once < 20


def test_a_sampler_may_be_a_pytree_of_arrays():
    arrays = sinusoid_sampler()(jax.random.key(7))
    fixed = jax.tree_util.Partial(lambda tasks, key: tasks, arrays)
    _, history = run(sampler=fixed, steps=30)
    assert history.loss[-1] < history.loss[0]


def test_meta_training_makes_adaptation_better():
    fresh = sinusoid_sampler(500)(jax.random.key(9))
    judge = jax.jit(jax.vmap(LEARNER.loss, (None, 0, None)))
    before, _ = run()
    after, _ = run(steps=300, state=before)
    loss_before, _ = judge(before.params, fresh, 0)
    loss_after, info = judge(after.params, fresh, 0)
    assert loss_after.mean() < 0.95 * loss_before.mean()
    assert (info.support_loss_after < info.support_loss_before).mean() > 0.9


@pytest.mark.slow
def test_double_precision_is_double_throughout():
    with jax.enable_x64(True):
        x = jnp.linspace(-1.0, 1.0, 24).reshape(2, 6, 2)
        tasks = Task(Batch(x, x[..., :1]), Batch(x, x[..., :1]))
        for learner in (maml(mlp((4, 1)), inner_optimizer=learned_rates()), alpaca(mlp((4, 3)))):
            state = meta_init(learner, optax.adam(1e-3), jax.random.key(0), x[0])
            state, info = meta_step(learner, optax.adam(1e-3), state, tasks)
            assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float64")}
            assert info.loss.dtype == jnp.float64
            single = meta_init(
                learner, optax.sgd(1.0), jax.random.key(0), x[0], param_dtype=jnp.float32
            )
            assert {leaf.dtype for leaf in jax.tree.leaves(single.params)} == {jnp.dtype("float32")}
