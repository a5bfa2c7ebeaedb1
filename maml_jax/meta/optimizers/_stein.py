"""Stein variational gradient descent, as a transformation of the gradients of particles."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from maml_jax.meta.types import Params


class SteinSettings(NamedTuple):
    """What `stein` depends on beside particles and gradients.

    Attributes:
        pull: factor of the gradients.
        push: factor of the repulsion.
        optimizer: settings of the optimizer that follows, or None.
    """

    pull: Float[Array, ""]
    push: Float[Array, ""]
    optimizer: Any = None


def stein(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Let an optimizer follow Stein's direction instead of the gradient.

    For particles $\theta_i$ with gradients $g_i$ it receives

    $$\frac1M \sum_j k_{ij} \Bigl[a\, g_j - b\, \frac2h (\theta_i - \theta_j)\Bigr], \qquad
      k_{ij} = e^{-\lVert\theta_i - \theta_j\rVert^2 / h}$$

    which is Stein's where $a g = - b \nabla\log p$.

    Args:
        optimizer: any optax transformation.

    Returns:
        A transformation of stacked particles, `[particle, ...]`, whose update takes the extra
        argument `settings`, `SteinSettings` of $a$ and $b$.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra):
        pull, push, settings = extra.pop("settings")
        kernel, bandwidth = rbf_kernel(params)
        apart = jnp.diag(jnp.sum(kernel, axis=1)) - kernel
        pulling, pushing = pull * kernel, 2 * push / bandwidth * apart

        def direction(gradient: Array, theta: Array) -> Array:
            count = len(theta)
            # Only differences count, and small numbers have exact ones.
            centred = theta - jnp.mean(theta, axis=0)
            pulled = pulling @ gradient.reshape(count, -1)
            pushed = pushing @ centred.reshape(count, -1)
            return ((pulled - pushed) / count).reshape(theta.shape).astype(theta.dtype)

        directions = jax.tree.map(direction, updates, params)
        learned = {} if settings is None else {"settings": settings}
        return optimizer.update(directions, state, params, **extra, **learned)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def rbf_kernel(
    particles: Params,
) -> tuple[Float[Array, "particle particle"], Float[Array, ""]]:
    r"""Return the kernel $e^{-d^2/h}$ between particles, and $h$, the median of $d^2$ over log M.

    Pairs of one particle with itself do not count for the median. Where the median is 0 (or there
    is one particle) h is 1: particles in one place have no direction to be pushed in.
    """
    squared = _squared_distances(particles)
    count = len(squared)
    if count == 1:
        return jnp.ones((1, 1), squared.dtype), jnp.ones((), squared.dtype)
    median = jnp.median(squared[np.triu_indices(count, 1)])
    bandwidth = jnp.where(median > 0, median / math.log(count), 1.0)
    return jnp.exp(-squared / bandwidth), bandwidth


def _squared_distances(particles: Params) -> Float[Array, "particle particle"]:
    leaves = jax.tree.leaves(particles)
    rows = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    # Distances do not depend on where the origin is; small numbers lose less in the difference.
    rows = rows - jnp.mean(rows, axis=0)
    norms = jnp.sum(jnp.square(rows), axis=1)
    return jnp.maximum(norms[:, None] + norms - 2 * rows @ rows.T, 0)
