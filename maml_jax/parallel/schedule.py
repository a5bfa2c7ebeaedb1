"""Where tasks run: on how many devices, in chunks of what size."""

import logging
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType

from maml_jax.parallel.cost import Cost
from maml_jax.parallel.machine import usable_cache, usable_memory
from maml_jax.parallel.placement import AnyMesh, mesh_of

SMALLEST_CPU_CHUNK = 2
"""Products of one task alone take a slower path through the CPU compiler."""

WORTH_A_CALL = {"cpu": 2 * 10**8, "gpu": 10**10, "tpu": 10**10}
"""Floating-point operations of a program below which several devices cost more than they give."""

WORTH_A_MEETING = {"cpu": 5 * 10**7, "gpu": 10**9, "tpu": 10**9}
"""The same for each time that devices meet within a program, to add up their gradients."""

_log = logging.getLogger("maml_jax")


class Schedule(NamedTuple):
    """Where tasks run.

    Attributes:
        mesh: the devices that share the tasks; None keeps them on one.
        chunk: how many tasks are vectorised together on each device.
        chunks: how many chunks follow one another on each device.
    """

    mesh: AnyMesh
    chunk: int
    chunks: int

    @property
    def devices(self) -> int:
        """Over how many devices tasks are spread."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def slots(self) -> int:
        """Slots for tasks, of which the last may stay empty."""
        return self.devices * self.chunks * self.chunk


def choose_schedule(
    cost: Cost,
    count: int,
    *,
    chunk: int | None = None,
    devices: int | None = None,
    repeats: int = 1,
    fewest: int = 1,
) -> Schedule:
    """Decide how `count` equal tasks run.

    The devices are all of the default backend, unless the work is too little to share. With several
    processes they are always all. Inside a `jax.set_mesh` of automatic axes (`AxisType.Auto`) they
    are all of that mesh; inside one of explicit axes, and inside a `shard_map`, tasks are not
    spread. The chunk is what fits into a core's cache (CPU) or into half of the memory.

    Args:
        cost: of one task.
        count: number of tasks.
        chunk: how many tasks to vectorise together, instead of what the cost suggests.
        devices: over how many devices to spread, instead of what the cost suggests.
        repeats: how often the tasks run within one program.
        fewest: chunks to make at least, where part of them may turn out to be empty.

    Raises:
        ValueError: if `chunk` or `devices` is less than 1, there are fewer devices, or a mesh that
            is set has another number of them.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"a chunk needs at least 1 task, got {chunk}")
    mesh = _choose_mesh(cost.flops * count, repeats, count, devices)
    each = -(-max(count, 1) // (1 if mesh is None else mesh.size))
    size = min(-(-each // fewest), _chunk_that_fits(cost)) if chunk is None else min(each, chunk)
    chunks = -(-each // size)
    # Chunks of even size leave the fewest slots empty.
    where = Schedule(mesh, -(-each // chunks), chunks)
    _log.info(
        "%d tasks of %.3g MFLOP and %.3g MB: %d device(s), each %d chunk(s) of %d",
        *(count, cost.flops / 1e6, cost.bytes / 1e6, where.devices, where.chunks, where.chunk),
    )
    return where


def _choose_mesh(flops: int, repeats: int, count: int, devices: int | None) -> AnyMesh:
    ambient = jax.sharding.get_abstract_mesh()
    if not ambient.empty:
        automatic = all(kind == AxisType.Auto for kind in ambient.axis_types)
        spread = ambient.size if automatic else 1
        if devices not in (None, 1, spread):
            raise ValueError(
                f"devices={devices}: inside of the mesh that is set, tasks can be spread over "
                f"{spread} device(s); leave devices out, or leave the mesh"
                + ("" if automatic else ", whose axes are explicit: make it with axis_types=Auto")
            )
        return ambient if spread > 1 and devices != 1 else None
    present = jax.devices()
    if jax.process_count() > 1:
        return mesh_of(present)  # every process takes part in every program
    if devices is None:
        if setting("jax_default_device") is not None:
            return None
        kind = present[0].platform
        meeting, call = (
            limits.get(kind, limits["gpu"]) for limits in (WORTH_A_MEETING, WORTH_A_CALL)
        )
        pays = flops >= meeting and flops * repeats >= call
        devices = max(1, min(len(present), count)) if pays else 1
    if not 1 <= devices <= len(present):
        raise ValueError(f"there are {len(present)} devices, cannot spread tasks over {devices}")
    return mesh_of(present[:devices]) if devices > 1 else None


def setting(name: str) -> Any:
    """Return a setting of JAX, None where this version has none of the name."""
    return getattr(jax.config, name, None)


def _chunk_that_fits(cost: Cost) -> int:
    in_memory = usable_memory() // max(cost.bytes, 1)
    chosen = setting("jax_default_device")
    if getattr(chosen, "platform", chosen or jax.default_backend()) != "cpu":
        return max(1, in_memory)
    in_cache = max(SMALLEST_CPU_CHUNK, usable_cache() // max(cost.bytes, 1))
    return max(1, min(in_cache, in_memory))
