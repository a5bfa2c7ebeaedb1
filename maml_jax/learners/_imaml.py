"""iMAML: adapt close to a minimum, differentiate the minimum instead of the path."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from maml_jax.learners._checks import require_mode, require_positive
from maml_jax.learners._descent import by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, implicit
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.types import (
    InnerOptimizer,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Scalar,
    Setting,
)

PROXIMAL = 40.0
"""Holds about as strongly to the start as five steps of MAML of 0.005 do: 1 / (5 x 0.005)."""


def imaml(
    model: ModelLike,
    *,
    proximal: Setting = PROXIMAL,
    inner_optimizer: InnerOptimizer = optax.sgd(0.01),
    inner_steps: int = 10,
    iterations: int | None = None,
    damping: float | None = None,
    gradient: GradientMode | None = None,
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the iMAML learner.

    $$\phi^*(\theta) = \arg\min_\phi L^{support}(\phi) + \frac\lambda2\lVert\phi-\theta\rVert^2,
      \qquad \nabla_\theta L^{query}(\phi^*) =
      \Bigl(I + \tfrac1\lambda H(\phi^*)\Bigr)^{-1}\nabla L^{query}(\phi^*)$$

    with $H$ the Hessian of the support loss. The system is solved by conjugate gradients.

    Args:
        model: `(init, apply)`.
        proximal: $\lambda$, how strongly adapted parameters are held to the start. Adapting to the
            noise of a support set is what it prevents.
        inner_optimizer: should be stable for curvatures of up to that of the loss plus `proximal`.
        inner_steps: steps of adaptation; enough to come close to the minimum.
        iterations: conjugate gradient iterations; default 5.
        damping: $\delta$ of the authors' published code, which divides the Hessian by
            $\lambda + \delta$ instead: steadier where it has negative curvature, and no longer the
            gradient. 0, the default: the paper's formula.
        gradient: default `implicit` with these numbers, which are its own where another `implicit`
            is given; `exact()` is the derivative of the path.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        ValueError: if `proximal` is not positive, or `damping` is negative; if `iterations` or
            `damping` are given beside a gradient mode.

    Reference:
        Rajeswaran, Finn, Kakade, Levine (2019), Meta-Learning with Implicit Gradients,
        arXiv:1909.04630, equations 3 and 6, algorithm 2.
    """
    require_positive(proximal=proximal)
    mode: Any = gradient
    if gradient is None:
        mode = implicit(
            iterations=5 if iterations is None else iterations,
            damping=0.0 if damping is None else damping,
        )
    elif not (iterations is None and damping is None):
        raise ValueError(
            "iterations and damping are those of implicit(): give them to the mode, as in "
            "gradient=implicit(iterations=5, damping=1.0), or leave the mode out"
        )
    require_mode(mode)
    network = whole_network(model)

    def penalty(phi: Params, fixed: tuple[Params, Scalar]) -> Scalar:
        theta, strength = fixed
        apart = jax.tree.map(jnp.subtract, phi, theta)
        distance = optax.tree.norm(apart, squared=True)
        return 0.5 * strength.astype(distance.dtype) * distance

    # The solver sees the Hessian of loss and penalty together, H + lambda I. Damped by delta its
    # solution is 1 / (lambda + delta) of what I + H / (lambda + delta) gives, times lambda.
    if not mode.differentiates_start and mode.damping:
        mode = mode.with_scale((proximal + mode.damping) / proximal)
    return by_descent(
        network._replace(
            # Beside the start, not enclosed, so that it may be a traced number.
            split=lambda theta: (theta, (theta, jnp.asarray(proximal, float))),
            join=lambda phi, fixed: phi,
            penalty=penalty,
        ),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=mode,
        loss=loss,
    )
