"""Rates and decay of a task's own: against numpy, and against MAML where nothing is learned yet."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task, sinusoid_sampler

from maml_jax import (
    alfa,
    anil,
    conditioned_rates,
    exact,
    first_order,
    fit,
    learned_rates,
    maml,
    mixed_mode,
)
from maml_jax.learners._anil import paths_of
from maml_jax.meta.optimizers._conditioned_rates import LARGEST_DECAY, SPAN
from maml_jax.models import mlp

pytestmark = pytest.mark.long

NETWORK = mlp((4, 1))
KEY = jax.random.key(0)
RATE, STEPS = 0.02, 2


@pytest.fixture(scope="module")
def task():
    return one_task(4)


def meta_grad(learner, params, task):
    return jax.jit(jax.grad(lambda p: learner.loss(p, task, 0)[0]))(params)


def stirred(params, scale=0.5):
    """Settings as they might be once trained: no task keeps the shared rates."""
    leaves, structure = jax.tree.flatten(params.settings)
    rng = np.random.default_rng(0)
    moved = [
        leaf + scale * rng.standard_normal(leaf.shape).astype(leaf.dtype) for leaf in leaves[2:]
    ]
    decay = leaves[1] + 0.01
    return params._replace(settings=jax.tree.unflatten(structure, [leaves[0], decay, *moved]))


def close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [True, False])
def test_it_begins_as_maml_with_rates_for_each_step(task, sizes):
    ours = alfa(
        NETWORK,
        inner_optimizer=conditioned_rates(RATE, steps=STEPS, sizes=sizes),
        inner_steps=STEPS,
    )
    theirs = maml(NETWORK, inner_optimizer=learned_rates(RATE, steps=STEPS), inner_steps=STEPS)
    params, same = (learner.init(KEY, task.support.x) for learner in (ours, theirs))
    close(ours.adapt(params, task.support), theirs.adapt(same, task.support))
    grad, other = meta_grad(ours, params, task), meta_grad(theirs, same, task)
    close(grad.start, other.start)
    shared = jnp.stack(jax.tree.leaves(other.settings), axis=1)
    close(grad.settings.log_rate, shared)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [True, False])
def test_one_update_is_what_the_formula_says(sizes):
    rng = np.random.default_rng(1)
    params = {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal(2)}
    grads = {"a": rng.standard_normal((3, 2)), "b": np.zeros(2)}
    optimizer = conditioned_rates(0.1, steps=2, width=5, sizes=sizes)
    single = jax.tree.map(jnp.asarray, (params, grads))
    settings = optimizer.init(KEY, single[0])
    settings = jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(leaf.dtype), settings
    )
    state = optimizer.transform.init(single[0])
    by_hand = jax.tree.map(lambda leaf: np.asarray(leaf, float), settings)
    seen = [leaf.mean() for tree in (params, grads) for leaf in tree.values()]
    if sizes:
        seen += [0.25 * np.log(1e4 * ((leaf**2).mean() + 1e-8)) for leaf in grads.values()]
    hidden = np.maximum(0, np.array(seen) @ by_hand.hidden + by_hand.hidden_bias)
    u, v = np.split(np.tanh(hidden @ by_hand.out + by_hand.out_bias), 2)
    for step in (0, 1, 1):  # later steps use the last ones
        update, state = optimizer.transform.update(single[1], state, single[0], settings=settings)
        rate = np.exp(by_hand.log_rate[step] + SPAN * u)
        decay = by_hand.decay[step] + LARGEST_DECAY * v
        for place, name in enumerate(params):
            expected = -rate[place] * grads[name] - decay[place] * params[name]
            np.testing.assert_allclose(update[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("make", [maml, anil])
def test_it_goes_into_any_learner_by_descent_and_any_exact_mode(make, task):
    optimizer = conditioned_rates(RATE, steps=STEPS)
    learners = [
        make(NETWORK, inner_optimizer=optimizer, inner_steps=STEPS, gradient=gradient)
        for gradient in (exact(), exact(remat=True), mixed_mode(), first_order())
    ]
    params = stirred(learners[0].init(KEY, task.support.x))
    grads = [meta_grad(learner, params, task) for learner in learners]
    for path, leaf in zip(paths_of(grads[0]), jax.tree.leaves(grads[0]), strict=True):
        assert (leaf != 0).any(), path
    for other in grads[1:3]:
        close(other, grads[0], 1e-4)
    # What it learns of rates in first order is the derivative of the updates.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads[3]))
    assert (grads[3].settings.out != 0).any()


@pytest.mark.slow
def test_tasks_differ_in_their_rates_and_none_leaves_its_bounds(task):
    """The rate of a step is read off what one step does where there is no decay."""
    learner = alfa(NETWORK, inner_optimizer=conditioned_rates(RATE, steps=1), inner_steps=1)
    plain = learner.init(KEY, task.support.x)
    settings = plain.settings
    outputs = settings.out.shape[1]
    params = plain._replace(
        settings=settings._replace(
            out=jnp.concatenate(
                [jnp.full((len(settings.out), outputs // 2), 50.0)]
                + [jnp.zeros((len(settings.out), outputs // 2))],
                axis=1,
            )
        )
    )
    ratios = []
    for scale in (1.0, 1e3):
        rows = task.support._replace(y=scale * task.support.y)
        moved, still = (learner.adapt(each, rows) for each in (params, plain))
        for a, b, begin in zip(*map(jax.tree.leaves, (moved, still, plain.start)), strict=True):
            ratios.append(float(jnp.abs(a - begin).max() / jnp.abs(b - begin).max()))
    assert max(ratios) <= np.exp(SPAN) * 1.01
    assert max(ratios) > 5


@pytest.mark.slow
def test_noisy_tasks_are_followed_less():
    """Half of the tasks are pure noise, which only the size of the gradients tells."""

    def sample(key):
        tasks = sinusoid_sampler(8)(key)
        noise = jax.random.normal(jax.random.fold_in(key, 1), tasks.support.y.shape)
        noisy = (jnp.arange(8) % 2 == 1)[:, None, None]
        y = jnp.where(noisy, 20 * noise, tasks.support.y)
        return tasks._replace(support=tasks.support._replace(y=y))

    losses = {}
    for name, learner in (
        ("alfa", alfa(mlp((16, 16, 1)), inner_steps=3)),
        ("rates", maml(mlp((16, 16, 1)), inner_optimizer=learned_rates(steps=3), inner_steps=3)),
    ):
        state, _ = fit(learner, optax.adam(3e-3), sample, KEY, steps=1500, devices=1)
        test = [sample(jax.random.key(100 + seed)) for seed in range(50)]
        loss = jax.jit(jax.vmap(learner.loss, (None, 0, None)))
        losses[name] = np.mean([loss(state.params, tasks, 0)[0] for tasks in test])
    assert losses["alfa"] < 0.9 * losses["rates"], losses


@pytest.mark.parametrize("fault", [{"initial": 0.0}, {"steps": 0}, {"width": 0}])
def test_impossible_settings_are_refused(fault):
    with pytest.raises(ValueError, match=r"initial must be positive|at least 1"):
        conditioned_rates(**fault)
