"""The leaves of a pytree that have a derivative, apart from classes and counters that have none."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def is_floating(leaf: Any) -> bool:
    """Say whether a leaf has a derivative."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def split_floating(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """Return the leaves that have a derivative, and what makes the tree whole of others of them."""
    leaves, structure = jax.tree.flatten(tree)
    places = [place for place, leaf in enumerate(leaves) if is_floating(leaf)]

    def whole(floating: list) -> Any:
        filled = list(leaves)
        for place, leaf in zip(places, floating, strict=True):
            filled[place] = leaf
        return jax.tree.unflatten(structure, filled)

    return [leaves[place] for place in places], whole


def cotangent_like(tree: Any, floating: list) -> Any:
    """Lay out the cotangents of the leaves that have a derivative; the others receive None."""
    rest = iter(floating)
    return jax.tree.map(lambda leaf: next(rest) if is_floating(leaf) else None, tree)
