"""Matches parameters with what a network expects, leaf by leaf, by path."""

from typing import Any

import jax
import jax.numpy as jnp

from maml_jax.errors import ShapeError
from maml_jax.listing import join_names
from maml_jax.meta.types import Params


def match_parameters(params: Params, expected: Params, of: str) -> Params:
    """Return parameters in the structure of others.

    Leaves are matched by path. Checkpoints store list indices as text, so "0" is read as 0.

    Args:
        params: nested dicts or lists of arrays.
        expected: the structure, with a shape in each leaf.
        of: whose parameters they should be, as it stands in messages.

    Raises:
        ShapeError: naming the paths that are missing or unknown, or the first of another shape.
    """
    given = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    wanted = {_path(path): leaf for path, leaf in leaves}
    problems = [
        f"{verb} {join_names(map(_name, paths))}"
        for verb, paths in (
            ("lack", [path for path in wanted if path not in given]),
            ("hold unknown", [path for path in given if path not in wanted]),
        )
        if paths
    ]
    if problems:
        raise ShapeError(f"the parameters of {of} {' and '.join(problems)}")
    for path, leaf in wanted.items():
        if jnp.shape(given[path]) != leaf.shape:
            raise ShapeError(
                f"parameter {_name(path)} has shape {jnp.shape(given[path])}, where {of} has "
                f"{leaf.shape}: the parameters belong to another network, or x had another shape "
                "when init made them"
            )
    return jax.tree.unflatten(structure, [given[path] for path in wanted])


def _path(path: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_part(key) for key in path)


def _part(key: Any) -> Any:
    (name,) = (getattr(key, own) for own in ("key", "idx", "name") if hasattr(key, own))
    return int(name) if isinstance(name, str) and name.isdecimal() else name


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "an array"
