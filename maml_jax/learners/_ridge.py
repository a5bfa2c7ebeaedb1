"""Ridge regression on meta-learned features: adaptation in closed form."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.learners._checks import require_plain_params, require_positive
from maml_jax.learners._heads import by_closed_form, features_and_targets, features_of
from maml_jax.meta.linalg import solve_spd
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.networks import require_model
from maml_jax.meta.types import Batch, LossFn, MetaLearner, ModelLike, Params, Setting


class RidgeParams(NamedTuple):
    """Meta-parameters.

    Attributes:
        features: of the feature network.
        tenth_log_penalty: a tenth of the logarithm of the penalty, which an outer optimizer whose
            steps are of one size, such as Adam, so learns ten times as fast.
    """

    features: Params
    tenth_log_penalty: Float[Array, ""]


class RidgeHead(NamedTuple):
    """A feature network with the head fitted to a task.

    Attributes:
        features: of the feature network.
        weights: of the features and, last, the constant, `[features + 1, targets]`.
    """

    features: Params
    weights: Float[Array, "feature target"]


def ridge(
    features: ModelLike, *, penalty: Setting = 50.0, loss: LossFn = mean_squared_error
) -> MetaLearner:
    r"""Make the ridge head on meta-learned features (R2-D2).

    $$W = (\Phi^\top\Phi + \lambda I)^{-1}\Phi^\top Y =
      \Phi^\top(\Phi\Phi^\top + \lambda I)^{-1} Y$$

    with a row of $\Phi$ being the features of a support row and the constant 1, and the penalty
    $\lambda$ meta-learned beside the features. The smaller of the two systems is solved, and
    gradients go through its solution.

    Args:
        features: `(init, apply)` of the feature network, `[n, *input] -> [n, features]`.
        penalty: what $\lambda$ begins with.
        loss: compares outputs `[n, targets]` with targets, on the query.

    Returns:
        A `MetaLearner` whose meta-parameters are `RidgeParams`, whose adapted parameters are a
        `RidgeHead`, and whose `info` is an `AdaptationInfo` (before: of predicting 0).

    Raises:
        ShapeError: from `adapt` and `loss`, if the features are not `[n, features]`.
        ValueError: if `penalty` is not positive; from `adapt`, if it is given a number of steps.

    Reference:
        Bertinetto, Henriques, Torr, Vedaldi (2019), Meta-learning with differentiable closed-form
        solvers, arXiv:1805.08136, equations 2 to 4.
    """
    require_positive(penalty=penalty)

    require_model(features)

    def init(key, x, /) -> RidgeParams:
        theta = require_plain_params(features.init(key, x))
        return RidgeParams(theta, jnp.log(jnp.asarray(penalty, jnp.float32)) / 10)

    def fit_head(params: RidgeParams, support: Batch) -> RidgeHead:
        phi, y = features_and_targets(features, params.features, support)
        rows, width = phi.shape
        gram = phi @ phi.T if rows < width else phi.T @ phi
        system = gram + jnp.exp(10 * params.tenth_log_penalty).astype(phi.dtype) * jnp.eye(
            len(gram)
        )
        system = system.astype(phi.dtype)
        if rows < width:
            return RidgeHead(params.features, phi.T @ solve_spd(system, y))
        return RidgeHead(params.features, solve_spd(system, phi.T @ y))

    def predict(adapted: RidgeHead, x, /):
        return features_of(features, adapted.features, x) @ adapted.weights

    def predict_zero(params: RidgeParams, adapted: RidgeHead) -> RidgeHead:
        del params
        return adapted._replace(weights=jnp.zeros_like(adapted.weights))

    return by_closed_form(
        "ridge", init=init, fit=fit_head, prior=predict_zero, predict=predict, loss=loss
    )
