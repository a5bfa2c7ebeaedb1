import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from maml_jax import LearnedOptimizer, learned_rates
from maml_jax.meta import descend

PARAMS = {"a": jnp.arange(6.0).reshape(2, 3), "b": (jnp.array([3.0, -1.0]), jnp.array(2.0))}
KEY = jax.random.key(0)
SHAPES = {
    "all": lambda leaf: (),
    "leaf": lambda leaf: (),
    "entry": jnp.shape,
}


def rates_of(learned, settings, steps=1):
    """What each step subtracts, where all gradients are 1."""
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    state, seen = learned.transform.init(PARAMS), []
    for _ in range(steps):
        updates, state = learned.transform.update(ones, state, PARAMS, settings=settings)
        seen.append(jax.tree.map(jnp.negative, updates))
    return seen


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("per", SHAPES)
def test_rates_belong_to_all_parameters_to_a_leaf_or_to_an_entry(per, steps):
    learned = learned_rates(0.02, per=per, steps=steps)
    assert isinstance(learned, LearnedOptimizer)
    settings = learned.init(KEY, PARAMS)
    lead = () if steps is None else (steps,)
    if per == "all":
        assert settings.shape == lead
    else:
        assert jax.tree.structure(settings) == jax.tree.structure(PARAMS)
        jax.tree.map(
            lambda s, p: np.testing.assert_equal(s.shape, lead + SHAPES[per](p)), settings, PARAMS
        )
    for rates in rates_of(learned, settings, 2):
        jax.tree.map(lambda r: np.testing.assert_allclose(r, 0.02, rtol=1e-6), rates)


@pytest.mark.parametrize("positive", [True, False])
def test_each_rate_multiplies_its_own_gradient(positive):
    learned = learned_rates(0.02, per="entry", positive=positive)
    rng = np.random.default_rng(0)
    settings = jax.tree.map(
        lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), PARAMS
    )
    grads = jax.tree.map(lambda p: p + 1, PARAMS)
    updates, _ = learned.transform.update(grads, learned.transform.init(PARAMS), settings=settings)
    for u, g, s in zip(*map(jax.tree.leaves, (updates, grads, settings)), strict=True):
        np.testing.assert_allclose(u, -g * (np.exp(s) if positive else s), rtol=1e-6)


@pytest.mark.parametrize("per", SHAPES)
def test_later_steps_use_the_last_rates(per):
    learned = learned_rates(0.01, per=per, steps=2, positive=False)
    settings = jax.tree.map(
        lambda leaf: leaf.at[0].set(0.5).at[1].set(0.25), learned.init(KEY, PARAMS)
    )
    for rates, expected in zip(
        rates_of(learned, settings, 4), [0.5, 0.25, 0.25, 0.25], strict=True
    ):
        jax.tree.map(lambda r, e=expected: np.testing.assert_allclose(r, e), rates)


def test_rates_may_be_drawn_between_two_ends():
    learned = learned_rates((0.01, 0.1), per="entry")
    (rates,) = rates_of(learned, learned.init(KEY, PARAMS))
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(rates)])
    assert (flat > 0.0099).all() and (flat < 0.1001).all()
    assert len(np.unique(flat)) == len(flat)


def test_a_chain_is_learned_of_as_well():
    """Gradients that are clipped first, descended with rates that are given from outside."""
    rates = learned_rates(0.1, per="all", positive=False)
    chain = optax.chain(optax.clip_by_global_norm(1.0), rates.transform)
    w, _ = descend(lambda w, c: 100.0 * w[0], chain, jnp.zeros(1), None, 3, jnp.asarray(0.1))
    np.testing.assert_allclose(w, -0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"initial": 0.0}, "positive"),
        ({"initial": (0.1, 0.01)}, r"\(low, high\)"),
        ({"initial": (-0.1, 0.1)}, "positive"),
        ({"steps": 0}, "steps of at least 1"),
    ],
)
def test_rates_that_make_no_sense_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        learned_rates(**arguments)


def test_an_unknown_share_is_refused():
    with pytest.raises((ValueError, TypeError), match="layer"):  # TypeError: types are checked
        learned_rates(per="layer")


def test_rates_of_any_sign_may_begin_at_zero():
    learned = learned_rates(0.0, positive=False)
    (rates,) = rates_of(learned, learned.init(KEY, PARAMS))
    jax.tree.map(lambda r: np.testing.assert_array_equal(r, 0), rates)


@pytest.mark.parametrize("positive", [True, False])
def test_speed_leaves_rates_where_they_begin_and_moves_them_further(positive):
    slow, fast = (learned_rates(0.02, positive=positive, speed=s) for s in (1.0, 10.0))
    moved = []
    for learned in (slow, fast):
        settings = learned.init(KEY, PARAMS)
        (rates,) = rates_of(learned, settings)
        jax.tree.map(lambda r: np.testing.assert_allclose(r, 0.02, rtol=1e-5), rates)
        (rates,) = rates_of(learned, jax.tree.map(lambda leaf: leaf + 0.01, settings))
        moved.append(float(jax.tree.leaves(rates)[0].ravel()[0]))
    expected = [0.02 * np.exp(0.01), 0.02 * np.exp(0.1)] if positive else [0.03, 0.12]
    np.testing.assert_allclose(moved, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="speed must be positive"):
        learned_rates(speed=0.0)
