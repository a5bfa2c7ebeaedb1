"""An ensemble: the same learner from several starts, whose disagreement measures uncertainty."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from maml_jax.errors import ShapeError
from maml_jax.learners._checks import log_tenth, require_positive
from maml_jax.meta.arguments import require_learner
from maml_jax.meta.losses import gaussian_nll
from maml_jax.meta.networks import require_different_starts
from maml_jax.meta.rows import batch_loss
from maml_jax.meta.types import Batch, MetaLearner, Params, Prediction, Setting, Task


class EnsembleParams(NamedTuple):
    """Meta-parameters, or what they have adapted to.

    Attributes:
        members: of the learner, stacked: `[member, ...]`.
        tenth_log_noise: a tenth of the logarithm of the standard deviation of the noise around the
            members' predictions, one for all targets. It rests where the members predict deviations
            of their own.
    """

    members: Params
    tenth_log_noise: Float[Array, ""]


def ensemble(learner: MetaLearner, members: int = 5, *, noise: Setting = 1.0) -> MetaLearner:
    r"""Make an ensemble of any learner of numbers: members differ in their random starts alone.

    $$\mu = \frac1M\sum_m \mu_m, \qquad
      \sigma^2 = \frac1M\sum_m \sigma_m^2 + \frac1M\sum_m (\mu_m - \mu)^2$$

    are the moments of the mixture of what the members predict. $\sigma_m$ is the member's own where
    it predicts a `Prediction`. Where it predicts a number it is a noise that is learned beside the
    members, by the likelihood of the query rows under the mixture; without it an interval would
    cover where the signal may lie, not where outcomes do.

    The loss is the sum of the members' losses, so that each receives the meta-gradient that it
    would receive alone; the bound on its norm holds for each member by itself. A task that is not
    finite for one member is skipped for all of them where `on_bad="skip"`.

    Args:
        learner: any learner whose predictions are numbers or a `Prediction`.
        members: how many.
        noise: what the standard deviation of the noise begins with, in units of the target.

    Returns:
        A `MetaLearner` that predicts a `Prediction`; its meta-parameters and adapted parameters are
        `EnsembleParams`, its `info` the members' mean. It has an `update` where `learner` has one,
        and takes as many steps as `learner` does.

    Raises:
        ShapeError: from `loss`, if targets are classes.
        TypeError: if `learner` is no learner.
        ValueError: if `members` is less than 1 or `noise` not positive.

    Reference:
        Lakshminarayanan, Pritzel, Blundell (2017), Simple and Scalable Predictive Uncertainty
        Estimation using Deep Ensembles, arXiv:1612.01474, section 2.4.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax import Batch, maml
    >>> from maml_jax.learners import ensemble
    >>> from maml_jax.models import mlp
    >>> learner, x = ensemble(maml(mlp((8, 1))), members=3), jnp.linspace(-1.0, 1.0, 10)[:, None]
    >>> adapted = learner.adapt(learner.init(jax.random.key(0), x), Batch(x, jnp.sin(x)))
    >>> learner.predict(adapted, x).std.shape
    (10, 1)
    """
    require_learner(learner)
    if members < 1:
        raise ValueError(f"an ensemble needs at least 1 member, got {members}")
    require_positive(noise=noise)

    def init(key, x, /) -> EnsembleParams:
        each = [learner.init(own, x) for own in jax.random.split(key, members)]
        require_different_starts(each, "ensemble")
        return EnsembleParams(stack(each), log_tenth(noise))

    # Compiled by itself, so that a loop over assets reuses the compiled program.
    @partial(jax.jit, static_argnames="steps")
    def adapt(
        meta_params: EnsembleParams, support: Batch, steps: int | None = None, key=None
    ) -> EnsembleParams:
        def one(params: Params, key) -> Params:
            more = {} if key is None else {"key": key}
            return learner.adapt(params, support, steps=steps, **more)

        return meta_params._replace(members=each_with_key(one, meta_params.members, key))

    def each_with_key(one, states: Params, key):
        """Call `one(member, key)` for each member, with a key of its own."""
        keys = None if key is None else jax.random.split(key, members)
        return jax.vmap(one, (0, None if keys is None else 0))(states, keys)

    def predict(adapted: EnsembleParams, x, /) -> Prediction:
        each = jax.vmap(lambda own: learner.predict(own, x))(adapted.members)
        if isinstance(each, Prediction):
            return mix(each.mean, each.std)
        return mix(each, jnp.exp(10 * adapted.tenth_log_noise).astype(each.dtype))

    def meta_loss(meta_params: EnsembleParams, task: Task, step=0):
        if not jnp.issubdtype(task.query.y.dtype, jnp.floating):
            raise ShapeError(
                f"an ensemble predicts numbers, and targets are {task.query.y.dtype}: make a "
                "learner of returns out of a classifier with direction(...)"
            )

        def one(params: Params, key):
            return learner.loss(params, task._replace(key=key), step)

        losses, infos = each_with_key(one, meta_params.members, task.key)
        info = jax.tree.map(partial(jnp.mean, axis=0), infos)
        return jnp.sum(losses) + likelihood_of_noise(meta_params, task), info

    def likelihood_of_noise(meta_params: EnsembleParams, task: Task) -> Float[Array, ""]:
        """Return 0, whose derivative in the noise is that of the mixture's likelihood."""
        fixed = jax.lax.stop_gradient(meta_params.members)
        shape = jax.eval_shape(predict_with_first, fixed, task)
        if isinstance(shape, Prediction):
            return jnp.zeros(())
        adapted = adapt(meta_params._replace(members=fixed), task.support)
        value = batch_loss(gaussian_nll, predict, adapted, task.query)
        return value - jax.lax.stop_gradient(value)

    def predict_with_first(fixed: Params, task: Task):
        first = jax.tree.map(lambda leaf: leaf[0], fixed)
        return learner.predict(learner.adapt(first, task.support), task.query.x)

    def update(adapted: EnsembleParams, batch: Batch, /) -> EnsembleParams:
        assert learner.update is not None
        return adapted._replace(members=jax.vmap(learner.update, (0, None))(adapted.members, batch))

    def norms(grad: EnsembleParams) -> EnsembleParams:
        """Return the norm of each member's gradient, in a shape that broadcasts against it."""
        squares = [
            jnp.sum(jnp.square(leaf.reshape(members, -1)), axis=1)
            for leaf in jax.tree.leaves(grad.members)
        ]
        norm = jnp.sqrt(jnp.sum(jnp.stack(squares), axis=0))

        def like(leaf):
            return norm.reshape(members, *(1,) * (leaf.ndim - 1))

        return EnsembleParams(jax.tree.map(like, grad.members), jnp.abs(grad.tenth_log_noise))

    take_in = None if learner.update is None else update
    return MetaLearner(init, adapt, predict, meta_loss, take_in, norms, learner.random)


def mix(mean: Float[Array, "member *rows"], std: Float[Array, "..."]) -> Prediction:
    r"""Return the moments of a mixture of normal distributions of equal weight.

    Args:
        mean: of each member.
        std: of each member; one of fewer dimensions holds for all.
    """
    variance = jnp.mean(jnp.broadcast_to(jnp.square(std), mean.shape), axis=0)
    return Prediction(jnp.mean(mean, axis=0), jnp.sqrt(variance + jnp.var(mean, axis=0)))


def stack(trees: list[Params]) -> Params:
    """Return parameters of one structure side by side, `[member, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
