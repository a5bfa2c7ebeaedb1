"""Bayesian MAML: particles that are adapted together stand for what a task's parameters may be."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from maml_jax.errors import GradientError
from maml_jax.learners._descent import (
    INNER_STEPS,
    InnerOptimizer,
    MetaParams,
    adaptation_info,
    require_mode,
    require_plain_params,
)
from maml_jax.learners._ensemble import mixture, stacked
from maml_jax.meta.gradients.implicit import Implicit
from maml_jax.meta.gradients.modes import GradientMode, exact
from maml_jax.meta.inner_loop import descend
from maml_jax.meta.losses import gaussian_nll
from maml_jax.meta.optimizers.learned_rates import LearnedOptimizer
from maml_jax.meta.types import (
    Batch,
    LossFn,
    MetaLearner,
    ModelLike,
    Params,
    Prediction,
    Scalar,
    Task,
)

PARTICLES = 5
INNER_LEARNING_RATE = 0.1
"""Of five particles, each of which follows a fifth of it, what 0.01 is for MAML."""

PRIOR_PRECISION = 1.0
NOISE = 1.0


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
    particles: int = PARTICLES,
    inner_optimizer: InnerOptimizer | None = None,
    inner_steps: int = INNER_STEPS,
    noise: float = NOISE,
    prior_precision: float = PRIOR_PRECISION,
    gradient: GradientMode | None = None,
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
        inner_optimizer: takes the place of the plain step along Stein's direction; default
            `optax.sgd(0.1)`. With `learned_rates()` meta-parameters are a `MetaParams`.
        inner_steps: steps of adaptation.
        noise: standard deviation that the noise begins with, in units of the target.
        prior_precision: $\lambda$, how strongly a particle is held to its start; 0 for a flat
            prior.
        gradient: how to differentiate through adaptation: `exact()` (default), `mixed_mode()` or
            `first_order()`.
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
    _require_sizes(particles, inner_steps, noise, prior_precision)
    gradient = exact() if gradient is None else gradient
    require_mode(gradient)
    if isinstance(gradient, Implicit):
        raise GradientError(
            "particles that repel one another descend no common objective, of whose minimum "
            "implicit() is the derivative: use exact(), mixed_mode() or first_order()"
        )
    optimizer = optax.sgd(INNER_LEARNING_RATE) if inner_optimizer is None else inner_optimizer
    learned = optimizer if isinstance(optimizer, LearnedOptimizer) else None
    plain = optimizer.transform if isinstance(optimizer, LearnedOptimizer) else optimizer
    transform = along_stein(plain)

    def init(key, x, /) -> Params:
        keys = jax.random.split(key, particles)
        starts = stacked([require_plain_params(model.init(own, x)) for own in keys])
        first = jax.tree.map(lambda leaf: leaf[0], starts)
        outputs = jax.eval_shape(outputs_of, first, x)
        tenth_log_noise = jnp.full(outputs.shape[1:], math.log(noise) / 10, jnp.float32)
        params = BayesianParams(starts, tenth_log_noise)
        if learned is None:
            return params
        return MetaParams(params, learned.init(jax.random.fold_in(key, particles), starts))

    def outputs_of(theta: Params, x) -> Array:
        outputs = model.apply(theta, x)
        if isinstance(outputs, Prediction):
            raise TypeError(
                "bayesian_maml learns the noise itself and needs a network that predicts numbers; "
                "for deviations of the network's own use ensemble(maml(gaussian(...)))"
            )
        return outputs

    def outputs_and_noise(params: BayesianParams, x) -> tuple[Array, Array]:
        outputs = jax.vmap(outputs_of, (0, None))(params.particles, x)
        return outputs, jnp.exp(10 * params.tenth_log_noise).astype(outputs.dtype)

    def objective(changing: Params, context: Any) -> Scalar:
        support, start = context
        outputs, std = outputs_and_noise(start._replace(particles=changing), support.x)
        std = jnp.broadcast_to(std, outputs.shape[1:])
        value = jnp.sum(jax.vmap(lambda one: loss(Prediction(one, std), support.y))(outputs))
        apart = jax.tree.map(jnp.subtract, changing, start.particles)
        holding = 0.5 * prior_precision / len(support.y)
        return value + holding * optax.tree.norm(apart, squared=True)

    def problem(meta_params: Params, support: Batch, steps: int) -> tuple:
        """Lay out the arguments of `descend`."""
        start, settings = (meta_params, None) if learned is None else meta_params
        variance = jnp.mean(jnp.exp(20 * start.tenth_log_noise))
        context = (support, start)
        stein = SteinSettings(variance, variance / len(support.y), settings)
        return objective, transform, start.particles, context, steps, stein

    def started(meta_params: Params) -> BayesianParams:
        return meta_params if learned is None else meta_params.start

    @partial(jax.jit, static_argnames="steps")
    def adapt(meta_params: Params, support: Batch, steps: int | None = None) -> BayesianParams:
        count = inner_steps if steps is None else steps
        moved, _ = descend(*problem(meta_params, support, count))
        return started(meta_params)._replace(particles=moved)

    def predict(adapted: BayesianParams, x, /) -> Prediction:
        return mixture(*outputs_and_noise(adapted, x))

    def meta_loss(meta_params: Params, task: Task, step):
        del step
        before = started(meta_params)
        moved, _ = gradient(*problem(meta_params, task.support, inner_steps))
        adapted = before._replace(particles=moved)
        query_loss = loss(predict(adapted, task.query.x), task.query.y)
        return query_loss, adaptation_info(loss, predict, before, adapted, task.support)

    return MetaLearner(init, adapt, predict, meta_loss)


class SteinSettings(NamedTuple):
    """What `along_stein` depends on beside particles and gradients.

    Attributes:
        pull: factor of the gradients.
        push: factor of the repulsion.
        optimizer: settings of the optimizer that follows, or None.
    """

    pull: Float[Array, ""]
    push: Float[Array, ""]
    optimizer: Any = None


def along_stein(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    r"""Let an optimizer follow Stein's direction instead of the gradient.

    For particles $\theta_i$ with gradients $g_i$ it is given

    $$\frac1M \sum_j k_{ij} \Bigl[a\, g_j - b\, \frac2h (\theta_i - \theta_j)\Bigr], \qquad
      k_{ij} = e^{-\lVert\theta_i - \theta_j\rVert^2 / h}$$

    which is Stein's where $a g = - b \nabla\log p$.

    Args:
        optimizer: any optax transformation.

    Returns:
        A transformation of stacked particles, `[particle, ...]`, whose update takes the extra
        argument `settings`, `SteinSettings` of $a$ and $b$.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def update(updates, state, params=None, **extra):
        pull, push, settings = extra.pop("settings")
        kernel, bandwidth = rbf_kernel(params)
        apart = jnp.diag(jnp.sum(kernel, axis=1)) - kernel
        pulling, pushing = pull * kernel, 2 * push / bandwidth * apart

        def direction(gradient: Array, theta: Array) -> Array:
            count = len(theta)
            # Only differences count, and small numbers have exact ones.
            centred = theta - jnp.mean(theta, axis=0)
            pulled = pulling @ gradient.reshape(count, -1)
            pushed = pushing @ centred.reshape(count, -1)
            return ((pulled - pushed) / count).reshape(theta.shape).astype(theta.dtype)

        directions = jax.tree.map(direction, updates, params)
        learned = {} if settings is None else {"settings": settings}
        return optimizer.update(directions, state, params, **extra, **learned)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def rbf_kernel(
    particles: Params,
) -> tuple[Float[Array, "particle particle"], Float[Array, ""]]:
    r"""Return the kernel $e^{-d^2/h}$ between particles, and $h$, the median of $d^2$ over log M.

    Pairs of one particle with itself do not count for the median. Where the median is 0 (or there
    is one particle) h is 1: particles in one place have no direction to be pushed in.
    """
    squared = _squared_distances(particles)
    count = len(squared)
    if count == 1:
        return jnp.ones((1, 1), squared.dtype), jnp.ones((), squared.dtype)
    median = jnp.median(squared[np.triu_indices(count, 1)])
    bandwidth = jnp.where(median > 0, median / math.log(count), 1.0)
    return jnp.exp(-squared / bandwidth), bandwidth


def _squared_distances(particles: Params) -> Float[Array, "particle particle"]:
    leaves = jax.tree.leaves(particles)
    rows = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    # Distances do not depend on where the origin is; small numbers lose less in the difference.
    rows = rows - jnp.mean(rows, axis=0)
    norms = jnp.sum(jnp.square(rows), axis=1)
    return jnp.maximum(norms[:, None] + norms - 2 * rows @ rows.T, 0)


def _require_sizes(particles: int, steps: int, noise: float, precision: float) -> None:
    if particles < 1 or not noise > 0 or precision < 0:
        raise ValueError(
            "bayesian_maml needs at least 1 particle, a positive noise and a prior precision that "
            f"is not negative, got {particles}, {noise} and {precision}"
        )
    if steps < 0:
        raise ValueError(f"inner_steps must not be negative, got {steps}")
