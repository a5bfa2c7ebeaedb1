"""Meta-Curvature: gradients are bent by meta-learned matrices before the inner step."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients.modes import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers.learned_rates import LearnedOptimizer
from maml_jax.meta.types import LossFn, MetaLearner, ModelLike

INNER_LEARNING_RATE = 0.005
LARGEST_AXIS = 2048


def meta_curvature(
    model: ModelLike,
    *,
    inner_learning_rate: float = INNER_LEARNING_RATE,
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode | None = None,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the Meta-Curvature learner.

    $$\theta' = \theta - \alpha\,\mathrm{MC}(\nabla_\theta L^{support}(\theta)), \qquad
      \mathrm{MC}(G) = G \times_1 M_{in} \times_2 M_{out}$$

    for a layer's weights $[in, out]$; in general one square matrix for each axis of each leaf,
    meta-learned from the identity.

    Args:
        model: `(init, apply)`.
        inner_learning_rate: $\alpha$; fixed, as the matrices scale it.
        inner_steps: steps of adaptation.
        gradient: how to differentiate through adaptation; default `exact()`.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose meta-parameters are a `MetaParams` and whose `info` is an
        `AdaptationInfo`.

    Raises:
        ShapeError: from `init`, if an axis is so long that its matrix would not be sensible.

    Reference:
        Park, Oliva (2019), Meta-Curvature, arXiv:1902.03356, section 3.
    """
    return by_descent(
        whole_network(model),
        optimizer=bent_gradients(inner_learning_rate),
        steps=inner_steps,
        gradient=exact() if gradient is None else gradient,
        loss=loss,
    )


def bent_gradients(learning_rate: float) -> LearnedOptimizer:
    """Make gradient descent with a meta-learned matrix for each axis of each leaf."""

    def init(key, params, /):
        del key
        return jax.tree.map(_identities, params)

    def update(updates, state, params=None, **extra):
        del params

        def bent(grad, matrices):
            return -learning_rate * _bend(grad, matrices)

        return jax.tree.map(bent, updates, extra["settings"]), state

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


def _bend(grad: Array, matrices: tuple[Float[Array, "_ _"], ...]) -> Array:
    for axis, matrix in enumerate(matrices):
        grad = jnp.moveaxis(jnp.tensordot(matrix, grad, axes=(1, axis)), 0, axis)
    return grad
