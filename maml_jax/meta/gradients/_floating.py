"""Separates the leaves of a pytree that have a derivative from classes and counters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def is_floating(leaf: Any) -> bool:
    """Say whether a leaf has a derivative."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def split_floating(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """Return the floating leaves, and the function that rebuilds the tree around other ones."""
    leaves, structure = jax.tree.flatten(tree)
    indices = [index for index, leaf in enumerate(leaves) if is_floating(leaf)]

    def rebuild(floating: list) -> Any:
        filled = list(leaves)
        for index, leaf in zip(indices, floating, strict=True):
            filled[index] = leaf
        return jax.tree.unflatten(structure, filled)

    return [leaves[index] for index in indices], rebuild


def cotangent_like(tree: Any, floating: list) -> Any:
    """Return a tree of cotangents: those of the floating leaves, None for the others."""
    rest = iter(floating)
    return jax.tree.map(lambda leaf: next(rest) if is_floating(leaf) else None, tree)
