"""Makes `(init, apply)` pairs of `flax.nnx` modules."""

from collections.abc import Callable, Iterable
from functools import lru_cache, reduce
from operator import getitem
from typing import Any, NamedTuple, NoReturn, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen, nnx

from maml_jax.errors import ShapeError
from maml_jax.listing import join_names
from maml_jax.meta.types import Model
from maml_jax.models._parameters import match_parameters

_State: TypeAlias = Any
"""An `nnx.State`: variables by path."""


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module] | nnx.Module) -> Model:
    """Make a `Model` of a `flax.nnx` module.

    What is random in the module, such as `nnx.Dropout`, is drawn by the key of `apply_with_key`,
    which runs it with `deterministic=False`; `apply` runs it with `deterministic=True`.

    `nnx.BatchNorm(..., use_running_average=False)` normalises by the batch itself, in training and
    in use, as in MAML's experiments: predictions then depend on the other rows of the batch. Its
    running averages are ignored. A row of weight 0 still counts in such averages, as a copy of the
    first row that counts.

    Args:
        make: builds the module from random streams, as in `lambda rngs: Net(10, rngs=rngs)`; each
            key given to `init` then gives other weights. A module that exists already is taken too:
            `init` returns the weights that it holds, whatever the key, which learners that need
            several different networks refuse.

    Returns:
        A `Model` whose parameters are a nested dict of the module's `nnx.Param` variables. They are
        found by their path; list indices may be text, as checkpoints store them.

    Raises:
        ShapeError: from `init`, if the module holds other state, such as running averages in use: a
            pure function cannot carry it. From `apply`, if parameters are missing, unknown or of
            another shape, or x has a width that no layer takes.
        TypeError: if `make` is a `flax.linen` module.
    """
    if isinstance(make, linen.Module):
        raise TypeError(
            f"{type(make).__name__} is a flax.linen module: give it to the learner as it is, or "
            "through from_linen"
        )
    if isinstance(make, nnx.Module):
        module = make
        return from_nnx_shaped(lambda rngs, x: module, random=True)
    return from_nnx_shaped(lambda rngs, x: make(rngs), random=True)


def from_nnx_shaped(
    make: Callable[[nnx.Rngs, jax.ShapeDtypeStruct], nnx.Module], *, random: bool = False
) -> Model:
    """Make a `Model` of a `flax.nnx` module that is built for the input at hand.

    Args:
        make: builds the module from random streams and the input's shape without leading axes of
            examples, so that `x.shape[-1]` is the number of features.
        random: whether something may be random in the module; without it the model has no
            `apply_with_key`.
    """

    def build(key, x) -> nnx.Module:
        return make(nnx.Rngs(key), jax.ShapeDtypeStruct(x.shape[-1:], x.dtype))

    @lru_cache(maxsize=16)
    def structure(features: int, dtype) -> _Structure:
        x = jax.ShapeDtypeStruct((features,), dtype)
        graphs = []

        def record():
            graph, *states = _split(build(jax.random.key(0), x))
            for deterministic in (True, False):
                module = nnx.merge(graph, *states)
                module.set_attributes(deterministic=deterministic, raise_if_not_found=False)
                graphs.append(nnx.split(module)[0])
            return states

        states = jax.eval_shape(record)
        return _Structure(*graphs, *states)

    def init(key, x, /):
        return nnx.to_pure_dict(_split(build(key, x))[1])

    def run(params, x, key):
        x = jnp.asarray(x)
        expected = structure(x.shape[-1], x.dtype)
        of = f"the network for x with {x.shape[-1]} features"
        params = match_parameters(params, nnx.to_pure_dict(expected.params), of)
        return _call(expected, params, x, key)

    def apply(params, x, /):
        return run(params, x, None)

    def apply_with_key(params, x, key, /):
        return run(params, x, key)

    return Model(init, apply, apply_with_key if random else None)


class _Structure(NamedTuple):
    """A module without its numbers.

    Attributes:
        evaluating: its graph with `deterministic=True`.
        training: its graph with `deterministic=False`.
        params: shapes of its parameters.
        streams: of the keys and counters of its random streams.
        averages: of running averages.
    """

    evaluating: nnx.GraphDef
    training: nnx.GraphDef
    params: _State
    streams: _State
    averages: _State


def _split(module: nnx.Module) -> tuple[Any, _State, _State, _State]:
    """Return the module's graph, parameters, random streams and running averages."""
    graph, params, streams, averages, rest = nnx.split(
        module, nnx.Param, nnx.RngState, nnx.BatchStat, ...
    )
    owners = dict(nnx.iter_modules(module))
    carried = [path for path, _ in nnx.to_flat_state(rest)] + [
        path
        for path, _ in nnx.to_flat_state(averages)
        if getattr(owners.get(path[:-1]), "use_running_average", True)
    ]
    if carried:
        _refuse_state(carried)
    return graph, params, streams, averages


def _call(expected: _Structure, params: Any, x: jax.Array, key: Any) -> Any:
    """Run the module; without a key, in evaluation."""
    averages = _fill(expected.averages, lambda _, variable: _zeros(variable))
    before = jax.tree.leaves(nnx.to_pure_dict(averages))
    module = nnx.merge(
        expected.evaluating if key is None else expected.training,
        _fill(expected.params, lambda path, _: reduce(getitem, path, params)),
        _seed(expected.streams, key),
        averages,
    )
    try:
        y_hat = module(x)
    except (TypeError, ValueError) as error:
        _explain_width(module, x, error)
        raise
    flat = nnx.to_flat_state(nnx.state(module, nnx.BatchStat)) if before else ()
    # A layer that normalises by the batch puts other averages in the place of those it had.
    used = [
        path
        for (path, variable), start in zip(flat, before, strict=True)
        if variable.get_value() is start
    ]
    if used:
        _refuse_state(used)
    return y_hat


def _fill(state: _State, value: Callable[[tuple, nnx.Variable], Any]) -> _State:
    """Return a state of the same variables with other values."""
    flat = nnx.to_flat_state(state)
    return nnx.from_flat_state([(path, own.replace(value(path, own))) for path, own in flat])


def _seed(streams: _State, key: Any) -> _State:
    """Begin each stream anew, with a key of its own; without a key, always with the same."""
    if not streams:
        return streams
    key = jax.random.key(0) if key is None else key
    numbers = {path: number for number, (path, _) in enumerate(nnx.to_flat_state(streams))}

    def begin(path: tuple, variable: nnx.Variable) -> jax.Array:
        if not isinstance(variable, nnx.RngKey):
            return _zeros(variable)
        own, shape = jax.random.fold_in(key, numbers[path]), variable.get_value().shape
        return jax.random.split(own, shape) if shape else own

    return _fill(streams, begin)


def _zeros(variable: nnx.Variable) -> jax.Array:
    shape = variable.get_value()
    return jnp.zeros(shape.shape, shape.dtype)


def _refuse_state(paths: Iterable[tuple]) -> NoReturn:
    names = join_names(".".join(map(str, path)) for path in paths)
    raise ShapeError(
        f"the nnx module holds state other than parameters ({names}), which an (init, apply) pair "
        "cannot carry. Write nnx.BatchNorm(..., use_running_average=False) to normalise by the "
        "batch itself, or use a layer without running state, such as nnx.LayerNorm"
    )


def _explain_width(module: nnx.Module, x: jax.Array, error: Exception) -> None:
    """Raise an error that names the widths, if no layer takes the features of x."""
    layers = {
        ".".join(map(str, path)) or type(layer).__name__: getattr(layer, "in_features", None)
        for path, layer in nnx.iter_modules(module)
        if hasattr(layer, "in_features")
    }
    widths = [*layers.values()]
    if widths and all(isinstance(width, int) and width != x.shape[-1] for width in widths):
        takes = join_names(f"{name} takes {width}" for name, width in layers.items())
        raise ShapeError(
            f"x has {x.shape[-1]} features, and no layer of the network takes so many: {takes}"
        ) from error
