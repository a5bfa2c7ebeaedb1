"""Forecasts of volatility and of the return's tails, at every bar of an asset."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maml_jax.features.young import WINDOWS, own_columns
from maml_jax.risk.histories import (
    Histories,
    input_columns,
    others_volatility,
    outcome,
    young_inputs,
)
from maml_jax.risk.model import RiskModel
from maml_jax.risk.residuals import (
    AGES,
    SETTLED,
    Residuals,
    at_age,
    at_level,
    conformal_levels,
    table_levels,
)
from maml_jax.risk.sliding import SUPPORT, Rows, forecast_rows


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
    before = SUPPORT + horizon
    starts = {
        asset: 1 if bars is None else max(1, len(histories.returns[asset]) - bars - before)
        for asset in wanted
    }
    made = [_rows(model, histories, asset, starts[asset], horizon) for asset in wanted]
    found = forecast_rows(model.members, [rows for rows, _ in made], horizon, last=bars)
    forecasts = []
    for asset, (_, after), each in zip(wanted, made, found, strict=True):
        age = np.arange(starts[asset], len(histories.returns[asset]))
        kept = slice(0 if bars is None else max(0, len(age) - bars), None)
        mean, std = _restore(model, *each)
        ahead, total = (values[starts[asset] :][kept] for values in after)
        forecasts.append(
            Forecast(int(age[kept][0]), age[kept], mean[kept], std[kept], ahead, total, horizon)
        )
    return forecasts


def _rows(
    model: RiskModel, histories: Histories, asset: int, start: int, horizon: int
) -> tuple[Rows, tuple[np.ndarray, np.ndarray]]:
    """Make the rows of one asset from a bar on, and what came after."""
    returns = histories.returns[asset]
    age = np.arange(start, len(returns))
    cut = max(0, start - 1 - max(WINDOWS))  # whole windows do not know where the series began
    own = own_columns(returns[cut:])[start - cut :]
    market, others = others_volatility(histories, asset, bars=age)
    x = model.scaling.x(input_columns(own, market, age, others, np.log(horizon)))
    after = outcome(returns, horizon)
    return Rows(x, model.scaling.y(after[0][start:])), after


def _restore(model: RiskModel, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn standardised forecasts into those of the logarithm of volatility per bar."""
    return model.scaling.y_mean + model.scaling.y_std * mean, model.scaling.y_std * std


def residuals_of(model: RiskModel, horizon: int) -> Residuals:
    """Return the tables of a horizon, interpolated in its logarithm between two that are known.

    The fewer bars an asset has, the less is known of it: quantiles of the first bars are never
    nearer than those of `SETTLED` bars, however few listings they were measured on.
    """
    return _widen_first_bars(_interpolate(model, horizon))


def _widen_first_bars(residuals: Residuals) -> Residuals:
    young = slice(AGES.index(SETTLED), None, -1)
    low = table_levels() < 0.5

    def widen(table: np.ndarray) -> np.ndarray:
        wide, ordered = table.copy(), table[young]
        wide[young] = np.where(low, np.minimum.accumulate(ordered), np.maximum.accumulate(ordered))
        return wide

    return residuals._replace(z=widen(residuals.z), tail=widen(residuals.tail))


def _interpolate(model: RiskModel, horizon: int) -> Residuals:
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
    order = np.argsort(levels)
    quantiles, beyond = [], []
    for place in order:
        level = levels[place]
        corrected = conformal_levels(
            z, residuals, age, level=level, horizon=horizon, rate=model.rate
        )
        quantiles.append(at_level(residuals.z, age, corrected))
        beyond.append(at_level(residuals.tail, age, corrected))
    # Each level is corrected by itself: sorted, quantiles do not cross (Chernozhukov et al., 2010).
    sorted_quantiles = np.sort(np.stack(quantiles), axis=0)
    found: list[list[Tails]] = [[] for _ in forecasts]
    for level in levels:
        at = int(np.flatnonzero(np.asarray(levels)[order] == level)[0])
        quantile, mean = sorted_quantiles[at], beyond[at]
        mean = np.maximum(mean, quantile) if level > 0.5 else np.minimum(mean, quantile)
        for row, each in enumerate(forecasts):
            kept = slice(0, len(each.age))
            found[row].append(
                Tails(level, scale[row] * quantile[row, kept], scale[row] * mean[row, kept])
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
    inputs = young_inputs(histories, asset, starts, ages, horizon=horizon, others=others)
    x = model.scaling.x(inputs)
    ahead, _ = outcome(histories.returns[asset], horizon)
    y = model.scaling.y(ahead[starts[:, None] + ages])
    y[:, 0] = np.nan  # before its first return an asset has no row of its own
    found = forecast_rows(model.members, [Rows(*rows) for rows in zip(x, y, strict=True)], horizon)
    mean, std = (np.stack(values) for values in zip(*found, strict=True))
    return _restore(model, mean, std)
