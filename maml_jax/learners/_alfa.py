"""ALFA: MAML whose inner rates and weight decay are made for each task, layer and step."""

from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients.modes import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers.conditioned_rates import conditioned_rates
from maml_jax.meta.types import LossFn, MetaLearner, ModelLike

INITIAL_RATE = 0.005


def alfa(
    model: ModelLike,
    *,
    initial_rate: float = INITIAL_RATE,
    inner_steps: int = INNER_STEPS,
    width: int | None = None,
    sizes: bool = True,
    gradient: GradientMode | None = None,
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
        initial_rate: what all rates begin with.
        inner_steps: steps of adaptation, at least 1; each has shared rates of its own.
        width: hidden units of the network; default two for each leaf.
        sizes: show it the sizes of gradients beside their means; False is the paper's form.
        gradient: how to differentiate through adaptation; default `exact()`.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose meta-parameters are a `MetaParams` and whose `info` is an
        `AdaptationInfo`.

    Raises:
        ValueError: if a number is impossible.

    Reference:
        Baik, Choi, Choi, Kim, Lee (2020), Meta-Learning with Adaptive Hyperparameters,
        arXiv:2011.00209, equations 4 to 6.
    """
    return by_descent(
        whole_network(model),
        optimizer=conditioned_rates(initial_rate, steps=inner_steps, width=width, sizes=sizes),
        steps=inner_steps,
        gradient=exact() if gradient is None else gradient,
        loss=loss,
    )
