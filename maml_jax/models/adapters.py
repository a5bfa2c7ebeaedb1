"""Makes `(init, apply)` pairs of `flax.nnx` modules; `flax.linen` modules need no adapter."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Model


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module] | nnx.Module) -> Model:
    """Make a `Model` of a `flax.nnx` module.

    Args:
        make: builds the module from random streams, as in `lambda rngs: Net(10, rngs=rngs)`; each
            key given to `init` then gives other weights. A module that exists already is taken too:
            `init` returns the weights that it holds, whatever the key.

    Returns:
        A `Model` whose parameters are a nested dict of the module's `nnx.Param` variables.

    Raises:
        ShapeError: from `init`, if the module holds state other than parameters, such as the
            running averages of `nnx.BatchNorm` or the streams of `nnx.Dropout`: a pure function
            cannot carry it.
    """
    if isinstance(make, nnx.Module):
        module = make
        return from_nnx_shaped(lambda rngs, x: module)
    return from_nnx_shaped(lambda rngs, x: make(rngs))


def from_nnx_shaped(make: Callable[[nnx.Rngs, jax.ShapeDtypeStruct], nnx.Module]) -> Model:
    """Make a `Model` of a `flax.nnx` module that is built for the input at hand.

    Args:
        make: builds the module from random streams and the input's shape without leading axes of
            examples, so that `x.shape[-1]` is the number of features.
    """

    def split(key, x):
        graph, params, rest = nnx.split(make(nnx.Rngs(key), x), nnx.Param, ...)
        if rest:
            names = ", ".join(".".join(map(str, path)) for path, _ in nnx.to_flat_state(rest))
            raise ShapeError(
                f"the nnx module holds state other than parameters ({names}), which an "
                "(init, apply) pair cannot carry. Use a layer without running state, such as "
                "nnx.LayerNorm"
            )
        return graph, params

    @lru_cache(maxsize=16)
    def structure(features: int, dtype):
        x = jax.ShapeDtypeStruct((features,), dtype)
        graphs = []

        def record():
            graph, params = split(jax.random.key(0), x)
            graphs.append(graph)
            return params

        params = jax.eval_shape(record)
        return graphs[0], params

    def init(key, x, /):
        _, params = split(key, jax.ShapeDtypeStruct(x.shape[-1:], x.dtype))
        return nnx.to_pure_dict(params)

    def apply(params, x, /):
        x = jnp.asarray(x)
        graph, state = structure(x.shape[-1], x.dtype)
        state = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(params))
        return nnx.merge(graph, state)(x)

    return Model(init, apply)
