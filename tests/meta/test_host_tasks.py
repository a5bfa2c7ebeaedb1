"""Tasks that an iterator gives on the host."""

import threading
import traceback
from itertools import repeat

import jax
import numpy as np
import optax
import pytest
from helpers import one_task, sinusoid_sampler

from maml_jax import maml, stack_tasks, training
from maml_jax.errors import ShapeError, TaskError, TrainingError
from maml_jax.meta import host_tasks
from maml_jax.meta.scan import tasks_of_step
from maml_jax.meta.sources import open_source
from maml_jax.models import mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-3)
LEARNER = maml(mlp((8, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)
SAMPLER = sinusoid_sampler(4)
STEPS = 6
BATCHES = [
    jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tasks_of_step(SAMPLER, KEY, step))
    for step in range(STEPS)
]


def run(tasks, steps=STEPS, every=3, **options):
    return list(training(LEARNER, OPTIMIZER, tasks, KEY, steps=steps, every=every, **options))


def assert_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_the_numbers_are_those_of_a_sampler_of_the_same_tasks(monkeypatch):
    expected = run(SAMPLER)
    found = run(iter(BATCHES))
    assert [each.step for each in found] == [3, 6]
    for a, b in zip(found, expected, strict=True):
        for x, y in zip(*map(jax.tree.leaves, (a[:3], b[:3])), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(host_tasks, "STACK_BYTES", 1)
    for a, b in zip(run(iter(BATCHES)), found, strict=True):
        assert_equal(a[:3], b[:3])


@pytest.mark.slow
def test_a_training_that_is_resumed_passes_over_tasks_that_were_used(tmp_path):
    expected = run(BATCHES)
    for _ in training(LEARNER, OPTIMIZER, BATCHES, KEY, steps=6, every=3, checkpoints=tmp_path):
        break
    again, last = run(iter(BATCHES), checkpoints=tmp_path, resume=True)
    assert (again.step, last.step) == (3, 6)
    assert_equal((last.state, last.history), (expected[1].state, expected[1].history))


def is_fetching():
    return any(thread.name == "tasks" for thread in threading.enumerate())


def test_the_thread_ends_when_the_loop_is_left():
    taken = []

    def endless():
        for batch in repeat(BATCHES[0]):
            taken.append(1)
            yield batch

    for _ in training(LEARNER, OPTIMIZER, endless(), KEY, steps=10**6, every=3):
        assert is_fetching()
        break
    assert not is_fetching()
    assert len(taken) <= 3 * (host_tasks.AHEAD + 2)


def test_an_error_of_the_iterator_is_raised_where_it_arose():
    def broken():
        yield from BATCHES[:4]
        raise KeyError("row 17")

    seen = []
    with pytest.raises(KeyError, match="row 17") as caught:
        for progress in training(LEARNER, OPTIMIZER, broken(), KEY, steps=6, every=3):
            seen.append(progress.step)
    assert seen == [3]
    assert "broken" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not is_fetching()


def test_an_iterator_that_ends_early_is_told():
    seen = []
    with pytest.raises(TaskError, match="ended after 4 of 6 meta-batches"):
        for progress in training(LEARNER, OPTIMIZER, BATCHES[:4], KEY, steps=6, every=3):
            seen.append(progress.step)
    assert seen == [3, 4]
    with pytest.raises(TaskError, match="gives none"):
        run([])


def test_a_bad_task_stops_training_with_all_that_was_measured(monkeypatch):
    monkeypatch.setattr(host_tasks, "STACK_BYTES", 1)
    bad = jax.tree.map(lambda leaf: leaf * np.nan, BATCHES[0])
    with pytest.raises(TrainingError, match="step 2") as caught:
        run([*BATCHES[:2], bad, *BATCHES[3:]])
    assert len(caught.value.history.loss) == 2
    history = run([*BATCHES[:2], bad, *BATCHES[3:]], on_bad="skip")[0].history
    assert history.skipped.tolist() == [0, 0, 4]


def test_what_is_no_meta_batch_is_refused():
    tasks = [one_task(number) for number in range(3)]
    with pytest.raises(ShapeError, match="stack_tasks"):
        run(iter([tasks]))
    with pytest.raises(ShapeError, match="stack_tasks"):
        run(iter([*BATCHES[:1], tasks]))
    with pytest.raises(ShapeError, match=r"meta-batch 1 of the iterator.*stack_tasks"):
        run([BATCHES[0], jax.tree.map(lambda leaf: leaf[:2], BATCHES[1])])
    with pytest.raises(ShapeError, match="task axis"):
        run(iter([one_task()]))
    for what, said in ((BATCHES[0], "one meta-batch"), (3, "must be a sampler")):
        with pytest.raises(TypeError, match=said):
            open_source(LEARNER, OPTIMIZER, what, KEY, {})


def test_ragged_tasks_are_stacked():
    tasks = [jax.tree.map(lambda a, n=n: a[:n], one_task(n)) for n in (3, 5)]
    (progress,) = run(repeat(stack_tasks(tasks)), steps=2)
    assert np.isfinite(progress.history.loss).all()
