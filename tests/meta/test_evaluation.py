import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import MetaLearner, Prediction, evaluate, maml, predict_tasks
from maml_jax.models import mlp

LEARNER = maml(mlp((8, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)
TASKS = sinusoid_sampler(tasks=5)(jax.random.key(0))
PARAMS = LEARNER.init(jax.random.key(1), TASKS.support.x[0])


def largest_error(y_hat, y):
    return jnp.abs(y_hat - y).max()


METRICS = {"largest error": largest_error, "first": lambda y_hat, y: y_hat[0]}


def task_of(number):
    return jax.tree.map(lambda leaf: leaf[number], TASKS)


@pytest.mark.parametrize("steps", [None, 0, 3])
def test_scores_are_those_of_a_loop_over_tasks(steps):
    scores = evaluate(LEARNER, PARAMS, TASKS, METRICS, steps=steps)
    y_hat = predict_tasks(LEARNER, PARAMS, TASKS, steps=steps)
    for number in range(5):
        task = task_of(number)
        adapted = LEARNER.adapt(PARAMS, task.support, steps=steps)
        expected = LEARNER.predict(adapted, task.query.x)
        np.testing.assert_allclose(y_hat[number], expected, rtol=1e-4, atol=1e-5)
        for name, metric in METRICS.items():
            wanted = metric(expected, task.query.y)
            np.testing.assert_allclose(scores[name][number], wanted, rtol=1e-4, atol=1e-5)


def test_several_numbers_of_steps_are_scored_at_once():
    together = evaluate(LEARNER, PARAMS, TASKS, METRICS, steps=[0, 3])
    assert together["first"].shape == (5, 2, 1)
    for place, steps in enumerate((0, 3)):
        alone = evaluate(LEARNER, PARAMS, TASKS, METRICS, steps=steps)
        for name, scores in alone.items():
            np.testing.assert_allclose(together[name][:, place], scores, rtol=1e-5, atol=1e-6)


def test_the_same_metrics_are_traced_once():
    traces = []

    def counting(y_hat, y):
        traces.append(y.shape)
        return largest_error(y_hat, y)

    for _ in range(3):
        evaluate(LEARNER, PARAMS, TASKS, {"largest error": counting})
    assert len(traces) == 1


def test_learners_without_steps_and_with_deviations_are_evaluated():
    def predict(adapted, x):
        return Prediction(adapted + 0 * x[:, :1], jnp.ones((len(x), 1)))

    learner = MetaLearner(
        lambda key, x: jnp.zeros(()),
        lambda params, support: params + support.y.mean(),
        predict,
        lambda params, task, step: (params, ()),
    )
    found = predict_tasks(learner, jnp.zeros(()), TASKS)
    assert isinstance(found, Prediction)
    levels = TASKS.support.y.mean(axis=(1, 2))
    np.testing.assert_allclose(found.mean[:, 0, 0], levels, rtol=1e-5)
