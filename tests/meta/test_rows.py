"""What weights mean: a row of weight 0 is not there, one of weight 2 is there twice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maml_jax import (
    Batch,
    Prediction,
    Task,
    alpaca,
    bayesian_maml,
    cavia,
    cross_entropy,
    double_adapt,
    ensemble,
    from_scratch,
    gaussian_nll,
    hierarchical_maml,
    huber,
    imaml,
    maml,
    matching_networks,
    mean_squared_error,
    prototypical_networks,
    reptile,
    ridge,
    stack_tasks,
)
from maml_jax.errors import ShapeError
from maml_jax.meta.rows import batch_loss, require_weight, weighted_mean
from maml_jax.models import gaussian, mlp

pytestmark = pytest.mark.long


def rows(n, seed=0, features=2):
    x = jnp.asarray(np.random.default_rng(seed).standard_normal((n, features)), jnp.float32)
    return Batch(x, x[:, :1] + 0.5)


def repeat(batch, counts):
    """Each row as often as `counts` says, without weights."""
    return Batch(*(jnp.asarray(np.repeat(leaf, counts, axis=0)) for leaf in batch[:2]))


COUNTS = [2, 0, 1, 3, 0, 1]


@pytest.mark.parametrize(
    "loss",
    [mean_squared_error, huber(0.5), gaussian_nll, cross_entropy, "own"],
    ids=["squares", "huber", "likelihood", "classes", "own"],
)
def test_a_loss_weighted_is_that_of_rows_as_often_as_they_count(loss):
    rng = np.random.default_rng(1)
    y_hat, y = jnp.asarray(rng.standard_normal((2, 6, 3)), jnp.float32)
    if loss is gaussian_nll:
        y_hat = Prediction(y_hat, jnp.exp(y_hat))
    if loss is cross_entropy:
        y = jnp.asarray(rng.integers(0, 3, 6))
    if loss == "own":  # of no weights: computed row by row

        def loss(y_hat, y):
            return jnp.mean(jnp.abs(y_hat - y))

    def of(batch):
        return batch_loss(loss, lambda at, x: jax.tree.map(lambda leaf: leaf[x], at), y_hat, batch)

    index, weight = jnp.arange(6), jnp.asarray(COUNTS, jnp.float32)
    repeated = of(repeat(Batch(index, y), COUNTS))
    np.testing.assert_allclose(of(Batch(index, y, weight)), repeated, rtol=1e-6)
    assert of(Batch(index, y, 0 * weight)) == 0 == of(Batch(index[:0], y[:0]))


def test_values_without_weight_are_not_looked_at():
    value, slope = jax.value_and_grad(lambda w: weighted_mean(jnp.array([1.0, jnp.nan, 4.0]), w))(
        jnp.array([1.0, 0.0, 3.0])
    )
    assert value == 3.25 and np.isfinite(slope[0])


LEARNERS = {
    "maml": maml(mlp((4, 1))),
    "maml, adam": maml(mlp((4, 1)), inner_optimizer=optax.adam(0.01, eps_root=1e-8)),
    "cavia": cavia(mlp((4, 1))),
    "double_adapt": double_adapt(mlp((4, 1)), inner_steps=2),
    "imaml": imaml(mlp((4, 1))),
    "from_scratch": from_scratch(mlp((4, 1)), inner_steps=3),
    "bayesian_maml": bayesian_maml(mlp((4, 1)), particles=2),
    "ridge": ridge(mlp((4, 8))),
    "alpaca": alpaca(mlp((4, 8))),
    "matching": matching_networks(mlp((4, 8))),
    "prototypes": prototypical_networks(mlp((4, 8)), classes=2),
    "ensemble": ensemble(maml(mlp((4, 1))), members=2),
    "reptile": reptile(mlp((4, 1)), batch_size=None),
    "hierarchical": hierarchical_maml(mlp((4, 1)), levels=1),
}

QUICK = ("maml", "bayesian_maml", "alpaca", "matching", "prototypes")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in LEARNERS],
)
def test_a_row_of_weight_two_is_there_twice(name):
    learner, support = LEARNERS[name], rows(6)
    if name == "prototypes":
        support = support._replace(y=(support.y[:, 0] > 0.5).astype(jnp.int32))
    params = learner.init(jax.random.key(0), support.x)
    weighted = learner.adapt(params, support._replace(weight=jnp.asarray(COUNTS, jnp.float32)))
    repeated = learner.adapt(params, repeat(support, COUNTS))
    y_hat, expected = (learner.predict(each, support.x) for each in (weighted, repeated))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), y_hat, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "prototypes"])
@pytest.mark.parametrize(
    "support", [rows(0), rows(3)._replace(weight=jnp.zeros(3))], ids=["0", "w"]
)
def test_from_no_rows_adapting_leads_back_to_where_it_began(name, support):
    learner, x = LEARNERS[name], rows(4).x
    params = learner.init(jax.random.key(0), x)
    loss, _ = learner.loss(params, Task(support, rows(4)), 0)
    assert np.isfinite(loss)
    y_hat = learner.predict(learner.adapt(params, support), x)
    if name in ("ridge", "matching"):
        np.testing.assert_allclose(y_hat, 0, atol=1e-6)
    elif name != "alpaca":
        y_zero = learner.predict(learner.adapt(params, rows(4), steps=0), x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), y_hat, y_zero)


def test_ragged_tasks_are_stacked_with_weights():
    tasks = stack_tasks([Task(rows(2), rows(3)), Task(rows(0), rows(3), weight=2.0)])
    assert tasks.support.weight.tolist() == [[1, 1], [0, 0]]
    assert tasks.query.weight is None and tasks.weight.tolist() == [1, 2]
    fixed = stack_tasks([Task(rows(2), rows(3))], rows=(4, 3))
    assert fixed.support.weight.tolist() == [[1, 1, 0, 0]]
    assert fixed.query.weight.tolist() == [[1, 1, 1]]
    with pytest.raises(ShapeError, match="query of task 0: 3 rows, more than rows=2"):
        stack_tasks([Task(rows(2), rows(3))], rows=(4, 2))
    with pytest.raises(ShapeError, match="query.x of the tasks differ"):
        stack_tasks([Task(rows(2), rows(3)), Task(rows(2), rows(3, features=3))])
    with pytest.raises(ShapeError, match="support of task 0: 2 rows of x and 1 of y"):
        stack_tasks([Task(Batch(rows(2).x, rows(1).y), rows(3))])
    with pytest.raises(TypeError, match="item 1 of the tasks is no Task, but Batch"):
        stack_tasks([Task(rows(2), rows(3)), rows(2)])
    with pytest.raises(ShapeError, match=r"support of task 0: 2 rows and weights of shape \(3,\)"):
        stack_tasks([Task(rows(2)._replace(weight=jnp.ones(3)), rows(3))])
    with pytest.raises(ShapeError, match="task 0: its weight is one number"):
        stack_tasks([Task(rows(2), rows(3), jnp.ones(2))])
    with pytest.raises(ShapeError, match="no task to stack"):
        stack_tasks([])


def test_a_likelihood_of_weighted_rows_trains():
    learner, support = maml(gaussian(mlp((4, 2))), loss=gaussian_nll), rows(6)
    support = support._replace(weight=jnp.asarray(COUNTS, jnp.float32))
    params = learner.init(jax.random.key(0), support.x)
    grad = jax.grad(lambda params: learner.loss(params, Task(support, support), 0)[0])(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


def test_weights_have_one_shape_and_any_type():
    value = weighted_mean(jnp.array([100.0, 100.0], jnp.float16), jnp.array([1e3, 1e3]))
    assert value == 100 and value.dtype == jnp.float16
    errors = jnp.array([1.0, 2.0, 3.0])
    assert weighted_mean(errors, jnp.array([-1.0, 1, 1])) == 2.5  # as if it was absent
    assert weighted_mean(jnp.zeros((0, 1)), jnp.zeros(0)) == 0
    for weight in ((3, 1), (1,), ()):
        with pytest.raises(ShapeError, match="3 rows need one each"):
            require_weight(jnp.ones(weight), 3)


def test_rows_of_numpy_may_have_weights():
    learner = maml(mlp((4, 1)))
    one = jax.tree.map(lambda leaf: leaf[0], stack_tasks([Task(rows(2), rows(3))], rows=(4, 3)))
    params = learner.init(jax.random.key(0), jnp.asarray(one.support.x))
    found, _ = learner.loss(params, one)
    expected, _ = learner.loss(params, Task(rows(2), rows(3)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
