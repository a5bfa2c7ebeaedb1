"""MAML++: what steadies the training of MAML."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from maml_jax.learners._checks import require_learned
from maml_jax.learners._descent import (
    INNER_STEPS,
    bound_inner_norm,
    by_descent,
    keep_unless_rows,
    objective_of,
    split_key,
    whole_network,
    with_key,
)
from maml_jax.meta.gradients import GradientMode, exact, first_order
from maml_jax.meta.inner_loop import UNROLL
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers import learned_rates, per_step
from maml_jax.meta.rows import never_empty
from maml_jax.meta.types import (
    AdaptationInfo,
    LearnedOptimizer,
    LossFn,
    MetaLearner,
    MetaParams,
    ModelLike,
    Task,
)


def maml_plus_plus(
    model: ModelLike,
    *,
    inner_optimizer: LearnedOptimizer = learned_rates(0.005),
    inner_steps: int = INNER_STEPS,
    multi_step_until: int = 500,
    second_order_from: int = 100,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the MAML++ learner.

    $$L(\theta) = \sum_{k=1}^{K} w_k(s)\, L^{query}(\theta_k), \qquad
      \theta_{k+1} = \theta_k - \alpha_{k,l}\nabla L^{support}(\theta_k)$$

    * **Multi-step loss**: the query loss after every step counts. Its weights $w$ begin equal and
      pass, over the first meta-steps $s$, to the last step alone.
    * **Derivative-order annealing**: first order in the beginning, then the exact meta-gradient.
    * **Learned rates** $\alpha_{k,l}$, one for each leaf (layer) and step, kept positive.
    * The paper's **cosine schedule** of the outer rate belongs to the outer optimizer:
      `optax.adam(optax.cosine_decay_schedule(1e-3, steps))`.

    The paper's batch-normalisation statistics per step have no part here: models are pure
    functions without running state.

    Args:
        model: `(init, apply)`.
        inner_optimizer: learned, with settings of its own for each step.
        inner_steps: steps of adaptation, at least 1.
        multi_step_until: meta-step from which the last step alone counts; 0: always.
        second_order_from: meta-step from which the gradient is that of `gradient`; 0: always.
        gradient: the mode used from there on.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose meta-parameters are a `MetaParams` and whose `info` is an
        `AdaptationInfo`.

    Raises:
        TypeError: if `inner_optimizer` is not a learned one.
        ValueError: if there is no inner step, or a meta-step is negative.

    Reference:
        Antoniou, Edwards, Storkey (2019), How to train your MAML, arXiv:1810.09502, section 4.
    """
    if inner_steps < 1:
        raise ValueError(f"MAML++ needs at least 1 inner step, got {inner_steps}")
    if multi_step_until < 0 or second_order_from < 0:
        raise ValueError(
            "multi_step_until and second_order_from must not be negative, got "
            f"{multi_step_until} and {second_order_from}"
        )
    require_learned("maml_plus_plus", inner_optimizer)
    inner_optimizer = bound_inner_norm(inner_optimizer, loss)
    network = whole_network(model)
    objective = objective_of(loss, network)
    learner = by_descent(
        network,
        inner_optimizer=per_step(inner_optimizer, inner_steps),
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )

    def losses(mode: GradientMode, meta_params: MetaParams, task: Task):
        """Return the query loss after each step, and the support loss before and at last."""
        support = never_empty(task.support)

        def step(theta, each):
            settings, key = each
            adapting, predicting = split_key(key)
            context = with_key(support, adapting)
            moved, before = mode(objective, inner_optimizer.transform, theta, context, 1, settings)
            moved = keep_unless_rows(support, moved, theta)
            return moved, (objective(moved, with_key(task.query, predicting)), before[0])

        keys = None if task.key is None else jax.random.split(task.key, inner_steps)
        theta, (query, before) = lax.scan(
            step, meta_params.start, (meta_params.settings, keys), unroll=min(inner_steps, UNROLL)
        )
        first = before[0] if keys is None else objective(meta_params.start, support)
        return query, first, objective(theta, support)

    def meta_loss(meta_params: MetaParams, task: Task, step=0):
        # `step` is shared by all tasks, so that only one branch is computed under vmap too.
        query, before, after = lax.cond(
            jnp.asarray(step) < second_order_from,
            lambda: losses(first_order(), meta_params, task),
            lambda: losses(gradient, meta_params, task),
        )
        weights = step_weights(step, inner_steps, multi_step_until)
        return jnp.sum(weights.astype(query.dtype) * query), AdaptationInfo(before, after)

    return learner._replace(loss=meta_loss)


def step_weights(step: jax.Array | int, inner_steps: int, until: int) -> Float[Array, " inner"]:
    """Return the weight of the query loss after each inner step; they sum to 1.

    >>> step_weights(0, 4, 100).tolist(), step_weights(100, 4, 100).tolist()
    ([0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0])
    """
    last = jnp.arange(inner_steps) == inner_steps - 1
    passed = jnp.clip(jnp.asarray(step) / until, 0.0, 1.0) if until else jnp.ones(())
    return (1 - passed) / inner_steps + passed * last
