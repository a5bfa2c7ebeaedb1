"""Small systems against numpy's LAPACK, whole or one matrix after another; derivatives by the rule
and by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import cho_factor, cho_solve
from jax.test_util import check_grads

from maml_jax.errors import ShapeError
from maml_jax.meta import linalg
from maml_jax.meta.linalg import eigh, inverse_spd, solve_spd


@pytest.fixture(params=["whole", "in turn"], autouse=True)
def batches(request, monkeypatch):
    monkeypatch.setattr(linalg, "lapack_waits", lambda: request.param == "in turn")


def symmetric(a):
    a = jnp.asarray(a)
    return (a + a.mT) / 2


def matrices(n, dtype, smallest=0.1, shape=(3, 2), seed=0):
    """Rotated diagonals from `smallest` to 1."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((*shape, n, n)))[0]
    a = turn * np.geomspace(smallest, 1, n) @ turn.swapaxes(-1, -2)
    return jnp.asarray((a + a.swapaxes(-1, -2)) / 2, dtype)


def right(n, dtype, shape=(3, 2), columns=2):
    return jnp.asarray(np.random.default_rng(1).standard_normal((*shape, n, columns)), dtype)


def assert_as_exact(found, exact, dtype, smallest):
    """Within what rounding of the input alone may change, at the condition number 1 / smallest."""
    error = np.abs(np.asarray(found) - exact).max() / np.abs(exact).max()
    assert error < 20 * np.finfo(dtype).eps / smallest


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smallest", [0.1, 1e-5])
@pytest.mark.parametrize("n", [1, 2, 11, 33])
def test_solutions_are_those_of_lapack(n, smallest, dtype):
    with jax.enable_x64(dtype == "float64"):
        a, b = matrices(n, dtype, smallest), right(n, dtype)
        smallest = smallest if n > 1 else 1
        exact = np.asarray(a, float), np.asarray(b, float)
        assert_as_exact(solve_spd(a, b), np.linalg.solve(*exact), dtype, smallest)
        assert_as_exact(inverse_spd(a), np.linalg.inv(exact[0]), dtype, smallest)
        w, v = eigh(a)
        assert w.dtype == v.dtype == dtype
        assert_as_exact(w, np.linalg.eigvalsh(exact[0]), dtype, 1)
        assert_as_exact((v * w[..., None, :]) @ v.mT, exact[0], dtype, 1)


@pytest.mark.slow
@pytest.mark.parametrize("transformation", ["jit", "vmap", "scan"])
def test_transformations_change_nothing(transformation):
    a, b = matrices(5, "float32"), right(5, "float32")
    expected = solve_spd(a, b), inverse_spd(a), *eigh(a)

    def all_of(a, b):
        return solve_spd(a, b), inverse_spd(a), *eigh(a)

    if transformation == "jit":
        found = jax.jit(all_of)(a, b)
    elif transformation == "vmap":
        found = jax.vmap(jax.vmap(all_of))(a, b)
    else:
        found = jax.lax.scan(lambda c, each: (c, all_of(*each)), 0, (a, b))[1]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_shared_need_not_be_repeated():
    a, b = matrices(4, "float32", shape=(3,)), right(4, "float32", shape=(3,))
    shared = jax.vmap(solve_spd, (None, 0))(a[0], b), jax.vmap(solve_spd, (0, None))(a, b[0])
    np.testing.assert_allclose(shared[0], np.linalg.solve(a[:1], b), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shared[1], np.linalg.solve(a, b[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3])
def test_derivatives_are_those_of_finite_differences(order):
    with jax.enable_x64(True):
        a, b = matrices(4, "float64", shape=(2,)), right(4, "float64", shape=(2,))
        check_grads(
            lambda a, b: solve_spd(symmetric(a), jnp.asarray(b)),
            (a, b),
            order=order,
            rtol=1e-4,
            atol=1e-4,
        )
        check_grads(lambda a: inverse_spd(symmetric(a)), (a,), order=order, rtol=1e-4, atol=1e-4)
        check_grads(lambda a: eigh(symmetric(a))[0], (a,), order=2, rtol=1e-4, atol=1e-4)
        check_grads(lambda a: eigh(symmetric(a))[1] ** 2, (a,), order=2, rtol=1e-4, atol=1e-4)

        def total(a, b):
            first = solve_spd(symmetric(a), jnp.asarray(b))
            return jnp.sum(jax.lax.scan(lambda c, _: (c + 0.1 * jnp.sin(c), ()), first, None, 2)[0])

        check_grads(jax.jit(jax.vmap(jax.grad(total, (0, 1)))), (a, b), order=1, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("smallest", [0.1, 1e-3])
def test_gradients_are_those_through_the_factorisation(smallest):
    a, b = matrices(9, "float32", smallest, shape=(4,)), right(9, "float32", shape=(4,))

    def gradient(solve):
        return jax.vmap(jax.grad(lambda a, b: jnp.sum(solve(symmetric(a), b) ** 2), (0, 1)))(a, b)

    ours = gradient(solve_spd), gradient(lambda a, b: inverse_spd(a) @ b)
    expected = gradient(lambda a, b: cho_solve(cho_factor(a), b))
    for found in ours:
        for one, other in zip(found, expected, strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(one / scale, other / scale, atol=1e-5 / smallest)


def test_what_is_not_positive_definite_is_nan_and_harms_no_other():
    a = matrices(3, "float32", shape=(2,)).at[0].multiply(-1)
    for found in (inverse_spd(a), solve_spd(a, right(3, "float32", shape=(2,)))):
        assert np.isnan(found[0]).any() and np.isfinite(found[1]).all()


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2, 1)), ((3,), (3, 1)), ((2, 2), (3, 1))])
def test_shapes_that_do_not_fit_are_refused(a, b):
    unchecked = getattr(solve_spd, "__wrapped__", solve_spd)  # by the tests' own checks of shapes
    with pytest.raises((ShapeError, TypeError), match=r"square|right-hand sides|Type-check"):
        unchecked(jnp.ones(a), jnp.ones(b))
