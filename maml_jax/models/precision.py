"""In which number format a network computes; parameters and losses stay as they are."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from maml_jax.meta.types import Model, ModelLike
from maml_jax.models._apply import change_apply

Precision: TypeAlias = Literal["float32", "tensorfloat32", "bfloat16"]


def in_precision(model: ModelLike, precision: Precision) -> Model:
    """Make a model compute in another precision.

    Without this, JAX decides how float32 matrices are multiplied: exactly on a CPU, in
    tensorfloat32 (10 bits of mantissa) on recent GPUs, in bfloat16 (7 bits) on TPUs.

    Args:
        model: any `(init, apply)` pair.
        precision: "float32" multiplies matrices in full single precision on every device;
            "tensorfloat32" lets GPUs use their faster units for products alone; "bfloat16" casts
            parameters and inputs, so that products and activations are in bfloat16. Parameters that
            are learned stay as they are and outputs are float32: gradients are taken through the
            casts, updates of small size are not lost.

    Raises:
        ValueError: if `precision` is none of these.
    """
    if precision not in ("float32", "tensorfloat32", "bfloat16"):
        raise ValueError(f"no precision {precision!r}: float32, tensorfloat32 or bfloat16")

    def change(apply: Callable[..., Any]) -> Callable[..., Any]:
        def apply_exactly(params, x, *key):
            with jax.default_matmul_precision(precision):
                return apply(params, x, *key)

        def apply_in_half(params, x, *key):
            y_hat = apply(*jax.tree.map(_halve, (params, x)), *key)
            return jax.tree.map(_widen, y_hat)

        return apply_in_half if precision == "bfloat16" else apply_exactly

    return change_apply(model, change)


def _widen(leaf):
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf


def _halve(leaf):
    floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jnp.asarray(leaf, jnp.bfloat16) if floating else leaf
