"""The transformer."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from maml_jax.meta.types import Model
from maml_jax.models.sequences import Reader, sequence_model

_ALL = slice(None)
_LAST = slice(-1, None)


class TransformerLayer(nnx.Module):
    """Causal attention and a feed-forward network, each behind a normalisation and added."""

    def __init__(
        self, width: int, heads: int, activation: Callable[[jax.Array], jax.Array], rngs: nnx.Rngs
    ):
        self.heads = heads
        self.activation = activation
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.query_key_value = nnx.Linear(width, 3 * width, rngs=rngs)
        self.mixed = nnx.Linear(width, width, rngs=rngs)
        self.feed_norm = nnx.LayerNorm(width, rngs=rngs)
        self.feed = nnx.Linear(width, 2 * width, rngs=rngs)
        self.fed = nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array, requested: slice = _ALL) -> jax.Array:
        attended = self._attend(self.attention_norm(x), requested)
        x = x[..., requested, :] + self.mixed(attended)
        return x + self.fed(self.activation(self.feed(self.feed_norm(x))))

    def _attend(self, x: jax.Array, requested: slice) -> jax.Array:
        *lead, bars, width = x.shape
        split = self.query_key_value(x).reshape(*lead, bars, 3, self.heads, width // self.heads)
        query, key, value = (split[..., part, :, :] for part in range(3))
        query = query[..., requested, :, :]
        scores = jnp.einsum("...ihd,...jhd->...hij", query, key) / query.shape[-1] ** 0.5
        seen = jnp.tril(jnp.ones((bars, bars), bool))[requested]
        scores: Any = jnp.where(seen, scores, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1)
        return jnp.einsum("...hij,...jhd->...ihd", weights, value).reshape(
            *lead, query.shape[-3], width
        )


class Transformer(Reader):
    """Layers over embedded bars and their ages."""

    def __init__(
        self,
        features: int,
        width: int,
        heads: int,
        layers: int,
        outputs: int,
        activation: Callable[[jax.Array], jax.Array],
        rngs: nnx.Rngs,
    ):
        self.embedding = nnx.Linear(features, width, rngs=rngs)
        self.layers = nnx.List(
            [TransformerLayer(width, heads, activation, rngs) for _ in range(layers)]
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, outputs, rngs=rngs)

    def states(self, x: jax.Array) -> jax.Array:
        """Return the normalised last layer at every bar, `[n, bar, width]`."""
        return self._read(x, _ALL)

    def last_state(self, x: jax.Array) -> jax.Array:
        """Return the same at the last bar, `[n, width]`, for less work."""
        return self._read(x, _LAST)[..., 0, :]

    def _read(self, x: jax.Array, requested: slice) -> jax.Array:
        x = self.embedding(x)
        x = x + _age_waves(*x.shape[-2:]).astype(x.dtype)
        for layer in self.layers[:-1]:
            x = layer(x)
        return self.norm(self.layers[-1](x, requested))


def transformer(
    width: int = 32,
    heads: int = 2,
    layers: int = 2,
    outputs: int = 1,
    *,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.gelu,
) -> Model:
    r"""Make a small causal transformer.

    Each layer computes $x \leftarrow x + A(N(x))$ and $x \leftarrow x + F(N(x))$ with causal
    attention $A$, a feed-forward network $F$ of twice the width, and layer normalisations $N$.
    Bars are distinguished by sinusoids of their age, counted back from the last bar: the latest bar
    looks the same in sequences of every length. Outputs are linear in the last bar's state.

    Args:
        width: of the state of a bar.
        heads: attention heads, which share the width.
        layers: number of layers.
        outputs: number of outputs.
        activation: of the feed-forward networks; a smooth one, as for `mlp`.

    Returns:
        A `Model`: `[n, bar, feature] -> [n, outputs]`.

    Raises:
        ValueError: if a size is below 1, or the width is odd or no multiple of `heads`.

    Reference:
        Vaswani et al. (2017), Attention Is All You Need, arXiv:1706.03762; normalisation first:
        Xiong et al. (2020), On Layer Normalization in the Transformer Architecture,
        arXiv:2002.04745.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax.models import transformer
    >>> model, x = transformer(8, layers=1), jnp.ones((5, 16, 3))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (5, 1)
    """
    if min(width, heads, layers, outputs) < 1 or width % heads or width % 2:
        raise ValueError(
            "transformer needs sizes >= 1 and an even width that its heads can share, got "
            f"width={width}, heads={heads}, layers={layers} and outputs={outputs}"
        )
    return sequence_model(
        lambda rngs, features: Transformer(
            features, width, heads, layers, outputs, activation, rngs
        )
    )


def _age_waves(bars: int, width: int) -> jax.Array:
    """Return sines and cosines of each bar's age, `[bar, width]`, the last bar's age being 0."""
    age = jnp.arange(bars - 1, -1, -1)[:, None]
    angle = age / 10_000.0 ** (jnp.arange(0, width, 2) / width)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)
