"""Hierarchical MAML against loops over its levels, and against MAML."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task

from maml_jax import (
    Batch,
    Level,
    MetaParams,
    Task,
    conditioned_rates,
    exact,
    first_order,
    hierarchical_maml,
    implicit,
    learned_rates,
    maml,
    meta_init,
    meta_step,
    mixed_mode,
)
from maml_jax.errors import GradientError, ShapeError
from maml_jax.learners._hierarchical_maml import _split
from maml_jax.models import mlp

pytestmark = pytest.mark.long

NETWORK = mlp((4, 1))
KEY = jax.random.key(0)
ROWS = (7, 5, 3)
SGD = (Level(2, optax.sgd(0.03)), Level(1, optax.sgd(0.02)), Level(3, optax.sgd(0.01)))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64():
        yield


def rows(key, count) -> Batch:
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda leaf: leaf[:count], one_task(key, 10, dtype).support)


def levelled(*counts) -> tuple[Batch, ...]:
    return tuple(rows(10 + place, count) for place, count in enumerate(counts))


def together(supports) -> Batch:
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *supports)


def value_and_grad(learner, params, task):
    return jax.jit(jax.value_and_grad(lambda p: learner.loss(p, task, 0), has_aux=True))(params)


def close(a, b, tolerance=1e-10):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def start():
    with jax.enable_x64(False):
        theta = NETWORK.init(KEY, jnp.zeros((1, 1)))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), theta)


def by_hand(theta, supports, levels):
    """Plain gradient descent, one step after the other."""

    def error(theta, batch):
        return jnp.mean((NETWORK.apply(theta, batch.x) - batch.y) ** 2)

    for support, (steps, rate) in zip(supports, levels, strict=True):
        for _ in range(steps):
            slope = jax.grad(error)(theta, support)
            theta = jax.tree.map(lambda leaf, s, r=rate: leaf - r * s, theta, slope)
    return theta, lambda batch: error(theta, batch)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [exact(), exact(remat=True), mixed_mode()], ids=str)
def test_one_meta_gradient_goes_through_all_levels(gradient):
    supports, query = levelled(*ROWS), rows(1, 6)
    theta, rates = start(), [(2, 0.03), (1, 0.02), (3, 0.01)]
    learner = hierarchical_maml(NETWORK, levels=SGD, gradient=gradient)
    close(learner.adapt(theta, supports), by_hand(theta, supports, rates)[0])
    (value, info), grad = value_and_grad(learner, theta, Task(supports, query))

    def loss(theta):
        return by_hand(theta, supports, rates)[1](query)

    expected, slope = jax.jit(jax.value_and_grad(loss))(theta)
    close((value, grad), (expected, slope))
    close(info.support_loss_after, by_hand(theta, supports, rates)[1](together(supports)))


@pytest.mark.slow
def test_first_order_is_the_query_gradient_where_the_last_level_ends():
    supports, query = levelled(*ROWS), rows(1, 6)
    learner = hierarchical_maml(NETWORK, levels=SGD, gradient=first_order())
    theta = start()
    _, grad = value_and_grad(learner, theta, Task(supports, query))
    adapted = learner.adapt(theta, supports)
    close(grad, jax.grad(lambda p: jnp.mean((NETWORK.apply(p, query.x) - query.y) ** 2))(adapted))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "gradient"),
    [
        (optax.sgd(0.02), exact()),
        (learned_rates(0.02, steps=3), mixed_mode()),
        (conditioned_rates(0.02), first_order()),
    ],
    ids=["sgd", "rates", "conditioned"],
)
def test_with_one_level_it_is_maml(optimizer, gradient):
    one = hierarchical_maml(NETWORK, levels=(Level(3, optimizer),), gradient=gradient)
    flat = maml(NETWORK, inner_optimizer=optimizer, inner_steps=3, gradient=gradient)
    task = one_task(4, dtype=jnp.float64)
    ours, theirs = (learner.init(KEY, task.support.x) for learner in (one, flat))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    close(one.adapt(ours, task.support), flat.adapt(theirs, task.support), 1e-12)
    close(one.adapt(ours, (task.support,)), flat.adapt(theirs, task.support), 1e-12)
    close(value_and_grad(one, ours, task), value_and_grad(flat, theirs, task), 1e-12)


@pytest.mark.slow
@pytest.mark.long
def test_one_batch_is_cut_into_levels_and_the_last_takes_the_rest():
    supports = levelled(*ROWS)
    whole = together(supports)
    theta = start()
    expected = hierarchical_maml(NETWORK, levels=SGD).adapt(theta, supports)
    for counts in (ROWS, (7, 5, 100)):
        learner = hierarchical_maml(NETWORK, levels=SGD, rows=counts)
        close(learner.adapt(theta, whole), expected)
        close(learner.adapt(theta, supports), expected)
    learner = hierarchical_maml(NETWORK, levels=SGD, rows=ROWS)
    with pytest.raises(ShapeError, match="10 rows leave the last of 3 levels without any"):
        learner.adapt(theta, jax.tree.map(lambda leaf: leaf[:10], whole))
    # Three rows of the second level, none of the third: the others do not count.
    short = whole._replace(weight=jnp.where(jnp.arange(len(whole.y)) < 10, 1.0, 0.0))
    parts = (supports[0], jax.tree.map(lambda leaf: leaf[:3], supports[1]))
    close(
        learner.adapt(theta, short), hierarchical_maml(NETWORK, levels=SGD[:2]).adapt(theta, parts)
    )


@pytest.mark.slow
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_level_without_rows_leaves_its_parent_as_it_is(empty):
    counts = [0 if place == empty else count for place, count in enumerate(ROWS)]
    supports, theta = levelled(*counts), start()
    rest = [place for place in range(3) if place != empty]
    whole, without = (
        hierarchical_maml(NETWORK, levels=SGD),
        hierarchical_maml(NETWORK, levels=tuple(SGD[place] for place in rest)),
    )
    left = tuple(supports[place] for place in rest)
    close(whole.adapt(theta, supports), without.adapt(theta, left))
    task = rows(1, 6)
    seen, expected = (
        value_and_grad(learner, theta, Task(support, task))
        for learner, support in ((whole, supports), (without, left))
    )
    close(seen, expected)


@pytest.mark.slow
def test_nested_levels_see_the_rows_of_finer_ones_too():
    supports, query = levelled(*ROWS), rows(1, 6)
    wider = tuple(together(supports[place:]) for place in range(3))
    nested, apart = (hierarchical_maml(NETWORK, levels=SGD, nested=each) for each in (True, False))
    cut = hierarchical_maml(NETWORK, levels=SGD, rows=ROWS, nested=True)
    theta = start()
    close(nested.adapt(theta, supports), apart.adapt(theta, wider))
    close(cut.adapt(theta, together(supports)), apart.adapt(theta, wider))
    (value, info), grad = value_and_grad(nested, theta, Task(supports, query))
    (same, _), slope = value_and_grad(apart, theta, Task(wider, query))
    close((value, grad), (same, slope))
    error = NETWORK.apply(theta, together(supports).x) - together(supports).y
    close(info.support_loss_before, jnp.mean(error**2))
    resting = (SGD[0], SGD[1]._replace(inner_steps=0), SGD[2]._replace(inner_steps=0))
    close(
        hierarchical_maml(NETWORK, levels=resting, nested=True).adapt(theta, supports),
        maml(NETWORK, inner_optimizer=optax.sgd(0.03), inner_steps=2).adapt(theta, wider[0]),
    )


def test_shares_of_the_rows_cut_as_numbers_do():
    whole, theta = together(levelled(*ROWS)), start()
    numbers, shares = (
        hierarchical_maml(NETWORK, levels=SGD, rows=each) for each in ((7, 3, 5), (0.5, 0.25, 0.25))
    )
    close(numbers.adapt(theta, whole), shares.adapt(theta, whole))


@pytest.mark.slow
@pytest.mark.long
def test_levels_have_rates_of_their_own_and_learn_them():
    learner = hierarchical_maml(NETWORK, levels=(Level(2), Level(2, optax.sgd(0.01)), Level(2)))
    supports, query = levelled(*ROWS), rows(1, 6)
    params = learner.init(KEY, query.x)
    assert isinstance(params, MetaParams)
    assert params.settings[1] == ()
    _, grad = value_and_grad(learner, params, Task(supports, query))
    for place in (0, 2):
        assert all(leaf != 0 for leaf in jax.tree.leaves(grad.settings[place]))
    quiet = jax.tree.map(lambda leaf: leaf - 100, params.settings[0])  # e^-100: no step at all
    still = params._replace(settings=(quiet, *params.settings[1:]))
    rest = hierarchical_maml(NETWORK, levels=(Level(2, optax.sgd(0.01)), Level(2)))
    close(
        learner.adapt(still, supports),
        rest.adapt(MetaParams(params.start, params.settings[1:]), supports[1:]),
    )


@pytest.mark.slow
def test_a_tuple_of_batches_is_trained_on_like_any_task():
    learner = hierarchical_maml(NETWORK, levels=2)
    with jax.enable_x64(False):
        task = Task(levelled(6, 3), rows(1, 4))
        tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), task)
        optimizer = optax.adam(1e-2)
        state = meta_init(learner, optimizer, KEY, task.query.x)
        after, info = meta_step(learner, optimizer, state, tasks, devices=1)
        adapted = jax.vmap(learner.adapt, (None, 0))(after.params, tasks.support)
    assert np.isfinite(info.task_loss).all()
    assert jax.tree.leaves(adapted)[0].shape[0] == 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at least 1 level"):
        hierarchical_maml(NETWORK, levels=0)
    with pytest.raises(ValueError, match="steps of a level"):
        hierarchical_maml(NETWORK, levels=(Level(-1),))
    with pytest.raises(ValueError, match=r"each of the 2 levels a number of rows.*got \(3,\)"):
        hierarchical_maml(NETWORK, rows=(3,))
    with pytest.raises(GradientError, match="implicit"):
        hierarchical_maml(NETWORK, gradient=implicit())
    with pytest.raises(TypeError, match="exact"):
        hierarchical_maml(NETWORK, gradient=exact)
    learner, theta = hierarchical_maml(NETWORK, levels=SGD), start()
    with pytest.raises(ShapeError, match="tuple of a Batch for each.*rows="):
        learner.adapt(theta, rows(0, 5))
    with pytest.raises(ShapeError, match="3 levels need a Batch each, got 2"):
        learner.adapt(theta, levelled(3, 3))
    with pytest.raises(ValueError, match="negative"):
        learner.adapt(theta, levelled(*ROWS), steps=-1)


def test_shares_of_a_support_set_are_rows_of_it():
    supports = levelled(8, 4, 4)
    theta = start()
    shares = hierarchical_maml(NETWORK, levels=SGD, rows=(0.5, 0.25, 0.25))
    close(
        shares.adapt(theta, together(supports)),
        hierarchical_maml(NETWORK, levels=SGD).adapt(theta, supports),
    )


def test_rows_that_do_not_count_are_passed_over_or_keep_their_place():
    x = jnp.ones((100, 1))
    for share in (0.29, 0.5, 0.53, 0.7):
        plain = _split(Batch(x, x), (share, 1 - share), 2)
        weighted = _split(Batch(x, x, jnp.ones(100)), (share, 1 - share), 2)
        assert [len(own.y) for own in plain] == [int(own.weight.sum()) for own in weighted]
    # Four rows of all assets, and four of the asset itself, which has one as yet.
    mixed = Batch(x[:8], x[:8], jnp.array([1.0, 1, 1, 1, 0, 0, 0, 1]))
    cut = _split(mixed, (0.5, 0.5), 2, by_place=True)
    assert [own.weight.tolist() for own in cut] == [[1, 1, 1, 1], [0, 0, 0, 1]]
