"""Holding new listings at a target volatility, after costs: imagined ones and true ones."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from benchmarks.reproduce.new_listing_market import Bars, Data, on_timeline, variance_shift
from benchmarks.reproduce.new_listing_rows import MONTH, market_prior
from benchmarks.reproduce.new_listing_tables import Comparison
from benchmarks.reproduce.table import Table
from maml_jax.backtest.baselines.young import Refit, ewma_at_age, refitted_har
from maml_jax.backtest.inference import r_squared
from maml_jax.errors import ConfigError
from maml_jax.risk.forecast import forecast_volatility, root_variance
from maml_jax.risk.histories import Histories, make_histories, outcome

COST = 0.001
"""Of what is traded, as a share."""

LEVERAGE = 4.0
"""The most that is held of an asset, in units of its capital."""

AGAINST = "ewma-market"
OLDEST = 500
"""Returns after which a listing is no longer followed."""

_DELAY = 2
"""Bars from a decision to the first return that it earns: it is traded one bar later."""

_DRAWS, _BLOCKS = 1000, 4

HELD_NOTE = (
    "{who} held with weight {target:.0%} a year over the forecast volatility (at most"
    " {leverage:g}), decided every {every} bars, traded one bar later at a cost of {cost:.1%} of"
    " the turnover. Deviation: mean distance of realised volatility per year, in blocks of {block}"
    " bars, from {target:.0%}. Gain: deviation with {against} minus this one, with the 95 %"
    " interval of the stationary bootstrap over blocks."
)
LISTED_NOTE = (
    " From the fifth to the {oldest}th bar of each listing ({listings}). Weights and constants of"
    " the model are of other assets to {start}: it knows the market's later years at the listings"
    " before. The regression is fitted on the other assets of the file. R2 is of the log of"
    " volatility at these bars, by the forecasts that are held: roots of the mean variance."
)


class Held(NamedTuple):
    """The outcome of holding at a target volatility.

    Attributes:
        realised: volatility per year in each block, `[asset, block]`; NaN where there is none.
        turnover: per asset and year.
        cost: per year, as a share of the capital.
    """

    realised: Float[np.ndarray, "asset block"]
    turnover: float
    cost: float


def hold(
    returns: Float[np.ndarray, "asset time"],
    logs: Float[np.ndarray, "asset decision"],
    times: Int[np.ndarray, " decision"],
    *,
    target: float,
    per_year: float,
    block: int,
) -> Held:
    """Hold assets at a target volatility, from the first decision until as long after the last.

    Args:
        returns: logarithmic, NaN where an asset has no bar.
        logs: forecasts of the log of volatility per bar; where NaN nothing is decided.
        times: index of the bar of each decision, rising.
        target: volatility per year.
        per_year: bars of a year.
        block: bars over which realised volatility is measured.
    """
    stop = min(times[-1] + int(np.diff(times).max()) + _DELAY, returns.shape[1])
    wanted = np.minimum(target / np.sqrt(per_year) / np.exp(logs), LEVERAGE)
    bars = np.arange(times[0] + _DELAY, stop)
    latest = np.searchsorted(times, bars - _DELAY, side="right") - 1
    for place in range(1, wanted.shape[1]):
        missing = np.isnan(wanted[:, place])
        wanted[missing, place] = wanted[missing, place - 1]
    weight = wanted[:, latest]
    change = np.abs(np.diff(weight, axis=1, prepend=np.zeros((len(weight), 1))))
    earned = weight * np.expm1(returns[:, bars]) - COST * change
    count = earned.shape[1] // block
    blocks = earned[:, : count * block].reshape(len(earned), count, block)
    known = np.isfinite(blocks)
    enough = known.sum(axis=-1) > block // 2
    squares = np.where(known, blocks, 0.0) ** 2
    mean = squares.sum(axis=-1) / np.maximum(known.sum(axis=-1), 1)
    realised = np.where(enough, np.sqrt(mean * per_year), np.nan)
    turnover = float(np.nanmean(change) * per_year)
    return Held(realised, turnover, COST * turnover)


def block_interval(gain: Float[np.ndarray, " block"]) -> tuple[float, float]:
    """Return the 95 % interval of a mean over blocks of time."""
    from arch.bootstrap import StationaryBootstrap

    bootstrap = StationaryBootstrap(_BLOCKS, gain, seed=0)
    drawn = bootstrap.apply(lambda each: np.array([each.mean()]), _DRAWS)[:, 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def compare_held(
    found: dict[str, Held], target: float, *, over_assets: bool
) -> dict[str, dict[str, Any]]:
    """Compare how far realised volatility is from its target.

    Args:
        found: by key; that of the other one that gains are over among them.
        target: volatility per year.
        over_assets: average assets within a block of time; else each block counts for itself.
    """
    distance = {key: np.abs(held.realised - target) for key, held in found.items()}
    known = np.all([np.isfinite(each) for each in distance.values()], axis=0)
    record = {}
    for key, held in found.items():
        each = np.where(known, distance[AGAINST] - distance[key], np.nan)
        gain = each[known]
        if over_assets:
            gain = np.nanmean(each[:, known.any(axis=0)], axis=0)
        low, high = block_interval(gain)
        record[key] = {
            "deviation": float(distance[key][known].mean()),
            "realised": float(held.realised[known].mean()),
            "turnover": held.turnover,
            "cost": held.cost,
            "gain": {"value": float(gain.mean()), "low": low, "high": high},
        }
    return record


def held_cells(key: str, figures: dict[str, Any]) -> tuple[str, ...]:
    """Write the figures of one forecaster."""
    gain = figures["gain"]
    return (
        f"{figures['deviation']:.2%}",
        f"{figures['realised']:.1%}",
        f"{figures['turnover']:.1f}",
        f"{figures['cost']:.2%}",
        "" if key == AGAINST else f"{gain['value']:.2%} [{gain['low']:.2%}, {gain['high']:.2%}]",
    )


COLUMNS = ("forecast", "deviation", "mean volatility", "turnover a year", "cost a year", "gain")


def target_tables(comparison: Comparison) -> list[Table]:
    """Hold the unseen assets at the target at some ages, by the forecasts of all rows."""
    data, record, tables = comparison.data, {}, []
    market = data.market
    returns = data.returns[data.unseen]
    for age in market.held_ages:
        place = comparison.ages.index(age)
        keys = [key for key in comparison.at(place) if key not in ("model", "network")]
        if AGAINST not in keys:
            continue
        found = {
            key: hold(
                returns,
                comparison.forecasts[key].variances[0, place].copy(),
                data.grid,
                target=market.target,
                per_year=data.per_year,
                block=market.block,
            )
            for key in keys
        }
        record[age] = compare_held(found, market.target, over_assets=True)
        note = _note(data, f"Each unseen asset, as if listed {age} bars ago, is", comparison.names)
        rows = [
            (comparison.names[key], *held_cells(key, each)) for key, each in record[age].items()
        ]
        title = f"Volatility held at {market.target:.0%}, n = {age}: {market.name}"
        tables.append(Table(title, COLUMNS, rows, note))
    comparison.record["target"] = record
    return tables


def _note(data: Data, who: str, names: dict[str, str]) -> str:
    market = data.market
    return HELD_NOTE.format(
        who=who,
        target=market.target,
        leverage=LEVERAGE,
        every=data.every,
        cost=COST,
        block=market.block,
        against=names[AGAINST],
    )


LISTED = {
    "model": "the model, ensemble",
    "har": "HAR, quadratic of all ages with random intercept, every 21 bars",
    AGAINST: "EWMA begun with the market",
    "trailing": "trailing volatility, 22 bars or all",
}


def find_listings(data: Data, bars: Bars) -> tuple[Histories, list[int], list[int]]:
    """Return histories of a file, its true listings, and the assets that were there before.

    Raises:
        ConfigError: if there is no listing of an asset that the weights do not know.
    """
    histories = make_histories(bars.frames)
    start = histories.timeline.searchsorted([own[0] for own in histories.times])
    old = [asset for asset, place in enumerate(start) if place < OLDEST // 2]
    new = [
        asset
        for asset, name in enumerate(histories.assets)
        if asset not in old and name not in data.names[0] and len(histories.times[asset]) > OLDEST
    ]
    if not new or not old:
        raise ConfigError(
            f"--listed {bars.name}: needs an asset with {OLDEST} bars that was listed"
            f" {OLDEST // 2} bars after the first, and one that was there before"
        )
    return histories, new, old


def hold_listed(data: Data, bars: Bars) -> dict[str, Any]:
    """Hold true listings at the target from their own first bars, by each forecast."""
    histories, new, old = find_listings(data, bars)
    market = data.market
    returns = on_timeline(histories, histories.returns)
    ahead = on_timeline(histories, [outcome(each, market.horizon)[0] for each in histories.returns])
    forecasts = _forecast_listed(data, histories, returns, ahead, new, old)
    found: dict[str, list[Held]] = {key: [] for key in LISTED}
    truth = []
    ages = np.arange(5, OLDEST, data.every)
    for row, asset in enumerate(new):
        at = histories.timeline.get_indexer(histories.times[asset])
        own = histories.returns[asset][None]
        truth.append(ahead[asset, at[ages]])
        for key, logs in forecasts.items():
            held = hold(
                own,
                logs[row][None].copy(),
                ages,
                target=market.target,
                per_year=data.per_year,
                block=market.block,
            )
            found[key].append(held)
    listed = [histories.times[asset][0] for asset in new]
    late = np.array([f"{time:%Y-%m-%d}" >= market.start for time in listed])
    result: dict[str, Any] = {
        "listings": [
            f"{histories.assets[asset]} {time:%Y-%m-%d}"
            for asset, time in zip(new, listed, strict=True)
        ],
        "after": int(late.sum()),
    }
    for name, kept in (("all", np.ones(len(new), bool)), ("late", late)):
        if not kept.any():
            continue
        together = {
            key: Held(
                np.concatenate([each.realised for each, k in zip(held, kept, strict=True) if k]),
                float(np.mean([each.turnover for each, k in zip(held, kept, strict=True) if k])),
                float(np.mean([each.cost for each, k in zip(held, kept, strict=True) if k])),
            )
            for key, held in found.items()
        }
        record = compare_held(together, market.target, over_assets=False)
        for key in record:
            record[key]["r2"] = r_squared(forecasts[key][kept], np.stack(truth)[kept])
        result[name] = record
    return result


def _forecast_listed(
    data: Data, histories: Histories, returns: np.ndarray, ahead: np.ndarray, new, old
) -> dict[str, Float[np.ndarray, "listing decision"]]:
    """Forecast true listings at their ages, as roots of the mean variance."""
    horizon = data.market.horizon
    ages = np.arange(5, OLDEST, data.every)
    known = tuple(age for age in data.market.ages if age > 0)
    options: dict[str, Any] = {"horizon": horizon, "ages": known, "donors": old}
    setting = Refit(every=MONTH, quadratic=True, pool_ages=True, intercept=250)
    har = refitted_har(returns, first=OLDEST // 2, setting=setting, **options)
    prior = market_prior(returns, old)
    found: dict[str, list[np.ndarray]] = {key: [] for key in LISTED}
    made = forecast_volatility(data.model, histories, horizon=horizon, assets=new)
    for asset, forecast in zip(new, made, strict=True):
        own = histories.returns[asset]
        at = histories.timeline.get_indexer(histories.times[asset])
        volatility, _, _ = root_variance(data.model, forecast)
        found["model"].append(np.log(volatility[ages - forecast.first]))
        slot = np.searchsorted(known, ages, side="right") - 1
        # Errors of the other assets whose outcomes were known at the listing.
        error = (ahead - har)[:, old, : max(at[0] - horizon, 0)]
        shift = np.array([variance_shift(each) for each in error])
        shift = np.where(np.isfinite(shift), shift, 0.0)
        found["har"].append(har[slot, asset, at[ages]] + shift[slot])
        # The prior is read at the first bar, which has no return of its own.
        since = np.concatenate([[0.0], own[1 : OLDEST + 1]])[None]
        start = prior[asset, at[: OLDEST + 1]][None]
        young = ewma_at_age(since, ages=ages.tolist(), prior=start)
        found[AGAINST].append(young[np.arange(len(ages)), 0, ages])
        squares = [np.mean(own[max(age - 21, 1) : age + 1] ** 2) for age in ages]
        found["trailing"].append(0.5 * np.log(np.maximum(squares, 1e-12)))
    return {key: np.stack(values) for key, values in found.items()}


def listed_tables(data: Data, result: dict[str, Any]) -> list[Table]:
    """Lay out what holding true listings came to."""
    tables = []
    for name, title in (("all", "all"), ("late", f"listed from {data.market.start} on")):
        if name not in result:
            continue
        rows = [
            (LISTED[key], *held_cells(key, figures), f"{figures['r2']:.3f}")
            for key, figures in result[name].items()
        ]
        note = _note(data, "Each listing is", LISTED) + LISTED_NOTE.format(
            oldest=OLDEST, listings=", ".join(result["listings"]), start=data.market.start
        )
        title = f"True listings held at {data.market.target:.0%}: {title}"
        tables.append(Table(title, (*COLUMNS, "R2"), rows, note))
    return tables
