"""The multilayer perceptron."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.meta.types import Model
from maml_jax.models._stochastic import require_rate
from maml_jax.models.adapters import from_nnx_shaped


class MLP(nnx.Module):
    """Dense layers with an activation between them."""

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[jax.Array], jax.Array],
        kernel_init: nnx.Initializer,
        rate: float,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.layers = nnx.List(
            [
                nnx.Linear(a, b, kernel_init=kernel_init, rngs=rngs)
                for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            ]
        )
        self.dropout = nnx.Dropout(rate, rngs=rngs) if rate else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
            x = x if self.dropout is None else self.dropout(x)
        return self.layers[-1](x)


def mlp(
    features: Sequence[int] = (64, 64, 1),
    *,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    kernel_init: nnx.Initializer | None = None,
    dropout: float = 0.0,
) -> Model:
    """Make a multilayer perceptron.

    Args:
        features: the width of each layer; the last is the number of outputs. The number of inputs
            comes from the `x` given to `init`.
        activation: applied after every layer but the last. A smooth one: at the noise of market
            returns ReLU loses a third of the attainable skill.
        kernel_init: `(key, shape, dtype) -> array`, draws the weights of every layer; any of
            `jax.nn.initializers`. Default: normal with variance 1 / inputs. Biases begin at 0.
        dropout: share of each hidden layer that is dropped in training, in [0, 1), where tasks have
            keys (`Task.key`); the initial weights are the same with it.

    Returns:
        A `Model`: `[n, inputs] -> [n, features[-1]]`.

    Raises:
        ValueError: if `features` is empty or holds a width below 1, or `dropout` is out of bounds.
    """
    if not features or min(features) < 1:
        raise ValueError(f"mlp needs at least one layer, all of width >= 1, got {features!r}")
    require_rate(dropout)
    draw = jax.nn.initializers.lecun_normal() if kernel_init is None else kernel_init

    def make(rngs: nnx.Rngs, x: jax.ShapeDtypeStruct) -> MLP:
        return MLP((x.shape[-1], *features), activation, draw, dropout, rngs)

    return from_nnx_shaped(make, random=dropout > 0)
