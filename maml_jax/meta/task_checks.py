"""Refusals of meta-batches, samplers and states that would train something else than meant."""

import logging
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, Key

from maml_jax.errors import ShapeError, TaskError
from maml_jax.meta.types import Batch, InitFn, MetaLearner, Task

_AXIS = (
    "every array of a meta-batch has a leading task axis: x [task, n, *features], "
    "y [task, n, *targets]"
)


_log = logging.getLogger("maml_jax")

_KNOWN: WeakKeyDictionary[Any, dict[Hashable, Any]] = WeakKeyDictionary()
_MOST_KNOWN = 64


def require_tasks(tasks: Any, learner: MetaLearner) -> jax.ShapeDtypeStruct:
    """Refuse what is no meta-batch, such as one task without a task axis.

    Args:
        tasks: a `Task` of arrays, or of their shapes.
        learner: says, where shapes alone do not, what a row is: its parameters fit any number of
            rows, so an axis that they depend on is none of rows.

    Returns:
        The shape of the query inputs of one task, as `init` expects them.

    Raises:
        ShapeError: if tasks are a list, or the task axis is missing, or sets do not fit together.
        TypeError: if it is nothing of the kind.
    """
    each: Any = tasks if isinstance(tasks, list | tuple) else ()
    if any(isinstance(task, Task) for task in each):
        raise ShapeError(
            f"this is a {type(tasks).__name__} of {len(each)} tasks, and a meta-batch is one Task "
            "of stacked arrays: write stack_tasks(tasks), which also pads sets of different sizes"
        )
    batches = _batches_of(tasks)
    leaves = jax.tree_util.tree_leaves_with_path(tasks)
    shapes = {jax.tree_util.keystr(path).lstrip("."): np.shape(leaf) for path, leaf in leaves}
    said = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    if len({shape[:1] for shape in shapes.values()}) > 1 or () in shapes.values():
        raise ShapeError(
            f"{_AXIS}; here its length differs: {said}. Give one task an axis of length 1 with "
            "jax.tree.map(lambda a: a[None], task)"
        )
    for name, batch in batches.items():
        x, y = np.shape(batch.x), np.shape(batch.y)
        if min(len(x), len(y)) < 2 or x[1] != y[1]:
            raise ShapeError(
                f"{_AXIS}; here {name}.x and {name}.y differ in their number of rows, or have no "
                f"axis of rows: {said}. If this is one task, the task axis is missing: add it with "
                "jax.tree.map(lambda a: a[None], task)"
            )
        if batch.weight is not None and np.shape(batch.weight) != y[:2]:
            raise ShapeError(f"{name}.weight must be [task, n], one number a row: {said}")
    query = batches["query"].x
    x = jax.ShapeDtypeStruct(np.shape(query)[1:], jnp.result_type(query))
    asked = "rows", x.shape, x.dtype
    if _remember(learner.init, asked, lambda: _depends_on_rows(learner.init, x.shape, x.dtype)):
        raise ShapeError(
            f"{_AXIS}; here it is missing: the rows of one task would become tasks of their own: "
            f"{said}. Add it with jax.tree.map(lambda a: a[None], task)"
        )
    return x


def _batches_of(tasks: Any) -> dict[str, Any]:
    """Return the sets of a meta-batch by name; support sets may be a tuple, a `Batch` a level."""
    support, query = (getattr(tasks, name, None) for name in ("support", "query"))
    if isinstance(support, Batch) or not isinstance(support, tuple):
        batches = {"support": support, "query": query}
    else:
        batches = {f"support[{index}]": own for index, own in enumerate(support)} | {"query": query}
    for name, batch in batches.items():
        if not isinstance(batch, Batch):
            raise TypeError(
                "a meta-batch is a Task(support, query) of two Batch(x, y), or what a sampler "
                f"returns; got {type(tasks).__name__}"
                + (f" whose {name} is {type(batch).__name__}" if isinstance(tasks, Task) else "")
            )
    return batches


def _remember(function: Any, asked: Hashable, answer: Callable[[], Any]) -> Any:
    """Return an answer about a learner, found once while that function of it is in use."""
    try:
        known = _KNOWN.setdefault(function, {})
    except TypeError:  # not every callable can be referred to weakly
        return answer()
    if asked not in known:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known[asked] = answer()
    return known[asked]


def _depends_on_rows(init: InitFn, shape: tuple[int, ...], dtype: Any) -> bool:
    """Say whether fresh parameters depend on the first axis of `x`, which then holds no rows."""

    def shapes(rows):
        x = jax.ShapeDtypeStruct((rows, *shape[1:]), dtype)
        return jax.tree.map(jnp.shape, jax.eval_shape(init, jax.random.key(0), x))

    try:
        usual = shapes(shape[0])
    except Exception:  # whatever a network raises; making the parameters will raise it again
        return False
    try:
        return usual != shapes(shape[0] + 1)
    except Exception:  # one row more is more than it can take: its parameters are of so many rows
        return True


def warn_without_keys(learner: MetaLearner, tasks: Task) -> None:
    """Warn, once for a learner, that nothing is random where training tasks have no keys."""
    if not learner.random or getattr(tasks, "key", None) is not None:
        return
    said = []
    _remember(learner.loss, "keys", lambda: said.append(True))
    if said:
        _log.warning(
            "the network has something random in training, such as dropout, and training tasks "
            "have no keys: it is off. Give each task one, as in "
            "tasks._replace(key=jax.random.split(key, number_of_tasks))"
        )


def require_state(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    state: Any,
    x: jax.ShapeDtypeStruct,
) -> None:
    """Refuse the state of another learner, network or optimizer.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        state: a `MetaState`, arrays or shapes.
        x: the shape of the query inputs of one task.

    Raises:
        ShapeError: naming the first array that differs.
        TypeError: if it is no `MetaState`.
    """
    if not all(hasattr(state, name) for name in ("params", "opt_state", "step")):
        raise TypeError(
            f"a state is a MetaState, from meta_init or training; got {type(state).__name__}"
        )
    leaves, structure = jax.tree.flatten((state.params, state.opt_state))
    shapes = tuple(np.shape(leaf) for leaf in leaves)
    asked = optimizer, structure, shapes, (x.shape, x.dtype)
    _remember(learner.init, asked, lambda: _require_state(learner.init, *asked))


def _require_state(init, optimizer, structure, shapes, x) -> None:
    leaves = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    params, opt_state = jax.tree.unflatten(structure, leaves)
    try:
        fresh = jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(*x))
        fresh_opt_state = jax.eval_shape(optimizer.init, fresh)
    except Exception:  # a network that cannot be made for such inputs is refused where it is used
        return
    for name, found, wanted, owner in (
        ("params", params, fresh, "learner"),
        ("opt_state", opt_state, fresh_opt_state, "optimizer"),
    ):
        difference = first_difference(found, wanted)
        if difference is not None:
            raise ShapeError(
                f"the state belongs to another {owner}: state.{name}{difference} for inputs of "
                f"shape {list(x[0])}. Begin with meta_init(learner, optimizer, key, x)"
            )


def first_difference(found: Any, wanted: Any) -> str | None:
    """Say in which array two pytrees first differ in names or shapes; None where they do not."""

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): list(np.shape(leaf)) for path, leaf in leaves}

    found, wanted = shapes(found), shapes(wanted)
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            has = f"has shape {found[name]}" if name in found else "is missing"
            needs = f"should have {wanted[name]}" if name in wanted else "should not be there"
            return f"{name} {has} and {needs}"
    return None


def sampled_shapes(sampler: Any, key: Key[Array, ""]) -> Any:
    """Trace a sampler and return the shapes of its tasks.

    Raises:
        TaskError: if what it returns does not depend on its key: it is traced once, and would
            return the same tasks for ever. One that holds arrays of its own, such as a
            `jax.tree_util.Partial` of a meta-batch, may do so.
    """
    traced, shapes = jax.make_jaxpr(lambda own, key: own(key), return_shape=True)(sampler, key)
    own = len(jax.tree.leaves(sampler))
    if not own and not any(_depending(traced.jaxpr, [True] * len(traced.jaxpr.invars))):
        raise TaskError(
            "the sampler ignores its key: it is called once, while it is traced, and every "
            "meta-step would meet the tasks of that call. Draw them with jax.random from the key, "
            "or give training(...) an iterator of tasks, which is asked for each meta-step"
        )
    return shapes


def _depending(jaxpr: Jaxpr, inputs: list[bool]) -> list[bool]:
    """Say which results of a traced function depend on chosen inputs."""
    depending = {var for var, chosen in zip(jaxpr.invars, inputs, strict=True) if chosen}

    def depends(var: Any) -> bool:
        return not isinstance(var, Literal) and var in depending

    for equation in jaxpr.eqns:
        chosen = [depends(var) for var in equation.invars]
        inner = equation.params.get("jaxpr")
        inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else None
        called = equation.primitive.name in ("jit", "pjit", "closed_call") and inner is not None
        results = _depending(inner, chosen) if called else [any(chosen)] * len(equation.outvars)  # pyright: ignore[reportArgumentType]
        depending.update(v for v, r in zip(equation.outvars, results, strict=True) if r)
    return [depends(var) for var in jaxpr.outvars]
