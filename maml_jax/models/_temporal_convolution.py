"""The temporal convolutional network."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.meta.types import Model
from maml_jax.models.sequences import Reader, sequence_model


class CausalBlock(nnx.Module):
    """A dilated causal convolution with an activation, added to what it reads."""

    def __init__(
        self,
        features: int,
        width: int,
        kernel: int,
        dilation: int,
        activation: Callable[[jax.Array], jax.Array],
        rngs: nnx.Rngs,
    ):
        self.lags = tuple(dilation * lag for lag in range(kernel))
        self.activation = activation
        self.convolution = nnx.Linear(kernel * features, width, rngs=rngs)
        self.passed = None if features == width else nnx.Linear(features, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        # One product with the lagged inputs side by side: under `vmap` over parameters it stays a
        # batch of products, where a convolution would become a grouped one.
        lagged = jnp.concatenate([_lag(x, lag) for lag in self.lags], axis=-1)
        passed = x if self.passed is None else self.passed(x)
        return passed + self.activation(self.convolution(lagged))


class TemporalConvolution(Reader):
    """Causal blocks, each of which looks back twice as far as the one before."""

    def __init__(
        self,
        features: int,
        channels: Sequence[int],
        kernel: int,
        outputs: int,
        activation: Callable[[jax.Array], jax.Array],
        rngs: nnx.Rngs,
    ):
        sizes = (features, *channels)
        self.blocks = nnx.List(
            [
                CausalBlock(a, b, kernel, 2**level, activation, rngs)
                for level, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
            ]
        )
        self.head = nnx.Linear(sizes[-1], outputs, rngs=rngs)

    def states(self, x: jax.Array) -> jax.Array:
        """Return the last block's channels at every bar, `[n, bar, channel]`."""
        for block in self.blocks:
            x = block(x)
        return x


def temporal_convolution(
    channels: Sequence[int] = (32, 32, 32),
    kernel: int = 3,
    outputs: int = 1,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu,
) -> Model:
    r"""Make a temporal convolutional network.

    $$h^{(l)}_t = P h^{(l-1)}_t + \phi\Bigl(\sum_{k=0}^{K-1} W_k h^{(l-1)}_{t - 2^l k} + b\Bigr),
      \qquad l = 0, 1, \dots$$

    with $h^{(-1)} = x$, zeros before the first bar, and $P$ the identity where widths agree.
    Outputs are linear in the last bar's channels, which see the last
    $1 + (K - 1)(2^{\text{blocks}} - 1)$ bars: 15 by default.

    Args:
        channels: width of each block.
        kernel: how many bars $K$ a block reads.
        outputs: number of outputs.
        activation: $\phi$; a smooth one, as for `mlp`.

    Returns:
        A `Model`: `[n, bar, feature] -> [n, outputs]`.

    Raises:
        ValueError: if there is no block, or a width or the kernel is below 1.

    Reference:
        Bai, Kolter, Koltun (2018), An Empirical Evaluation of Generic Convolutional and Recurrent
        Networks for Sequence Modeling, arXiv:1803.01271; here with one convolution to a block.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax.models import temporal_convolution
    >>> model, x = temporal_convolution((8, 8)), jnp.ones((5, 16, 3))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (5, 1)
    """
    if not channels or min(*channels, kernel, outputs) < 1:
        raise ValueError(
            "temporal_convolution needs at least one block, all widths and the kernel >= 1, got "
            f"channels={channels!r}, kernel={kernel} and outputs={outputs}"
        )
    return sequence_model(
        lambda rngs, features: TemporalConvolution(
            features, tuple(channels), kernel, outputs, activation, rngs
        )
    )


def _lag(x: jax.Array, lag: int) -> jax.Array:
    """Shift bars by `lag`; zeros come in."""
    bars = x.shape[-2]
    room = [(0, 0)] * (x.ndim - 2) + [(min(lag, bars), 0), (0, 0)]
    return jnp.pad(x[..., : max(0, bars - lag), :], room)
