"""Meta-Curvature: meta-learned matrices transform gradients before the inner step."""

from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers import curvature
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike


def meta_curvature(
    model: ModelLike,
    *,
    inner_optimizer: InnerOptimizer = curvature(0.005),
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the Meta-Curvature learner.

    $$\theta' = \theta - \alpha\,\mathrm{MC}(\nabla_\theta L^{support}(\theta)), \qquad
      \mathrm{MC}(G) = G \times_1 M_{in} \times_2 M_{out}$$

    for a layer's weights $[in, out]$; in general one square matrix for each axis of each leaf,
    meta-learned from the identity.

    Args:
        model: `(init, apply)`.
        inner_optimizer: `curvature` of $\alpha$, which is fixed, as the matrices scale it.
        inner_steps: steps of adaptation.
        gradient: how to differentiate through adaptation.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose meta-parameters are a `MetaParams` and whose `info` is an
        `AdaptationInfo`.

    Raises:
        ShapeError: from `init`, if an axis is so long that its matrix would not be sensible.

    Reference:
        Park, Oliva (2019), Meta-Curvature, arXiv:1902.03356, section 3.
    """
    return by_descent(
        whole_network(model),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )
