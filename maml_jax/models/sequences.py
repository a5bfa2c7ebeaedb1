"""What models that read several bars have in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.errors import ShapeError
from maml_jax.meta.types import Model
from maml_jax.models._apply import change_apply
from maml_jax.models.adapters import from_nnx_shaped


class Reader(nnx.Module):
    """Reads sequences bar by bar; what it knows at the last bar makes the outputs.

    Attributes:
        head: makes the outputs.
    """

    head: nnx.Linear

    def states(self, x: jax.Array) -> jax.Array:
        """Return what is known at every bar, of this bar and those before it.

        Args:
            x: `[n, bar, feature]`.

        Returns:
            `[n, bar, width]`.
        """
        raise NotImplementedError  # each network has its own

    def last_state(self, x: jax.Array) -> jax.Array:
        """Return what is known at the last bar, `[n, width]`."""
        return self.states(x)[..., -1, :]

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.last_state(x))


def sequence_model(make: Callable[[nnx.Rngs, int], Reader]) -> Model:
    """Make a `Model` of a reader.

    Args:
        make: builds it from random streams and the number of features of a bar.

    Returns:
        A `Model`: `[n, bar, feature] -> [n, outputs]`, for any number of bars. `init` and `apply`
        raise a `ShapeError` where an axis of bars is missing.
    """
    model = from_nnx_shaped(lambda rngs, x: make(rngs, x.shape[-1]))

    def init(key, x, /):
        return model.init(key, _sequences(x))

    def change(apply: Callable[..., Any]) -> Callable[..., Any]:
        return lambda params, x, *key: apply(params, _sequences(x), *key)

    return change_apply(model, change)._replace(init=init)


def _sequences(x):
    x = jnp.asarray(x)
    if x.ndim < 3 or x.shape[-2] == 0:
        raise ShapeError(
            f"a sequence model reads [n, bar, feature] with at least one bar, and x has shape "
            f"{x.shape}; sequences of a Panel's rows come with length=..., as in "
            "asset_family(panel, length=16, ...)"
        )
    return x
