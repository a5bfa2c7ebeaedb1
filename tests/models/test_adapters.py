"""flax modules as pure functions: parameters by path, batch statistics, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers import sinusoid_sampler

from maml_jax import Model, maml
from maml_jax.errors import ShapeError
from maml_jax.meta.networks import require_different_starts, require_model
from maml_jax.models import from_linen, from_nnx, gaussian, mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (6, 3))


class Deep(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(12)])

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def as_text(tree):
    """Numbers of layers as checkpoints store them; sorted as text, 10 comes before 2."""
    if not isinstance(tree, dict):
        return tree
    return {str(name): as_text(leaf) for name, leaf in tree.items()}


def test_parameters_are_found_by_their_path():
    model = from_nnx(Deep)
    params = model.init(KEY, X)
    expected = model.apply(params, X)
    in_a_list = {"layers": [params["layers"][number] for number in range(12)]}
    for other in (as_text(params), in_a_list):
        np.testing.assert_array_equal(model.apply(other, X), expected)
    gradient = jax.grad(lambda own: model.apply(own, X).sum())(as_text(params))
    assert jax.tree.structure(gradient) == jax.tree.structure(as_text(params))


LINEN = from_linen(nn.Dense(2))
PARAMS = LINEN.init(KEY, X)


@pytest.mark.parametrize(
    ("params", "x", "words"),
    [
        ({"kernel": PARAMS["kernel"]}, X, "lack bias"),
        ({**PARAMS, "scale": X}, X, "hold unknown scale"),
        (PARAMS, X[:, :2], r"kernel has shape \(3, 2\), where .*\(6, 2\) has \(2, 2\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_parameters_of_another_network_are_refused_by_path(params, x, words):
    modules = [LINEN] if x is not X else [LINEN, from_nnx(lambda r: nnx.Linear(3, 2, rngs=r))]
    for model in modules:
        with pytest.raises(ShapeError, match=words):
            model.apply(params, x)


@pytest.mark.parametrize("model", [mlp((4, 1)), from_nnx(lambda rngs: nnx.Linear(3, 1, rngs=rngs))])
def test_x_of_another_width_is_refused_with_both_widths(model):
    params = model.init(KEY, X)
    with pytest.raises(ShapeError, match=r"3.*2|2.*3"):
        model.apply(params, X[:, :2])


def normalise(x):
    return (x - x.mean(axis=0)) / jnp.sqrt(x.var(axis=0) + 1e-5)


class Normed(nnx.Module):
    def __init__(self, rngs, **options):
        self.first = nnx.Linear(1, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs, **options)
        self.last = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x, **options):
        return self.last(jnp.tanh(self.norm(self.first(x), **options)))


class LinenNormed(nn.Module):
    running: bool = False

    @nn.compact
    def __call__(self, x, running=False):
        x = nn.Dense(4, name="first")(x)
        x = nn.BatchNorm(use_running_average=self.running or running, name="norm")(x)
        return nn.Dense(1, name="last")(jnp.tanh(x))


def by_hand(params, x):
    first, norm, last = (params[name] for name in ("first", "norm", "last"))
    x = normalise(x @ first["kernel"] + first["bias"]) * norm["scale"] + norm["bias"]
    return jnp.tanh(x) @ last["kernel"] + last["bias"]


@pytest.mark.slow
def test_batches_normalised_by_themselves_adapt_and_learn():
    tasks = sinusoid_sampler(tasks=3, shots=5)(KEY)
    nnx_model = from_nnx(Normed)
    params = nnx_model.init(KEY, tasks.support.x[0])
    expected = None
    for model in (
        Model(nnx_model.init, by_hand),
        nnx_model,
        from_linen(LinenNormed(), mutable=["batch_stats"]),
    ):
        learner = maml(model, inner_optimizer=optax.sgd(0.01), inner_steps=2)

        def loss(params, loss=learner.loss):
            return jax.vmap(loss, (None, 0, None))(params, tasks, 0)[0].mean()

        found = jax.jit(jax.value_and_grad(loss))(params)
        expected = found if expected is None else expected
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), found, expected
        )


class Counted(nnx.Module):
    def __init__(self, rngs):
        self.calls = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        return x


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (from_nnx(lambda rngs: Normed(rngs, use_running_average=True)), r"norm\.mean, norm\.var"),
        (from_nnx(Counted), r"\(calls\)"),
        (from_linen(LinenNormed()), r"batch_stats.*mutable=\('batch_stats',\)"),
        (maml(LinenNormed()), "batch_stats"),
    ],
    ids=["nnx", "own state", "linen", "linen as it is"],
)
def test_running_state_is_refused_by_name(model, words):
    with pytest.raises(ShapeError, match=words):
        model.init(KEY, X[:, :1])


class CallsWithAverages(Normed):
    def __call__(self, x):
        return super().__call__(x, use_running_average=True)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (from_nnx(CallsWithAverages), r"norm\.mean"),
        (
            from_linen(LinenNormed(), mutable="batch_stats", eval_kwargs={"running": True}),
            "eval_kwargs",
        ),
    ],
    ids=["nnx", "linen"],
)
def test_running_averages_that_a_call_uses_are_refused(model, words):
    params = model.init(KEY, X[:, :1])
    with pytest.raises(ShapeError, match=rf"{words}.*use_running_average=False|use.*{words}"):
        jax.jit(model.apply)(params, X[:, :1])


def test_starts_that_do_not_depend_on_the_key_are_refused():
    def starts(model):
        return [model.init(key, X) for key in jax.random.split(KEY, 3)]

    fixed, drawn = from_nnx(Deep(nnx.Rngs(0))), from_nnx(Deep)
    for check in (require_different_starts, jax.jit(require_different_starts, static_argnums=1)):
        check(starts(drawn), "ensemble")
        check(starts(fixed)[:1], "ensemble")
    with pytest.raises(ShapeError, match="ensemble needs .*from_nnx"):
        require_different_starts(starts(fixed), "ensemble")

    def within(key, model):
        keys = jax.random.split(key, 2)
        require_different_starts([model.init(own, X) for own in keys], "ensemble")

    jax.jit(within, static_argnums=1)(KEY, drawn)
    with pytest.raises(ShapeError, match="ensemble"):
        jax.vmap(lambda key: within(key, fixed))(jax.random.split(KEY, 2))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (LinenNormed, r"LinenNormed is a class.*write LinenNormed\(\.\.\.\)"),
        ((LINEN.init, LINEN.apply), r"write Model\(\*pair\)"),
        (Deep(nnx.Rngs(0)), "from_nnx"),
        (None, "pair of functions"),
    ],
    ids=["class", "pair", "nnx", "none"],
)
def test_what_is_no_network_is_refused(network, words):
    with pytest.raises(TypeError, match=words):
        require_model(network)


def test_a_module_of_the_other_kind_is_refused():
    with pytest.raises(TypeError, match="flax.linen module"):
        from_nnx(nn.Dense(1))
    with pytest.raises(TypeError):
        from_linen(Deep(nnx.Rngs(0)))
    with pytest.raises(TypeError, match="class"):
        gaussian(nn.Dense)
