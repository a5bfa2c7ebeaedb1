"""What would learn nothing, or something else than was meant, is refused with a way out."""

from functools import partial
from inspect import signature

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from helpers import one_task

from maml_jax import (
    Batch,
    LearnedOptimizer,
    Model,
    Task,
    alfa,
    alpaca,
    anil,
    bayesian_maml,
    cavia,
    cross_entropy,
    direction,
    double_adapt,
    ensemble,
    exact,
    fit,
    from_scratch,
    hierarchical_maml,
    huber,
    imaml,
    implicit,
    joint_training,
    learned_rates,
    maml,
    maml_plus_plus,
    matching_networks,
    meta_curvature,
    meta_sgd,
    mixed_mode,
    prototypical_networks,
    reptile,
    ridge,
)
from maml_jax.errors import ConfigError, GradientError, ShapeError
from maml_jax.experiment import run
from maml_jax.learners._checks import require_learned, require_mode
from maml_jax.models import from_nnx, gaussian, mlp

pytestmark = pytest.mark.long

NETWORK = mlp((8, 1))


def loss_of(learner, task):
    return learner.loss(learner.init(jax.random.key(0), task.support.x), task, 0)[0]


@pytest.mark.parametrize("make", [maml, anil, meta_sgd])
def test_implicit_gradients_of_a_start_that_the_minimum_does_not_depend_on(make):
    with pytest.raises(GradientError, match="imaml"):
        make(NETWORK, gradient=implicit())


def test_implicit_gradients_of_learned_rates():
    with pytest.raises(GradientError, match="nothing would be learned of it"):
        imaml(NETWORK, inner_optimizer=learned_rates())
    imaml(NETWORK, inner_optimizer=learned_rates(), gradient=exact())
    cavia(NETWORK, gradient=implicit())  # the network enters the objective


def test_what_makes_a_gradient_mode_is_no_mode():
    require_mode(exact())
    with pytest.raises(TypeError, match=r"write exact\(\).*got function <function exact"):
        require_mode(exact)


@pytest.mark.parametrize("make", [reptile, from_scratch, joint_training])
def test_learned_rates_where_no_derivative_is_taken(make):
    with pytest.raises(TypeError, match=rf"{make.__name__} .* optax\.sgd"):
        make(NETWORK, inner_optimizer=learned_rates())


def test_a_plain_optimizer_where_settings_are_learned_for_each_step():
    with pytest.raises(TypeError, match=r"maml_plus_plus .*such as learned_rates"):
        require_learned("maml_plus_plus", optax.sgd(0.01))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [exact(), mixed_mode()], ids=["exact", "mixed"])
def test_square_roots_without_a_derivative(mode):
    rates = learned_rates()
    adam = optax.chain(optax.scale_by_adam(), rates.transform)
    for optimizer in (optax.adam(0.01), LearnedOptimizer(rates.init, adam)):
        with pytest.raises(GradientError, match="eps_root"):
            loss_of(maml(NETWORK, inner_optimizer=optimizer, gradient=mode), one_task())


@pytest.mark.parametrize("loss", [None, huber()], ids=["squared", "huber"])
def test_losses_that_do_not_compare_a_prediction(loss):
    options = {} if loss is None else {"loss": loss}
    with pytest.raises(TypeError, match="gaussian_nll"):
        loss_of(maml(gaussian(mlp((8, 2))), **options), one_task())


def test_another_number_of_targets_than_the_head_has():
    learner, x = alpaca(mlp((4,))), jnp.ones((6, 2))
    with pytest.raises(ShapeError, match=r"targets=3"):
        learner.adapt(learner.init(jax.random.key(0), x), Batch(x, jnp.ones((6, 3))))


def test_directions_of_another_number_of_classes():
    task = one_task()
    learner = direction(prototypical_networks(mlp((4,)), classes=6))
    params = learner.init(jax.random.key(0), task.support.x)
    with pytest.raises(ShapeError, match="down, flat, up; this one has 6"):
        learner.predict(learner.adapt(params, task.support), task.query.x)


class Mixed(nn.Module):
    """Layers of two kinds side by side, whose names do not say which is the last."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.LayerNorm()(nn.Dense(4)(x)))


def test_a_last_layer_that_is_not_clear_from_the_names():
    x = jnp.ones((3, 2))
    with pytest.raises(ShapeError, match=r"adapts=.*params\.Dense_0\.bias"):
        anil(Mixed()).init(jax.random.key(0), x)
    anil(Mixed(), adapts=lambda path: "Dense_1" in path).init(jax.random.key(0), x)


def test_integer_inputs_leave_the_context_free_to_move():
    batch = Batch(jnp.arange(12).reshape(6, 2), jnp.arange(6.0)[:, None])
    learner = cavia(NETWORK, context=2)
    params = learner.init(jax.random.key(0), batch.x)
    adapted = learner.adapt(params, batch)
    assert (adapted.context != 1).all()
    assert jnp.isfinite(learner.loss(params, Task(batch, batch), 0)[0])


def test_settings_that_a_method_cannot_be_made_with():
    with pytest.raises(ConfigError, match=r"'learner', method maml_plus_plus: .*inner step"):
        run(learner={"methods": ["maml_plus_plus"], "inner_steps": 0})
    with pytest.raises(ConfigError, match="method reptile: .*learned optimizer"):
        run(learner={"methods": ["reptile"], "inner_optimizer": "learned"})


def rows_of_classes(y):
    return Batch(jnp.ones((len(y), 2)), jnp.asarray(y))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: loss_of(maml(NETWORK, loss=lambda y_hat, y: y - y_hat), one_task()), ShapeError,
         "a loss returns one number"),
        (lambda: ensemble(NETWORK), TypeError, r"a learner is a MetaLearner: write maml"),
        (lambda: direction(maml), TypeError, r"write maml\(network\)"),
        (lambda: loss_of(maml(NETWORK, inner_optimizer=optax.chain(
            optax.clip(1.0), learned_rates())), one_task()), TypeError,
         "write maml_jax.meta.optimizers.chain"),
        (lambda: imaml(NETWORK, gradient=implicit(), damping=1.0), ValueError, "give them to the"),
        (lambda: cross_entropy(jnp.zeros((2, 3)), jnp.array([0, 3])), ShapeError,
         "row 1 is of class 3, and 3 classes"),
        (lambda: maml(WITH_COUNTER).init(jax.random.key(0), jnp.ones((5, 2))), GradientError,
         "parameter count is int32"),
        (lambda: ensemble(maml(from_nnx(nnx.Linear(1, 1, rngs=nnx.Rngs(0))))).init(
            jax.random.key(0), jnp.ones((5, 1))), ShapeError, "begin differently"),
        (lambda: bayesian_maml(from_nnx(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))).init(
            jax.random.key(0), jnp.ones((5, 1))), ShapeError, "begin differently"),
    ],
)  # fmt: skip
def test_what_is_handed_over_by_mistake_is_named(make, error, message, unchecked):
    with pytest.raises(error, match=message):
        make()


LEARNERS = (
    *(alfa, alpaca, anil, bayesian_maml, cavia, double_adapt, from_scratch, hierarchical_maml),
    *(imaml, joint_training, maml, maml_plus_plus, matching_networks, meta_curvature, meta_sgd),
    *(partial(prototypical_networks, classes=3), reptile, ridge),
)


@pytest.mark.parametrize("make", LEARNERS)
def test_every_learner_refuses_what_is_no_network_optimizer_mode_or_loss(make, unchecked):
    for network, words in (
        (nnx.Linear(1, 1, rngs=nnx.Rngs(0)), "flax.nnx module: write from_nnx"),
        (tuple(NETWORK[:2]), r"write Model\(\*pair\)"),
        (nn.Dense, "Dense is a class, not a network"),
    ):
        with pytest.raises(TypeError, match=words):
            make(network)
    wrong = {
        "inner_optimizer": (
            (optax.sgd, r"sgd\(0.01\)|learned_rates"),
            (0.05, r"sgd\(0.05\)|learned"),
        ),
        "gradient": (("exact", r"write exact\(\)"), (exact, r"write exact\(\)")),
        "loss": (("mse", "loss takes a function"),),
    }
    for name in wrong.keys() & signature(make).parameters.keys():
        for value, words in wrong[name]:
            with pytest.raises(TypeError, match=words):
                make(NETWORK, **{name: value})


WITH_COUNTER = Model(
    lambda key, x: {"w": jnp.ones((x.shape[-1], 1)), "count": jnp.zeros((), jnp.int32)},
    lambda params, x: x @ params["w"],
)


def test_a_class_that_there_is_not_trains_nothing():
    """Where nothing can be raised, in compiled functions, the loss is NaN, which training names."""
    learner = prototypical_networks(mlp((4, 2)), classes=2)
    params = learner.init(jax.random.key(0), jnp.ones((4, 2)))
    for support, query in (([0, 1, 2], [0, 1]), ([0, 1], [0, -1])):
        task = Task(rows_of_classes(support), rows_of_classes(query))
        assert jnp.isnan(jax.jit(learner.loss)(params, task, 0)[0])


@pytest.mark.slow
def test_settings_of_a_learner_may_be_traced():
    """As where they are searched for under `vmap`."""
    task = one_task()
    makes = (
        lambda setting: imaml(NETWORK, proximal=setting),
        lambda setting: alpaca(NETWORK, noise=setting),
        lambda setting: ensemble(maml(NETWORK), 2, noise=setting),
        lambda setting: ridge(NETWORK, penalty=setting),
    )
    for make in makes:
        losses = jax.jit(jax.vmap(lambda setting, make=make: loss_of(make(setting), task)))(
            jnp.array([0.5, 40.0])
        )
        assert jnp.isfinite(losses).all()
        assert jnp.allclose(losses[1], loss_of(make(40.0), task), rtol=1e-4)


class Convolution(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3,))(x))
        return nn.Dense(1)(x.reshape(len(x), -1))


@pytest.mark.slow
def test_imaml_solves_for_any_tree_of_parameters():
    x = jax.random.normal(jax.random.key(0), (3, 6, 8, 2))
    tasks = Task(Batch(x, x.mean((2, 3))[..., None]), Batch(x, x.mean((2, 3))[..., None]))
    _, history = fit(
        imaml(Convolution()), optax.adam(1e-3), jax.tree_util.Partial(lambda t, key: t, tasks),
        jax.random.key(0), steps=2,
    )  # fmt: skip
    assert jnp.isfinite(history.loss).all()


@pytest.mark.slow
def test_the_damping_of_a_mode_is_scaled_as_that_of_imaml():
    task = one_task()
    by_mode = imaml(NETWORK, gradient=implicit(iterations=5, damping=10.0))
    by_number = imaml(NETWORK, iterations=5, damping=10.0)
    params = by_mode.init(jax.random.key(0), task.support.x)
    grads = [jax.grad(lambda p, own=each: own.loss(p, task, 0)[0])(params)
             for each in (by_mode, by_number)]  # fmt: skip
    assert all(map(jnp.array_equal, *map(jax.tree.leaves, grads)))
