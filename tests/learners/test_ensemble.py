"""An ensemble against its members, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task

from maml_jax import (
    Batch,
    MetaState,
    Model,
    Prediction,
    Task,
    alpaca,
    fit,
    gaussian_nll,
    maml,
    maml_plus_plus,
    matching_networks,
    meta_init,
    meta_step,
    reptile,
)
from maml_jax.errors import ShapeError
from maml_jax.learners._ensemble import ensemble, mix
from maml_jax.models import gaussian

pytestmark = pytest.mark.slow

TASK = one_task(3, 6)
INNER = {"inner_optimizer": optax.sgd(0.01), "inner_steps": 2}


def network(outputs):
    """One hidden layer, drawn in few operations."""

    def init(key, x):
        first, second = jax.random.split(key)
        return jax.random.normal(first, (x.shape[-1], 6)), jax.random.normal(second, (6, outputs))

    return Model(init, lambda params, x: jnp.tanh(x @ params[0]) @ params[1] / 6**0.5)


def points():
    return maml(network(1), **INNER)


def distributions():
    return maml(gaussian(network(2)), loss=gaussian_nll, **INNER)


def closed():
    return alpaca(network(4))


MEMBERS = {"points": points, "distributions": distributions, "closed form": closed}


@pytest.fixture(params=MEMBERS)
def member(request):
    return MEMBERS[request.param]()


def begun(learner):
    return learner.init(jax.random.key(0), TASK.support.x)


def each(params, count=3):
    return [jax.tree.map(lambda leaf, j=j: leaf[j], params.members) for j in range(count)]


def test_members_begin_differently_each_as_it_would_alone(member):
    params = begun(ensemble(member, 3))
    for key, own in zip(jax.random.split(jax.random.key(0), 3), each(params), strict=True):
        alone = member.init(key, TASK.support.x)
        jax.tree.map(np.testing.assert_array_equal, own, alone)
    first, second, _ = (
        jnp.concatenate([*map(jnp.ravel, jax.tree.leaves(p))]) for p in each(params)
    )
    assert (first != second).any()


def value_and_grad(learner):
    return jax.jit(jax.value_and_grad(lambda p: learner.loss(p, TASK, 0), has_aux=True))


def test_loss_and_adapting_are_the_members(member):
    learner = ensemble(member, 3)
    params = begun(learner)
    alone = [*map(value_and_grad(member), each(params))]
    (loss, info), grad = value_and_grad(learner)(params)
    np.testing.assert_allclose(loss, np.sum([one[0][0] for one in alone]), rtol=1e-5)
    expected = np.mean([[*one[0][1]] for one in alone], axis=0)
    np.testing.assert_allclose([*info], expected, rtol=1e-5)
    for (_, slope), found in zip(alone, each(grad), strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, slope
        )
    adapted = learner.adapt(params, TASK.support)
    for own, one in zip(each(adapted), each(params), strict=True):
        expected = member.adapt(one, TASK.support)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), own, expected)


def test_prediction_is_the_moments_of_the_mixture(member):
    learner = ensemble(member, 3, noise=0.7)
    adapted = learner.adapt(begun(learner), TASK.support)
    alone = [member.predict(own, TASK.query.x) for own in each(adapted)]
    if isinstance(alone[0], Prediction):
        means, stds = (np.array([getattr(p, name) for p in alone]) for name in ("mean", "std"))
    else:
        means, stds = np.array(alone), np.full((3, 6, 1), 0.7)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 3, 200_000)
    sample = means[drawn] + stds[drawn] * rng.standard_normal((200_000, 1, 1))
    found = learner.predict(adapted, TASK.query.x)
    np.testing.assert_allclose(found.mean, sample.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(found.std, sample.std(axis=0), rtol=0.02)


def test_mixture_of_one_is_itself():
    mean, std = jnp.array([[1.0, 2.0]]), jnp.array([[0.5, 0.1]])
    found = mix(mean, std)
    np.testing.assert_allclose(found.mean, mean[0])
    np.testing.assert_allclose(found.std, std[0], rtol=1e-6)


def test_noise_learns_by_the_likelihood_of_the_mixture_and_nothing_else_does():
    learner = ensemble(points(), 3)
    params = begun(learner)
    _, grad = value_and_grad(learner)(params)

    def likelihood(tenth_log_noise):
        adapted = learner.adapt(params._replace(tenth_log_noise=tenth_log_noise), TASK.support)
        return gaussian_nll(learner.predict(adapted, TASK.query.x), TASK.query.y)

    expected = jax.grad(likelihood)(params.tenth_log_noise)
    np.testing.assert_allclose(grad.tenth_log_noise, expected, rtol=1e-5)
    assert expected != 0


def test_noise_rests_where_members_predict_deviations():
    learner = ensemble(distributions(), 3)
    _, grad = value_and_grad(learner)(begun(learner))
    assert grad.tenth_log_noise == 0


def test_an_interval_of_point_predictions_covers_outcomes():
    """Targets of noise alone: the noise is found although members predict numbers."""

    def sample(key):
        x_key, y_key = jax.random.split(key)
        x, y = jax.random.normal(x_key, (8, 40, 2)), 3 * jax.random.normal(y_key, (8, 40, 1))
        return Task(Batch(x[:, :20], y[:, :20]), Batch(x[:, 20:], y[:, 20:]))

    learner = ensemble(maml(network(1), inner_steps=1), 2)
    state, _ = fit(learner, optax.adam(0.01), sample, jax.random.key(0), steps=150)
    test = sample(jax.random.key(1))
    y_hat = jax.vmap(lambda rows, asked: learner.predict(learner.adapt(state.params, rows), asked))(
        test.support, test.query.x
    )
    covered = jnp.mean(jnp.abs(test.query.y - y_hat.mean) < 1.645 * y_hat.std)
    assert 0.8 < covered < 0.97


def test_update_is_passed_on_where_there_is_one():
    assert ensemble(points()).update is None
    learner = ensemble(closed(), 2)
    params = begun(learner)
    known = learner.adapt(params, jax.tree.map(lambda leaf: leaf[:0], TASK.support))
    for row in range(len(TASK.support.y)):
        known = learner.update(
            known, jax.tree.map(lambda leaf, i=row: leaf[i : i + 1], TASK.support)
        )
    both = [learner.predict(p, TASK.query.x) for p in (known, learner.adapt(params, TASK.support))]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *both)


def test_steps_are_passed_on():
    learner = ensemble(points(), 2)
    params = begun(learner)
    unmoved = learner.adapt(params, TASK.support, steps=0)
    jax.tree.map(np.testing.assert_array_equal, unmoved, params)
    with pytest.raises(ValueError, match="takes no steps"):
        ensemble(closed(), 2).adapt(begun(ensemble(closed(), 2)), TASK.support, steps=1)


def test_members_anneal():
    """Early, the loss of MAML++ is of every inner step."""
    member = maml_plus_plus(network(1), inner_steps=2, multi_step_until=4, second_order_from=2)
    learner = ensemble(member, 2)
    params = begun(learner)
    of_all, of_one = (
        jax.jit(lambda p, step, each=e: each.loss(p, TASK, step)[0]) for e in (learner, member)
    )
    found = [of_all(params, step) for step in (0, 3, 10)]
    expected = [np.sum([of_one(own, step) for own in each(params, 2)]) for step in (0, 3, 10)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len({float(loss) for loss in found}) == 3


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="at least 1 member"):
        ensemble(points(), 0)
    with pytest.raises(ValueError, match="noise must be positive"):
        ensemble(points(), noise=0.0)
    classes = TASK._replace(
        support=Batch(TASK.support.x, jnp.arange(6) % 3),
        query=Batch(TASK.query.x, jnp.arange(6) % 3),
    )
    learner = ensemble(matching_networks(network(4), classes=3), 2)
    with pytest.raises(ShapeError, match="direction"):
        learner.loss(begun(learner), classes, 0)


@pytest.mark.parametrize("make", [maml, reptile])
def test_each_member_learns_what_it_would_learn_alone(make):
    """Under SGD and with the norm of its meta-gradient bounded, and whatever becomes of others."""
    learner, tasks = make(network(1), **INNER), jax.tree.map(lambda leaf: leaf[None], TASK)
    both, optimizer = ensemble(learner, 2), optax.sgd(1.0)
    state = meta_init(both, optimizer, jax.random.key(0), TASK.support.x)
    new, _ = meta_step(both, optimizer, state, tasks, max_grad_norm=0.1)
    for index in range(2):
        alone = jax.tree.map(lambda leaf, i=index: leaf[i], state.params.members)
        begun = MetaState(alone, optimizer.init(alone), state.step)
        expected, _ = meta_step(learner, optimizer, begun, tasks, max_grad_norm=0.1)
        found = jax.tree.map(lambda leaf, i=index: leaf[i], new.params.members)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
