"""Forecasts of volatility and of the return's tails, at every bar of an asset."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maml_jax.features.young import own_columns
from maml_jax.risk.histories import (
    Histories,
    input_columns,
    others_volatility,
    outcome,
    young_inputs,
)
from maml_jax.risk.listings import SUPPORT
from maml_jax.risk.model import RiskModel, risk_learner
from maml_jax.risk.residuals import Residuals, at_age, at_level, conformal_levels
from maml_jax.risk.sliding import LANES, Rows, forecast_each_bar


class Forecast(NamedTuple):
    """Forecasts of one asset, made at the close of each bar.

    Attributes:
        first: index of the first bar that a forecast is made at.
        age: returns since the asset's first bar, `[bar]`.
        mean: of the log of volatility per bar over the horizon, `[bar]`.
        std: its deviation, `[bar]`.
        outcome: what it came to, `[bar]`; NaN where it is not known yet.
        total: the logarithmic return over the horizon, `[bar]`; NaN likewise.
        horizon: bars ahead.
    """

    first: int
    age: Int[np.ndarray, " bar"]
    mean: Float[np.ndarray, " bar"]
    std: Float[np.ndarray, " bar"]
    outcome: Float[np.ndarray, " bar"]
    total: Float[np.ndarray, " bar"]
    horizon: int


def forecast_volatility(
    model: RiskModel,
    histories: Histories,
    *,
    horizon: int,
    assets: Sequence[int] | None = None,
    bars: int | None = None,
) -> list[Forecast]:
    """Forecast the volatility of assets at each of their bars, from their second on.

    Args:
        model: trained.
        histories: of all assets at hand; the others are the market of each.
        horizon: bars ahead.
        assets: numbers of those to forecast; default all.
        bars: of each, how many of the last to forecast at; default all.

    Returns:
        One `Forecast` for each asset.
    """
    wanted = list(range(len(histories.assets)) if assets is None else assets)
    lengths = {asset: len(histories.returns[asset]) for asset in wanted}
    found: dict[int, Forecast] = {}
    order = sorted(wanted, key=lengths.__getitem__)
    for lane in range(0, len(order), LANES):
        group = order[lane : lane + LANES]
        starts = {
            asset: 1 if bars is None else max(1, lengths[asset] - bars - SUPPORT - horizon)
            for asset in group
        }
        longest = max(lengths[asset] - starts[asset] for asset in group)
        made = [_rows(model, histories, asset, starts[asset], horizon, longest) for asset in group]
        rows = Rows(*(np.stack(leaves) for leaves in zip(*(each[0] for each in made), strict=True)))
        mean, std = _combine(model, rows, horizon)
        for number, asset in enumerate(group):
            count, start = lengths[asset] - starts[asset], starts[asset]
            kept = slice(0 if bars is None else max(0, count - bars), count)
            ahead, total = (values[start:] for values in made[number][1])
            found[asset] = Forecast(
                start + kept.start,
                np.arange(start, lengths[asset])[kept],
                mean[number, kept],
                std[number, kept],
                ahead[kept],
                total[kept],
                horizon,
            )
    return [found[asset] for asset in wanted]


def _rows(
    model: RiskModel, histories: Histories, asset: int, start: int, horizon: int, longest: int
) -> tuple[Rows, tuple[np.ndarray, np.ndarray]]:
    """Make the rows of one asset from a bar on, filled up to a length; and what came after."""
    returns = histories.returns[asset]
    age = np.arange(start, len(returns))
    own = own_columns(returns)[start:]
    market, others = others_volatility(histories, asset, bars=age)
    x = model.scaling.x(input_columns(own, market, age, others, np.log(horizon)))
    after = outcome(returns, horizon)
    y = model.scaling.y(after[0][start:])
    known = np.isfinite(y)
    room = longest - len(age)
    rows = Rows(
        np.pad(x, ((0, room), (0, 0))),
        np.pad(np.where(known, y, 0.0).astype(np.float32), (0, room)),
        np.pad(known.astype(np.float32), (0, room)),
    )
    return rows, after


def _combine(model: RiskModel, rows: Rows, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of the members' mixture, in units of the logarithm."""
    learner = risk_learner(model.network, model.mean_network, model.heteroscedastic)
    each = [forecast_each_bar(learner, member, rows, horizon) for member in model.members]
    means, stds = (np.stack(values) for values in zip(*each, strict=True))
    mean = means.mean(axis=0)
    std = np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))
    scaling = model.scaling
    return scaling.y_mean + scaling.y_std * mean, scaling.y_std * std


def residuals_of(model: RiskModel, horizon: int) -> Residuals:
    """Return the tables of a horizon, interpolated in its logarithm between two that are known."""
    known = np.asarray(model.horizons)
    upper = int(np.clip(np.searchsorted(known, horizon), 1, max(1, len(known) - 1)))
    if len(known) == 1 or horizon in model.residuals:
        return model.residuals[horizon if horizon in model.residuals else int(known[0])]
    low, high = int(known[upper - 1]), int(known[upper])
    share = np.clip(np.log(horizon / low) / np.log(high / low), 0.0, 1.0)
    pairs = zip(model.residuals[low], model.residuals[high], strict=True)
    return Residuals(*((1 - share) * near + share * far for near, far in pairs))


class Tails(NamedTuple):
    """The tail of the logarithmic return over the horizon at one level, at each bar.

    Attributes:
        level: of the quantile; above a half, of the upper tail.
        quantile: `[bar]`.
        mean: of the returns beyond it, `[bar]`.
    """

    level: float
    quantile: Float[np.ndarray, " bar"]
    mean: Float[np.ndarray, " bar"]


def forecast_tails(
    model: RiskModel, forecasts: Sequence[Forecast], levels: Sequence[float]
) -> list[list[Tails]]:
    """Forecast quantiles of the return over the horizon, and the means beyond them.

    Args:
        model: trained.
        forecasts: of assets, of one horizon.
        levels: of the quantiles, in (0, 1).

    Returns:
        For each asset, one of each level.
    """
    horizon = forecasts[0].horizon
    residuals = residuals_of(model, horizon)
    longest = max(len(each.age) for each in forecasts)
    scale = [np.sqrt(horizon) * np.exp(each.mean) for each in forecasts]
    z = np.full((len(forecasts), longest), np.nan)
    age = np.ones((len(forecasts), longest), int)
    for row, each in enumerate(forecasts):
        z[row, : len(each.age)] = each.total / scale[row]
        age[row, : len(each.age)] = each.age
    found: list[list[Tails]] = [[] for _ in forecasts]
    for level in levels:
        corrected = conformal_levels(
            z, residuals, age, level=level, horizon=horizon, rate=model.rate
        )
        quantile = at_level(residuals.z, age, corrected)
        beyond = at_level(residuals.tail, age, corrected)
        for row, each in enumerate(forecasts):
            kept = slice(0, len(each.age))
            found[row].append(
                Tails(level, scale[row] * quantile[row, kept], scale[row] * beyond[row, kept])
            )
    return found


def root_variance(
    model: RiskModel, forecast: Forecast
) -> tuple[Float[np.ndarray, " bar"], Float[np.ndarray, " bar"], Float[np.ndarray, " bar"]]:
    """Return the volatility per bar, and the bounds between which nine of ten realised ones lie.

    Args:
        model: trained.
        forecast: of an asset.

    Returns:
        The root of the mean variance that is expected, and the 5 and 95 % bounds of what is
        realised over the horizon, `[bar]` each.
    """
    residuals = residuals_of(model, forecast.horizon)
    volatility = np.exp(forecast.mean + at_age(residuals.shift, forecast.age))
    low, high = (
        np.exp(forecast.mean + forecast.std * at_age(bound, forecast.age))
        for bound in (residuals.low, residuals.high)
    )
    return volatility, low, high


def forecast_listings(
    model: RiskModel,
    histories: Histories,
    asset: int,
    starts: Int[np.ndarray, " listing"],
    *,
    horizon: int,
    rows: int,
    others: Sequence[int] | None = None,
) -> tuple[Float[np.ndarray, "listing age"], Float[np.ndarray, "listing age"]]:
    """Forecast an asset at each age, as if it had been listed at each of several bars.

    Args:
        model: trained.
        histories: of all assets.
        asset: its number.
        starts: index of each bar of listing.
        horizon: bars ahead.
        rows: ages, from 0 on; none may lie after the last bar.
        others: as for `others_volatility`.

    Returns:
        Means and deviations of the log of volatility per bar, `[listing, age]`.
    """
    ages = np.arange(rows)
    x = young_inputs(histories, asset, starts, ages, horizon=horizon, others=others)
    ahead, _ = outcome(histories.returns[asset], horizon)
    y = model.scaling.y(ahead[starts[:, None] + ages])
    known = np.isfinite(y) & (ages > 0)
    shaped = Rows(
        model.scaling.x(x), np.where(known, y, 0.0).astype(np.float32), known.astype(np.float32)
    )
    return _combine(model, shaped, horizon)
