"""Small symmetric matrices: solve, invert, decompose, on however many devices at once.

What learners and baselines solve goes through here and not through `jnp.linalg`, because LAPACK's
calls on a whole batch are not safe everywhere: those of jaxlib 0.10 split a batch among the threads
of XLA's own pool and wait for them from inside of that pool. Where as many devices call them at the
same time as the pool has threads, all wait and none works, for ever. There (see `lapack_waits`) a
batch is taken one matrix after another, which leaves nothing to split and nothing to wait for;
everywhere else it is handed to LAPACK, or to the accelerator's library, whole.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.parallel.machine import lapack_waits


def solve_spd(
    a: Float[Array, "*batch n n"], b: Float[Array, "*batch n k"]
) -> Float[Array, "*batch n k"]:
    r"""Solve $A X = B$ with a symmetric positive definite $A$, by its Cholesky factor.

    $$dX = A^{-1}(dB - dA\, X)$$

    in forward mode and, transposed, in reverse mode, to any order. With jaxlib 0.10 the factor is
    made once, and no derivative goes through the factorisation.

    Args:
        a: symmetric positive definite matrices. One triangle is read, and derivatives are those of
            a symmetric matrix. Where one is not positive definite its solution is NaN.
        b: right-hand sides, as columns, with the same leading axes.

    Returns:
        The solutions, as columns.

    Raises:
        ShapeError: if the matrices are not square, or `b` has other rows or leading axes.

    Example:
        >>> solve_spd(jnp.diag(jnp.array([1.0, 4.0])), jnp.array([[1.0], [2.0]]))
        Array([[1. ],
               [0.5]], dtype=float32)
    """
    _require_square(a)
    if b.ndim != a.ndim or b.shape[:-1] != a.shape[:-1]:
        raise ShapeError(
            f"matrices {a.shape} need right-hand sides [..., n, k] with the same leading axes and "
            f"n = {a.shape[-1]} rows, got {b.shape}"
        )
    if not lapack_waits():  # measured: derivatives through the factorisation are faster there
        return _of_each(lambda a, b: cho_solve(cho_factor(a), b), a.ndim - 2)(a, b)
    factor = _of_each(_factor, a.ndim - 2)(lax.stop_gradient(a))

    def solve(_, right):
        return _of_each(_substitute, a.ndim - 2)(factor, right)

    return lax.custom_linear_solve(lambda x: a @ x, b, solve, symmetric=True)


@jax.custom_jvp
def inverse_spd(a: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    r"""Invert symmetric positive definite matrices, by their Cholesky factors.

    $$dA^{-1} = -A^{-1}\, dA\, A^{-1}$$

    two products and no further factorisation, in either mode and to any order.

    Args:
        a: the matrices. One triangle is read, and derivatives are those of a symmetric matrix.
            Where one is not positive definite its inverse is NaN.

    Returns:
        The inverses.

    Raises:
        ShapeError: if the matrices are not square.

    Example:
        >>> inverse_spd(jnp.diag(jnp.array([1.0, 4.0])))
        Array([[1.  , 0.  ],
               [0.  , 0.25]], dtype=float32)
    """
    _require_square(a)
    return _of_each(_invert, a.ndim - 2)(a)


@inverse_spd.defjvp
def _inverse_derivative(primals, tangents):
    inverse = inverse_spd(*primals)
    return inverse, -inverse @ tangents[0] @ inverse


@jax.custom_jvp
def eigh(a: Float[Array, "*batch n n"]) -> tuple[Float[Array, "*batch n"], Array]:
    r"""Decompose symmetric matrices, $A = V\, \mathrm{diag}(w)\, V^\top$.

    $$dw = \mathrm{diag}(V^\top dA\, V), \qquad dV = V (F \circ V^\top dA\, V), \qquad
      F_{ij} = \frac{1}{w_j - w_i}, \quad F_{ii} = 0$$

    in either mode and to any order. Directions of equal eigenvalues have no derivative: it is not
    finite there.

    Args:
        a: the matrices; what is decomposed is their symmetric part.

    Returns:
        `(w, v)`: eigenvalues in ascending order, and orthonormal directions as columns.

    Raises:
        ShapeError: if the matrices are not square.

    Example:
        >>> eigh(jnp.diag(jnp.array([4.0, 1.0])))[0]
        Array([1., 4.], dtype=float32)
    """
    _require_square(a)
    return _of_each(_decompose, a.ndim - 2)(a)


@eigh.defjvp
def _eigh_derivative(primals, tangents):
    w, v = eigh(*primals)
    change = tangents[0]
    turned = v.mT @ ((change + change.mT) / 2) @ v
    same = jnp.eye(w.shape[-1], dtype=bool)
    apart = jnp.where(same, 1, w[..., None, :] - w[..., :, None])
    mixed = ~same * turned / apart
    return (w, v), (jnp.diagonal(turned, axis1=-2, axis2=-1), v @ mixed)


def _factor(a):
    return _lapack(lambda a: cho_factor(a, lower=True)[0], a)


def _substitute(factor, b):
    return _lapack(lambda factor, b: cho_solve((factor, True), b), factor, b)


def _invert(a):
    return _lapack(lambda a: cho_solve(cho_factor(a), jnp.eye(len(a), dtype=a.dtype)), a)


def _decompose(a):
    return _lapack(lambda a: tuple(jnp.linalg.eigh(a)), a)


def _lapack(function: Callable[..., Any], *arguments: Array) -> Any:
    """Call `function` of one matrix, so that a batch of them never waits for XLA's pool."""
    if not lapack_waits():
        return function(*arguments)
    # Decided where the program is compiled: what is traced here may run on another platform than
    # the default one.
    return lax.platform_dependent(*arguments, cpu=_one_by_one(function), default=function)


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` such that vectorising it makes a loop, which XLA does not undo."""

    @custom_vmap
    def call(*arguments):
        return function(*arguments)

    @call.def_vmap
    def _in_turn(size, batched, *arguments):
        del size
        mapped = [each for each, own in zip(arguments, batched, strict=True) if own]

        def one(mapped):
            own = iter(mapped)
            return call(
                *(next(own) if b else each for each, b in zip(arguments, batched, strict=True))
            )

        results = lax.map(one, mapped)
        return results, jax.tree.map(lambda _: True, results)

    return call


def _of_each(function: Callable[..., Any], leading: int) -> Callable[..., Any]:
    """Vectorise over so many leading axes."""
    for _ in range(leading):
        function = jax.vmap(function)
    return function


def _require_square(a) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"expected square matrices, [..., n, n], got {a.shape}")
