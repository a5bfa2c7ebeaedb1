"""What would train something else than meant is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task, sinusoid_sampler

from maml_jax import (
    Batch,
    Model,
    Task,
    bayesian_maml,
    ensemble,
    fit,
    hierarchical_maml,
    learned_rates,
    maml,
    meta_init,
    meta_step,
    reptile,
    training,
)
from maml_jax.errors import ShapeError, TaskError
from maml_jax.meta.scan import as_pytree
from maml_jax.meta.task_checks import (
    require_state,
    require_tasks,
    sampled_shapes,
    warn_without_keys,
)
from maml_jax.models import gru, mlp

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-3)
LEARNER = maml(mlp((4, 1)), inner_steps=1)
SEQUENCES = maml(gru(4), inner_steps=1)
TASKS = sinusoid_sampler(4)(KEY)
SCALARS = maml(Model(lambda key, x: jnp.zeros(2), lambda w, x: w[0] + w[1] * x))


def task(x, y, support=5, query=5):
    return Task(*(Batch(jnp.ones((n, *x)), jnp.ones((n, *y))) for n in (support, query)))


@pytest.mark.parametrize(
    ("learner", "one"),
    [
        (LEARNER, task((3,), (1,))),
        (LEARNER, task((3,), ())),
        (LEARNER, task((3,), (3,))),
        (LEARNER, task((1,), (1,))),
        (LEARNER, task((1,), (1,), query=6)),
        (SEQUENCES, task((6, 3), (1,))),
        (LEARNER, task((8, 8, 3), ())),
    ],
)
def test_one_task_is_not_taken_for_many(learner, one):
    with pytest.raises(ShapeError, match="task axis"):
        require_tasks(one, learner)
    require_tasks(jax.tree.map(lambda leaf: leaf[None], one), learner)


def test_tasks_of_one_row_and_of_scalars_are_taken():
    require_tasks(task((1, 3), (1, 1)), LEARNER)
    require_tasks(task((5,), (5,)), SCALARS)


def pick(tasks):
    return jax.tree.map(lambda leaf: leaf[0], tasks)


def test_fit_refuses_a_sampler_of_one_task():
    with pytest.raises(ShapeError, match="task axis"):
        fit(LEARNER, OPTIMIZER, lambda key: pick(sinusoid_sampler(2)(key)), KEY, steps=1)


def test_a_list_of_tasks_is_told_of_stack_tasks():
    with pytest.raises(ShapeError, match=r"list of 2 tasks.*stack_tasks"):
        require_tasks([one_task(0), one_task(1)], LEARNER)
    with pytest.raises(TypeError, match="a meta-batch is a Task"):
        require_tasks(TASKS.support, LEARNER)


@pytest.mark.parametrize(
    "make", [maml, reptile, partial(hierarchical_maml, levels=1), bayesian_maml]
)
def test_what_is_random_without_keys_is_said_once_for_a_learner(make, caplog):
    noisy, keys = mlp((4, 1), dropout=0.5), jax.random.split(KEY, 4)

    def warnings(learner, tasks):
        caplog.clear()
        warn_without_keys(learner, tasks)
        return [record.levelname for record in caplog.records if "no keys" in record.message]

    for wrap in (lambda one: one, lambda one: ensemble(one, 2)):
        learner = wrap(make(noisy))
        assert warnings(learner, TASKS._replace(key=keys)) == []
        assert warnings(learner, TASKS) == ["WARNING"]
        assert warnings(learner, TASKS) == []
        assert warnings(wrap(make(mlp((4, 1)))), TASKS) == []


def test_training_warns_of_missing_keys(caplog):
    learner = maml(mlp((4, 1), dropout=0.5), inner_steps=1)
    for _ in training(learner, OPTIMIZER, sinusoid_sampler(4), KEY, steps=2, every=1):
        pass
    assert caplog.text.count("tasks have no keys") == 1


def test_weights_of_rows_need_a_task_axis_too():
    support = TASKS.support._replace(weight=jnp.ones((4, 3)))
    with pytest.raises(ShapeError, match=r"support.weight must be \[task, n\]"):
        require_tasks(TASKS._replace(support=support), LEARNER)


def unused(key):
    del key
    return jax.tree.map(np.asarray, TASKS)


def worked_on(key):
    noise = jax.random.normal(key, ())
    del noise
    return jax.tree.map(lambda leaf: leaf + 1, TASKS)


@pytest.mark.parametrize("sampler", [unused, worked_on, jax.jit(unused), jax.jit(worked_on)])
def test_a_sampler_that_ignores_its_key_is_refused(sampler):
    with pytest.raises(TaskError, match="ignores its key"):
        fit(LEARNER, OPTIMIZER, sampler, KEY, steps=1)
    with pytest.raises(TaskError, match="ignores its key"):
        next(iter(training(LEARNER, OPTIMIZER, sampler, KEY, steps=1)))


def test_samplers_that_use_their_key_are_taken():
    def half(key):
        return TASKS._replace(support=jax.jit(sinusoid_sampler(4))(key).support)

    for sampler in (half, jax.jit(half), jax.tree_util.Partial(lambda own, key: own, TASKS)):
        assert sampled_shapes(as_pytree(sampler), KEY).query.x.shape == (4, 10, 1)


def test_what_is_no_learner_optimizer_or_sampler_is_refused(unchecked):
    sampler = sinusoid_sampler(4)
    state = meta_init(LEARNER, OPTIMIZER, KEY, jnp.zeros((1, 1)))
    calls = (
        lambda learner, optimizer: fit(learner, optimizer, sampler, KEY, steps=1),
        lambda learner, optimizer: training(learner, optimizer, sampler, KEY, steps=1),
        lambda learner, optimizer: meta_init(learner, optimizer, KEY, jnp.zeros((1, 1))),
        lambda learner, optimizer: meta_step(learner, optimizer, state, TASKS),
    )
    for call in calls:
        for learner, optimizer, words in (
            (maml, OPTIMIZER, r"write maml\(network\)"),
            (mlp((4, 1)), OPTIMIZER, r"write maml\(network\).*got Model"),
            (LEARNER, optax.adam, r"with parentheses, such as adam\(0.001\)"),
            (LEARNER, 3e-4, r"write optax.adam\(0.0003\)"),
            (LEARNER, learned_rates(), "inner_optimizer="),
        ):
            with pytest.raises(TypeError, match=words):
                call(learner, optimizer)
    for wrong, words in ((TASKS, "Partial"), ([TASKS], "training")):
        with pytest.raises(TypeError, match=rf"a sampler is a function.*{words}"):
            fit(LEARNER, OPTIMIZER, wrong, KEY, steps=1)


def test_the_state_of_another_learner_is_refused():
    other = maml(mlp((4, 4, 1)))
    state = meta_init(other, OPTIMIZER, KEY, jnp.zeros((1, 1)))
    for call in (
        lambda: fit(LEARNER, OPTIMIZER, sinusoid_sampler(4), KEY, steps=1, state=state),
        lambda: meta_step(LEARNER, OPTIMIZER, state, TASKS),
        lambda: next(
            iter(training(LEARNER, OPTIMIZER, sinusoid_sampler(4), KEY, steps=1, state=state))
        ),
    ):
        with pytest.raises(ShapeError, match=r"another learner: state.params"):
            call()


def test_the_state_of_another_optimizer_is_refused():
    state = meta_init(LEARNER, optax.sgd(0.1, momentum=0.9), KEY, jnp.zeros((1, 1)))
    with pytest.raises(ShapeError, match=r"another optimizer: state.opt_state"):
        meta_step(LEARNER, OPTIMIZER, state, TASKS)
    with pytest.raises(TypeError, match="a state is a MetaState"):
        require_state(LEARNER, OPTIMIZER, state.params, require_tasks(TASKS, LEARNER))
