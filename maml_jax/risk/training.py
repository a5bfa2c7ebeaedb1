"""Meta-training of a model of risk, from bars to weights."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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
from maml_jax.risk.histories import Histories, Scaling, outcome
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


_NO_SCALING = Scaling(np.zeros(0), np.ones(0), 0.0, 1.0)


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
        folds: parts of the assets; what forecasts leave over of each part is measured with a member
            that was trained on the others. 1: with all members, on what they were trained on.
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
    folds: int = 1
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
    model = RiskModel(
        name,
        interval,
        settings.network,
        settings.mean_network,
        settings.heteroscedastic,
        (),
        _NO_SCALING,
        {},
        settings.conformal_rate,
        {},
    )
    seen = _Seen(histories, tuple(assets), tuple(last))
    whole = _fit_members(model, seen, settings, range(seed, seed + settings.members), report)
    left_over = _measure(whole, model, seen, settings, seed, report)
    return whole._replace(residuals=left_over)


class _Seen(NamedTuple):
    """What is trained on: histories, the numbers of assets, and the last bar of each."""

    histories: Histories
    assets: tuple[int, ...]
    last: tuple[int, ...]

    def without(self, fold: int, folds: int) -> "_Seen":
        """Leave out one of every so many assets."""
        kept = [place for place in range(len(self.assets)) if place % folds != fold]
        return self._replace(
            assets=tuple(self.assets[place] for place in kept),
            last=tuple(self.last[place] for place in kept),
        )


def _fit_members(
    model: RiskModel,
    seen: _Seen,
    settings: RiskSettings,
    seeds: Iterable[int],
    report: Callable[[str], None],
) -> RiskModel:
    tables, scaling = make_listings(
        seen.histories, assets=seen.assets, last=seen.last, horizons=settings.horizons
    )
    learner = risk_learner(settings.network, settings.mean_network, settings.heteroscedastic)
    members = []
    for seed in seeds:
        params, loss = _train(learner, tables, settings, seed)
        report(f"seed {seed} on {len(seen.assets)} assets: loss {loss:.4f}")
        members.append(name_parameters(params))
    return model._replace(members=tuple(members), scaling=scaling)


def _measure(
    whole: RiskModel,
    model: RiskModel,
    seen: _Seen,
    settings: RiskSettings,
    seed: int,
    report: Callable[[str], None],
) -> dict[int, Residuals]:
    """Measure what forecasts leave over, of each horizon, of assets that were held out."""
    folds = min(settings.folds, len(seen.assets))
    found: dict[int, list[Sequence[np.ndarray]]] = {horizon: [] for horizon in settings.horizons}
    for fold in range(folds):
        held_out = range(fold, len(seen.assets), folds)
        one = whole
        if folds > 1:
            rest = seen.without(fold, folds)
            one = _fit_members(model, rest, settings, [seed], report)
        for horizon, parts in found.items():
            parts += [_left_over(one, seen, place, horizon) for place in held_out]
    return {
        horizon: measure_residuals(
            *(np.concatenate(each) for each in zip(*parts, strict=True)), horizon=horizon
        )
        for horizon, parts in found.items()
    }


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


def _left_over(
    model: RiskModel, seen: _Seen, place: int, horizon: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Forecast an asset as listed at many bars; return what `measure_residuals` takes."""
    histories, asset, end = seen.histories, seen.assets[place], seen.last[place]
    rows = min(ROWS, OLDEST, max(end - horizon - _LISTED_EVERY, 2))
    starts = np.arange(0, end - horizon - rows + 1, _LISTED_EVERY)
    mean, std = forecast_listings(
        model, histories, asset, starts, horizon=horizon, rows=rows, others=seen.assets
    )
    at = starts[:, None] + np.arange(rows)
    ahead, total = outcome(histories.returns[asset][: end + 1], horizon)
    age = np.broadcast_to(np.arange(rows), at.shape)
    kept = (each[:, 1:].ravel() for each in (age, mean, std, ahead[at], total[at]))
    age, mean, std, ahead, total = kept
    return age, mean, std, ahead, total
