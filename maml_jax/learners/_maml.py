"""Model-agnostic meta-learning: learn a start from which a few gradient steps go far."""

import optax

from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike


def maml(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer = optax.sgd(0.005),
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the MAML learner.

    $$\min_\theta \sum_i L_i^{query}(\theta_i'), \qquad
      \theta_i' = \theta - \alpha \nabla_\theta L_i^{support}(\theta) \text{ (repeated)}$$

    The meta-parameters are the start $\theta$; the adapted parameters are $\theta_i'$.

    Args:
        model: `(init, apply)`; a `flax.linen` module fits as it is.
        inner_optimizer: adapts to a task. Larger rates let adaptation fit the noise of a support
            set. One that divides by a square root, such as Adam, needs a positive `eps_root` to be
            differentiated. With `learned_rates()` its rates are meta-parameters too (a
            `MetaParams`).
        inner_steps: steps of adaptation, in training and unless `adapt` is given another number.
        gradient: how to differentiate through adaptation: `exact()`, `exact(remat=True)`,
            `mixed_mode()`, or `first_order()`, which makes it FOMAML.
        loss: compares outputs with targets, on support and query alike.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

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
    return by_descent(
        whole_network(model),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )
