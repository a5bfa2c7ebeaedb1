"""Matching Networks: predict the targets of the most similar support rows."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.learners._checks import require_plain_params, require_positive
from maml_jax.learners._heads import at_least_single, by_closed_form
from maml_jax.meta.losses import cross_entropy, mean_squared_error, one_hot
from maml_jax.meta.networks import require_model
from maml_jax.meta.rows import weights_of
from maml_jax.meta.types import Batch, LossFn, MetaLearner, ModelLike, Params, Setting

_LEAST_PROBABILITY = 1e-4
"""Shared by all classes, so that a class without a support row is unlikely, not impossible."""


class MatchingParams(NamedTuple):
    """Meta-parameters.

    Attributes:
        embedding: of the embedding network.
        log_temperature: logarithm of what similarities are divided by.
    """

    embedding: Params
    log_temperature: Float[Array, ""]


class Memory(NamedTuple):
    """A support set as it is compared with.

    Attributes:
        params: the meta-parameters.
        keys: embedded rows of length 1, `[row, embedding]`.
        values: their targets, or their classes one-hot, `[row, value]`.
        weight: of the rows, `[row]`.
    """

    params: MatchingParams
    keys: Float[Array, "row embedding"]
    values: Float[Array, "row value"]
    weight: Float[Array, " row"]


def matching_networks(
    embedding: ModelLike,
    *,
    classes: int | None = None,
    temperature: Setting = 0.3,
    loss: LossFn | None = None,
) -> MetaLearner:
    r"""Make the Matching Networks learner, for classification or regression.

    $$\hat y(x) = \sum_i a(x, x_i)\, y_i, \qquad a(x, x_i) =
      \mathrm{softmax}_i\Bigl(\tfrac1\tau\cos\bigl(f_\theta(x), f_\theta(x_i)\bigr)\Bigr)$$

    With classes, $y_i$ is one-hot and $\hat y$ their probabilities. The regression form is the
    kernel-weighted average of the support targets (Nadaraya-Watson) with the same learned kernel.
    Support and query rows share one embedding, without the paper's full-context embeddings; the
    temperature $\tau$, 1 in the paper, is meta-learned.

    Args:
        embedding: `(init, apply)`, `[n, *input] -> [n, embedding]`.
        classes: how many classes there are; None for regression.
        temperature: what $\tau$ begins with.
        loss: compares predictions with targets, on the query; default `cross_entropy` with classes,
            else `mean_squared_error`.

    Returns:
        A `MetaLearner` that predicts log probabilities `[n, classes]` or targets `[n, targets]`;
        its meta-parameters are `MatchingParams`, its adapted parameters a `Memory`, and its `info`
        is an `AdaptationInfo` of the support rows matched with each other (before: all weights
        equal; after: each row also finds itself).

    Raises:
        ShapeError: from `adapt` and `loss`, if targets are not class numbers.
        ValueError: if there are less than 2 classes, or the temperature is not positive; from
            `adapt`, if it is given a number of steps.

    Reference:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra (2016), Matching Networks for One Shot
        Learning, arXiv:1606.04080, equations 1 and section 2.1.1.
    """
    if classes is not None and classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {classes}")
    require_positive(temperature=temperature)
    compare = loss or (mean_squared_error if classes is None else cross_entropy)

    require_model(embedding)

    def init(key, x, /) -> MatchingParams:
        theta = require_plain_params(embedding.init(key, x))
        return MatchingParams(theta, jnp.log(jnp.asarray(temperature, jnp.float32)))

    def remember(params: MatchingParams, support: Batch) -> Memory:
        keys = _normalize(embedding.apply(params.embedding, support.x))
        if classes is None:
            values = support.y.reshape(len(support.y), math.prod(support.y.shape[1:]))
            values = values.astype(keys.dtype)
        else:
            values = one_hot(support.y, classes, keys.dtype)
        return Memory(params, keys, values, weights_of(support).astype(keys.dtype))

    def predict(adapted: Memory, x, /):
        requests = _normalize(embedding.apply(adapted.params.embedding, x))
        similarity = requests @ adapted.keys.T / jnp.exp(adapted.params.log_temperature)
        mean = _attention(similarity, adapted.weight).astype(requests.dtype) @ adapted.values
        if classes is None:
            return mean
        return jnp.log((1 - _LEAST_PROBABILITY) * mean + _LEAST_PROBABILITY / classes)

    def with_equal_weights(params: MatchingParams, adapted: Memory) -> Memory:
        del params
        return adapted._replace(keys=jnp.zeros_like(adapted.keys))

    return by_closed_form(
        "matching_networks",
        init=init,
        fit=remember,
        prior=with_equal_weights,
        predict=predict,
        loss=compare,
    )


def _attention(similarity: Float[Array, "n row"], weight: Float[Array, " row"]) -> Array:
    """Return the softmax over rows, each as often as its weight says; zeros where none counts."""
    counts = weight > 0
    largest = jnp.max(similarity, axis=-1, where=counts, initial=-jnp.inf, keepdims=True)
    largest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0))
    share = weight * jnp.exp(jnp.where(counts, similarity - largest, 0))
    total = jnp.sum(share, axis=-1, keepdims=True)
    return share / jnp.where(total > 0, total, 1)


def _normalize(points: Float[Array, "row embedding"]) -> Float[Array, "row embedding"]:
    points = at_least_single(points)
    # Inside of the root, so that a row of zeros has a derivative.
    return points / jnp.sqrt(jnp.sum(jnp.square(points), axis=-1, keepdims=True) + 1e-12)
