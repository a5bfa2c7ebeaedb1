"""Makes `(init, apply)` pairs of `flax.linen` modules that need more than parameters and inputs."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import is_
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import core
from flax import linen as nn

from maml_jax.errors import ShapeError
from maml_jax.listing import join_names
from maml_jax.meta.networks import require_model
from maml_jax.meta.types import Model
from maml_jax.models._parameters import match_parameters


def from_linen(
    module: nn.Module,
    *,
    rngs: Sequence[str] = (),
    mutable: Sequence[str] = (),
    train_kwargs: Mapping[str, Any] | None = None,
    eval_kwargs: Mapping[str, Any] | None = None,
) -> Model:
    """Make a `Model` of a `flax.linen` module, with dropout or batch normalisation.

    A module that needs neither fits as it is.

    Args:
        module: an instance, as in `Net(width=10)`.
        rngs: names of the streams that receive keys in `apply_with_key`, such as `("dropout",)`.
        mutable: names of collections that the module computes from the batch, such as
            `("batch_stats",)` where batch normalisation uses the batch itself. They begin at 0 in
            each call and are thrown away; predictions then depend on the other rows of the batch. A
            row of weight 0 still counts in such averages, as a copy of the first row that counts.
        train_kwargs: of the module's call in `apply_with_key`, as in `{"deterministic": False}`.
        eval_kwargs: of the module's call in `init` and `apply`, as in `{"deterministic": True}`.

    Returns:
        A `Model` whose parameters are the collection `params` alone.

    Raises:
        ShapeError: from `init`, if the module has collections that are not named. From `apply`, if
            parameters are missing, unknown or of another shape, or running averages are in use.
        TypeError: if `module` is no `flax.linen` module, or a class of them.

    >>> import jax, jax.numpy as jnp
    >>> import flax.linen as nn
    >>> from maml_jax.models import from_linen
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, train=False):
    ...         x = nn.Dropout(0.2, deterministic=not train)(nn.tanh(nn.Dense(8)(x)))
    ...         return nn.Dense(1)(x)
    >>> model = from_linen(Net(), rngs=["dropout"], train_kwargs={"train": True})
    >>> params = model.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> model.apply_with_key(params, jnp.ones((5, 3)), jax.random.key(1)).shape
    (5, 1)
    """
    require_model(module)
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_linen takes a flax.linen module, got {type(module).__name__}")
    streams = (rngs,) if isinstance(rngs, str) else tuple(rngs)
    computed = (mutable,) if isinstance(mutable, str) else tuple(mutable)

    def keys(key) -> dict[str, Any]:
        return {name: jax.random.fold_in(key, place) for place, name in enumerate(streams)}

    def collections(key, x) -> dict[str, Any]:
        made = module.init({"params": key, **keys(key)}, x, **(eval_kwargs or {}))
        made = {"params": {}, **core.unfreeze(made)}
        others = made.keys() - {"params", *computed}
        if others:
            _refuse_state(others, "mutable=" + repr(tuple(sorted({*others, *computed}))))
        return made

    @lru_cache(maxsize=16)
    def structure(shape, dtype) -> dict[str, Any]:
        x = jax.ShapeDtypeStruct(shape, dtype)
        return jax.eval_shape(collections, jax.random.key(0), x)

    def init(key, x, /):
        return collections(key, x)["params"]

    def run(params, x, options, drawn):
        x = jnp.asarray(x)
        expected = dict(structure(x.shape, x.dtype))
        params = match_parameters(
            params, expected.pop("params"), f"the network for x of shape {x.shape}"
        )
        state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), expected)
        y_hat, after = module.apply(
            {"params": params, **state}, x, rngs=drawn, mutable=computed, **options
        )
        # A layer that normalises by the batch puts other averages in the place of those it had.
        for name, own in state.items():
            if any(map(is_, *map(jax.tree.leaves, (own, after[name])))):
                _refuse_state([name], "use_running_average=False, in eval_kwargs too,")
        return y_hat

    def apply(params, x, /):
        return run(params, x, eval_kwargs or {}, {})

    def apply_with_key(params, x, key, /):
        return run(params, x, train_kwargs or {}, keys(key))

    return Model(init, apply, apply_with_key)


def _refuse_state(names: Iterable[str], remedy: str) -> NoReturn:
    raise ShapeError(
        f"the module reads collections beside its parameters: {join_names(sorted(names))}; an "
        f"(init, apply) pair cannot carry them. Write {remedy} where they are computed from the "
        "batch itself, or use layers without running state, such as LayerNorm"
    )
