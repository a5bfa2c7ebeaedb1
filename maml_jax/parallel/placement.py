"""Where arrays lie: on the devices of a mesh, in all processes, or on the default device."""

from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    Sharding,
    SingleDeviceSharding,
)
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

AXIS = "tasks"
"""Name of the mesh axis that tasks are spread over."""

AnyMesh: TypeAlias = Mesh | AbstractMesh | None
"""The devices that share tasks; abstract where a user set the mesh, None for one device."""


def mesh_of(devices: list[Any]) -> Mesh:
    """Return the mesh of devices along which tasks are spread."""
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def put_on_mesh(mesh: AnyMesh, *arguments: Any) -> Any:
    """Put arrays on all devices of a mesh, as a function that spreads tasks over it expects them.

    A function called in a loop then finds its own results as it left them, and is compiled once.
    Values inside of a transformation stay as they are. Without a mesh, arrays that several devices
    hold are brought to one, so that the others have no work.
    """
    if mesh is None and jax.sharding.get_abstract_mesh().empty:
        return jax.tree.map(_on_one_device, arguments)
    if not isinstance(mesh, Mesh):
        return arguments
    replicated = NamedSharding(mesh, P())
    leaves, structure = jax.tree.flatten(arguments)
    elsewhere = [
        index
        for index, leaf in enumerate(leaves)
        if not isinstance(leaf, jax.core.Tracer) and getattr(leaf, "sharding", None) != replicated
    ]
    moving = [leaves[index] for index in elsewhere]
    if jax.process_count() > 1:  # every process holds the same values and gives its copy
        moved = [_shared(leaf, replicated) for leaf in moving]
    else:
        moved = jax.device_put(moving, replicated)
    for index, leaf in zip(elsewhere, moved, strict=True):
        leaves[index] = leaf
    return jax.tree.unflatten(structure, leaves)


def _shared(leaf: Any, replicated: NamedSharding) -> Array:
    if _is_key(leaf):
        data = _shared(jax.random.key_data(leaf), replicated)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, replicated)
    values = np.asarray(leaf, jnp.result_type(leaf))
    return jax.make_array_from_callback(values.shape, replicated, lambda index: values[index])


def _on_one_device(leaf: Any) -> Any:
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return leaf
    if len(leaf.sharding.device_set) == 1 or not leaf.is_fully_addressable:
        return leaf
    if jax.default_backend() != "cpu":
        return jax.device_put(leaf, jax.devices()[0])
    # In the memory of the host already; made anew it may later lie anywhere.
    if _is_key(leaf):
        data = _on_one_device(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.asarray(leaf))


def _with_automatic_axes(leaf: Any) -> Any:
    where = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.core.Tracer) or not isinstance(where, NamedSharding):
        return leaf
    if all(kind == AxisType.Auto for kind in where.mesh.axis_types):
        return leaf
    names, devices = where.mesh.axis_names, np.asarray(where.mesh.devices)
    mesh = Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))
    return jax.device_put(leaf, NamedSharding(mesh, where.spec))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def move_committed(mesh: AnyMesh, tasks: Any) -> Any:
    """Move tasks that were put on a device outside of the mesh, where they could not be used.

    Tasks on a mesh of explicit axes stay there, without its types: here it is planned how they are
    worked on.
    """
    if jax.sharding.get_abstract_mesh().empty:
        tasks = jax.tree.map(_with_automatic_axes, tasks)
    if not isinstance(mesh, Mesh):
        return tasks
    devices = set(mesh.devices.flat)
    elsewhere = jax.process_count() > 1 or any(
        getattr(leaf, "committed", False) and leaf.sharding.device_set != devices
        for leaf in jax.tree.leaves(tasks)
        if not isinstance(leaf, jax.core.Tracer)
    )
    return put_on_mesh(mesh, tasks)[0] if elsewhere else tasks


def everywhere() -> Sharding:
    """Return how arrays lie that every device of every process holds; with one, on one device."""
    if jax.process_count() > 1:
        return NamedSharding(mesh_of(jax.devices()), P())
    return SingleDeviceSharding(jax.devices()[0])


def bring_back(mesh: AnyMesh, results: Any) -> Any:
    """Bring results of one process from a mesh to the default device."""
    if not isinstance(mesh, Mesh) or jax.process_count() > 1:
        return results
    return jax.tree.map(_on_one_device, results)


def to_numpy(results: Any) -> Any:
    """Return results as numpy arrays, all of them in every process."""

    def fetch(leaf):
        if not leaf.is_fully_addressable and not leaf.is_fully_replicated:
            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(fetch, results)
