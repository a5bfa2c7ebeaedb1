"""ALFA: MAML with inner rates and weight decay of each task, layer and step."""

from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers import conditioned_rates
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike


def alfa(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer | None = None,
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the ALFA learner.

    $$\theta_{k+1}^l = (1 - \beta_k^l)\,\theta_k^l - \alpha_k^l \nabla_{\theta^l}
      L^{support}(\theta_k), \qquad (\alpha_k, \beta_k) = g_\varphi(\tau_k)$$

    where $\tau_k$ are statistics of the leaves $l$ and of their gradients at step $k$, and the
    network $\varphi$ is meta-learned beside the start: a support set may be followed far or not.
    The optimizer is `conditioned_rates`, which any learner by descent takes.

    Args:
        model: `(init, apply)`.
        inner_optimizer: default `conditioned_rates(0.005, steps=inner_steps)`: each step has shared
            rates of its own. With `sizes=False` it is the paper's.
        inner_steps: steps of adaptation, at least 1.
        gradient: how to differentiate through adaptation.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose meta-parameters are a `MetaParams` and whose `info` is an
        `AdaptationInfo`.

    Raises:
        ValueError: if `inner_steps` is out of bounds.

    Reference:
        Baik, Choi, Choi, Kim, Lee (2020), Meta-Learning with Adaptive Hyperparameters,
        arXiv:2011.00209, equations 4 to 6.
    """
    if inner_optimizer is None:
        inner_optimizer = conditioned_rates(0.005, steps=inner_steps)
    return by_descent(
        whole_network(model),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )
