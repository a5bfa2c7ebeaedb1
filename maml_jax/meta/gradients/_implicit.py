"""Implicit differentiation: the derivative of a minimum, whatever path led there."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from maml_jax.meta.gradients._floating import cotangent_like, split_floating
from maml_jax.meta.gradients._mode import GradientMode
from maml_jax.meta.gradients._reverse_only import reverse_only
from maml_jax.meta.inner_loop import Objective, descend
from maml_jax.meta.types import Params


def implicit(
    *,
    iterations: int = 10,
    tolerance: float = 1e-6,
    damping: float = 0.0,
    scale: float | None = None,
) -> GradientMode:
    r"""Differentiate the minimum that the inner loop approaches, not the path to it.

    Where $\nabla_\phi L(\phi^*, \eta) = 0$, the implicit function theorem gives

    $$\frac{d\phi^*}{d\eta} = -\Bigl(\nabla^2_\phi L\Bigr)^{-1} \partial_\eta \nabla_\phi L ,$$

    applied to the query gradient by conjugate gradients, which need products of the Hessian with a
    vector only. Memory does not grow with the number of inner steps. The derivative is that of the
    minimum: it is right in so far as the inner loop comes close to one, **zero for the start** of
    the descent and for learned settings of the optimizer, and not zero only for what the inner
    *objective* depends on, such as the centre of a proximal term (`imaml`).

    Args:
        iterations: conjugate gradient iterations at most.
        tolerance: of the residual, relative to the query gradient, at which they end.
        damping: added to the Hessian's diagonal.
        scale: multiplies the derivative; default 1, or what a learner chooses (`imaml`).

    Returns:
        A gradient mode. It has no forward-mode derivative, and the objectives before each step that
        it returns have no derivative at all.

    Raises:
        ValueError: if `iterations` is less than 1, or `tolerance` or `damping` negative.

    Reference:
        Rajeswaran, Finn, Kakade, Levine (2019), Meta-Learning with Implicit Gradients,
        arXiv:1909.04630, lemma 1 and algorithm 2.
    """
    if iterations < 1 or tolerance < 0 or damping < 0:
        raise ValueError(
            "implicit needs at least 1 iteration and no negative tolerance or damping, got "
            f"iterations={iterations}, tolerance={tolerance}, damping={damping}"
        )
    return _Implicit(iterations, tolerance, damping, scale)


class _Implicit(NamedTuple):
    iterations: int
    tolerance: float
    damping: float
    scale: float | None

    differentiates_start = False

    def with_scale(self, scale: Any) -> "_Implicit":
        """Return the mode with a scale, unless it has one."""
        return self if self.scale is not None else self._replace(scale=scale)

    def __call__(
        self, objective, optimizer, params, context, steps, settings=None, /
    ) -> tuple[Params, Any]:
        inputs = reverse_only((params, context, settings), "implicit()")
        return _descend(self, objective, optimizer, steps, *inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _descend(
    solver: _Implicit,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    steps: int,
    params: Params,
    context: Any,
    settings: Any,
):
    return descend(objective, optimizer, params, context, steps, settings)


def _forward(solver, objective, optimizer, steps, params, context, settings):
    adapted, values = descend(objective, optimizer, params, context, steps, settings)
    return (adapted, values), (adapted, context, settings)


def _backward(solver, objective, optimizer, steps, stored, cotangents):
    adapted, context, settings = stored
    eta, rebuild_context = split_floating(context)

    def gradient(params, eta):
        return jax.grad(lambda p, e: objective(p, rebuild_context(e)), argnums=(0, 1))(params, eta)

    # One vector instead of a tree: the solver compares structures, which some transformations of
    # flax's layers change on the way.
    right, unravel = ravel_pytree(cotangents[0])

    def hessian_product(flat):
        direction = unravel(flat)
        product = jax.jvp(lambda p: gradient(p, eta)[0], (adapted,), (direction,))[1]
        return ravel_pytree(product)[0] + solver.damping * flat

    solution, _ = cg(hessian_product, right, tol=solver.tolerance, maxiter=solver.iterations)
    mixed = jax.jvp(lambda p: gradient(p, eta)[1], (adapted,), (unravel(solution),))[1]
    scale = 1.0 if solver.scale is None else solver.scale
    eta_bar = jax.tree.map(lambda leaf: -scale * leaf, mixed)
    nothing = jax.tree.map(jnp.zeros_like, (adapted, settings))
    return nothing[0], cotangent_like(context, eta_bar), nothing[1]


_descend.defvjp(_forward, _backward)
