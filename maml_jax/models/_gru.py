"""The gated recurrent unit."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.meta.types import Model
from maml_jax.models.sequences import Reader, sequence_model


class GRULayer(nnx.Module):
    """One layer: a state of `width` numbers, taken along the sequence."""

    def __init__(self, features: int, width: int, rngs: nnx.Rngs):
        self.inputs = nnx.Linear(features, 3 * width, rngs=rngs)
        # The three gates are three square matrices, each of which keeps the size of the state.
        self.recurrent = nnx.Linear(width, 3 * width, kernel_init=_orthogonal_blocks, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = jnp.moveaxis(self.inputs(x), -2, 0)

        def step(h, gates):
            h = _next(h, gates, self.recurrent(h))
            return h, h

        start = jnp.zeros((*inputs.shape[1:-1], inputs.shape[-1] // 3), inputs.dtype)
        return jnp.moveaxis(jax.lax.scan(step, start, inputs)[1], 0, -2)


class GRU(Reader):
    """Layers of gated recurrent units."""

    def __init__(self, features: int, widths: Sequence[int], outputs: int, rngs: nnx.Rngs):
        sizes = (features, *widths)
        self.layers = nnx.List(
            [GRULayer(a, b, rngs) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
        )
        self.head = nnx.Linear(sizes[-1], outputs, rngs=rngs)

    def states(self, x: jax.Array) -> jax.Array:
        """Return the last layer's state at every bar, `[n, bar, width]`."""
        for layer in self.layers:
            x = layer(x)
        return x


def gru(hidden: int | Sequence[int] = 32, outputs: int = 1) -> Model:
    r"""Make a network of gated recurrent units.

    $$r_t = \sigma(W_r x_t + U_r h_{t-1}), \qquad z_t = \sigma(W_z x_t + U_z h_{t-1})$$
    $$n_t = \tanh(W_n x_t + r_t \odot U_n h_{t-1}), \qquad
      h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1}$$

    with biases left out, $h_0 = 0$, the reset gate behind the product with $U_n$ (as fast libraries
    have it; the paper has it before), and outputs that are linear in the last bar's $h$.

    Args:
        hidden: width of the state; several widths make layers, each of which reads the states of
            the one before.
        outputs: number of outputs.

    Returns:
        A `Model`: `[n, bar, feature] -> [n, outputs]`.

    Raises:
        ValueError: if a width is below 1.

    Reference:
        Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder for Statistical
        Machine Translation, arXiv:1406.1078.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax.models import gru
    >>> model, x = gru(8), jnp.ones((5, 16, 3))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (5, 1)
    """
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not widths or min(*widths, outputs) < 1:
        raise ValueError(f"gru needs widths >= 1, got hidden={hidden!r} and outputs={outputs}")
    return sequence_model(lambda rngs, features: GRU(features, widths, outputs, rngs))


def _next(h: jax.Array, inputs: jax.Array, recurrent: jax.Array) -> jax.Array:
    width = h.shape[-1]
    gates = jax.nn.sigmoid(inputs[..., : 2 * width] + recurrent[..., : 2 * width])
    reset, keep = gates[..., :width], gates[..., width:]
    new = jnp.tanh(inputs[..., 2 * width :] + reset * recurrent[..., 2 * width :])
    return new + keep * (h - new)


def _orthogonal_blocks(key, shape, dtype=jnp.float32) -> jax.Array:
    width, all_widths = shape
    square = jax.nn.initializers.orthogonal()
    keys = jax.random.split(key, all_widths // width)
    return jnp.concatenate([square(each, (width, width), dtype) for each in keys], axis=1)
