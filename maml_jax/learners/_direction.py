"""Direction: lets a classifier learn from returns, and predict with their sign."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from maml_jax.errors import ShapeError
from maml_jax.learners._checks import require_positive
from maml_jax.meta.arguments import require_learner
from maml_jax.meta.rows import fill_absent, never_empty, weighted_mean
from maml_jax.meta.types import Batch, MetaLearner, Params, Setting, Task

THRESHOLD = 0.4
"""In root mean squares of a support set: about a third of normal returns lies within."""

CLASSES = ("down", "flat", "up")


def direction(classifier: MetaLearner, *, threshold: Setting = THRESHOLD) -> MetaLearner:
    r"""Make a learner of returns of a classifier with the classes down, flat and up.

    $$\hat y(x) = p(\text{up} \mid x) - p(\text{down} \mid x)$$

    so that what it predicts can be traded, and compared, as any other prediction: its sign is a
    side and its size the confidence, between -1 and 1. It is not a return.

    Args:
        classifier: a learner of three classes that predicts logits or log probabilities, such as
            `prototypical_networks(embedding, classes=3)`.
        threshold: returns beyond so many root mean squares of the support set's are up or down.

    Returns:
        A `MetaLearner` for targets `[n]` or `[n, 1]` that predicts `[n, 1]`; its loss and `info`
        are the classifier's.

    Raises:
        ShapeError: from `predict`, if the classifier has other than three classes.
        TypeError: if `classifier` is no learner.
        ValueError: if the threshold is not positive.
    """
    require_learner(classifier)
    require_positive(threshold=threshold)

    def classify(batch: Batch, support: Batch) -> Batch:
        _, returns, weight = fill_absent(never_empty(support))
        size = jnp.sqrt(weighted_mean(jnp.square(returns.astype(jnp.float32)), weight))
        return batch._replace(y=classes_of(batch.y, threshold * size))

    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None, key=None) -> Params:
        more = {} if key is None else {"key": key}
        return classifier.adapt(meta_params, classify(support, support), steps=steps, **more)

    def predict(adapted: Params, x, /) -> Float[Array, "n 1"]:
        logits = classifier.predict(adapted, x)
        if logits.shape[-1] != len(CLASSES):
            raise ShapeError(
                f"direction needs a classifier of {len(CLASSES)} classes, {', '.join(CLASSES)}; "
                f"this one has {logits.shape[-1]}"
            )
        down, _, up = jnp.split(jax.nn.softmax(logits, axis=-1), len(CLASSES), axis=-1)
        return up - down

    def meta_loss(meta_params: Params, task: Task, step=0):
        classes = task._replace(
            support=classify(task.support, task.support), query=classify(task.query, task.support)
        )
        return classifier.loss(meta_params, classes, step)

    return MetaLearner(classifier.init, adapt, predict, meta_loss, random=classifier.random)


def classes_of(y: Float[Array, "..."], threshold: float | Float[Array, ""]) -> Int[Array, "..."]:
    """Return the numbers of the classes of returns: 0 down, 1 flat, 2 up.

    >>> classes_of(jnp.array([-1.0, 0.1, 0.5]), 0.4).tolist()
    [0, 1, 2]
    """
    return 1 + (y > threshold).astype(jnp.int32) - (y < -threshold).astype(jnp.int32)
