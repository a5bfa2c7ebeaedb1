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
    settings: Any = None,
    *,
    remat: Remat = False,
    constant_gradients: bool = False,
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
        settings: what is learned of the optimizer, handed to its update as the extra argument
            `settings`; see `maml_jax.meta.LearnedOptimizer`.
        remat: what a derivative through the loop computes again instead of storing it. With True,
            each step's intermediate values, so that the parameters of every step remain. With
            "nested" the loop is cut into about sqrt(steps) stretches of which only the first
            parameters are stored, and the steps of one stretch at a time (Chen et al., 2016,
            arXiv:1604.06174).
        constant_gradients: differentiate the updates, but as if gradients were constants.

    Returns:
        The parameters after the last step, and the objective before each step.

    Raises:
        ValueError: if `steps` is negative, or `remat` unknown.
    """
    if steps < 0:
        raise ValueError(f"the number of inner steps must not be negative, got {steps}")
    if remat not in (True, False, "nested"):
        raise ValueError(f'remat is True, False or "nested", not {remat!r}')
    step = inner_step(objective, optimizer, context, settings, constant_gradients)
    (params, _), values = _repeat(step, (params, optimizer.init(params)), steps, remat)
    return params, values


def bytes_stored(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    params: Params,
    context: Any,
    settings: Any = None,
) -> int:
    """Return how many bytes a derivative through `descend` stores at most for each step."""
    step = inner_step(objective, optimizer, context, settings)

    def pull_back(params):
        return jax.vjp(lambda carry: step(carry, None)[0], (params, optimizer.init(params)))[1]

    stored = jax.tree.leaves(jax.eval_shape(pull_back, params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in stored)


def inner_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    context: Any,
    settings: Any = None,
    constant_gradients: bool = False,
) -> Callable[[Any, Any], tuple[Any, Scalar]]:
    """Make one step of `descend` in the form that `lax.scan` takes.

    Returns:
        `((params, opt_state), _) -> ((params, opt_state), objective before the step)`.
    """

    def step(carry, _):
        params, opt_state = carry
        at = lax.stop_gradient(params) if constant_gradients else params
        value, grad = jax.value_and_grad(objective)(at, context)
        if constant_gradients:
            value, grad = lax.stop_gradient((value, grad))
        return update(objective, optimizer, value, grad, carry, context, settings), value

    return step


def update(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    value: Scalar,
    grad: Params,
    carry: Any,
    context: Any,
    settings: Any,
) -> Any:
    """Return `(params, opt_state)` after the optimizer has seen the objective's gradient there."""
    params, opt_state = carry
    learned = {} if settings is None else {"settings": settings}  # line searches take no others
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        grad,
        opt_state,
        params,
        value=value,
        grad=grad,
        value_fn=lambda candidate: objective(candidate, context),
        **learned,
    )
    return optax.apply_updates(params, updates), opt_state


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
