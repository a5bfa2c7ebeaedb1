"""The multilayer perceptron."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.meta.types import Model
from maml_jax.models.adapters import from_nnx_shaped


class MLP(nnx.Module):
    """Dense layers with an activation between them."""

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[jax.Array], jax.Array],
        kernel_init: nnx.Initializer,
        rngs: nnx.Rngs,
    ):
        self.activation = activation
        self.layers = nnx.List(
            [
                nnx.Linear(a, b, kernel_init=kernel_init, rngs=rngs)
                for a, b in zip(sizes[:-1], sizes[1:], strict=True)
            ]
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def mlp(
    features: Sequence[int] = (64, 64, 1),
    *,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
    kernel_init: nnx.Initializer | None = None,
) -> Model:
    """Make a multilayer perceptron.

    Args:
        features: the width of each layer; the last is the number of outputs. The number of inputs
            comes from the `x` given to `init`.
        activation: applied after every layer but the last. A smooth one: at the noise of market
            returns ReLU loses a third of the attainable skill.
        kernel_init: `(key, shape, dtype) -> array`, draws the weights of every layer; any of
            `jax.nn.initializers`. Default: normal with variance 1 / inputs. Biases begin at 0.

    Returns:
        A `Model`: `[n, inputs] -> [n, features[-1]]`.

    Raises:
        ValueError: if `features` is empty or holds a width below 1.
    """
    if not features or min(features) < 1:
        raise ValueError(f"mlp needs at least one layer, all of width >= 1, got {features!r}")
    draw = jax.nn.initializers.lecun_normal() if kernel_init is None else kernel_init
    return from_nnx_shaped(lambda rngs, x: MLP((x.shape[-1], *features), activation, draw, rngs))
