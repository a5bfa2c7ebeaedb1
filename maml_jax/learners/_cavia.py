"""CAVIA: the network stays; a few context parameters, further inputs to it, adapt."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.learners._descent import INNER_STEPS, Parts, by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike, Params


class InContext(NamedTuple):
    """A network adapted by CAVIA.

    Attributes:
        context: the task's context parameters, `[context]`.
        network: the parameters that all tasks share.
    """

    context: Float[Array, " context"]
    network: Params


def cavia(
    model: ModelLike,
    *,
    context: int = 8,
    start: float = 1.0,
    inner_optimizer: InnerOptimizer = optax.sgd(0.3),
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the CAVIA learner.

    $$\phi' = \phi_0 - \alpha\nabla_\phi L^{support}(\phi_0, \theta) \text{ (repeated)}, \qquad
      \phi_0 = \text{start}$$

    The meta-parameters are the network $\theta$, whose input is $(x, \phi)$: context parameters are
    appended to the features of every row (and of every bar of a sequence). The adapted parameters
    are an `InContext`, of which only the few numbers $\phi$ belong to the task.

    Args:
        model: `(init, apply)`; it sees `context` features more than the task has.
        context: how many context parameters there are.
        start: value that all of them begin with, 0 in the paper. It acts as random biases do, and
            without these a network of an odd activation such as tanh has derivatives in the context
            that are even in x: no odd signal is seen in them, and at the noise of markets
            meta-training does not leave that start.
        inner_optimizer: adapts the context parameters (in the paper at a rate of 1).
        inner_steps: steps of adaptation.
        gradient: how to differentiate through adaptation.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        ValueError: if `context` is less than 1.

    Reference:
        Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson (2019), Fast Context Adaptation via
        Meta-Learning, arXiv:1810.03642, section 3.1.
    """
    if context < 1:
        raise ValueError(f"CAVIA needs at least 1 context parameter, got {context}")
    network = whole_network(model)

    def append(x, phi):
        # Inputs become as precise as the context: rounded to theirs it would not move.
        shape = (*x.shape[:-1], context)
        return jnp.concatenate([x, jnp.broadcast_to(phi, shape)], axis=-1)

    def predict(adapted: InContext, x):
        return model.apply(adapted.network, append(x, adapted.context))

    def predict_with_key(adapted: InContext, x, key):
        assert network.predict_with_key is not None
        return network.predict_with_key(adapted.network, append(x, adapted.context), key)

    def init(key, x, /) -> Params:
        return network.init(key, append(x, jnp.zeros(context)))

    return by_descent(
        Parts(
            init,
            lambda theta: (jnp.full(context, start), theta),
            InContext,
            predict,
            learned_start=False,
            predict_with_key=network.predict_with_key and predict_with_key,
        ),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )
