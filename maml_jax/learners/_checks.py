"""Refusals that several learners share, so that they speak with one voice."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.errors import GradientError, ShapeError
from maml_jax.meta.arguments import describe, optimizer_call
from maml_jax.meta.gradients import GradientMode
from maml_jax.meta.types import InnerOptimizer, LearnedOptimizer, Params


def require_optimizer(optimizer: Any) -> None:
    """Refuse what is no inner optimizer.

    Raises:
        TypeError: saying what to write.
    """
    if isinstance(optimizer, LearnedOptimizer):
        return
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            "inner_optimizer takes an optax transformation or learned_rates(): write "
            f"{optimizer_call(optimizer, 'sgd', 0.01)}; got {describe(optimizer)}"
        )


def require_loss(loss: Any) -> None:
    """Refuse what cannot compare outputs with targets.

    Raises:
        TypeError: saying what to write.
    """
    if not callable(loss):
        raise TypeError(
            f"loss takes a function (y_hat, y) -> number, such as mean_squared_error; got "
            f"{describe(loss)}"
        )


def require_mode(gradient: Any) -> None:
    """Refuse a factory of gradient modes in the place of a mode.

    Raises:
        TypeError: saying what to write.
    """
    if not isinstance(gradient, GradientMode):
        raise TypeError(
            "gradient takes a mode, with parentheses: write exact(), first_order(), mixed_mode() "
            f"or implicit(); got {describe(gradient)}"
        )


def require_derivative_of_start(gradient: GradientMode, remedy: str) -> None:
    """Refuse a gradient mode in which nothing would be learned of where a descent begins.

    Raises:
        GradientError: ending in the remedy.
    """
    if not gradient.differentiates_start:
        raise GradientError(
            "implicit() is the derivative of a minimum, which does not depend on where the descent "
            f"began: nothing would be learned of the start. {remedy}"
        )


def require_positive(**numbers: Any) -> None:
    """Refuse numbers that are not positive; traced ones are taken as they are.

    Raises:
        ValueError: naming the number.
    """
    for name, number in numbers.items():
        if not isinstance(number, jax.core.Tracer) and not number > 0:
            raise ValueError(f"{name} must be positive, got {number}")


def log_tenth(number: Any) -> Float[Array, ""]:
    """Return a tenth of the logarithm of a number, traced or not, in single precision."""
    return jnp.log(jnp.asarray(number, jnp.float32)) / 10


def require_steps(steps: int) -> None:
    """Refuse a negative number of inner steps.

    Raises:
        ValueError: naming it.
    """
    if steps < 0:
        raise ValueError(f"inner_steps must not be negative, got {steps}")


def refuse_steps(name: str, steps: int | None) -> None:
    """Refuse a number of steps where adapting takes none.

    Raises:
        ValueError: if `steps` is not None.
    """
    if steps is not None:
        raise ValueError(f"{name} fits its support set in closed form: it takes no steps")


def require_fixed(name: str, optimizer: InnerOptimizer) -> optax.GradientTransformation:
    """Return an inner optimizer, unless it is a learned one of which nothing would be learned.

    Raises:
        TypeError: naming the learner, or saying what to write if it is no optimizer.
    """
    require_optimizer(optimizer)
    if isinstance(optimizer, LearnedOptimizer):
        raise TypeError(
            f"{name} does not differentiate through its inner steps, so it learns nothing of a "
            "learned optimizer: give it an optax transformation, such as optax.sgd(0.005)"
        )
    return optimizer


def require_learned(name: str, optimizer: Any) -> LearnedOptimizer:
    """Return an inner optimizer, unless it has no settings that could be learned.

    Raises:
        TypeError: naming the learner.
    """
    if not isinstance(optimizer, LearnedOptimizer):
        raise TypeError(
            f"{name} learns settings of its inner optimizer for each step: give it a learned one, "
            f"such as learned_rates(0.005); got {type(optimizer).__name__}"
        )
    return optimizer


def require_plain_params(params: Params) -> Params:
    """Return the parameters of a fresh network, unless some of them are running state.

    A `flax.linen` module returns its collections side by side; only `params` is learned. Running
    averages (`batch_stats`) would be taken for parameters and changed by gradient descent.

    Raises:
        GradientError: naming a parameter that is no floating number.
        ShapeError: naming the other collections.
    """
    if isinstance(params, Mapping) and "params" in params and len(params) > 1:
        others = sorted(set(params) - {"params"})
        raise ShapeError(
            f"the module holds collections beside its parameters: {others}; an (init, apply) pair "
            "cannot carry them. Use layers without running state, such as LayerNorm, or those of "
            'the batch itself: from_linen(module, mutable=("batch_stats",))'
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise GradientError(
                f"parameter {name} is {jnp.result_type(leaf)}, which has no derivative, and every "
                "parameter of a network is learned: leave it out of what init returns"
            )
    return params
