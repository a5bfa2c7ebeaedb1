"""Forecasts of assets as if each had been listed a number of bars ago."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from maml_jax.meta import Batch, MetaLearner, Task, predict_tasks
from maml_jax.meta.types import Params, Prediction
from maml_jax.risk.histories import Histories, Scaling, outcome, young_inputs
from maml_jax.risk.sliding import SUPPORT

_CHUNK = 1000
"""Forecasts whose support sets are in memory at once."""


def young_tasks(
    histories: Histories,
    scaling: Scaling,
    asset: int,
    bars: Int[np.ndarray, " n"],
    *,
    age: int,
    horizon: int,
    others: Sequence[int] | None = None,
) -> Task:
    """Make the task of an asset at each bar, as if it had been listed `age` returns before.

    Args:
        histories: of all assets.
        scaling: as the learner was trained with.
        asset: its number.
        bars: index of each bar at which a forecast is made; from `age` on.
        age: returns since the listing.
        horizon: bars ahead.
        others: as for `others_volatility`.

    Returns:
        Every array with a leading task axis; the query set of each is one row.
    """
    ages = np.unique(np.clip(age - horizon - np.arange(SUPPORT), 0, None))
    ages = np.append(ages[ages >= 1], age)
    starts = bars - age
    inputs = young_inputs(histories, asset, starts, ages, horizon=horizon, others=others)
    x = scaling.x(inputs)
    ahead, _ = outcome(histories.returns[asset], horizon)
    y = scaling.y(ahead[starts[:, None] + ages])[..., None]
    y = np.nan_to_num(y).astype(np.float32)
    missing = SUPPORT - (len(ages) - 1)
    pad = ((0, 0), (0, missing), (0, 0))
    weight = np.concatenate([np.ones(len(ages) - 1), np.zeros(missing)]).astype(np.float32)
    support = Batch(
        jnp.asarray(np.pad(x[:, :-1], pad)),
        jnp.asarray(np.pad(y[:, :-1], pad)),
        jnp.broadcast_to(weight, (len(bars), SUPPORT)),
    )
    return Task(support, Batch(jnp.asarray(x[:, -1:]), jnp.asarray(y[:, -1:])))


def forecast_at_age(
    learner: MetaLearner,
    params: Params,
    scaling: Scaling,
    histories: Histories,
    asset: int,
    bars: Int[np.ndarray, " n"],
    **options: Any,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Forecast the log of volatility per bar, as if listed a number of returns before.

    Args:
        learner: predicts numbers or a `Prediction`.
        params: its meta-parameters.
        scaling: as it was trained with.
        histories: of all assets.
        asset: its number.
        bars: index of each bar at which a forecast is made.
        options: as for `young_tasks`.

    Returns:
        Means and deviations, in units of the logarithm; deviations NaN of learners without.
    """
    means, stds = [], []
    for first in range(0, len(bars), _CHUNK):
        chunk = bars[first : first + _CHUNK]
        # One number of tasks, one program.
        filled = np.concatenate([chunk, np.repeat(chunk[-1:], _CHUNK - len(chunk))])
        tasks = young_tasks(histories, scaling, asset, filled, **options)
        found = predict_tasks(learner, params, tasks)
        mean, std = found if isinstance(found, Prediction) else (found, None)
        means.append(np.asarray(mean, float)[: len(chunk), 0, 0])
        none = np.full(len(chunk), np.nan)
        stds.append(none if std is None else np.asarray(std, float)[: len(chunk), 0, 0])
    mean, std = np.concatenate(means), np.concatenate(stds)
    return scaling.y_mean + scaling.y_std * mean, scaling.y_std * std
