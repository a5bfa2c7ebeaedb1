"""Forecasts at every bar of a Bayesian head that is adapted to the last rows before each."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from maml_jax.learners import Posterior
from maml_jax.meta import Batch, MetaLearner
from maml_jax.meta.types import Params
from maml_jax.risk.listings import SUPPORT

LANES = 8
"""Assets that one program handles at once: few enough to stay in the cache."""


class Rows(NamedTuple):
    """Rows of several assets side by side.

    Attributes:
        x: inputs at each bar, `[asset, bar, input]`, standardised.
        y: outcomes of the bars, `[asset, bar]`, standardised; of any value where unknown.
        known: whether an outcome is complete `horizon` bars later, `[asset, bar]`.
    """

    x: Float[np.ndarray, "asset bar input"]
    y: Float[np.ndarray, "asset bar"]
    known: Float[np.ndarray, "asset bar"]


def forecast_each_bar(
    learner: MetaLearner, params: Params, rows: Rows, horizon: int
) -> tuple[Float[np.ndarray, "asset bar"], Float[np.ndarray, "asset bar"]]:
    """Forecast at every bar from the last rows whose outcomes were complete at it.

    What a row adds to a posterior does not depend on the others, so that the posterior of a window
    is the prior and a sum over its rows. Sums over windows of one length are those of a block to
    its end and of the next from its beginning: nothing is subtracted, and no rounding builds up.

    Args:
        learner: `alpaca`.
        params: its meta-parameters.
        rows: of several assets.
        horizon: bars after which an outcome is complete.

    Returns:
        Means and deviations of the standardised outcome, `[asset, bar]`.
    """
    assets, bars = rows.y.shape
    blocks = -(-bars // SUPPORT)
    shape = (-(-assets // LANES) * LANES, blocks * SUPPORT)

    def pad(values: np.ndarray, ahead: int = 0) -> np.ndarray:
        late = np.zeros((*shape, *values.shape[2:]), np.float32)
        late[:assets, ahead:bars] = values[:, : bars - ahead]
        return late

    support: Any = (pad(rows.x, horizon), pad(rows.y, horizon)[..., None], pad(rows.known, horizon))
    query = pad(rows.x)
    mean, std = np.empty(shape), np.empty(shape)
    for lane in range(0, shape[0], LANES):
        before: Any = None
        for block in range(blocks):
            at = (slice(lane, lane + LANES), slice(block * SUPPORT, (block + 1) * SUPPORT))
            part = Batch(*(leaf[at] for leaf in support))
            if before is None:
                before = _nothing(learner, params, part)
            found, before = _forecast_block(learner, params, part, query[at], before)
            mean[at], std[at] = (np.asarray(each)[..., 0, 0] for each in found)
    return mean[:assets, :bars], std[:assets, :bars]


def _nothing(learner: MetaLearner, params: Params, part: Batch) -> tuple[Array, Array]:
    """Return sums over no rows, for each place of a block."""
    shapes = jax.eval_shape(partial(_block_sums, learner, params), part)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _prior(learner: MetaLearner, params: Params, x: Array) -> Posterior:
    none = Batch(x[:1], jnp.zeros((1, 1), x.dtype), jnp.zeros(1, x.dtype))
    return learner.adapt(params, none)


def _block_sums(learner: MetaLearner, params: Params, part: Batch) -> tuple[Array, Array]:
    """Return what each row adds to precision and information, `[asset, bar, ...]`."""
    prior = _prior(learner, params, part.x[0])
    zero = prior._replace(
        precision=jnp.zeros_like(prior.precision), information=jnp.zeros_like(prior.information)
    )

    take_in = learner.update
    assert take_in is not None

    def add(row: Batch) -> tuple[Array, Array]:
        one: Batch = jax.tree.map(lambda leaf: leaf[None], row)
        found = take_in(zero, one)
        return found.precision, found.information

    return jax.vmap(jax.vmap(add))(part)


@partial(jax.jit, static_argnums=0)
def _forecast_block(learner: MetaLearner, params: Params, part: Batch, query: Array, before):
    """Forecast the bars of a block; `before`: sums of the last one, from each place to its end."""
    prior = _prior(learner, params, query[0])
    each = _block_sums(learner, params, part)

    def window(sums: Array, rest: Array) -> Array:
        rest = jnp.concatenate([rest[:, 1:], jnp.zeros_like(rest[:, :1])], axis=1)
        return jnp.cumsum(sums, axis=1) + rest

    def predict(precision: Array, information: Array, x: Array):
        adapted = prior._replace(
            precision=prior.precision + precision, information=prior.information + information
        )
        return learner.predict(adapted, x[None])

    windows = [window(sums, rest) for sums, rest in zip(each, before, strict=True)]
    precision, information = windows
    found = jax.vmap(jax.vmap(predict))(precision, information, query)
    ends = tuple(jnp.flip(jnp.cumsum(jnp.flip(sums, 1), axis=1), 1) for sums in each)
    return found, ends
