"""Losses: functions of outputs and targets that return one number."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Scalar


def squared_error(y_hat: Any, y: Float[Array, "n *targets"]) -> Scalar:
    r"""Mean squared error, $\frac{1}{n}\sum_i (\hat y_i - y_i)^2$.

    Args:
        y_hat: outputs, `[n, *targets]`.
        y: targets, `[n, *targets]`. `[n]` and `[n, 1]` are taken for one another.

    Raises:
        ShapeError: if the shapes differ otherwise. (Broadcasting `[n, 1]` against `[n]` would
            compare every output with every target.)
    """
    if y_hat.shape != y.shape:
        if (*y_hat.shape, 1) != y.shape and y_hat.shape != (*y.shape, 1):
            raise ShapeError(
                f"the model's output has shape {y_hat.shape} and the targets have shape {y.shape}; "
                "they must agree (only [n] and [n, 1] may stand for one another)"
            )
        y = y.reshape(y_hat.shape)
    return jnp.mean(jnp.square(y_hat - y))
