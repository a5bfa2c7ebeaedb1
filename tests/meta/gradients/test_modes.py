import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task, sinusoid_sampler

from maml_jax import Batch, Model, Task, exact, first_order, fit, maml
from maml_jax.errors import GradientError
from maml_jax.models import mlp

pytestmark = pytest.mark.long

INNER = {
    "sgd": optax.sgd(0.02),
    "momentum": optax.sgd(0.02, momentum=0.9),
    "nesterov": optax.sgd(0.02, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.02, eps_root=1e-8),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05)),
    "decayed": optax.adamw(0.02, eps_root=1e-8, weight_decay=0.1),
}


def meta_grad(learner, params, task):
    return jax.jit(jax.grad(lambda p: learner.loss(p, task, 0)[0]))(params)


@pytest.mark.parametrize("inner", INNER)
def test_meta_gradient_is_the_derivative(inner):
    with jax.enable_x64():
        task = one_task(dtype=jnp.float64)
        learner = maml(
            mlp((8, 1)),
            inner_optimizer=INNER[inner],
            inner_steps=3,
            gradient=exact(remat={"momentum": True, "adam": "nested"}.get(inner, False)),
        )
        params = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float64), learner.init(jax.random.key(1), task.support.x)
        )
        loss = jax.jit(lambda p: learner.loss(p, task, 0)[0])
        grad = meta_grad(learner, params, task)
        for seed in range(3):
            keys = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(params)))
            way = jax.tree.unflatten(
                jax.tree.structure(params),
                [
                    jax.random.normal(k, leaf.shape, jnp.float64)
                    for k, leaf in zip(keys, jax.tree.leaves(params), strict=True)
                ],
            )
            h = 1e-4

            def at(scale, way=way):
                return loss(jax.tree.map(lambda p, w: p + scale * w, params, way))

            # Central differences of fourth order.
            slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
            claimed = sum(jax.tree.leaves(jax.tree.map(lambda g, w: jnp.vdot(g, w), grad, way)))
            assert abs(claimed - slope) < 1e-6 * abs(slope)


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize(
    "gradient",
    [exact(), exact(remat=True), exact(remat="nested")],
    ids=["exact", "remat", "nested"],
)
def test_linear_regression_has_a_closed_form(steps, gradient):
    """With squared error the inner map is affine: theta_K = M^K theta + const, M = I - 2a X'X/n."""
    with jax.enable_x64():
        rng = np.random.default_rng(0)
        x, y, xq, yq = (rng.standard_normal(s) for s in ((12, 3), (12,), (9, 3), (9,)))
        theta, alpha = rng.standard_normal(3), 0.07
        model = Model(lambda key, x: jnp.zeros(3), lambda w, x: x @ w)
        learner = maml(
            model, inner_optimizer=optax.sgd(alpha), inner_steps=steps, gradient=gradient
        )
        task = Task(*(Batch(jnp.asarray(a), jnp.asarray(b)) for a, b in ((x, y), (xq, yq))))

        shrink = np.eye(3) - 2 * alpha * x.T @ x / len(y)
        adapted = theta.copy()
        for _ in range(steps):
            adapted = shrink @ adapted + 2 * alpha * x.T @ y / len(y)
        query_grad = 2 * xq.T @ (xq @ adapted - yq) / len(yq)
        expected = np.linalg.matrix_power(shrink, steps).T @ query_grad

        np.testing.assert_allclose(
            learner.adapt(jnp.asarray(theta), task.support), adapted, rtol=1e-10
        )
        np.testing.assert_allclose(
            meta_grad(learner, jnp.asarray(theta), task), expected, rtol=1e-10
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [True, "nested"])
def test_remat_gives_the_same_numbers_in_float32(kind):
    task = one_task()
    plain, remat = (
        maml(mlp((32, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=11, gradient=g)
        for g in (exact(remat=False), exact(remat=kind))
    )
    params = plain.init(jax.random.key(0), task.support.x)
    for a, b in zip(
        jax.tree.leaves(meta_grad(plain, params, task)),
        jax.tree.leaves(meta_grad(remat, params, task)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * float(jnp.abs(a).max()))


@pytest.mark.slow
@pytest.mark.parametrize("inner", INNER)
def test_first_order_is_the_query_gradient_at_the_adapted_parameters(inner):
    task = one_task()
    model = mlp((16, 1))
    learner = maml(model, inner_optimizer=INNER[inner], inner_steps=5, gradient=first_order())
    params = learner.init(jax.random.key(0), task.support.x)
    adapted = learner.adapt(params, task.support)
    at_adapted = jax.grad(lambda p: jnp.mean((model.apply(p, task.query.x) - task.query.y) ** 2))(
        adapted
    )
    for a, b in zip(
        jax.tree.leaves(meta_grad(learner, params, task)),
        jax.tree.leaves(at_adapted),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_all_modes_adapt_to_the_same_parameters_and_loss():
    task = one_task()
    learners = [maml(mlp((16, 1)), gradient=g) for g in (exact(), exact(remat=True), first_order())]
    params = learners[0].init(jax.random.key(0), task.support.x)
    losses = {float(learner.loss(params, task, 0)[0]) for learner in learners}
    assert max(losses) - min(losses) < 1e-6


def test_second_order_differs_from_first_order():
    task = one_task()
    params = maml(mlp((16, 1))).init(jax.random.key(0), task.support.x)
    second, first = (
        meta_grad(maml(mlp((16, 1)), inner_optimizer=optax.sgd(0.05), gradient=g), params, task)
        for g in (exact(), first_order())
    )
    away = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), second, first)
    assert max(jax.tree.leaves(away)) > 1e-2


def test_plain_adam_is_refused_wherever_its_derivative_is_asked_for():
    task = one_task()
    learner = maml(mlp((8, 1)), inner_optimizer=optax.adam(0.01))
    params = learner.init(jax.random.key(0), task.support.x)
    with pytest.raises(GradientError, match="eps_root"):
        meta_grad(learner, params, task)
    with pytest.raises(GradientError, match="eps_root"):
        learner.loss(params, task, 0)
    with pytest.raises(GradientError, match="eps_root"):
        fit(learner, optax.adam(1e-3), sinusoid_sampler(), jax.random.key(0), steps=2)
    # Adapting alone, and first order, take no derivative of the update.
    assert jax.tree.all(
        jax.tree.map(lambda a: jnp.isfinite(a).all(), learner.adapt(params, task.support))
    )
    learner = maml(mlp((8, 1)), inner_optimizer=optax.adam(0.01), gradient=first_order())
    assert jax.tree.all(
        jax.tree.map(lambda a: jnp.isfinite(a).all(), meta_grad(learner, params, task))
    )


@pytest.mark.long
def test_adam_with_eps_root_survives_a_dead_unit():
    """A unit whose gradient is exactly zero is what makes the plain form NaN."""
    task = one_task()
    learner = maml(
        mlp((4, 1), activation=jax.nn.relu), inner_optimizer=optax.adam(0.01, eps_root=1e-8)
    )
    params = learner.init(jax.random.key(0), task.support.x)
    params["layers"][0]["bias"] = params["layers"][0]["bias"].at[0].set(-1e3)
    grad = meta_grad(learner, params, task)
    assert jax.tree.all(jax.tree.map(lambda a: jnp.isfinite(a).all(), grad))


def test_adapting_alone_stores_nothing_per_step():
    task = one_task(shots=50)
    learner = maml(mlp((64, 64, 1)))
    params = learner.init(jax.random.key(0), task.support.x)

    def temporary_bytes(steps):
        adapt = jax.jit(lambda p, s: learner.adapt(p, s, steps=steps))
        return adapt.lower(params, task.support).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(200) < temporary_bytes(20) + 200 * 64


@pytest.mark.slow
def test_line_searches_work_as_inner_optimizers():
    task = one_task()
    learner = maml(mlp((16, 1)), inner_optimizer=optax.lbfgs(), inner_steps=20)
    params = learner.init(jax.random.key(0), task.support.x)
    before, after = (
        float(jnp.mean((learner.predict(p, task.support.x) - task.support.y) ** 2))
        for p in (params, learner.adapt(params, task.support))
    )
    assert after < 0.1 * before


def test_optimizers_that_hide_a_nan_from_forward_mode_are_refused_too():
    task = one_task()
    learner = maml(mlp((8, 1)), inner_optimizer=optax.radam(0.01))
    params = learner.init(jax.random.key(0), task.support.x)
    with pytest.raises(GradientError):
        learner.loss(params, task, 0)


def test_learned_and_per_entry_rates_can_be_differentiated():
    task = one_task()
    model = mlp((8, 1))
    params = model.init(jax.random.key(0), task.support.x)

    def loss(rates):
        scaled = optax.stateless(lambda g, _: jax.tree.map(lambda g, r: -r * g, g, rates))
        return maml(model, inner_optimizer=scaled, inner_steps=2).loss(params, task, 0)[0]

    rates = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.01), params)
    slope = jax.jit(jax.grad(loss))(rates)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slope))


def test_a_mode_that_was_not_called_is_refused():
    with pytest.raises(TypeError, match="exact"):
        maml(mlp((8, 1)), gradient=exact)


@pytest.mark.long
def test_remat_saves_memory_at_the_default_number_of_steps():
    task = one_task(shots=200)
    sizes = {}
    for gradient in (exact(), exact(remat=True)):
        learner = maml(mlp((64, 64, 1)), gradient=gradient)
        params = learner.init(jax.random.key(0), task.support.x)
        compiled = jax.jit(jax.grad(lambda p, f=learner.loss: f(p, task, 0)[0])).lower(params)
        sizes[gradient] = compiled.compile().memory_analysis().temp_size_in_bytes
    # The activations of one step and a query instead of those of five steps and a query.
    assert sizes[exact(remat=True)] < 0.5 * sizes[exact()]


def compiled_bytes(gradient, *, steps):
    task = one_task()
    learner = maml(mlp((64, 64, 1)), inner_steps=steps, gradient=gradient)
    params = learner.init(jax.random.key(0), task.support.x)
    compiled = jax.jit(jax.grad(lambda p: learner.loss(p, task, 0)[0])).lower(params).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_nested_checkpoints_keep_the_parameters_of_few_steps():
    # 10 starts of stretches and 10 steps of one stretch instead of 100 steps.
    assert compiled_bytes(exact(remat="nested"), steps=100) < 0.35 * compiled_bytes(
        exact(remat=False), steps=100
    )


@pytest.mark.slow
def test_nested_checkpoints_are_chosen_where_a_task_does_not_fit(monkeypatch, caplog):
    plain, nested = (compiled_bytes(exact(remat=r), steps=100) for r in (False, "nested"))
    assert compiled_bytes(exact(), steps=100) == plain
    monkeypatch.setattr("maml_jax.meta.gradients._exact.usable_memory", lambda: plain // 2)
    with caplog.at_level("INFO", "maml_jax"):
        assert compiled_bytes(exact(), steps=100) == nested
    assert "nested checkpoints" in caplog.text


def test_an_unknown_kind_of_remat_is_refused():
    with pytest.raises((ValueError, TypeError), match="nested"):  # TypeError: types are checked
        exact(remat="sqrt")
