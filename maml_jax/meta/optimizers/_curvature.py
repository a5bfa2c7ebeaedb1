"""Gradient descent along gradients that meta-learned matrices transform."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.meta.types import LearnedOptimizer

LARGEST_AXIS = 2048


def curvature(learning_rate: float) -> LearnedOptimizer:
    r"""Gradient descent with a meta-learned matrix for each axis of each leaf.

    $$\theta_{k+1} = \theta_k - \alpha\,\mathrm{MC}(\nabla L(\theta_k)), \qquad
      \mathrm{MC}(G) = G \times_1 M_1 \times_2 M_2 \cdots$$

    The matrices begin as the identity.

    Args:
        learning_rate: $\alpha$; fixed, as the matrices scale it.

    Returns:
        A `LearnedOptimizer` whose settings hold, for each leaf, a tuple of matrices.

    Raises:
        ShapeError: from its `init`, if an axis is longer than 2048.

    Reference:
        Park, Oliva (2019), Meta-Curvature, arXiv:1902.03356, section 3.
    """

    def init(key, params, /):
        del key
        return jax.tree.map(_identities, params)

    def update(updates, state, params=None, **extra):
        del params

        def transform(grad, matrices):
            return -learning_rate * _multiply(grad, matrices)

        return jax.tree.map(transform, updates, extra["settings"]), state

    return LearnedOptimizer(
        init, optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    )


def _identities(leaf: Array) -> tuple[Float[Array, "_ _"], ...]:
    if max(leaf.shape, default=0) > LARGEST_AXIS:
        raise ShapeError(
            f"Meta-Curvature keeps a square matrix for each axis; a parameter of shape {leaf.shape}"
            f" has one longer than {LARGEST_AXIS}"
        )
    return tuple(jnp.eye(size, dtype=leaf.dtype) for size in leaf.shape)


def _multiply(grad: Array, matrices: tuple[Float[Array, "_ _"], ...]) -> Array:
    for axis, matrix in enumerate(matrices):
        grad = jnp.moveaxis(jnp.tensordot(matrix, grad, axes=(1, axis)), 0, axis)
    return grad
