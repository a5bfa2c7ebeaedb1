r"""Training of a Bayesian head on whole histories: each row is forecast from those before it.

What a row adds to a posterior does not depend on the others, so that one pass over a history gives
the posterior at every age, and each costs a sum and a solution. The loss is the mean over ages of
what `alpaca` would lose with the support set of that age:

$$-\sum_j \ln p\bigl(y_j \mid x_j,\ \{(x_i, y_i)\}_{c_j - S < i \le c_j}\bigr)$$

with $c_j$ the last row whose outcome is complete at row j, and S the most rows of a support set.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from maml_jax.meta import Batch, MetaLearner, Task, gaussian_nll
from maml_jax.meta.types import AdaptationInfo, LossFn


def by_prefixes(learner: MetaLearner, *, window: int, loss: LossFn = gaussian_nll) -> MetaLearner:
    """Make a learner whose meta-training forecasts many rows of a history from their pasts.

    Args:
        learner: `alpaca`.
        window: most rows of a support set.
        loss: compares a `Prediction` with targets.

    Returns:
        The same learner, but for its `loss`: the support set of a task is a history, in the order
        of time; in its query set `y[:, 0]` is the target and `y[:, 1]` how many rows of the history
        are known.
    """

    def meta_loss(meta_params, task: Task, step=0):
        del step
        support, query = task.support, task.query
        prior = learner.adapt(meta_params, Batch(support.x[:1], support.y[:1], jnp.zeros(1)))
        zero = prior._replace(
            precision=jnp.zeros_like(prior.precision), information=jnp.zeros_like(prior.information)
        )

        take_in = learner.update
        assert take_in is not None

        def add(row: Batch) -> tuple[Array, Array]:
            one: Batch = jax.tree.map(lambda leaf: leaf[None], row)
            found = take_in(zero, one)
            return found.precision, found.information

        count = query.y[:, 1].astype(jnp.int32)
        row = jnp.arange(len(support.x))
        seen = (row < count[:, None]) & (row >= count[:, None] - window)
        each: tuple[Array, Array] = jax.vmap(add)(support)  # pyright: ignore[reportCallIssue]
        precision, information = (jnp.tensordot(seen.astype(s.dtype), s, 1) for s in each)

        def predict(precision: Array, information: Array, x: Array):
            adapted = prior._replace(
                precision=prior.precision + precision, information=prior.information + information
            )
            return jax.tree.map(lambda leaf: leaf[0], learner.predict(adapted, x[None]))

        predicted = jax.vmap(predict)(precision, information, query.x)
        value = loss(predicted, query.y[:, :1], query.weight)
        return value, AdaptationInfo(value, value)

    return learner._replace(loss=meta_loss)
