import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler
from scipy.stats import t as student

from maml_jax import (
    Batch,
    MetaLearner,
    Prediction,
    Scores,
    Task,
    evaluate,
    maml,
    mean_squared_error,
    predict_tasks,
    r_squared,
)
from maml_jax.errors import ShapeError
from maml_jax.meta.rows import stack_tasks
from maml_jax.models import mlp

pytestmark = pytest.mark.long

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


def shift_by_key(params, support, key=None):
    return params + support.y.mean() + (0.0 if key is None else jax.random.normal(key))


DRAWS = MetaLearner(
    lambda key, x: jnp.zeros(()),
    shift_by_key,
    lambda adapted, x: adapted + 0 * x[:, :1],
    lambda params, task, step: (params, ()),
)


def test_tasks_with_keys_hand_them_to_adapt():
    keys = jax.random.split(jax.random.key(2), 5)
    levels = TASKS.support.y.mean(axis=(1, 2))
    drawn = predict_tasks(DRAWS, jnp.zeros(()), TASKS._replace(key=keys))[:, 0, 0]
    np.testing.assert_allclose(drawn, levels + jax.vmap(jax.random.normal)(keys), rtol=1e-5)
    np.testing.assert_allclose(
        predict_tasks(DRAWS, jnp.zeros(()), TASKS)[:, 0, 0], levels, rtol=1e-5
    )


def test_tasks_of_different_sizes_score_as_each_alone(unchecked):
    tasks = []
    for number, (support, query) in enumerate([(3, 4), (10, 2), (1, 10)]):
        task = task_of(number)
        tasks.append(
            Task(
                jax.tree.map(lambda leaf, n=support: leaf[:n], task.support),
                jax.tree.map(lambda leaf, n=query: leaf[:n], task.query),
            )
        )
    metrics = {"error": mean_squared_error, "r2": r_squared}
    padded = stack_tasks(tasks)
    absent = np.asarray(padded.query.weight)[..., None] == 0
    x, y = (np.where(absent, np.nan, leaf) for leaf in padded.query[:2])
    padded = padded._replace(query=Batch(x, y, padded.query.weight))
    found = evaluate(LEARNER, PARAMS, padded, metrics)
    for number, task in enumerate(tasks):
        alone = evaluate(LEARNER, PARAMS, jax.tree.map(lambda leaf: leaf[None], task), metrics)
        for name in metrics:
            np.testing.assert_allclose(found[name][number], alone[name][0], rtol=1e-4)
    with pytest.raises(TypeError, match="metric 'largest error' does not take.*weight=None"):
        evaluate(LEARNER, PARAMS, padded, METRICS)
    with pytest.raises(ShapeError, match=r"list of 3 tasks.*write stack_tasks\(tasks\)"):
        evaluate(LEARNER, PARAMS, tasks, metrics)
    with pytest.raises(ShapeError, match="task axis"):
        evaluate(LEARNER, PARAMS, task_of(0), metrics)


def test_intervals_are_students():
    values = np.random.default_rng(0).standard_normal((7, 3))
    scores = Scores({"a": jnp.asarray(values), "b": {"c": jnp.asarray(values[:, 0])}})
    expected = student.interval(
        0.95, 6, loc=values.mean(axis=0), scale=values.std(axis=0, ddof=1) / 7**0.5
    )
    np.testing.assert_allclose(scores.mean["a"], values.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores.interval["a"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores.interval["b"]["c"].low, expected[0][0], rtol=1e-5)
    for weight in (np.full(9, 2.0), np.r_[np.ones(7), 0.0, 0.0]):
        count = int((weight == weight[0]).sum())
        more = np.concatenate([values, values[:2] if count == 9 else np.full((2, 3), np.nan)])
        same = Scores({"a": more[:count]})
        found = Scores({"a": more}, weight)
        np.testing.assert_allclose(found.interval["a"], same.interval["a"], rtol=1e-6)
    assert np.isnan(Scores({"a": values[:1]}).interval["a"].low).all()
    doubled = jax.tree.map(lambda leaf: 2 * leaf, scores)
    np.testing.assert_allclose(doubled.mean["a"], 2 * values.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_intervals_cover_the_mean_of_weighted_tasks():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(1000):
        weight = rng.uniform(0.2, 2.0, 12)
        low, high = Scores({"a": rng.standard_normal(12)}, weight).interval["a"]
        covered.append(low <= 0 <= high)
    assert 0.93 < np.mean(covered) < 0.97
