"""Reptile: move the start towards where plain training on a task leads."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array

from maml_jax.learners._checks import require_fixed, require_loss, require_steps
from maml_jax.learners._descent import (
    INNER_STEPS,
    bound_inner_norm,
    compare_on_support,
    keep_unless_rows,
    objective_of,
    whole_network,
    with_key,
)
from maml_jax.meta.inner_loop import UNROLL, inner_step
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.rows import concatenate
from maml_jax.meta.types import (
    Batch,
    InnerOptimizer,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Task,
)


def reptile(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer = optax.sgd(0.005),
    inner_steps: int = INNER_STEPS,
    batch_size: int | None = 10,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the Reptile learner.

    $$\theta \leftarrow \theta + \epsilon\,\frac1T\sum_{i=1}^{T}(\phi_i - \theta), \qquad
      \phi_i = U^k_i(\theta)$$

    with $U^k$ being $k$ steps of the inner optimizer on the task. No derivative is taken through
    them. The loss that is given to the outer optimizer has the value of the query loss at $\phi$
    and the gradient $\theta - \phi$, so that `optax.sgd(epsilon)` on one task at a time is the
    serial form of the paper, on a meta-batch the batched form, and any other optimizer, such as
    Adam, takes the difference for a gradient. (Clipping of the meta-gradient bounds the difference.
    Pass `max_grad_norm=None` for the paper's update.)

    Meta-training uses all rows of a task, the support rows and then the query rows.

    Args:
        model: `(init, apply)`.
        inner_optimizer: any optax transformation.
        inner_steps: steps on each task.
        batch_size: rows of a step: the first step takes the first ones, the next step the next
            ones, and around again; draw tasks in random order where that should be random. Rows of
            weight 0 are passed over; one of weight 2 is one row. None: every step takes all rows.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo` (of the support rows).

    Raises:
        TypeError: if `inner_optimizer` is a learned one.
        ValueError: if `inner_steps` is negative, or `batch_size` less than 1.

    Reference:
        Nichol, Achiam, Schulman (2018), On First-Order Meta-Learning Algorithms, arXiv:1803.02999,
        algorithms 1 and 2.
    """
    if inner_steps < 0 or (batch_size is not None and batch_size < 1):
        raise ValueError(
            f"inner_steps must not be negative and batch_size at least 1, got {inner_steps} and "
            f"{batch_size}"
        )
    require_loss(loss)
    optimizer = bound_inner_norm(require_fixed("reptile", inner_optimizer), loss)
    network = whole_network(model)
    objective = objective_of(loss, network)

    def train(params: Params, rows: Batch, steps: int, key=None) -> Params:
        require_steps(steps)
        if not len(rows.y):
            return params
        take = minibatches(rows, batch_size)

        def step(carry, index):
            return inner_step(objective, optimizer, with_key(take(index), key))(carry, index)

        start = (params, optimizer.init(params))
        (reached, _), _ = lax.scan(
            step, start, jnp.arange(steps), unroll=max(1, min(steps, UNROLL))
        )
        return keep_unless_rows(rows, reached, params)

    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None, key=None) -> Params:
        return train(meta_params, support, inner_steps if steps is None else steps, key)

    def meta_loss(meta_params: Params, task: Task, step=0):
        del step
        start = lax.stop_gradient(meta_params)
        reached = train(start, concatenate((task.support, task.query)), inner_steps, task.key)
        # Worth zero, with the difference as its gradient.
        pull = sum(
            jnp.sum((theta - fixed) * (fixed - phi))
            for theta, fixed, phi in zip(
                *map(jax.tree.leaves, (meta_params, start, reached)), strict=True
            )
        )
        value = objective(reached, task.query) + pull
        return value, compare_on_support(loss, model.apply, start, reached, task.support)

    random = network.predict_with_key is not None
    return MetaLearner(network.init, adapt, model.apply, meta_loss, random=random)


def minibatches(rows: Batch, size: int | None) -> Callable[[Array], Batch]:
    """Return the function that takes the rows of a step: the next ones, and around again.

    Args:
        rows: all rows, at least one. Those of weight 0 are not there: passed over and not counted.
        size: rows of a step at most; None: all.
    """
    total = len(rows.y)
    if size is None or (size >= total and rows.weight is None):
        return lambda index: rows
    size = min(size, total)
    if rows.weight is None:
        return lambda index: jax.tree.map(
            lambda leaf: leaf[(index * size + jnp.arange(size)) % total], rows
        )
    counts = rows.weight > 0
    rows = jax.tree.map(lambda leaf: leaf[jnp.argsort(~counts, stable=True)], rows)
    present = jnp.maximum(jnp.sum(counts), 1)
    taken = jnp.minimum(size, present)

    def take(index: Array) -> Batch:
        slots = jnp.arange(size)
        batch = jax.tree.map(lambda leaf: leaf[(index * taken + slots) % present], rows)
        return batch._replace(weight=jnp.where(slots < taken, batch.weight, 0))

    return take
