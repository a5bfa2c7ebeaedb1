"""Every learner goes through the same checks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task, sinusoid_sampler

from maml_jax import MetaLearner, Model, first_order, maml, meta_init, meta_step
from maml_jax.meta.types import AdaptFn, InitFn, MetaLossFn, PredictFn
from maml_jax.models import mlp

LEARNERS = {
    "maml": lambda model: maml(model, inner_optimizer=optax.sgd(0.01)),
    "maml adam": lambda model: maml(model, inner_optimizer=optax.adam(0.01, eps_root=1e-8)),
    "fomaml": lambda model: maml(model, inner_optimizer=optax.sgd(0.01), gradient=first_order()),
}


def tuple_model():
    """A network whose parameters are tuples and lists, no dict anywhere."""

    def init(key, x):
        first, second = jax.random.split(key)
        w = jax.random.normal(first, (x.shape[-1], 8)) / x.shape[-1] ** 0.5
        return ([w, jnp.zeros(8)], (jax.random.normal(second, (8, 1)) / 8**0.5,))

    def apply(params, x):
        (w, b), (out,) = params
        return jnp.tanh(x @ w + b) @ out

    return Model(init, apply)


@pytest.fixture(params=LEARNERS, scope="module")
def make(request):
    return LEARNERS[request.param]


@pytest.fixture(scope="module")
def learner(make):
    return make(mlp((16, 1)))


@pytest.fixture(scope="module")
def task():
    return one_task(3)


def close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def test_conforms_to_the_protocols(learner):
    assert isinstance(learner, MetaLearner)
    assert isinstance(learner.init, InitFn)
    assert isinstance(learner.adapt, AdaptFn)
    assert isinstance(learner.predict, PredictFn)
    assert isinstance(learner.loss, MetaLossFn)


def test_jit_is_eager(learner, task):
    params = learner.init(jax.random.key(0), task.support.x)
    adapted = learner.adapt(params, task.support)
    close(jax.jit(learner.adapt)(params, task.support), adapted)
    close(jax.jit(learner.predict)(adapted, task.query.x), learner.predict(adapted, task.query.x))
    close(jax.jit(learner.loss)(params, task, 0)[0], learner.loss(params, task, 0)[0])


def test_vmap_is_a_loop(learner):
    tasks = sinusoid_sampler(4)(jax.random.key(2))
    params = learner.init(jax.random.key(0), tasks.support.x[0])
    adapted = jax.jit(jax.vmap(learner.adapt, (None, 0)))(params, tasks.support)
    losses = jax.jit(jax.vmap(learner.loss, (None, 0, None)))(params, tasks, 0)[0]
    loss = jax.jit(learner.loss)
    for i in range(4):
        task = jax.tree.map(lambda leaf, i=i: leaf[i], tasks)
        close(jax.tree.map(lambda leaf, i=i: leaf[i], adapted), learner.adapt(params, task.support))
        close(losses[i], loss(params, task, 0)[0])


def test_loss_is_the_query_loss_after_adapting(learner, task):
    params = learner.init(jax.random.key(0), task.support.x)
    y_hat = learner.predict(learner.adapt(params, task.support), task.query.x)
    close(learner.loss(params, task, 0)[0], jnp.mean((y_hat - task.query.y) ** 2))


def test_adapting_lowers_the_support_loss_and_more_steps_lower_it_further(learner, task):
    params = learner.init(jax.random.key(0), task.support.x)

    def support_loss(steps):
        adapted = learner.adapt(params, task.support, steps=steps)
        return float(jnp.mean((learner.predict(adapted, task.support.x) - task.support.y) ** 2))

    losses = [support_loss(steps) for steps in (0, 5, 30)]
    assert losses == sorted(losses, reverse=True)
    close(learner.adapt(params, task.support, steps=0), params)
    info = learner.loss(params, task, 0)[1]
    np.testing.assert_allclose(info.support_loss_before, losses[0], rtol=1e-5)
    np.testing.assert_allclose(info.support_loss_after, losses[1], rtol=1e-5)


def test_every_meta_parameter_receives_gradient(learner, task):
    params = learner.init(jax.random.key(0), task.support.x)
    grad = jax.jit(jax.grad(lambda p: learner.loss(p, task, 0)[0]))(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(grad))


def test_ten_steps_are_one_trace(make, task):
    traces = []
    network = mlp((8, 1))

    def apply(params, x):
        traces.append(1)
        return network.apply(params, x)

    learner, optimizer = make(Model(network.init, apply)), optax.adam(1e-3)
    state = meta_init(learner, optimizer, jax.random.key(0), task.support.x)
    step = jax.jit(lambda s, t: meta_step(learner, optimizer, s, t))
    tasks = jax.tree.map(lambda leaf: leaf[None], task)
    state, _ = step(state, tasks)
    once = len(traces)
    for _ in range(9):
        state, _ = step(state, tasks)
    assert len(traces) == once


def test_bfloat16_and_float32_inputs(learner):
    for dtype in (jnp.bfloat16, jnp.float32):
        task = one_task(3, dtype=dtype)
        params = learner.init(jax.random.key(0), task.support.x)
        loss, grad = jax.jit(jax.value_and_grad(lambda p, t=task: learner.loss(p, t, 0)[0]))(params)
        assert jnp.isfinite(loss)
        for g, p in zip(jax.tree.leaves(grad), jax.tree.leaves(params), strict=True):
            assert g.dtype == p.dtype
            assert jnp.isfinite(g).all()


def test_parameters_may_be_any_pytree(make, task):
    learner = make(tuple_model())
    params = learner.init(jax.random.key(0), task.support.x)
    adapted = learner.adapt(params, task.support)
    assert jax.tree.structure(adapted) == jax.tree.structure(params)
    grad = jax.jit(jax.grad(lambda p: learner.loss(p, task, 0)[0]))(params)
    assert jax.tree.structure(grad) == jax.tree.structure(params)


def test_same_key_same_parameters(learner, task):
    first, second = (learner.init(jax.random.key(4), task.support.x) for _ in range(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, second))
    other = learner.init(jax.random.key(5), task.support.x)
    assert not jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, other))


def test_negative_steps_are_refused(learner, task):
    params = learner.init(jax.random.key(0), task.support.x)
    with pytest.raises(ValueError, match="negative"):
        learner.adapt(params, task.support, steps=-1)
