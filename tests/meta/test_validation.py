"""Validation while training: the best state, and when to stop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import Batch, MetaLearner, Task, evaluate, maml, training
from maml_jax.errors import ShapeError, TrainingError
from maml_jax.meta.rows import weighted_mean
from maml_jax.meta.validation import validate_params
from maml_jax.models import mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-2)
LEARNER = maml(mlp((8, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)
SAMPLER = sinusoid_sampler(4)


def mean_error(y_hat, y, weight=None):
    return weighted_mean(jnp.abs(y_hat - y), weight)


METRICS = {"error": mean_error}


def run(steps=6, every=2, **options):
    options = {"validate": SAMPLER, "metrics": METRICS} | options
    return list(training(LEARNER, OPTIMIZER, SAMPLER, KEY, steps=steps, every=every, **options))


@pytest.mark.slow
def test_validation_is_the_mean_over_tasks_that_stay_the_same():
    drawn = []

    def sampler(key):
        drawn.append(SAMPLER(key))
        return drawn[-1]

    calls = run(validate=sampler)
    (tasks,) = drawn
    assert calls == [] or len(calls) == 3
    for progress in calls:
        scores = evaluate(LEARNER, progress.state.params, tasks, METRICS)
        np.testing.assert_allclose(progress.validation["error"], scores["error"].mean(), rtol=1e-5)
        losses, _ = jax.vmap(LEARNER.loss, (None, 0, None))(progress.state.params, tasks, 0)
        np.testing.assert_allclose(progress.validation["loss"], losses.mean(), rtol=1e-5)
    for a, b in zip(calls, run(validate=tasks), strict=True):
        assert a.validation == b.validation
    assert run(validate=None)[0].validation == {}


def counting(losses):
    """Make a learner whose loss on any task after `step` steps is `losses[step]`."""
    table = jnp.array(losses)
    return MetaLearner(
        lambda key, x: jnp.zeros(()),
        lambda params, support: params,
        lambda params, x: x,
        lambda params, task, step: (table[step] + 0 * params, ()),
    )


@pytest.mark.parametrize("donate", [False, True])
def test_the_best_state_is_kept_and_patience_ends_training(donate):
    learner = counting([9.0, 5.0, 3.0, jnp.nan, 3.0, 4.0, 1.0])
    options = {"steps": 6, "every": 1, "validate": SAMPLER, "on_bad": "skip", "donate": donate}
    calls = training(learner, OPTIMIZER, SAMPLER, KEY, patience=3, **options)
    seen, best = [], None
    for progress in calls:
        seen.append((progress.step, progress.best.step, progress.best.loss, progress.waited))
        best = progress.best
    assert seen == [(1, 1, 5, 0), (2, 2, 3, 0), (3, 2, 3, 1), (4, 2, 3, 2), (5, 2, 3, 3)]
    assert int(best.state.step) == 2


def test_absent_tasks_and_rows_are_not_validated_on():
    tasks = SAMPLER(jax.random.key(3))
    params = LEARNER.init(KEY, tasks.query.x[0])
    expected = validate_params(LEARNER, params, jax.tree.map(lambda a: a[:2], tasks), METRICS)

    def padded(batch):
        rows = jnp.full((4, 3, 1), jnp.nan)
        x, y = (jnp.concatenate([leaf, rows], axis=1) for leaf in batch[:2])
        return Batch(x, y, jnp.broadcast_to(jnp.arange(13) < 10, (4, 13)).astype(float))

    more = Task(*map(padded, tasks[:2]), weight=jnp.array([1.0, 1.0, 0.0, 0.0]))
    found = validate_params(LEARNER, params, more, METRICS)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_metrics_are_those_of_meta_batches_where_nothing_is_validated():
    progress = run(validate=None)[0]
    assert progress.history.metrics["error"].shape == (2,)
    assert run()[0].history.metrics == {}


def test_settings_that_cannot_be_met_are_refused():
    with pytest.raises(ValueError, match="give validate="):
        run(validate=None, patience=2)
    with pytest.raises(ValueError, match="another name"):
        run(metrics={"loss": mean_error})
    with pytest.raises(TypeError, match="no option 'patients'"):
        run(patients=2)
    with pytest.raises(ShapeError, match="'error' must return one number"):
        run(metrics={"error": lambda y_hat, y: y_hat})
    with pytest.raises(ShapeError, match="task axis"):
        run(validate=jax.tree.map(lambda leaf: leaf[0], SAMPLER(KEY)))


@pytest.mark.slow
def test_a_validation_task_that_is_not_finite_is_named_or_left_out(caplog):
    tasks = SAMPLER(jax.random.key(3))
    params = LEARNER.init(KEY, tasks.query.x[0])
    spoilt = tasks._replace(query=tasks.query._replace(y=tasks.query.y.at[1].set(jnp.nan)))
    with pytest.raises(TrainingError, match="after step 0, validation: the loss of task 1 of 4"):
        validate_params(LEARNER, params, spoilt, METRICS)
    with pytest.raises(TrainingError) as caught:
        run(validate=spoilt)
    assert caught.value.tasks == [1] and caught.value.state.step == 2
    found = validate_params(LEARNER, params, spoilt, METRICS, on_bad="skip")
    rest = jax.tree.map(lambda leaf: jnp.delete(leaf, 1, axis=0), tasks)
    for name, value in validate_params(LEARNER, params, rest, METRICS).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    assert "task 1 of 4 is not finite: left out" in caplog.text
    assert run(validate=spoilt, on_bad="skip")[-1].best is not None
    with pytest.raises(TypeError, match="metrics are functions by name"):
        run(metrics=[mean_error])
