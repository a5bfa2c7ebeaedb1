import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import one_task

from maml_jax import exact, fit, learned_rates, maml, mixed_mode
from maml_jax.errors import GradientError
from maml_jax.meta import descend
from maml_jax.models import mlp

pytestmark = pytest.mark.long

INNER = {
    "sgd": optax.sgd(0.02),
    "momentum": optax.sgd(0.02, momentum=0.9),
    "nesterov": optax.sgd(0.02, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.02, eps_root=1e-8),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05)),
    "decayed": optax.adamw(0.02, eps_root=1e-8, weight_decay=0.1),
    "scheduled": optax.sgd(optax.exponential_decay(0.05, 2, 0.5)),
    "rates": learned_rates((0.01, 0.05), per="entry"),
    "rates of steps": learned_rates(0.02, steps=3, positive=False),
    "one rate, clipped": learned_rates(0.02, per="all")._replace(
        transform=optax.chain(
            optax.clip_by_global_norm(1.0), learned_rates(0.02, per="all").transform
        )
    ),
}

QUICK = ("rates",)


def meta_grad(learner, params, task):
    return jax.jit(jax.grad(lambda p: learner.loss(p, task, 0)[0]))(params)


def largest_difference(a, b):
    """Of two pytrees, in proportion to the largest entry."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(a))
    return max(float(jnp.abs(x - y).max()) for x, y in pairs) / scale


@pytest.mark.long
@pytest.mark.parametrize(
    ("inner", "dtype", "tolerance"),
    [
        *((inner, "float64", 1e-12) for inner in QUICK),
        ("sgd", "float32", 1e-6),
        *(
            pytest.param(inner, dtype, tolerance, marks=pytest.mark.slow)
            for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-6))
            for inner in INNER
            if (inner, dtype) not in {*((each, "float64") for each in QUICK), ("sgd", "float32")}
        ),
    ],
)
def test_mixed_mode_gives_the_numbers_of_exact(inner, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        task = one_task(dtype=dtype)
        exactly, mixed = (
            maml(mlp((16, 1)), inner_optimizer=INNER[inner], inner_steps=7, gradient=mode)
            for mode in (exact(remat=False), mixed_mode())
        )
        params = jax.tree.map(
            lambda leaf: leaf.astype(dtype), exactly.init(jax.random.key(1), task.support.x)
        )
        assert exactly.loss(params, task, 0)[0] == mixed.loss(params, task, 0)[0]
        a, b = (meta_grad(learner, params, task) for learner in (exactly, mixed))
        assert largest_difference(a, b) < tolerance


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("steps", [0, 1, 5, 11])
def test_everything_that_the_objective_depends_on_receives_its_derivative(steps):
    """Context with integers in it, and the objectives before each step, differentiated too."""
    with jax.enable_x64():
        x = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
        context = {"x": x, "bend": jnp.array([0.3]), "class": jnp.array([0, 1, 1, 2])}

        def objective(w, c):
            target = c["bend"] * c["class"]
            return jnp.sum((jnp.tanh(c["x"] @ w) - target) ** 2) + jnp.sum(w**4) * c["bend"][0]

        def total(gradient, floating, w):
            w, values = gradient(
                objective, optax.adam(0.1, eps_root=1e-8), w, {**context, **floating}, steps
            )
            return jnp.sum(w**3) + jnp.sum(values * jnp.arange(steps))

        floating = {"x": x, "bend": context["bend"]}
        w = jnp.array([0.5, -0.2, 0.1])
        ours, theirs = (
            jax.jit(jax.grad(lambda f, w, m=mode: total(m, f, w), argnums=(0, 1)))(floating, w)
            for mode in (mixed_mode(), descend)
        )
        assert largest_difference(theirs, ours) < 1e-12


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("compiled", [False, True])
def test_forward_mode_is_refused_by_name(compiled):
    task = one_task()
    learner = maml(mlp((4, 1)), gradient=mixed_mode())
    params = learner.init(jax.random.key(0), task.support.x)

    def loss(params):
        return learner.loss(params, task, 0)[0]

    loss = jax.jit(loss) if compiled else loss
    with pytest.raises(GradientError, match=r"mixed_mode\(\).*gradient=exact\(\)"):
        jax.jvp(loss, (params,), (params,))
    with pytest.raises(GradientError, match=r"gradient=exact\(\)"):
        jax.jacfwd(loss)(params)
    jax.jacrev(loss)(params)


@pytest.mark.slow
@pytest.mark.long
def test_large_support_sets_take_less_memory():
    task = one_task(shots=1024)
    sizes = {}
    for gradient in (exact(remat=False), mixed_mode()):
        learner = maml(mlp((64, 64, 1)), gradient=gradient, inner_steps=20)
        params = learner.init(jax.random.key(0), task.support.x)
        compiled = jax.jit(jax.grad(lambda p, f=learner.loss: f(p, task, 0)[0])).lower(params)
        sizes[gradient] = compiled.compile().memory_analysis().temp_size_in_bytes
    assert sizes[mixed_mode()] < 0.2 * sizes[exact(remat=False)]


@pytest.mark.slow
def test_it_trains_under_every_transformation():
    from helpers import sinusoid_sampler

    learner = maml(mlp((8, 1)), gradient=mixed_mode(), inner_steps=2)

    def train(key):
        return fit(learner, optax.adam(1e-3), sinusoid_sampler(4), key, steps=3, devices=1)[
            0
        ].params

    keys = jax.random.split(jax.random.key(0), 2)
    together = jax.vmap(train)(keys)
    for place, key in enumerate(keys):
        alone = train(key)
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[place], b, rtol=1e-5, atol=1e-6)
