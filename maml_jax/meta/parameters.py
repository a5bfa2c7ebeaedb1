"""Meta-parameters by name, and as safetensors, which any framework reads."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maml_jax.errors import RunError
from maml_jax.listing import quote_names
from maml_jax.meta.types import Params

SEPARATOR = "/"


def name_parameters(params: Params) -> dict[str, np.ndarray]:
    """Return parameters by the path to them, such as `features/layers/0/kernel`.

    >>> name_parameters({"layers": [{"bias": np.zeros(2)}]})
    {'layers/0/bias': array([0., 0.])}
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator=SEPARATOR): np.asarray(leaf)
        for path, leaf in leaves
    }


def pack_arrays(arrays: Mapping[str, np.ndarray], about: str | None = None) -> bytes:
    """Return arrays as safetensors; the same arrays give the same bytes.

    Args:
        arrays: by name.
        about: a text to keep beside them, under the key `about` of the metadata.
    """
    from safetensors.numpy import save

    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    for name, array in ordered.items():  # a number has no axis, which the function above gives it
        ordered[name] = array.reshape(np.shape(arrays[name]))
    return save(ordered, None if about is None else {"about": about})


def unpack_arrays(content: bytes, where: object) -> dict[str, np.ndarray]:
    """Return the arrays of safetensors.

    Args:
        content: of the file.
        where: named in errors.

    Raises:
        RunError: if they are damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{where}: cannot be read as safetensors: {error}") from error


def fill_parameters(arrays: Mapping[str, np.ndarray], like: Params, where: object) -> Params:
    """Return parameters of a structure, from arrays by name.

    Args:
        arrays: as `name_parameters` gives them.
        like: the structure, of arrays or shapes.
        where: named in errors.

    Raises:
        RunError: naming a parameter that is missing, unknown, or of another shape or type.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=SEPARATOR) for path, _ in leaves]
    for said, wrong in (
        ("lacks", [name for name in names if name not in arrays]),
        ("has the unknown", [name for name in arrays if name not in names]),
    ):
        if wrong:
            raise RunError(
                f"{where}: {said} parameter {quote_names(wrong[:1])}; there must be "
                f"{quote_names(names)}"
            )
    for name, (_, leaf) in zip(names, leaves, strict=True):
        found, wanted = (describe_array(each) for each in (arrays[name], leaf))
        if found != wanted:
            raise RunError(f"{where}: parameter {name!r} is {found}, and must be {wanted}")
    return jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])


def describe_array(array: Any) -> str:
    """Say the type and the shape of an array, as in `float32[8, 1]`."""
    return f"{jnp.result_type(array)}{list(np.shape(array))}"
