"""Adaptation by gradient descent, with any optax transformation, as one scan."""

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from maml_jax.meta.types import Params, Scalar

UNROLL = 5
"""Inner steps that one iteration of the compiled loop holds: the time of full unrolling at the
compile time of a loop."""


Remat: TypeAlias = bool | Literal["nested"]
"""What is computed again on the way back instead of being stored: nothing, each step's activations,
or whole stretches of steps."""


@runtime_checkable
class Objective(Protocol):
    """What the inner loop descends: a scalar function of the parameters that adapt.

    `context` is everything else that it depends on (the support set, meta-learned settings).
    """

    def __call__(self, params: Params, context: Any, /) -> Scalar: ...


def descend(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    params: Params,
    context: Any,
    steps: int,
    *,
    remat: Remat = False,
) -> tuple[Params, Float[Array, " steps"]]:
    r"""Take `steps` steps of an optax optimizer from `params`.

    $$\theta_{k+1} = \theta_k + u_k(\nabla_\theta L(\theta_k)), \quad k = 0 \dots K-1$$

    where $u$ is the optimizer's update, for SGD $u(g) = -\alpha g$ (Finn et al., 2017,
    arXiv:1703.03400, equation 1).

    Args:
        objective: `(params, context) -> scalar`.
        optimizer: any optax transformation; line searches receive the value and the function.
        params: the start, any pytree of arrays.
        context: passed to `objective` at every step.
        steps: how many steps to take, >= 0.
        remat: what a derivative through the loop computes again instead of storing it. With True,
            each step's intermediate values, so that the parameters of every step remain. With
            "nested" the loop is cut into about sqrt(steps) stretches of which only the first
            parameters are stored, and the steps of one stretch at a time (Chen et al., 2016,
            arXiv:1604.06174).

    Returns:
        The parameters after the last step, and the objective before each step.

    Raises:
        ValueError: if `steps` is negative, or `remat` unknown.
    """
    if steps < 0:
        raise ValueError(f"the number of inner steps must not be negative, got {steps}")
    if remat not in (True, False, "nested"):
        raise ValueError(f'remat is True, False or "nested", not {remat!r}')
    start = (params, optax.with_extra_args_support(optimizer).init(params))
    (params, _), values = _repeat(_step(objective, optimizer, context), start, steps, remat)
    return params, values


def bytes_stored(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    params: Params,
    context: Any,
) -> int:
    """Return how many bytes a derivative through `descend` stores at most for each step."""
    step = _step(objective, optimizer, context)

    def pull_back(params):
        start = (params, optax.with_extra_args_support(optimizer).init(params))
        return jax.vjp(lambda carry: step(carry, None)[0], start)[1]

    stored = jax.tree.leaves(jax.eval_shape(pull_back, params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in stored)


def _step(objective, optimizer, context) -> Callable:
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, _):
        params, opt_state = carry
        value, grad = jax.value_and_grad(objective)(params, context)
        updates, opt_state = optimizer.update(
            grad,
            opt_state,
            params,
            value=value,
            grad=grad,
            value_fn=lambda candidate: objective(candidate, context),
        )
        return (optax.apply_updates(params, updates), opt_state), value

    return step


def _repeat(step, carry, steps: int, remat: Remat) -> tuple[Any, Float[Array, " steps"]]:
    if remat == "nested" and steps > 1:
        length = math.isqrt(steps)

        def stretch(carry, _):
            return _repeat(step, carry, length, remat=False)

        stretch = jax.checkpoint(stretch, prevent_cse=False)
        carry, values = lax.scan(stretch, carry, None, length=steps // length)
        carry, rest = _repeat(step, carry, steps % length, remat=False)
        return carry, jnp.concatenate([values.reshape(-1), rest])
    if remat:
        # Steps that share one iteration would be merged again, and nothing saved by recomputing.
        return lax.scan(jax.checkpoint(step, prevent_cse=False), carry, None, length=steps)
    return lax.scan(step, carry, None, length=steps, unroll=max(1, min(steps, UNROLL)))
