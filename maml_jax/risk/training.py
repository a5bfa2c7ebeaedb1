"""Meta-training of a model of risk, from bars to weights."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from maml_jax.learners import AlpacaParams, alpaca
from maml_jax.meta import Batch, MetaLearner, MetaState, Task, fit, weights_of
from maml_jax.meta.parameters import name_parameters as parameters_by_name
from maml_jax.meta.types import AdaptationInfo, Params
from maml_jax.models import mlp
from maml_jax.risk.forecast import forecast_listings
from maml_jax.risk.histories import Histories, outcome
from maml_jax.risk.listings import (
    OLDEST,
    ROWS,
    Listings,
    history_sampler,
    make_listings,
)
from maml_jax.risk.model import RiskModel
from maml_jax.risk.prefixes import by_prefixes
from maml_jax.risk.residuals import Residuals, measure_residuals
from maml_jax.risk.sliding import SUPPORT

MEAN = ("mean_function",)
HEAD = ("features", "factor", "tenth_log_noise", "noise_slope")
"""Parts that are trained first, and those after them. What is forecast of an asset without rows
stays that of the first; the head's own mean stays 0. Trained together, the head bends the mean
function to what is good to adapt, and the first bars pay for it."""

_LISTED_EVERY = 100
"""Bars between the imagined listings on which residuals are measured."""


class RiskSettings(NamedTuple):
    """How a model of risk is trained.

    Attributes:
        network: widths of the feature network.
        mean_network: widths of the network whose output the head corrects, but for its last.
        heteroscedastic: whether the noise depends on the input.
        horizons: bars ahead.
        members: networks of the ensemble, each from a seed of its own.
        pooled_steps: meta-steps in which the mean alone is trained, by its squared error.
        steps: meta-steps of all by the likelihood.
        pooled_rate: of Adam in the former, falling to 0 along a cosine.
        rate: likewise in the latter.
        meta_batch: histories in a meta-step.
        queries: rows of each that are forecast.
        conformal_rate: of the correction by an asset's own exceedances, as a share of the level.
    """

    network: tuple[int, ...] = (64, 64, 16)
    mean_network: tuple[int, ...] = (64, 64)
    heteroscedastic: bool = True
    horizons: tuple[int, ...] = (1, 5, 22)
    members: int = 3
    pooled_steps: int = 8000
    steps: int = 1500
    pooled_rate: float = 3e-3
    rate: float = 3e-3
    meta_batch: int = 16
    queries: int = 64
    conformal_rate: float = 0.05


def train_risk(
    histories: Histories,
    *,
    name: str,
    interval: pd.Timedelta,
    assets: Sequence[int],
    last: Sequence[int],
    settings: RiskSettings,
    seed: int = 0,
    report: Callable[[str], None] = lambda _: None,
) -> RiskModel:
    """Meta-train a model of risk on histories that are cut at random.

    Args:
        histories: of all assets.
        name: of the weights.
        interval: length of the bars.
        assets: numbers of those to train on.
        last: index of the last bar of each that may be seen.
        settings: how.
        seed: of the first member; the others follow.
        report: told of each stage.
    """
    tables, scaling = make_listings(histories, assets=assets, last=last, horizons=settings.horizons)
    learner = risk_learner(settings.network, settings.mean_network, settings.heteroscedastic)
    members = []
    for member in range(settings.members):
        params, loss = _train(learner, tables, settings, seed + member)
        report(f"member {member + 1} of {settings.members}: loss {loss:.4f}")
        members.append(name_parameters(params))
    model = RiskModel(
        name,
        interval,
        settings.network,
        settings.mean_network,
        settings.heteroscedastic,
        tuple(members),
        scaling,
        {},
        settings.conformal_rate,
        {},
    )
    residuals = {
        horizon: _residuals(model, histories, assets, last, horizon)
        for horizon in settings.horizons
    }
    return model._replace(residuals=residuals)


def _train(
    learner: MetaLearner, tables: Listings, settings: RiskSettings, seed: int
) -> tuple[Params, float]:
    first, second = jax.random.split(jax.random.key(seed))
    sampler = history_sampler(tables, meta_batch=settings.meta_batch, queries=settings.queries)
    optimizer = _of_parts(MEAN, settings.pooled_rate, settings.pooled_steps)
    state, _ = fit(mean_alone(learner), optimizer, sampler, first, steps=settings.pooled_steps)
    optimizer = _of_parts(HEAD, settings.rate, settings.steps)
    state = MetaState(state.params, optimizer.init(state.params), jnp.zeros_like(state.step))
    state, history = fit(
        by_prefixes(learner, window=SUPPORT),
        optimizer,
        sampler,
        second,
        steps=settings.steps,
        state=state,
    )
    return state.params, float(np.mean(np.asarray(history.loss)[-settings.steps // 10 :]))


def risk_learner(
    network: tuple[int, ...], mean_network: tuple[int, ...], heteroscedastic: bool
) -> MetaLearner:
    """Make the learner that a model of risk is trained with."""
    mean = mlp((*mean_network, 1))
    return alpaca(mlp(network), heteroscedastic=heteroscedastic, mean_function=mean, noise=0.7)


def name_parameters(params: Params) -> dict[str, np.ndarray]:
    """Return parameters by name, such as `features/layers/0/kernel`."""
    return {name: values.astype(np.float32) for name, values in parameters_by_name(params).items()}


def _of_parts(parts: tuple[str, ...], rate: float, steps: int) -> optax.GradientTransformation:
    """Make Adam for some of the meta-parameters; the others stay as they are."""

    def label(params: AlpacaParams) -> AlpacaParams:
        return params._replace(
            **{
                name: jax.tree.map(lambda _, name=name: "on" if name in parts else "off", tree)
                for name, tree in params._asdict().items()
            }
        )

    adam = optax.adam(optax.cosine_decay_schedule(rate, steps))
    return optax.multi_transform({"on": adam, "off": optax.set_to_zero()}, label)


def mean_alone(learner: MetaLearner) -> MetaLearner:
    """Make a learner that is trained by the squared error of what it predicts of no rows."""

    def meta_loss(meta_params, task: Task, step=0):
        del step
        support, query = task.support, task.query
        nothing = Batch(support.x[:1], support.y[:1], jnp.zeros(1))
        found = learner.predict(learner.adapt(meta_params, nothing), query.x).mean
        error = jnp.square(found[:, 0] - query.y[:, 0]) * weights_of(query)
        value = error.sum() / jnp.maximum(weights_of(query).sum(), 1)
        return value, AdaptationInfo(value, value)

    return learner._replace(loss=meta_loss)


def _residuals(
    model: RiskModel,
    histories: Histories,
    assets: Sequence[int],
    last: Sequence[int],
    horizon: int,
) -> Residuals:
    """Measure what forecasts leave over on imagined listings of the training assets."""
    found: list[list[np.ndarray]] = []
    for asset, end in zip(assets, last, strict=True):
        rows = min(ROWS, OLDEST, max(end - horizon - _LISTED_EVERY, 2))
        starts = np.arange(0, end - horizon - rows + 1, _LISTED_EVERY)
        mean, std = forecast_listings(
            model, histories, asset, starts, horizon=horizon, rows=rows, others=assets
        )
        at = starts[:, None] + np.arange(rows)
        after = outcome(histories.returns[asset][: end + 1], horizon)
        age = np.broadcast_to(np.arange(rows), at.shape)
        each: list[Any] = [age, mean, std, after[0][at], after[1][at]]
        found.append([values[:, 1:].ravel() for values in each])
    age, mean, std, ahead, total = (np.concatenate(each) for each in zip(*found, strict=True))
    return measure_residuals(age, mean, std, ahead, total, horizon)
