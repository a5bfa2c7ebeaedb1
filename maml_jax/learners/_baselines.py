"""What every meta-learner has to beat, in the same form."""

import jax
import optax

from maml_jax.learners._checks import require_fixed
from maml_jax.learners._descent import (
    by_descent,
    compare_on_support,
    loss_with_key,
    whole_network,
)
from maml_jax.meta.gradients import first_order
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.rows import concatenate
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike, Params, Task


def from_scratch(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer = optax.adam(0.01),
    inner_steps: int = 20,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    """Make the baseline that knows nothing but its support set.

    A network with random weights is trained on the support set of each task. Meta-training changes
    nothing: the gradient of its loss is zero.

    Args:
        model: `(init, apply)`.
        inner_optimizer: any optax transformation.
        inner_steps: steps of training on a task. More of them fit noise.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        TypeError: if `inner_optimizer` is a learned one.
        ValueError: if `inner_steps` is negative.
    """
    learner = by_descent(
        whole_network(model),
        inner_optimizer=require_fixed("from_scratch", inner_optimizer),
        inner_steps=inner_steps,
        gradient=first_order(),
        loss=loss,
    )

    def meta_loss(meta_params: Params, task: Task, step=0):
        return learner.loss(jax.lax.stop_gradient(meta_params), task, step)

    return learner._replace(loss=meta_loss)


def joint_training(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer = optax.sgd(0.005),
    inner_steps: int = 0,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the baseline of one network trained on all tasks together.

    $$\min_\theta \sum_i L_i^{support \cup query}(\theta)$$

    Without fine-tuning it adapts to nothing; with it each task descends from the joint start, which
    was not trained for that.

    Args:
        model: `(init, apply)`.
        inner_optimizer: of the fine-tuning, any optax transformation.
        inner_steps: steps of fine-tuning; 0 for none.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        TypeError: if `inner_optimizer` is a learned one.
        ValueError: if `inner_steps` is negative.
    """
    network = whole_network(model)
    learner = by_descent(
        network,
        inner_optimizer=require_fixed("joint_training", inner_optimizer),
        inner_steps=inner_steps,
        gradient=first_order(),
        loss=loss,
    )

    def meta_loss(meta_params: Params, task: Task, step=0):
        del step
        rows = concatenate((task.support, task.query))
        value = loss_with_key(loss, network, meta_params, rows, task.key)
        adapted = jax.lax.stop_gradient(meta_params)
        if inner_steps:
            adapted = learner.adapt(adapted, task.support)
        return value, compare_on_support(loss, model.apply, meta_params, adapted, task.support)

    return learner._replace(loss=meta_loss)
