"""Prototypical Networks: classify by the nearest class mean in a meta-learned space."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.learners._checks import require_plain_params
from maml_jax.learners._heads import at_least_single, by_closed_form
from maml_jax.meta.losses import cross_entropy, one_hot
from maml_jax.meta.networks import require_model
from maml_jax.meta.types import Batch, LossFn, MetaLearner, ModelLike, Params


class Prototypes(NamedTuple):
    """An embedding with the centres of a task's classes.

    Attributes:
        embedding: parameters of the embedding network.
        centres: mean embedding of each class, `[class, embedding]`.
    """

    embedding: Params
    centres: Float[Array, "class embedding"]


def prototypical_networks(
    embedding: ModelLike, *, classes: int, loss: LossFn = cross_entropy
) -> MetaLearner:
    r"""Make the Prototypical Networks learner, for classification.

    $$c_k = \frac{1}{|S_k|}\sum_{x \in S_k} f_\theta(x), \qquad
      \log p(y = k \mid x) = -\lVert f_\theta(x) - c_k\rVert^2 + \text{const}$$

    which is the linear classifier with weights $2c_k$ and biases $-\lVert c_k\rVert^2$ on the
    embedding. The meta-parameters are those of the embedding.

    There is no regression form: a prototype is the mean of a class. For returns, wrap it in
    `direction`, whose classes are down, flat and up.

    Args:
        embedding: `(init, apply)`, `[n, *input] -> [n, embedding]`.
        classes: how many classes there are; targets are their numbers, integers `[n]` or `[n, 1]`.
            A class without a row in the support set stands at the mean of all rows.
        loss: compares logits `[n, classes]` with targets, on the query.

    Returns:
        A `MetaLearner` that predicts logits; its adapted parameters are `Prototypes` and its `info`
        is an `AdaptationInfo` (before: of all classes at one point).

    Raises:
        ShapeError: from `adapt` and `loss`, if targets are not class numbers.
        ValueError: if there are less than 2 classes; from `adapt`, if it is given a number of
            steps.

    Reference:
        Snell, Swersky, Zemel (2017), Prototypical Networks for Few-shot Learning, arXiv:1703.05175,
        equations 1, 2 and 8.
    """
    if classes < 2:
        raise ValueError(f"a classifier needs at least 2 classes, got {classes}")

    require_model(embedding)

    def init(key, x, /) -> Params:
        return require_plain_params(embedding.init(key, x))

    def find_centres(theta: Params, support: Batch) -> Prototypes:
        points = at_least_single(embedding.apply(theta, support.x))
        member = one_hot(support.y, classes, points.dtype)
        if support.weight is not None:
            member = member * support.weight.astype(points.dtype)[:, None]
        count = member.sum(axis=0)[:, None]
        total, mean = count.sum(), member.sum(axis=1) @ points
        centres = member.T @ points / jnp.where(count > 0, count, 1)
        return Prototypes(
            theta, jnp.where(count > 0, centres, mean / jnp.where(total > 0, total, 1))
        )

    def predict(adapted: Prototypes, x, /):
        points = at_least_single(embedding.apply(adapted.embedding, x))
        return -jnp.sum(jnp.square(points[:, None] - adapted.centres), axis=-1)

    def at_one_point(theta: Params, adapted: Prototypes) -> Prototypes:
        del theta
        return adapted._replace(centres=jnp.zeros_like(adapted.centres))

    return by_closed_form(
        "prototypical_networks",
        init=init,
        fit=find_centres,
        prior=at_one_point,
        predict=predict,
        loss=loss,
    )
