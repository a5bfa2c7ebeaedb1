"""Adaptation by gradient descent, with any optax transformation, as one scan."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

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


class Keyed(NamedTuple):
    """A context whose objective draws something at random, another draw in each step.

    Attributes:
        context: what else the objective depends on.
        key: of the whole descent; the objective sees one for each step, made of it.
    """

    context: Any
    key: Key[Array, ""]


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
        context: passed to `objective` at every step; the key of a `Keyed` one differs in each.
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
    start = (params, optimizer.init(params))
    (params, _), values = _repeat(step, start, step_indices(context, steps), steps, remat)
    return params, values


def step_indices(context: Any, steps: int) -> Int[Array, " steps"] | None:
    """Return the number of each step, where the objective depends on it."""
    return jnp.arange(steps) if isinstance(context, Keyed) else None


def context_at(context: Any, index: Any) -> Any:
    """Return the context as the objective sees it at a step."""
    if not isinstance(context, Keyed):
        return context
    return context._replace(key=jax.random.fold_in(context.key, index))


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
        return jax.vjp(lambda carry: step(carry, 0)[0], (params, optimizer.init(params)))[1]

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
        `((params, opt_state), index) -> ((params, opt_state), objective before the step)`.
    """

    def step(carry, index):
        params, opt_state = carry
        here = context_at(context, index)
        at = lax.stop_gradient(params) if constant_gradients else params
        value, grad = jax.value_and_grad(objective)(at, here)
        if constant_gradients:
            value, grad = lax.stop_gradient((value, grad))
        return update(objective, optimizer, value, grad, carry, here, settings), value

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


def _repeat(step, carry, indices, steps: int, remat: Remat) -> tuple[Any, Float[Array, " steps"]]:
    if remat == "nested" and steps > 1:
        length = math.isqrt(steps)
        cut = steps - steps % length

        def stretch(carry, indices):
            return _repeat(step, carry, indices, length, remat=False)

        stretch = jax.checkpoint(stretch, prevent_cse=False)
        first = None if indices is None else indices[:cut].reshape(-1, length)
        last = None if indices is None else indices[cut:]
        carry, values = lax.scan(stretch, carry, first, length=steps // length)
        carry, rest = _repeat(step, carry, last, steps - cut, remat=False)
        return carry, jnp.concatenate([values.reshape(-1), rest])
    if remat:
        # Steps that share one iteration would be merged again, and nothing saved by recomputing.
        return lax.scan(jax.checkpoint(step, prevent_cse=False), carry, indices, length=steps)
    return lax.scan(step, carry, indices, length=steps, unroll=max(1, min(steps, UNROLL)))
