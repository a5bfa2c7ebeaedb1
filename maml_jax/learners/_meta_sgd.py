"""Meta-SGD: a start, and a learning rate for every single parameter."""

from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients.modes import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers.learned_rates import learned_rates
from maml_jax.meta.types import LossFn, MetaLearner, ModelLike

INITIAL_RATE = 0.005


def meta_sgd(
    model: ModelLike,
    *,
    initial_rate: float | tuple[float, float] = INITIAL_RATE,
    positive: bool = True,
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode | None = None,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the Meta-SGD learner.

    $$\theta' = \theta - \alpha \circ \nabla_\theta L^{support}(\theta)$$

    with $\alpha$ of the shape of $\theta$ meta-learned beside it: not only how far a parameter
    moves but, between them, in which direction.

    Args:
        model: `(init, apply)`.
        initial_rate: what all rates begin with, or the ends of a uniform distribution that each is
            drawn from (the paper's sinusoids: `(0.005, 0.1)`).
        positive: learn the logarithms of rates. False is the paper's form, in which rates may
            become negative; at the noise of markets it is the less steady one.
        inner_steps: steps of adaptation (the paper takes one).
        gradient: how to differentiate through adaptation; default `exact()`.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose meta-parameters are a `MetaParams` and whose `info` is an
        `AdaptationInfo`.

    Reference:
        Li, Zhou, Chen, Li (2017), Meta-SGD: Learning to Learn Quickly for Few-Shot Learning,
        arXiv:1707.09835, algorithm 1.
    """
    return by_descent(
        whole_network(model),
        optimizer=learned_rates(initial_rate, per="entry", positive=positive),
        steps=inner_steps,
        gradient=exact() if gradient is None else gradient,
        loss=loss,
    )
