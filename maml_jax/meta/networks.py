"""Refusals of what is no network, or the same network several times over."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Params


def require_model(model: Any) -> None:
    """Refuse what has no `init` and `apply`.

    Raises:
        TypeError: saying what to write.
    """
    if any(kind.__module__.startswith("flax.nnx") for kind in type(model).__mro__):
        raise TypeError(
            f"{type(model).__name__} is a flax.nnx module: write from_nnx(lambda rngs: "
            f"{type(model).__name__}(..., rngs=rngs)), a pair of pure functions"
        )
    if not (callable(getattr(model, "init", None)) and callable(getattr(model, "apply", None))):
        raise TypeError(
            "a network is a pair of functions: a Model(init, apply), or a flax.linen module; got "
            f"{type(model).__name__} {model!r:.60}"
            + (", write Model(*pair)" if isinstance(model, tuple) else "")
        )
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class, not a network: write {model.__name__}(...)")


def require_different_starts(starts: Sequence[Params], name: str) -> None:
    """Refuse starts of which the first two are the same.

    Only what is known can be compared: values inside of a compiled function are taken to differ,
    unless both starts hold the very same arrays.

    Args:
        starts: fresh parameters of one network, each made with a key of its own.
        name: what needs different ones, as it begins the message.

    Raises:
        ShapeError: saying what to write.
    """
    if len(starts) < 2:
        return
    first, second = map(jax.tree.leaves, starts[:2])
    if all(map(_known_equal, first, second)):
        raise ShapeError(
            f"{name} needs networks that begin differently, and init returns the same parameters "
            "for every key: write from_nnx(lambda rngs: Net(..., rngs=rngs)) instead of handing "
            "over a module that exists already, or an init that draws from its key"
        )


def _known_equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    return bool(jnp.array_equal(a, b))
