"""Many tasks: split across devices, in chunks that follow one another, vectorised within a chunk.

One mechanism for meta-training (`average_tasks`) and for walk-forward (`map_tasks`). On a CPU a
chunk that stays in the cache is faster than the whole meta-batch at once; everywhere chunks bound
the memory.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from maml_jax.parallel.cost import count_cost
from maml_jax.parallel.placement import AXIS, put_on_mesh
from maml_jax.parallel.pool import waiting_calls, without_waiting
from maml_jax.parallel.schedule import Schedule, choose_schedule, setting

_SETTINGS = (
    "jax_default_device",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_numpy_dtype_promotion",
)
"""Settings of JAX that a plan depends on."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A function of one task, traced, and how many tasks of one shape run through it.

    Attributes:
        schedule: where the tasks run.
        function: takes one task, and what is shared.
        traced: the same, already traced.
        results: shapes of its results for one task.
        encloses_tracers: whether the function encloses values of a transformation around it.
        may_wait: whether it calls what may wait for XLA's own pool.
    """

    schedule: Schedule
    function: Callable[..., Any]
    traced: Callable[..., Any]
    results: Any
    encloses_tracers: bool
    may_wait: bool

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        """`(tasks, shared, count) -> results`, a program that is released with the plan.

        Of one function with static arguments `jax.jit` would keep thousands. Arguments lie where
        `put_on_mesh` puts them.
        """

        def run(tasks, shared, count):
            return _map_tasks(self, tasks, shared, count)

        return jax.jit(run)

    def vectorize(self, shared: tuple) -> Callable[[Any], Any]:
        """Return the function that runs a chunk of tasks."""
        # What was traced inside of a user's mesh cannot run within one device's part of it.
        ambient = isinstance(self.schedule.mesh, AbstractMesh)
        function = self.function if ambient else self.traced
        run = jax.vmap(lambda task: function(task, *shared))
        return without_waiting(run) if self.may_wait else run


def plan_tasks(
    make: Callable[..., Callable],
    static: tuple,
    tasks: Any,
    *shared: Any,
    chunk: int | None = None,
    devices: int | None = None,
    repeats: int = 1,
    fewest: int = 1,
) -> Plan:
    """Plan how `make(*static)` runs on many tasks; the same plan for the same shapes.

    A plan is hashable, to be a static argument of a compiled function.

    Args:
        make: makes the function of one task.
        static: hashable arguments of `make`.
        tasks: a pytree of arrays, or of their shapes, with a leading task axis.
        *shared: what all tasks need, arrays or shapes.
        chunk: as for `choose_schedule`.
        devices: as for `choose_schedule`.
        repeats: as for `choose_schedule`.
        fewest: as for `choose_schedule`.

    Raises:
        ValueError: as `choose_schedule`.
    """
    leaves, structure = jax.tree.flatten((tasks, shared))
    shapes = tuple(
        (leaf.shape, leaf.dtype)
        if hasattr(leaf, "dtype")
        else (np.shape(leaf), jnp.result_type(leaf))
        for leaf in leaves
    )
    surroundings = (jax.sharding.get_abstract_mesh(), *map(setting, _SETTINGS))
    options = {"chunk": chunk, "devices": devices, "repeats": repeats, "fewest": fewest}
    return _plan(make, static, structure, shapes, tuple(options.items()), surroundings)


_PLANS: OrderedDict[tuple, Plan] = OrderedDict()
_PLANS_KEPT = 64
_plans_lock = Lock()


def _plan(make, static, structure, shapes, options, surroundings) -> Plan:
    """Return the plan that was made before, or make one; a plan is good only where it was made."""
    key = (make, static, structure, shapes, options, surroundings)
    with _plans_lock:
        if key in _PLANS:
            _PLANS.move_to_end(key)
            return _PLANS[key]
    leaves = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    tasks, shared = jax.tree.unflatten(structure, leaves)
    plan = _plan_once(make(*static), tasks, shared, **dict(options))
    if not plan.encloses_tracers:  # of a transformation around: good for this once
        with _plans_lock:
            _PLANS[key] = plan
            while len(_PLANS) > _PLANS_KEPT:
                _PLANS.popitem(last=False)
    return plan


def _plan_once(function, tasks, shared, **options) -> Plan:
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tasks)
    jaxpr, results = jax.make_jaxpr(function, return_shape=True)(one, *shared)
    structure = jax.tree.structure(results)

    def traced(*arguments):
        return jax.tree.unflatten(structure, jaxpr_as_fun(jaxpr)(*jax.tree.leaves(arguments)))

    cost = count_cost(jaxpr.jaxpr)
    where = choose_schedule(cost, _count(tasks), **options)
    enclosing = any(isinstance(value, jax.core.Tracer) for value in jaxpr.consts)
    may_wait = not waiting_calls().isdisjoint(cost.pool_calls)
    return Plan(where, function, traced, results, enclosing, may_wait)


def map_tasks(
    function: Callable[..., Any] | Plan,
    tasks: Any,
    *shared: Any,
    count: Int[Array, ""] | None = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> Any:
    """Apply `function` to every task.

    Args:
        function: takes one task, and what is shared; or the plan for it. It must be pure: it is
            traced once for the same shapes, and what changes belongs into `shared`.
        tasks: a pytree of arrays with a leading task axis.
        *shared: what all tasks need, pytrees of arrays. Every device receives it all; arrays that
            `function` encloses instead may be refused where tasks are spread over devices.
        count: how many tasks there really are, if the last ones only fill up the arrays. May be a
            traced number: other counts need no other program. No work is spent on chunks that hold
            none of them. Results of the rest are arbitrary.
        chunk: how many tasks are vectorised together; the result does not depend on it.
        devices: over how many devices tasks are spread; the result does not depend on it. By
            default the amount of work decides.

    Returns:
        The results, with a leading task axis. With a `count` they have no reverse-mode derivative.

    Raises:
        ValueError: as `choose_schedule`.
    """
    if isinstance(function, Plan):
        return _map_tasks(function, tasks, shared, count)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((tasks, shared, count))):
        plan = _plan_once(function, tasks, shared, chunk=chunk, devices=devices)
        return _map_tasks(plan, tasks, shared, count)
    plan = plan_tasks(_itself, (function,), tasks, *shared, chunk=chunk, devices=devices)
    if plan.encloses_tracers:
        return _map_tasks(plan, tasks, shared, count)
    return plan.compiled(*put_on_mesh(plan.schedule.mesh, tasks, shared, count))


def _map_tasks(plan, tasks, shared, count):
    where, size = plan.schedule, _count(tasks)
    if size == 0:
        return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), plan.results)

    def local(tasks, shared, first):
        run = plan.vectorize(shared)
        turns = where.chunks
        if count is not None:
            # Chunks are dealt out in turn, so that every device has its share of the real tasks.
            begun = (count + where.chunk - 1) // where.chunk
            turns = jnp.minimum(turns, (begun - first[0] + where.devices - 1) // where.devices)

        def take(turn, results):
            part = jax.tree.map(lambda leaf: leaf[turn, 0], tasks)
            return jax.tree.map(lambda leaf, new: leaf.at[turn, 0].set(new), results, run(part))

        lead = (where.chunks, 1, where.chunk)
        empty = jax.tree.map(lambda s: jnp.zeros((*lead, *s.shape), s.dtype), plan.results)
        return lax.fori_loop(0, turns, take, empty)

    def deal(leaf):
        leaf = _pad(leaf, where.slots)
        return leaf.reshape(where.chunks, where.devices, where.chunk, *leaf.shape[1:])

    local = _spread(where, local, (P(None, AXIS), P(), P(AXIS)), P(None, AXIS))
    results = local(jax.tree.map(deal, tasks), shared, jnp.arange(where.devices))
    together = jax.tree.map(lambda leaf: leaf.reshape(where.slots, *leaf.shape[3:])[:size], results)
    if where.mesh is None:
        return together
    # Tasks were dealt out in turn, which no axis of the mesh describes once they are in order: the
    # compiler would choose a layout that some versions of JAX cannot name.
    return lax.with_sharding_constraint(together, NamedSharding(where.mesh, P()))


def _itself(function):
    return function


def average_tasks(
    function: Callable[..., tuple[Any, Any]] | Plan,
    tasks: Any,
    *shared: Any,
    chunk: int | None = None,
    devices: int | None = None,
) -> tuple[Any, Any]:
    """Apply `function` to every task and average its first result without ever storing all of them.

    Args:
        function: takes one task and what is shared, returns `(summed, each)`, two pytrees of
            arrays; or the plan for it.
        tasks: a pytree of arrays with a leading task axis.
        *shared: as for `map_tasks`.
        chunk: how many tasks are vectorised together.
        devices: over how many devices tasks are spread. By default the amount of work decides.

    Returns:
        The mean of `summed` over tasks, and `each` with a leading task axis.

    Raises:
        ValueError: if there is no task, or as `choose_schedule`.
    """
    count = _count(tasks)
    if count == 0:
        raise ValueError("there is no average over no tasks")
    if not isinstance(function, Plan):
        function = _plan_once(function, tasks, shared, chunk=chunk, devices=devices)
    plan, where = function, function.schedule
    shapes, _ = plan.results

    def local(tasks, shared, real):
        run = plan.vectorize(shared)

        def add_chunk(total, chunk):
            part, real = chunk
            summed, each = run(part)

            def add(total, values):
                if where.slots > count:  # what stands in an empty slot must not count, even if NaN
                    values = jnp.where(real.reshape(-1, *(1,) * (values.ndim - 1)), values, 0)
                part = jnp.sum(values, axis=0, dtype=total.dtype)  # pyright: ignore[reportArgumentType]
                return total + part

            return jax.tree.map(add, total, summed), each

        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, _wide(s.dtype)), shapes)
        total, each = lax.scan(add_chunk, zero, (tasks, real))
        return (total if where.mesh is None else lax.psum(total, where.mesh.axis_names)), each

    def split(leaf):
        leaf = _pad(leaf, where.slots)
        return leaf.reshape(where.devices * where.chunks, where.chunk, *leaf.shape[1:])

    local = _spread(where, local, (P(AXIS), P(), P(AXIS)), (P(), P(AXIS)))
    real = split(jnp.arange(where.slots) < count)
    total, each = local(jax.tree.map(split, tasks), shared, real)
    mean = jax.tree.map(lambda t, s: (t / count).astype(s.dtype), total, shapes)
    return mean, jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], each)


def _spread(where: Schedule, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """Let every device of the schedule run `function` on its part."""
    if where.mesh is None:
        return function
    names = where.mesh.axis_names  # the tasks are spread over all axes of a user's mesh

    def translate(spec):
        return P(*(names if axis == AXIS else axis for axis in spec))

    in_specs, out_specs = jax.tree.map(
        translate, (in_specs, out_specs), is_leaf=lambda leaf: isinstance(leaf, P)
    )
    return jax.shard_map(
        function, mesh=where.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def _pad(leaf: Array, size: int) -> Array:
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], size - leaf.shape[0], axis=0)])


def _count(tasks: Any) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tasks)]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"all arrays of tasks need one leading axis of one length, got {shapes}")
    return shapes[0][0]


def _wide(dtype: Any) -> Any:
    """Sums of half-precision numbers are kept in single precision."""
    return jnp.promote_types(dtype, jnp.float32)
