"""What every meta-learner has to beat, in the same form."""

import jax
import jax.numpy as jnp
import optax

from maml_jax.learners._descent import (
    InnerOptimizer,
    adaptation_info,
    by_descent,
    require_fixed,
    whole_network,
)
from maml_jax.meta.gradients.modes import first_order
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.types import LossFn, MetaLearner, ModelLike, Params, Task

SCRATCH_LEARNING_RATE = 0.01
SCRATCH_STEPS = 20
FINE_TUNING_LEARNING_RATE = 0.005


def from_scratch(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer | None = None,
    inner_steps: int = SCRATCH_STEPS,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    """Make the baseline that knows nothing but its support set.

    A network with random weights is trained on the support set of each task. Meta-training changes
    nothing: the gradient of its loss is zero.

    Args:
        model: `(init, apply)`.
        inner_optimizer: default `optax.adam(0.01)`.
        inner_steps: steps of training on a task. More of them fit noise.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        TypeError: if `inner_optimizer` is a learned one.
        ValueError: if `inner_steps` is negative.
    """
    optimizer = optax.adam(SCRATCH_LEARNING_RATE) if inner_optimizer is None else inner_optimizer
    require_fixed("from_scratch", optimizer)
    learner = by_descent(
        whole_network(model),
        optimizer=optimizer,
        steps=inner_steps,
        gradient=first_order(),
        loss=loss,
    )

    def meta_loss(meta_params: Params, task: Task, step):
        return learner.loss(jax.lax.stop_gradient(meta_params), task, step)

    return learner._replace(loss=meta_loss)


def joint_training(
    model: ModelLike,
    *,
    fine_tuning_steps: int = 0,
    inner_optimizer: InnerOptimizer | None = None,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the baseline of one network trained on all tasks together.

    $$\min_\theta \sum_i L_i^{support \cup query}(\theta)$$

    Without fine-tuning it adapts to nothing, with it each task's support set is descended from the
    joint start, which was not trained for that.

    Args:
        model: `(init, apply)`.
        fine_tuning_steps: steps of adaptation after training; 0 for none.
        inner_optimizer: of the fine-tuning; default `optax.sgd(0.005)`.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        TypeError: if `inner_optimizer` is a learned one.
        ValueError: if `fine_tuning_steps` is negative.
    """
    optimizer = optax.sgd(FINE_TUNING_LEARNING_RATE) if inner_optimizer is None else inner_optimizer
    require_fixed("joint_training", optimizer)
    learner = by_descent(
        whole_network(model),
        optimizer=optimizer,
        steps=fine_tuning_steps,
        gradient=first_order(),
        loss=loss,
    )

    def meta_loss(meta_params: Params, task: Task, step):
        del step
        rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *task)
        value = loss(model.apply(meta_params, rows.x), rows.y)
        adapted = jax.lax.stop_gradient(meta_params)
        if fine_tuning_steps:
            adapted = learner.adapt(adapted, task.support)
        return value, adaptation_info(loss, model.apply, meta_params, adapted, task.support)

    return learner._replace(loss=meta_loss)
