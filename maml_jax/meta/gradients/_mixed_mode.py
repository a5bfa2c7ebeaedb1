"""Forward-over-reverse differentiation of the inner loop."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from maml_jax.meta.gradients._floating import cotangent_like, split_floating
from maml_jax.meta.gradients._mode import GradientMode
from maml_jax.meta.gradients._probe import require_differentiable
from maml_jax.meta.gradients._reverse_only import reverse_only
from maml_jax.meta.inner_loop import (
    UNROLL,
    Objective,
    context_at,
    descend,
    inner_step,
    step_indices,
    update,
)
from maml_jax.meta.types import Params


def mixed_mode() -> GradientMode:
    r"""Differentiate through every inner step, each forward over reverse; the numbers of `exact`.

    Where `exact` transposes the whole program of a step, this pushes one direction through its
    gradient. For SGD the reverse sweep is

    $$v \leftarrow v - \alpha H_k v, \qquad (H_k v,\ M_k v) =
      \partial_\epsilon \nabla_{(\theta, \eta)} L(\theta_k + \epsilon v, \eta)\big|_{\epsilon = 0}$$

    because $H_k$, the Hessian of the support loss, is symmetric; $M_k v$ is what all else that the
    loss depends on, $\eta$, receives. Only the parameters of each step (and the optimizer's state)
    are stored, so that it pays where support sets are large and steps many; `exact(remat=True)`
    stores as little, and which of the two is faster depends on the machine. It takes any inner
    optimizer that `exact` takes, unless that holds traced values (`learned_rates` holds none). It
    has no forward-mode derivative: `exact()` has.

    (Kemaev et al., 2025, MixFlow-MG, arXiv:2505.00793.)

    Returns:
        A gradient mode.
    """
    return _MixedMode()


class _MixedMode(NamedTuple):
    differentiates_start = True

    def __call__(
        self, objective, optimizer, params, context, steps, settings=None, /
    ) -> tuple[Params, Any]:
        require_differentiable(optimizer, params, settings)
        inputs = reverse_only((params, context, settings), "mixed_mode()")
        return _descend(objective, optimizer, steps, *inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _descend(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    steps: int,
    params: Params,
    context: Any,
    settings: Any,
):
    return descend(objective, optimizer, params, context, steps, settings)


def _forward(objective, optimizer, steps, params, context, settings):
    step = inner_step(objective, optimizer, context, settings)

    def store(carry, index):
        after, value = step(carry, index)
        return after, (carry, value)

    start = (params, optimizer.init(params))
    (adapted, _), (carries, values) = lax.scan(
        store, start, step_indices(context, steps), steps, unroll=max(1, min(steps, UNROLL))
    )
    return (adapted, values), (carries, context, settings)


def _backward(objective, optimizer, steps, stored, cotangents):
    carries, context, settings = stored
    eta, rebuild_context = split_floating(context)
    no_change = jax.tree.map(jnp.zeros_like, (eta, settings))
    # The last state of the optimizer is thrown away.
    no_state = [jnp.zeros(leaf.shape[1:], leaf.dtype) for leaf in split_floating(carries[1])[0]]
    begin = (cotangents[0], no_state, *no_change)

    def step_back(after, step):
        (params, opt_state), value_bar, index = step
        params_bar, state_bar, eta_bar, settings_bar = after
        state, rebuild_state = split_floating(opt_state)

        def context_of(eta):
            return context_at(rebuild_context(eta), index)

        def value_and_gradient(params, eta):
            return jax.value_and_grad(
                lambda params, eta: objective(params, context_of(eta)), argnums=(0, 1)
            )(params, eta)

        def apply_update(value, grad, params, state, eta, settings):
            carry = (params, rebuild_state(state))
            params, opt_state = update(
                objective, optimizer, value, grad, carry, context_of(eta), settings
            )
            return params, split_floating(opt_state)[0]

        value, (grad, _) = value_and_gradient(params, eta)
        _, pull = jax.vjp(apply_update, value, grad, params, state, eta, settings)
        from_update = pull((params_bar, state_bar))
        value_from_update, tangent, params_bar, state_bar, eta_more, settings_more = from_update
        (_, slope), (_, curved) = jax.jvp(
            lambda p: value_and_gradient(p, eta), (params,), (tangent,)
        )
        weight = value_bar + value_from_update

        def total(direct, slope, curved):
            # The weight is as precise as the objective; rows of data may be less so.
            return jax.tree.map(
                lambda d, s, c: d + c + weight.astype(s.dtype) * s, direct, slope, curved
            )

        params_bar = total(params_bar, slope[0], curved[0])
        eta_bar = jax.tree.map(jnp.add, eta_bar, total(eta_more, slope[1], curved[1]))
        settings_bar = jax.tree.map(jnp.add, settings_bar, settings_more)
        return (params_bar, state_bar, eta_bar, settings_bar), None

    (params_bar, _, eta_bar, settings_bar), _ = lax.scan(
        step_back,
        begin,
        (carries, cotangents[1], step_indices(context, steps)),
        length=steps,
        reverse=True,
        unroll=max(1, min(steps, UNROLL)),
    )
    return params_bar, cotangent_like(context, eta_bar), settings_bar


_descend.defvjp(_forward, _backward)
