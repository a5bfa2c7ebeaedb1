"""Forecasts of the volatility of an asset as if it had been listed n bars ago: the rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from benchmarks.reproduce.new_listing_market import Data, mean_error, variance_shift
from maml_jax.backtest.baselines.young import (
    Cuts,
    Nearest,
    Refit,
    age_regression,
    ewma_at_age,
    forecaster,
    garch_t,
    nearest_donors,
    refitted_har,
)
from maml_jax.errors import DataError
from maml_jax.meta import Batch, MetaLearner, predict_tasks
from maml_jax.meta.types import Params
from maml_jax.risk.ages import young_tasks
from maml_jax.risk.histories import INPUTS, Histories
from maml_jax.risk.model import RiskModel
from maml_jax.risk.sliding import SUPPORT
from maml_jax.risk.training import risk_learner

MODEL = "model"
"""Key of the row that is trained: of its members and of the ensemble, with and without rows."""

OUTSIDE = "outside"
DONORS = "nearest-donors"

MONTH, WEEK, YEAR = 21, 5, 252
"""Bars from one fit to the next."""

GARCH_BEFORE = 63
"""Bars from one fit of GARCH to the next where constants are fitted."""

_PRIOR_AGE = 125
"""Returns from which the exponential average of another asset is taken for its volatility."""

_CHUNK = 1000
"""Forecasts whose support sets are in memory at once."""

ByAge = Float[np.ndarray, "age asset time"]


@dataclass(frozen=True)
class ListingRow:
    """One forecaster.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        forecast: log of volatility per bar at some ages, by age, asset and time; None for the row
            that is trained.
        setting: what else it depends on.
        of_variance: whether it forecasts a mean of squares.
    """

    key: str
    name: str
    forecast: Callable[[Data, Sequence[int]], ByAge] | None = None
    setting: Mapping[str, Any] = field(default_factory=dict)
    of_variance: bool = False


def har(setting: Refit) -> Callable[[Data, Sequence[int]], ByAge]:
    """Forecast by the pooled regression, refitted from the calibration on."""

    def forecast(data: Data, ages: Sequence[int]) -> ByAge:
        return refitted_har(
            data.returns,
            horizon=data.market.horizon,
            ages=ages,
            first=data.calibrated_from,
            donors=data.seen,
            setting=setting,
        )

    return forecast


def at_each_age(setting: Cuts) -> Callable[[Data, Sequence[int]], ByAge]:
    """Forecast by a regression for each age; of the calibration by one that is fitted before it."""

    def forecast(data: Data, ages: Sequence[int]) -> ByAge:
        options: dict[str, Any] = {"horizon": data.market.horizon, "ages": ages}
        options |= {"donors": data.seen, "setting": setting}
        early = data.returns[:, : data.first]
        before = age_regression(early, first=data.calibrated_from, targets=data.seen, **options)
        after = age_regression(data.returns, first=data.first, targets=data.unseen, **options)
        return _join(before, after)

    return forecast


def ewma(data: Data, ages: Sequence[int]) -> ByAge:
    """Forecast by RiskMetrics, begun with the first squared return."""
    return ewma_at_age(data.returns, ages=ages)


def ewma_from_market(data: Data, ages: Sequence[int]) -> ByAge:
    """Forecast by RiskMetrics, begun with what the training assets have at the listing."""
    return ewma_at_age(data.returns, ages=ages, prior=market_prior(data.returns, data.seen))


def market_prior(
    returns: Float[np.ndarray, "asset time"], others: Sequence[int]
) -> Float[np.ndarray, "asset time"]:
    """Mean over the other assets of the log of their exponential averages."""
    each = np.full(returns.shape, np.nan)
    chosen = np.asarray(others)
    each[chosen] = ewma_at_age(returns[chosen], ages=(_PRIOR_AGE,))[0]
    known = np.isfinite(each)
    values = np.where(known, each, 0.0)
    count = known.sum(axis=0) - known
    return np.where(count > 0, (values.sum(axis=0) - values) / np.maximum(count, 1), np.nan)


def garch(data: Data, ages: Sequence[int]) -> ByAge:
    """Forecast by GARCH with Student's t, from 250 returns on."""
    options: dict[str, Any] = {"horizon": data.market.horizon, "ages": ages}
    early = data.returns[:, : data.first]
    start = {"first": data.calibrated_from, "targets": data.seen, "refit": GARCH_BEFORE}
    before = garch_t(early, **start, **options)
    late = {"first": data.first, "targets": data.unseen, "refit": MONTH}
    return _join(before, garch_t(data.returns[:, : data.last + 1], **late, **options), data)


def donors(data: Data, ages: Sequence[int]) -> ByAge:
    """Forecast by the regression on the nearest histories, at every twelfth bar of the others."""
    return nearest_donors(
        data.returns,
        horizon=data.market.horizon,
        ages=ages,
        first=data.first,
        donors=data.seen,
        targets=data.unseen,
        setting=Nearest(every=12 * data.every),
    )


def _join(before: ByAge, after: ByAge, data: Data | None = None) -> ByAge:
    """Put forecasts of the first bars before those of the others."""
    times = after.shape[-1] if data is None else data.returns.shape[1]
    found = np.full((*after.shape[:-1], times), np.nan)
    found[..., : after.shape[-1]] = after
    found[..., : before.shape[-1]] = before
    return found


def _refits(
    key: str, name: str, often: Sequence[int] = (MONTH, WEEK), **setting: Any
) -> list[ListingRow]:
    return [
        ListingRow(
            f"har-{key}-{every}",
            f"HAR, {name}, every {every} bars",
            har(Refit(every=every, **setting)),
            {"refit": Refit(every=every, **setting)._asdict()},
        )
        for every in often
    ]


ROWS = (
    ListingRow(MODEL, "the model"),
    ListingRow("age-once", "regression at each age, fitted once", at_each_age(Cuts())),
    ListingRow(
        "age-yearly",
        f"regression at each age, every {YEAR} bars",
        at_each_age(Cuts(every=YEAR)),
        {"every": YEAR},
    ),
    *_refits("linear", "linear at each age"),
    *_refits("own", "linear at each age, own rows 20 times", (MONTH,), own=20.0),
    *_refits("intercept", "linear at each age with random intercept", intercept=250),
    *_refits("pooled", "quadratic of all ages", quadratic=True, pool_ages=True),
    *_refits(
        "pooled-intercept",
        "quadratic of all ages with random intercept",
        quadratic=True,
        pool_ages=True,
        intercept=250,
    ),
    ListingRow("ewma", "EWMA", ewma, of_variance=True),
    ListingRow("ewma-market", "EWMA begun with the market", ewma_from_market, of_variance=True),
    ListingRow("garch", "GARCH-t", garch, {"before": GARCH_BEFORE}, of_variance=True),
    ListingRow(DONORS, "nearest donors", donors),
)
"""In the order of tables; the first is what others are compared with."""


def outside_row(path: Path, digest: str) -> ListingRow:
    """Make the row of forecasts that are read from a file.

    With a column `age` they are of an asset that was listed so many bars ago; without, each serves
    all ages.
    """

    def forecast(data: Data, ages: Sequence[int]) -> ByAge:
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise DataError(f"--forecasts {path}: cannot be read as Parquet: {error}") from error
        layout: Any = {"assets": [*data.bars.frames], "times": data.timeline}
        if "age" not in table.columns:
            return np.stack([forecaster(table, **layout).volatility] * len(ages))
        return np.stack(
            [forecaster(table[table["age"] == age], **layout).volatility for age in ages]
        )

    return ListingRow(OUTSIDE, f"from {path.name}", forecast, {"forecasts": digest})


def measure(
    data: Data, row: ListingRow, forecasts: tuple[np.ndarray, np.ndarray]
) -> dict[str, list[Any]]:
    """Return what a result holds of one forecaster.

    Args:
        data: the bars.
        row: the forecaster.
        forecasts: of seen assets before the test and of unseen ones in it, `[age, asset, time]`.

    Returns:
        Forecasts of unseen assets, and by age the constants that were fitted on seen ones before
        the test: to the mean of logarithms, and to the root of the mean variance.
    """
    before, test = forecasts
    error = data.outcomes[0] - before
    to_mean = [mean_error(each) if row.of_variance else 0.0 for each in error]
    to_variance = [variance_shift(each) for each in error]
    if row.key == OUTSIDE:  # it may know nothing of the seen assets, and stands as it is
        to_variance = [each if np.isfinite(each) else 0.0 for each in to_variance]
    return {
        "forecasts": np.round(test, 4).tolist(),
        "to_mean": to_mean,
        "to_variance": to_variance,
    }


def forecast_row(data: Data, row: ListingRow) -> dict[str, Any]:
    """Forecast by one opponent."""
    assert row.forecast is not None
    ages = data.market.donor_ages if row.key == DONORS else data.market.ages
    return measure(data, row, data.pick(row.forecast(data, ages)))


def forecast_model(data: Data, row: ListingRow) -> dict[str, Any]:
    """Forecast by each member of the model, with the rows of the asset and without."""
    ages, model = data.market.ages, data.model
    count, places = len(model.members), (data.before, data.grid)
    shape = (2, count, len(ages))
    found = [
        np.full((*shape, len(assets), len(at)), np.nan)
        for assets, at in zip((data.seen, data.unseen), places, strict=True)
    ]
    for place, age in enumerate(ages):
        for values, assets, at in zip(found, (data.seen, data.unseen), places, strict=True):
            values[:, :, place] = forecast_members(
                model,
                data.histories,
                assets,
                at,
                age=age,
                horizon=data.market.horizon,
                others=data.seen,
            )
    result = {"members": count, "horizons": list(model.horizons)}
    for number, name in enumerate(("model", "network")):
        before, test = (values[number] for values in found)
        each = [measure(data, row, pair) for pair in zip(before, test, strict=True)]
        together = measure(data, row, (before.mean(axis=0), test.mean(axis=0)))
        result |= {name: each, f"{name}-ensemble": [together]}
    return result


def forecast_members(
    model: RiskModel,
    histories: Histories,
    assets: Sequence[int],
    times: Int[np.ndarray, " time"],
    *,
    age: int,
    horizon: int,
    others: Sequence[int] | None = None,
) -> Float[np.ndarray, "2 member asset time"]:
    """Forecast assets as if each had been listed `age` returns ago, with its rows and without.

    Args:
        model: trained.
        histories: of all assets.
        assets: numbers of those to forecast.
        times: places on the timeline.
        age: returns since the listing.
        horizon: bars ahead.
        others: numbers of the assets that are the market.

    Returns:
        The mean of the log of volatility per bar of each member; NaN where an asset has no bar or
        fewer returns.
    """
    found = np.full((2, len(model.members), len(assets), len(times)), np.nan)
    tasks, where = [], []
    for place, asset in enumerate(assets):
        own = histories.times[asset].get_indexer(histories.timeline[times])
        there = np.flatnonzero(own >= age)
        if not len(there):
            continue
        made = young_tasks(
            histories, model.scaling, asset, own[there], age=age, horizon=horizon, others=others
        )
        tasks.append(made)
        where += [(place, time) for time in there]
    if not tasks:
        return found
    rows = int(np.clip(age - horizon, 1, SUPPORT))
    tasks = jax.tree.map(lambda *leaves: np.concatenate(leaves), *tasks)
    tasks = tasks._replace(support=jax.tree.map(lambda leaf: leaf[:, :rows], tasks.support))
    learner, members = learner_of(model)
    none = Batch(jnp.zeros((1, tasks.query.x.shape[-1])), jnp.zeros((1, 1)), jnp.zeros(1))
    assets_at, times_at = np.array(where).T
    for number, member in enumerate(members):
        adapted = []
        for begin in range(0, len(where), _CHUNK):
            part = _fill(tasks, begin)
            adapted.append(np.asarray(predict_tasks(learner, member, part).mean, float)[:, 0, 0])
        prior = learner.predict(learner.adapt(member, none), jnp.asarray(tasks.query.x[:, 0]))
        found[0, number, assets_at, times_at] = np.concatenate(adapted)[: len(where)]
        found[1, number, assets_at, times_at] = np.asarray(prior.mean, float)[:, 0]
    return model.scaling.y_mean + model.scaling.y_std * found


@lru_cache(maxsize=16)
def _make_learner(*setting: Any) -> MetaLearner:
    """Make one learner for each setting: compiled programs belong to it."""
    return risk_learner(*setting)


def learner_of(model: RiskModel) -> tuple[MetaLearner, list[Params]]:
    """Return the learner that a model was trained with, and the parameters of its members."""
    learner = _make_learner(model.network, model.mean_network, model.heteroscedastic)
    row = jax.ShapeDtypeStruct((1, len(INPUTS)), np.float32)
    like = jax.eval_shape(learner.init, jax.random.key(0), row)

    def read(member: Mapping[str, np.ndarray]) -> Params:
        def take(path: Any, leaf: Any) -> np.ndarray:
            found = member[jax.tree_util.keystr(path, simple=True, separator="/")]
            return found.reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(take, like)

    return learner, [read(member) for member in model.members]


def _fill(tasks, begin: int):
    """Take one chunk of tasks, its last repeated: one number of tasks, one program."""
    stop = min(begin + _CHUNK, len(tasks.query.x))
    places = np.minimum(np.arange(begin, begin + _CHUNK), stop - 1)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[places]), tasks)
