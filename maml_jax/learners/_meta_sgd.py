"""Meta-SGD: a start, and a learning rate for every single parameter."""

from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers import learned_rates
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike


def meta_sgd(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer = learned_rates(0.005, per="entry"),
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the Meta-SGD learner.

    $$\theta' = \theta - \alpha \circ \nabla_\theta L^{support}(\theta)$$

    with $\alpha$ of the shape of $\theta$ meta-learned beside it: not only how far a parameter
    moves but, between them, in which direction.

    Args:
        model: `(init, apply)`.
        inner_optimizer: learned rates, one for each entry. The paper's may become negative, which
            is less steady at the noise of markets; for its sinusoids it draws them from a uniform
            distribution: `learned_rates((0.005, 0.1), per="entry", positive=False)`.
        inner_steps: steps of adaptation (the paper takes one).
        gradient: how to differentiate through adaptation.
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
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )
