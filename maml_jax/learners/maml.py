"""Model-agnostic meta-learning: learn a start from which a few gradient steps go far."""

from functools import partial
from typing import NamedTuple

import jax
import optax
from jaxtyping import Array, Float

from maml_jax.learners.shared import require_plain_params
from maml_jax.meta.gradients import GradientMode, exact, first_order
from maml_jax.meta.inner_loop import descend
from maml_jax.meta.losses import squared_error
from maml_jax.meta.types import Batch, LossFn, MetaLearner, ModelLike, Params, Task

INNER_LEARNING_RATE = 0.005
"""Chosen for market-like noise: larger rates let adaptation fit the noise of the support set."""


class MamlInfo(NamedTuple):
    """What one task's inner loop did.

    Attributes:
        support_loss_before: support loss at the meta-parameters.
        support_loss_after: support loss at the adapted parameters.
    """

    support_loss_before: Float[Array, ""]
    support_loss_after: Float[Array, ""]


def maml(
    model: ModelLike,
    *,
    inner_optimizer: optax.GradientTransformation | None = None,
    inner_steps: int = 5,
    gradient: GradientMode | None = None,
    loss: LossFn = squared_error,
) -> MetaLearner:
    r"""Make the MAML learner.

    $$\min_\theta \sum_i L_i^{query}(\theta_i'), \qquad
      \theta_i' = \theta - \alpha \nabla_\theta L_i^{support}(\theta) \text{ (repeated)}$$

    The meta-parameters are the start $\theta$; the adapted parameters are $\theta_i'$.

    Args:
        model: `(init, apply)`; a `flax.linen` module fits as it is.
        inner_optimizer: adapts to a task; default `optax.sgd(0.005)`. One that divides by a square
            root, such as Adam, needs a positive `eps_root` to be differentiated.
        inner_steps: steps of adaptation, in training and wherever `adapt` is not told otherwise.
        gradient: how to differentiate through adaptation: `exact()` (default),
            `exact(remat=True)`, or `first_order()`, which makes it FOMAML.
        loss: compares outputs with targets, on support and query alike.

    Returns:
        A `MetaLearner` whose `info` is a `MamlInfo`.

    Raises:
        GradientError: from `loss`, if the inner optimizer cannot be differentiated.
        ShapeError: from `adapt` and `loss`, if outputs and targets do not fit.
        TypeError: if `gradient` is `exact` itself, not `exact()`.
        ValueError: if `inner_steps` is negative.

    Reference:
        Finn, Abbeel, Levine (2017), Model-Agnostic Meta-Learning for Fast Adaptation of Deep
        Networks, arXiv:1703.03400; FOMAML: section 5.2.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax import Batch, maml
    >>> from maml_jax.models import mlp
    >>> learner = maml(mlp((8, 1)), inner_steps=3)
    >>> x = jnp.linspace(-1.0, 1.0, 10)[:, None]
    >>> theta = learner.init(jax.random.key(0), x)
    >>> adapted = learner.adapt(theta, Batch(x, jnp.sin(x)))
    >>> learner.predict(adapted, x).shape
    (10, 1)
    """
    if inner_steps < 0:
        raise ValueError(f"inner_steps must not be negative, got {inner_steps}")
    if gradient in (exact, first_order):
        raise TypeError("gradient takes a mode, not what makes one: write exact(), first_order()")
    optimizer = optax.sgd(INNER_LEARNING_RATE) if inner_optimizer is None else inner_optimizer
    differentiate = exact() if gradient is None else gradient

    def batch_loss(params: Params, batch: Batch):
        return loss(model.apply(params, batch.x), batch.y)

    def init(key, x, /) -> Params:
        return require_plain_params(model.init(key, x))

    # Compiled by itself, so that a loop over assets that calls it compiles nothing anew.
    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None) -> Params:
        count = inner_steps if steps is None else steps
        return descend(batch_loss, optimizer, meta_params, support, count)[0]

    def meta_loss(meta_params: Params, task: Task, step):
        del step
        adapted, values = differentiate(
            batch_loss, optimizer, meta_params, task.support, inner_steps
        )
        after = batch_loss(adapted, task.support)
        before = values[0] if inner_steps else after
        return batch_loss(adapted, task.query), MamlInfo(before, after)

    return MetaLearner(init, adapt, model.apply, meta_loss)
