"""How to differentiate through the inner loop: each mode is a value that a learner is given.

A mode is a function with the signature of `descend`. All modes compute the same adapted parameters;
they differ in the derivative of these with respect to where the descent began, and in its cost.
"""

import logging
import math
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from maml_jax.errors import GradientError
from maml_jax.meta.inner_loop import UNROLL, Objective, Remat, bytes_stored, descend
from maml_jax.meta.types import Params
from maml_jax.parallel.machine import usable_memory

_log = logging.getLogger("maml_jax")

_PROBED_UPDATES = 3
"""Updates that are differentiated to find a NaN; some optimizers take their root late."""


@runtime_checkable
class GradientMode(Protocol):
    """Descends like `descend`, and says how the result is differentiated."""

    def __call__(
        self,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        params: Params,
        context: Any,
        steps: int,
        settings: Any = None,
        /,
    ) -> tuple[Params, Float[Array, " steps"]]: ...


class _Exact(NamedTuple):
    remat: Remat | None

    def __call__(self, objective, optimizer, params, context, steps, settings=None, /):
        require_differentiable(optimizer, params, settings)
        remat = self.remat
        if remat is None:
            remat = _remat_for(objective, optimizer, params, context, steps, settings)
        return descend(objective, optimizer, params, context, steps, settings, remat=remat)


class _FirstOrder(NamedTuple):
    def __call__(self, objective, optimizer, params, context, steps, settings=None, /):
        fixed, context = jax.lax.stop_gradient((params, context))
        adapted, values = descend(
            objective, optimizer, fixed, context, steps, settings, constant_gradients=True
        )
        # A zero that carries the identity as its derivative keeps the value exactly.
        through = jax.tree.map(lambda p, f, a: a + (p - f), params, fixed, adapted)
        return through, values


def exact(*, remat: Remat | None = None) -> GradientMode:
    r"""Differentiate through every inner step: the second-order meta-gradient of MAML.

    $$\nabla_\theta L^{q}(\theta_K) = \prod_{k=0}^{K-1}\bigl(I - \alpha H_k\bigr)\,
      \nabla L^{q}(\theta_K)$$

    for SGD, with $H_k$ the Hessian of the support loss at $\theta_k$ (Finn et al., 2017,
    arXiv:1703.03400, section 2.2).

    Args:
        remat: what to compute again on the way back instead of storing it; same numbers, less
            memory for long loops. True: each step's activations, which saves most where support
            sets are large. "nested": whole stretches of steps, which saves most where networks are
            large, for about a third more time. False: nothing. None (default): nothing, or "nested"
            where the steps of a single task would not fit into half of the memory.

    Raises:
        ValueError: if `remat` is none of these.
    """
    if remat not in (None, True, False, "nested"):
        raise ValueError(f'remat is None, True, False or "nested", not {remat!r}')
    return _Exact(remat)


def first_order() -> GradientMode:
    r"""Treat the adapted parameters as if they moved one to one with the start: FOMAML.

    $$\nabla_\theta L^{q}(\theta_K) \approx \nabla L^{q}(\theta_K)$$

    (Finn et al., 2017, arXiv:1703.03400, section 5.2; Nichol et al., 2018, arXiv:1803.02999.)
    What is learned of the optimizer, such as its rates, receives the derivative of the updates with
    the gradients that they were given held constant.
    """
    return _FirstOrder()


def _remat_for(objective, optimizer, params, context, steps, settings) -> Remat:
    """Choose nested checkpoints where storing every step of one task takes too much memory."""
    if steps <= UNROLL:
        return False
    stored = steps * bytes_stored(objective, optimizer, params, context, settings)
    if stored <= usable_memory():
        return False
    _log.info("%d inner steps would store %.3g MB a task: nested checkpoints", steps, stored / 1e6)
    return "nested"


def require_differentiable(
    optimizer: optax.GradientTransformation, params: Params, settings: Any = None
) -> None:
    """Refuse an inner optimizer whose update has no derivative where a gradient entry is zero.

    Adam divides by the square root of a running mean of squared gradients. At zero the root has an
    infinite slope, and one parameter that receives no gradient (a dead unit, a zero input) turns
    the whole meta-gradient into NaN.

    Args:
        optimizer: the inner optimizer.
        params: parameters of the shapes that it will update.
        settings: what is learned of the optimizer; only the shapes count.

    Raises:
        GradientError: if the derivative of a few updates is NaN at a gradient that holds zeros.
    """
    if _is_nan_at_zero(optimizer, *_shapes(params), *_shapes(settings)):
        raise GradientError(
            "the inner optimizer cannot be differentiated where a gradient entry is zero: the "
            "meta-gradient would be NaN. It holds a square root; if it takes an eps_root, make "
            "that positive, as in optax.adam(0.01, eps_root=1e-8); else use another optimizer, or "
            "gradient=first_order()"
        )


def _shapes(tree: Any) -> tuple:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


@lru_cache(maxsize=16)
def _is_nan_at_zero(optimizer, structure, shapes, settings_structure, settings_shapes) -> bool:
    optimizer = optax.with_extra_args_support(optimizer)

    def half_zero(shape, dtype):
        return (jnp.arange(math.prod(shape)) % 2).reshape(shape).astype(dtype)

    with jax.ensure_compile_time_eval():
        params = jax.tree.unflatten(structure, [jnp.zeros(*shape) for shape in shapes])
        grad = jax.tree.unflatten(structure, [half_zero(*shape) for shape in shapes])
        settings = jax.tree.unflatten(
            settings_structure, [jnp.zeros(*shape) for shape in settings_shapes]
        )
        learned = {} if settings is None else {"settings": settings}

        def updates(grad):
            # Line searches ask for the objective; any smooth one shows whether they differentiate.
            extra = {"value": jnp.zeros(()), "grad": grad, "value_fn": _squared_norm, **learned}
            state, total = optimizer.init(params), params
            for _ in range(_PROBED_UPDATES):
                update, state = optimizer.update(grad, state, params, **extra)
                total = optax.apply_updates(total, update)
            return total

        def pull_back(grad):
            total, back = jax.vjp(updates, grad)
            return back(jax.tree.map(jnp.ones_like, total))[0]

        try:
            slope = jax.jit(pull_back)(grad)
        except (TypeError, ValueError):
            return False  # no derivative at all: taking it will say why
    leaves = jax.tree.leaves(slope)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return False  # the optimizer holds values that are only known later, such as learned rates
    return any(bool(np.isnan(leaf).any()) for leaf in leaves)


def _squared_norm(params: Params) -> Float[Array, ""]:
    return optax.tree.norm(params, squared=True)
