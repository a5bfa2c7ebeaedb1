import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from maml_jax import Batch, Prediction, Task, maml
from maml_jax.errors import ShapeError
from maml_jax.meta.losses import mean_squared_error
from maml_jax.models import (
    gaussian,
    gru,
    in_precision,
    mlp,
    temporal_convolution,
    transformer,
)
from maml_jax.models._gru import GRU
from maml_jax.models._temporal_convolution import TemporalConvolution
from maml_jax.models._transformer import Transformer

pytestmark = pytest.mark.long

FEATURES, BARS = 3, 9
X = jax.random.normal(jax.random.key(1), (5, BARS, FEATURES))
KEY = jax.random.key(0)


def compiled(model):
    """The same model; without compilation every operation is compiled on its own."""
    return model._replace(init=jax.jit(model.init), apply=jax.jit(model.apply))


MODELS = {
    "gru": gru(4, outputs=2),
    "gru of two layers": gru((4, 6), outputs=2),
    "temporal_convolution": temporal_convolution((4, 4, 6), 2, outputs=2),
    "transformer": transformer(4, outputs=2),
    "transformer of one layer": transformer(4, layers=1, outputs=2),
}
COMPILED = {name: compiled(model) for name, model in MODELS.items()}
READERS = {
    "gru": lambda rngs: GRU(FEATURES, (4, 6), 1, rngs),
    "temporal_convolution": lambda rngs: TemporalConvolution(
        FEATURES, (4, 4, 6), 2, 1, jax.nn.gelu, rngs
    ),
    "transformer": lambda rngs: Transformer(FEATURES, 4, 2, 2, 1, jax.nn.gelu, rngs),
}


MORE = ("gru of two layers", "transformer of one layer")


def marked(name):
    """Before each commit the GRU is tried alone, as all kinds keep the same promises."""
    mark = [pytest.mark.slow] if name in MORE else [pytest.mark.long] if name != "gru" else []
    return pytest.param(name, marks=mark)


@pytest.fixture(params=map(marked, MODELS))
def model(request):
    return COMPILED[request.param]


@pytest.fixture(params=map(marked, READERS))
def reader(request):
    return READERS[request.param](nnx.Rngs(0))


@pytest.mark.slow
def test_sequences_become_outputs_of_any_length_and_any_leading_axes(model):
    params = model.init(KEY, X)
    for rows, length in ((5, BARS), (0, BARS), (2, 1), (2, 2), (2, 30)):
        x = jnp.ones((rows, length, FEATURES))
        assert jax.eval_shape(model.apply, params, x).shape == (rows, 2)
    stacked = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(
        model.apply(params, stacked)[1], model.apply(params, 2 * X), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_compiled_and_vectorised_over_parameters_is_the_same(model):
    keys = jax.random.split(KEY, 3)
    params = jax.vmap(model.init, (0, None))(keys, X)
    together = jax.jit(jax.vmap(model.apply, (0, None)))(params, X)
    for place, key in enumerate(keys):
        alone = model.apply(model.init(key, X), X)
        np.testing.assert_allclose(together[place], alone, rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1])


def test_every_parameter_and_every_bar_matters(model):
    params = model.init(KEY, X)

    def total(params, x):
        return jnp.sum(jnp.sin(model.apply(params, x)))

    slopes, to_bars = jax.jit(jax.grad(total, (0, 1)))(params, X)
    # Of attention's biases, that of the keys alone changes nothing.
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes))
    assert (jnp.abs(to_bars).sum((0, 2)) > 0)[-8:].all()


@pytest.mark.slow
def test_second_derivatives_are_those_of_finite_differences(model):
    with jax.enable_x64(True):
        x = jnp.asarray(np.asarray(X), jnp.float64)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), model.init(KEY, X))

        def loss(params):
            return mean_squared_error(model.apply(params, x), jnp.ones((5, 2)))

        def after_a_step(params):
            slopes = jax.grad(loss)(params)
            return loss(jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, slopes))

        keys = iter(jax.random.split(jax.random.key(2), 100))
        way = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), params)

        def moved(by):
            return after_a_step(jax.tree.map(lambda leaf, w: leaf + by * w, params, way))

        meta_gradient = jax.jit(jax.grad(after_a_step))(params)
        along = sum(
            jnp.vdot(a, b)
            for a, b in zip(jax.tree.leaves(meta_gradient), jax.tree.leaves(way), strict=True)
        )
        moved = jax.jit(moved)
        np.testing.assert_allclose(along, (moved(1e-7) - moved(-1e-7)) / 2e-7, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_numbers_are_of_the_kind_of_inputs_and_parameters(model, dtype):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.init(KEY, X))
        assert model.apply(params, X.astype(dtype)).dtype == dtype


def test_half_precision_is_close(model):
    params = model.init(KEY, X)
    half = in_precision(model, "bfloat16").apply(params, X)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, model.apply(params, X), atol=0.1)


def test_later_bars_change_nothing_before_them(reader):
    read = jax.jit(reader.states)
    states = read(X)
    for bar in range(1, BARS):
        changed = X.at[:, bar:].set(-3.0)
        found = read(changed)
        np.testing.assert_allclose(found[:, :bar], states[:, :bar], rtol=1e-5, atol=1e-6)
        assert not np.allclose(found[:, bar], states[:, bar])


def test_the_last_bar_makes_the_outputs(reader):
    np.testing.assert_allclose(
        reader(X), reader.head(reader.states(X)[:, -1]), rtol=1e-5, atol=1e-6
    )


def test_the_gru_is_what_it_says():
    model = gru(4)
    params = model.init(KEY, X)
    layer = params["layers"][0]
    w, u = layer["inputs"], layer["recurrent"]
    np.testing.assert_allclose(u["kernel"][:, 4:8].T @ u["kernel"][:, 4:8], np.eye(4), atol=1e-5)
    h = np.zeros((5, 4))
    for bar in range(BARS):
        a = np.asarray(X[:, bar] @ w["kernel"] + w["bias"])
        b = h @ np.asarray(u["kernel"]) + np.asarray(u["bias"])
        r, z = (1 / (1 + np.exp(-(a + b)[:, part : part + 4])) for part in (0, 4))
        n = np.tanh(a[:, 8:] + r * b[:, 8:])
        h = (1 - z) * n + z * h
    head = params["head"]
    np.testing.assert_allclose(
        model.apply(params, X), h @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-5
    )


def test_the_convolution_sees_as_far_back_as_it_says():
    model = temporal_convolution((4, 4, 4), 3, activation=jnp.tanh)
    x = jnp.ones((1, 40, FEATURES))
    params = model.init(KEY, x)
    slopes = jax.grad(lambda x: model.apply(params, x).sum())(x)
    seen = np.flatnonzero(np.abs(slopes[0]).sum(axis=1) > 0)
    assert 40 - seen.min() == 1 + (3 - 1) * (2**3 - 1)


def test_a_convolution_is_a_sum_over_lags():
    model = temporal_convolution((FEATURES,), 2, activation=jnp.tanh)
    params = model.init(KEY, X)
    block, head = params["blocks"][0]["convolution"], params["head"]
    now, before = np.split(np.asarray(block["kernel"]), 2)
    inner = X[:, -1] @ now + X[:, -2] @ before + block["bias"]
    expected = (X[:, -1] + jnp.tanh(inner)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(model.apply(params, X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_attention_tells_bars_apart_by_age():
    model = transformer(8)
    params = model.init(KEY, X)
    turned = X.at[:, :-1].set(X[:, -2::-1])
    assert not np.allclose(model.apply(params, turned), model.apply(params, X), atol=1e-3)


@pytest.mark.slow
def test_learners_adapt_with_them(model):
    y = jnp.stack([X[:, 0, 0], X.mean((1, 2))], axis=1)
    learner = maml(model, inner_steps=20)
    task = Task(Batch(X, y), Batch(X, y))
    _, info = jax.jit(learner.loss)(learner.init(KEY, X), task, 0)
    assert info.support_loss_after < info.support_loss_before


@pytest.mark.parametrize("shape", [(FEATURES,), (5, FEATURES), (5, 0, FEATURES)])
def test_inputs_without_bars_are_refused(model, shape):
    with pytest.raises(ShapeError, match=r"\[n, bar, feature\] .* length="):
        model.init(KEY, jnp.zeros(shape))
    with pytest.raises(ShapeError, match=r"\[n, bar, feature\]"):
        model.apply(model.init(KEY, X), jnp.zeros(shape))


@pytest.mark.parametrize(
    "make",
    [
        lambda: gru(0),
        lambda: gru(()),
        lambda: gru((4, 0)),
        lambda: temporal_convolution(()),
        lambda: temporal_convolution((4,), 0),
        lambda: transformer(5, heads=1),
        lambda: transformer(8, heads=3),
        lambda: transformer(8, layers=0),
        lambda: transformer(8, outputs=0),
    ],
)
def test_sizes_that_cannot_be_are_refused(make):
    with pytest.raises(ValueError, match=">= 1"):
        make()


def test_gaussian_outputs_are_a_mean_and_a_positive_deviation():
    network = mlp((8, 4))
    model = gaussian(network, smallest_std=0.01)
    x = 100 * jax.random.normal(KEY, (50, 3))
    params = model.init(KEY, x)
    prediction = jax.jit(model.apply)(params, x)
    assert isinstance(prediction, Prediction)
    raw = network.apply(params, x)
    np.testing.assert_allclose(prediction.mean, raw[:, :2], rtol=1e-5)
    np.testing.assert_allclose(prediction.std, np.logaddexp(0, raw[:, 2:]) + 0.01, rtol=1e-4)
    assert (prediction.std >= 0.01).all()
    bars = gaussian(gru(4, outputs=2))
    assert bars.apply(bars.init(KEY, X), X).std.shape == (5, 1)
    halved = in_precision(model, "bfloat16").apply(params, x)
    assert isinstance(halved, Prediction)
    assert halved.std.dtype == jnp.float32


def test_gaussian_needs_two_outputs_for_each_target():
    model = gaussian(mlp((8, 3)))
    with pytest.raises(ShapeError, match="the model has 3"):
        model.apply(model.init(KEY, X), X)
    with pytest.raises(ValueError, match="smallest_std must be positive"):
        gaussian(mlp((8, 2)), smallest_std=0.0)


def test_the_initial_weights_of_an_mlp_can_be_chosen():
    x = jnp.ones((1, 3))
    params = mlp((4, 1), kernel_init=jax.nn.initializers.constant(0.5)).init(KEY, x)
    for layer in params["layers"].values():
        assert (layer["kernel"] == 0.5).all()
        assert (layer["bias"] == 0).all()
    default = nnx.Linear(3, 4, rngs=nnx.Rngs(KEY)).kernel[...]
    np.testing.assert_array_equal(mlp((4, 1)).init(KEY, x)["layers"][0]["kernel"], default)
