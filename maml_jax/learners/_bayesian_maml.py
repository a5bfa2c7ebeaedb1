"""Bayesian MAML: particles that are adapted together stand for what a task's parameters may be."""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from maml_jax.errors import GradientError
from maml_jax.learners._checks import log_tenth, require_mode, require_optimizer, require_positive
from maml_jax.learners._descent import (
    INNER_STEPS,
    Parts,
    by_descent,
    predict_drawing,
    transform_of,
    whole_network,
)
from maml_jax.learners._ensemble import mix, stack
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import gaussian_nll
from maml_jax.meta.networks import require_different_starts
from maml_jax.meta.optimizers import SteinSettings, stein
from maml_jax.meta.rows import batch_loss, count_rows, fill_absent
from maml_jax.meta.types import (
    Batch,
    InnerOptimizer,
    LearnedOptimizer,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Prediction,
    Scalar,
    Setting,
)


class BayesianParams(NamedTuple):
    """Meta-parameters, or what they have adapted to.

    Attributes:
        particles: parameters of the network, stacked: `[particle, ...]`.
        tenth_log_noise: a tenth of the logarithm of the noise's standard deviation, of the shape of
            a target. An outer optimizer whose steps are of one size, such as Adam, so finds the
            scale of the targets in hundreds of meta-steps instead of thousands.
    """

    particles: Params
    tenth_log_noise: Float[Array, "*targets"]


def bayesian_maml(
    model: ModelLike,
    *,
    particles: int = 5,
    inner_optimizer: InnerOptimizer = optax.sgd(0.1),
    inner_steps: int = INNER_STEPS,
    noise: Setting = 1.0,
    prior_precision: Setting = 1.0,
    gradient: GradientMode = exact(),
    loss: LossFn = gaussian_nll,
) -> MetaLearner:
    r"""Make the Bayesian MAML learner.

    Particles $\theta_1 \dots \theta_M$ stand for what a task's parameters may be. Stein variational
    gradient descent moves them together from their starts towards the posterior:

    $$\theta_i \leftarrow \theta_i + \alpha\frac{\sigma^2}{n} \frac1M \sum_{j=1}^{M} \Bigl[
      k(\theta_j, \theta_i) \nabla_{\theta_j} \log p(\theta_j \mid D)
      + \nabla_{\theta_j} k(\theta_j, \theta_i) \Bigr], \qquad
      k(\theta, \theta') = e^{-\lVert\theta - \theta'\rVert^2 / h}$$

    with the bandwidth $h$ the median of the squared distances over $\log M$. In units of the noise
    $\sigma^2$ (its mean over targets) and per row of the $n$ of the support set, a rate means the
    same at any noise and for sets of any size: a move of $\alpha$ times the derivative of half the
    squared error. The meta-gradient goes through the kernel and its bandwidth.

    $$-\log p(\theta_j \mid D) = n L^{support}(\theta_j, \sigma)
      + \tfrac\lambda2 \lVert\theta_j - \theta_j^0\rVert^2$$

    The prior is a mixture of normal distributions around the starts $\theta_j^0$, of which each
    particle belongs to its own. Starts and noise are meta-learned, by the likelihood of the query
    rows under the mixture of the particles' predictions: mean $\bar f = \frac1M\sum f_j$, variance
    $\sigma^2 + \frac1M\sum (f_j - \bar f)^2$. One particle without a prior is `maml` with this
    loss, at a rate of $\alpha\sigma^2$.

    Args:
        model: `(init, apply)`; predicts numbers.
        particles: how many networks; adapting costs so many times what it does for `maml`.
        inner_optimizer: follows Stein's direction. A rate of 0.1 is to five particles, each of
            which follows a fifth of it, what 0.01 is for MAML. With `learned_rates()`
            meta-parameters are a `MetaParams`.
        inner_steps: steps of adaptation.
        noise: standard deviation that the noise begins with, in units of the target.
        prior_precision: $\lambda$, how strongly a particle is held to its start; 0 for a flat
            prior.
        gradient: how to differentiate through adaptation: any mode but `implicit`.
        loss: compares a `Prediction` with targets: of each particle on the support, of the mixture
            on the query.

    Returns:
        A `MetaLearner` that predicts a `Prediction`; its meta-parameters and adapted parameters are
        `BayesianParams`, its `info` is an `AdaptationInfo` (of the mixture).

    Raises:
        GradientError: if `gradient` is implicit, or the inner optimizer cannot be differentiated.
        TypeError: if the network predicts a `Prediction`: the noise is the learner's.
        ValueError: if a number is out of bounds.

    Reference:
        Yoon, Kim, Dia, Kim, Bengio, Ahn (2018), Bayesian Model-Agnostic Meta-Learning,
        arXiv:1806.03836, section 3 (without the chaser loss); Liu, Wang (2016), Stein Variational
        Gradient Descent, arXiv:1608.04471, equation 8.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax import Batch
    >>> from maml_jax.learners import bayesian_maml
    >>> from maml_jax.models import mlp
    >>> learner, x = bayesian_maml(mlp((8, 1))), jnp.linspace(-1.0, 1.0, 10)[:, None]
    >>> adapted = learner.adapt(learner.init(jax.random.key(0), x), Batch(x, jnp.sin(x)))
    >>> learner.predict(adapted, x).std.shape
    (10, 1)
    """
    _require_sizes(particles, noise, prior_precision)
    _require_path(gradient)
    require_optimizer(inner_optimizer)
    network = whole_network(model)
    optimizer: InnerOptimizer = stein(transform_of(inner_optimizer))
    if isinstance(inner_optimizer, LearnedOptimizer):
        optimizer = LearnedOptimizer(inner_optimizer.init, optimizer)

    def init(key, x, /) -> BayesianParams:
        starts = [network.init(own, x) for own in jax.random.split(key, particles)]
        require_different_starts(starts, "bayesian_maml")
        outputs = jax.eval_shape(output, starts[0], x)
        return BayesianParams(stack(starts), jnp.full(outputs.shape[1:], log_tenth(noise)))

    def output(theta: Params, x, key=None) -> Array:
        y_hat = predict_drawing(network, theta, x, key)
        if isinstance(y_hat, Prediction):
            raise TypeError(
                "bayesian_maml learns the noise itself and needs a network that predicts numbers; "
                "for deviations of the network's own use ensemble(maml(gaussian(...)))"
            )
        return y_hat

    def outputs_and_noise(params: BayesianParams, x, key=None) -> tuple[Array, Array]:
        keys = None if key is None else jax.random.split(key, particles)
        axes = (0, None, None if keys is None else 0)
        outputs = jax.vmap(output, axes)(params.particles, x, keys)
        return outputs, jnp.exp(10 * params.tenth_log_noise).astype(outputs.dtype)

    def predict(params: BayesianParams, x, key=None) -> Prediction:
        return mix(*outputs_and_noise(params, x, key))

    def join(moved: Params, start: BayesianParams) -> BayesianParams:
        return start._replace(particles=moved)

    def objective(moved: Params, start: BayesianParams, support: Batch, key=None) -> Scalar:
        rows = fill_absent(support)
        outputs, std = outputs_and_noise(join(moved, start), rows.x, key)
        std = jnp.broadcast_to(std, outputs.shape[1:])

        def of_particle(one):
            return batch_loss(loss, lambda own, x: Prediction(own, std), one, rows, key)

        apart = jax.tree.map(jnp.subtract, moved, start.particles)
        precision = 0.5 * prior_precision / at_least_some(count_rows(rows))
        prior = precision * optax.tree.norm(apart, squared=True)
        return jnp.sum(jax.vmap(of_particle)(outputs)) + prior

    def in_units_of_noise(start: BayesianParams, support: Batch, settings: Any) -> SteinSettings:
        variance = jnp.mean(jnp.exp(20 * start.tenth_log_noise))
        return SteinSettings(variance, variance / at_least_some(count_rows(support)), settings)

    return by_descent(
        Parts(
            init,
            lambda params: (params.particles, params),
            join,
            predict,
            objective=objective,
            task_settings=in_units_of_noise,
            predict_with_key=network.predict_with_key and predict,
        ),
        inner_optimizer=optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
        max_inner_norm=None,  # the deviation does not adapt
    )


def at_least_some(rows: Scalar | int) -> Scalar | int:
    """Return a number of rows to divide by; 1 where there are none."""
    return rows if isinstance(rows, int) else jnp.where(rows > 0, rows, 1)


def _require_path(gradient: GradientMode) -> None:
    require_mode(gradient)
    if not gradient.differentiates_start:
        raise GradientError(
            "particles that repel one another descend no common objective, of whose minimum "
            "implicit() is the derivative: use exact(), mixed_mode() or first_order()"
        )


def _require_sizes(particles: int, noise: Setting, precision: Setting) -> None:
    if particles < 1:
        raise ValueError(f"bayesian_maml needs at least 1 particle, got {particles}")
    require_positive(noise=noise)
    if not isinstance(precision, jax.core.Tracer) and precision < 0:
        raise ValueError(f"prior_precision must not be negative, got {precision}")
