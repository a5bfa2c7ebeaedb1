"""Value at risk and expected shortfall of imagined listings, each followed from its first bar."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from benchmarks.reproduce.new_listing_market import Data
from benchmarks.reproduce.new_listing_rows import market_prior
from benchmarks.reproduce.results import read_number
from benchmarks.reproduce.table import Table
from maml_jax.backtest.baselines.young import (
    Filter,
    TailForecast,
    ewma_at_age,
    filtered_historical_simulation,
    garch_t_tails,
    historical_simulation,
    student_tail,
)
from maml_jax.backtest.inference import (
    coverage_table,
    diebold_mariano,
    fz0_loss,
    kupiec,
    pinball_loss,
    thin,
)
from maml_jax.risk.forecast import forecast_listings, residuals_of
from maml_jax.risk.histories import outcome
from maml_jax.risk.residuals import at_level, conformal_levels

LEVELS = (0.01, 0.05)
MODEL = "model"
SIZE = 0.05
"""Of Kupiec's test."""

NAMES = {
    MODEL: "the model, ensemble",
    "plain": "the same, levels not corrected",
    "ewma-normal": "EWMA begun with the market, normal",
    "ewma-t": "EWMA begun with the market, Student's t",
    "garch": "GARCH-t",
    "historical": "historical simulation",
    "filtered": "filtered historical simulation",
}

LEAST_LOSS = 1e-4
"""Value at risk is at least so much: a few returns may hold no loss, and FZ0 knows no gain."""

_GARCH_REFIT = 63
_FEW = 20
"""Returns that an empirical quantile takes."""

NOTE = (
    "{market}, the return over {bars} at {level:.0%}. {count} imagined listings of each of"
    " {assets} unseen assets, one every {every} bars, each followed for {oldest} bars within the"
    " test. Empty where a method knows nothing yet. {kind}"
)
COVERED = (
    "Share of outcomes beyond value at risk; after it the assets of which Kupiec's test, on"
    " outcomes that do not overlap, does not reject {level:.0%} at a size of 5 %."
)
LOSSES = (
    "Mean FZ0 loss of value at risk and expected shortfall; in brackets the tick loss of value at"
    " risk, in units of 0.0001. Lower is better; * where the Diebold-Mariano test of FZ0 against"
    " the model has p < 0.05. Value at risk is taken to be 0.01 % at least."
)


class Imagined(NamedTuple):
    """Imagined listings of the unseen assets.

    Attributes:
        starts: place of each on the timeline.
        own: index of its bar of each asset, `[asset, listing]`.
    """

    starts: Int[np.ndarray, " listing"]
    own: Int[np.ndarray, "asset listing"]


Pair = Float[np.ndarray, "2 asset listing"]


def imagine(data: Data) -> Imagined:
    """List every unseen asset at every so many bars, as long as all can be followed to the end."""
    longest = max(data.market.tail_horizons) + max(data.market.tail_ages)
    starts = np.arange(data.first, data.last - longest + 1, data.every)
    histories = data.histories
    own = np.stack(
        [histories.times[asset].get_indexer(data.timeline[starts]) for asset in data.unseen]
    )
    ends = np.array([len(histories.times[asset]) for asset in data.unseen]) - longest
    kept = ((own >= 0) & (own < ends[:, None])).all(axis=0)
    return Imagined(starts[kept], own[:, kept])


def forecast_tails_of_model(data: Data, listed: Imagined, horizon: int) -> dict[str, np.ndarray]:
    """Forecast value at risk and shortfall by the model, from the first return of each listing.

    Returns:
        Of `model` and `plain`, its quantiles without the correction by an asset's own exceedances:
        `[2, level, age, asset, listing]`; of `outcome` the returns, `[age, asset, listing]`.
    """
    ages = np.arange(1, max(data.market.tail_ages) + 1)
    chosen = np.asarray(data.market.tail_ages) - 1
    shape = (2, len(LEVELS), len(chosen), *listed.own.shape)
    found = {MODEL: np.empty(shape), "plain": np.empty(shape), "outcome": np.empty(shape[2:])}
    residuals = residuals_of(data.model, horizon)
    for row, asset in enumerate(data.unseen):
        starts = listed.own[row]
        mean, _ = forecast_listings(
            data.model,
            data.histories,
            asset,
            starts,
            horizon=horizon,
            rows=len(ages) + 1,
            others=data.seen,
        )
        _, total = outcome(data.histories.returns[asset], horizon)
        after = total[starts[:, None] + ages]
        scale = np.sqrt(horizon) * np.exp(mean[:, 1:])
        age = np.broadcast_to(ages, scale.shape)
        found["outcome"][:, row] = after[:, chosen].T
        for place, level in enumerate(LEVELS):
            corrected = conformal_levels(
                after / scale, residuals, age, level=level, horizon=horizon, rate=data.model.rate
            )
            for key, at in ((MODEL, corrected), ("plain", np.full(scale.shape, level))):
                for kind, table in enumerate((residuals.z, residuals.tail)):
                    values = scale * at_level(table, age, at)
                    found[key][kind, place, :, row] = values[:, chosen].T
    return found


def forecast_tails_of_others(data: Data, listed: Imagined, horizon: int) -> dict[str, np.ndarray]:
    """Forecast by the opponents at the same bars, `[2, level, age, asset, listing]` of each."""
    found: dict[str, list[np.ndarray]] = {}
    ages = data.market.tail_ages
    logs = ewma_at_age(data.returns, ages=ages, prior=market_prior(data.returns, data.seen))
    total = data.after(horizon)[1]
    assets = np.asarray(data.unseen)[:, None]
    for place, age in enumerate(ages):
        times = _times(data, listed, age)
        scale = np.sqrt(horizon) * np.exp(logs[place])
        for key, degrees in (
            ("ewma-normal", None),
            ("ewma-t", data.pick(total / scale)[0]),
        ):
            unit = _units(degrees)
            values = unit[:, :, None, None] * scale[assets, times]
            found.setdefault(key, []).append(values)
        for key, made in _simulated(data, age, horizon, int(times.min())).items():
            pair = np.stack([made.var, made.es])[:, :, assets, times]
            found.setdefault(key, []).append(pair)
    return {key: np.stack(values, axis=2) for key, values in found.items()}


def _times(data: Data, listed: Imagined, age: int) -> Int[np.ndarray, "asset listing"]:
    """Places on the timeline of the bars at which listings have an age."""
    histories = data.histories
    return np.stack(
        [
            data.timeline.get_indexer(histories.times[asset][own + age])
            for asset, own in zip(data.unseen, listed.own, strict=True)
        ]
    )


def _units(sample: np.ndarray | None) -> Float[np.ndarray, "2 level"]:
    """Value at risk and shortfall of a normal, or of Student's t that is fitted to residuals."""
    degrees, scale = np.inf, 1.0
    if sample is not None:
        from scipy import stats

        known = sample[np.isfinite(sample)]
        degrees, _, spread = stats.t.fit(known, floc=0)
        degrees = max(float(degrees), 2.1)
        scale = float(spread) * np.sqrt(degrees / (degrees - 2))
    return scale * np.stack([student_tail(np.array(degrees), level) for level in LEVELS], axis=1)


def _simulated(data: Data, age: int, horizon: int, first: int) -> dict[str, TailForecast]:
    returns = data.returns[:, : data.last + 1]
    nothing = np.full((len(LEVELS), *returns.shape), np.nan)
    nothing = TailForecast(LEVELS, nothing, nothing)
    options: dict[str, Any] = {"horizon": horizon, "levels": LEVELS, "targets": data.unseen}
    enough = age >= _FEW + horizon - 1
    return {
        "garch": garch_t_tails(returns, window=age, first=first, refit=_GARCH_REFIT, **options)
        if age >= 250
        else nothing,
        "historical": historical_simulation(returns, window=age, **options) if enough else nothing,
        "filtered": filtered_historical_simulation(
            returns, window=age, first=first, setting=Filter(every=data.every), **options
        )
        if age >= _FEW
        else nothing,
    }


def judge_tails(
    data: Data,
    horizon: int,
    forecasts: dict[str, np.ndarray],
) -> dict[str, dict[str, list[list[float]]]]:
    """Judge forecasts of tails, on the bars at which all that know an age have one.

    Args:
        data: the bars.
        horizon: bars ahead.
        forecasts: `[2, level, age, asset, listing]` of each, and the `outcome`.

    Returns:
        Of each measure and forecaster: by level and age; NaN where it knows nothing.
    """
    forecasts = {key: np.asarray(values, float) for key, values in forecasts.items()}
    outcomes = forecasts.pop("outcome")
    apart = -(-horizon // data.every)
    names = ("coverage", "accepted", "fz0", "tick", "p")
    shape = (len(LEVELS), len(data.market.tail_ages))
    found = {name: {key: np.full(shape, np.nan) for key in forecasts} for name in names}
    for place, level in enumerate(LEVELS):
        for age in range(shape[1]):
            usual = {key: each[:, place, age] for key, each in forecasts.items()}
            usual = {key: each for key, each in usual.items() if np.isfinite(each).any()}
            known = np.isfinite(outcomes[age])
            for each in usual.values():
                known &= np.isfinite(each).all(axis=0)
            y = np.where(known, outcomes[age], np.nan)
            losses = {}
            for key, (var, es) in usual.items():
                var, es = (np.where(known, values, np.nan) for values in (var, es))
                var = np.minimum(var, -LEAST_LOSS)
                es = np.minimum(es, var)
                losses[key] = fz0_loss(y, var, es, level)
                figures = {
                    "coverage": coverage_table(y, var, level)["rate"].iloc[0],
                    "accepted": _accepted(y, var, level, apart),
                    "fz0": np.nanmean(losses[key]),
                    "tick": np.nanmean(pinball_loss(y, var, level)),
                }
                if key != MODEL:
                    figures["p"] = diebold_mariano(losses[MODEL], losses[key], apart).p_value
                for name, value in figures.items():
                    found[name][key][place, age] = value
    return {
        name: {key: values.tolist() for key, values in each.items()} for name, each in found.items()
    }


def _accepted(y: np.ndarray, var: np.ndarray, level: float, apart: int) -> float:
    """Share of assets whose exceedances Kupiec's test finds as frequent as they should be."""
    kept, bounds = thin(apart, y, var)
    tests = [kupiec(own, bound, level) for own, bound in zip(kept, bounds, strict=True)]
    return float(np.mean([test.p_value > SIZE for test in tests]))


def tail_tables(data: Data, horizon: int, found: dict[str, Any]) -> list[Table]:
    """Lay out coverage and losses at each level."""
    ages = data.market.tail_ages
    listed = imagine(data)
    columns = ("forecast", *(f"{age} bars" for age in ages))
    assets = len(data.unseen)
    bars = f"{horizon} bar" + "s" * (horizon > 1)

    def rows(cell: Callable[[str, int, int], str], level: int) -> list[tuple[str, ...]]:
        keys = [key for key in NAMES if key in found["fz0"]]
        return [(NAMES[key], *(cell(key, level, age) for age in range(len(ages)))) for key in keys]

    def number(name: str, key: str, level: int, age: int) -> float:
        return read_number(found[name][key][level][age])

    def covered(key: str, level: int, age: int) -> str:
        rate = number("coverage", key, level, age)
        accepted = assets * number("accepted", key, level, age)
        return f"{rate:.1%} · {accepted:.0f}/{assets}" if np.isfinite(rate) else ""

    def losses(key: str, level: int, age: int) -> str:
        loss, tick = (number(name, key, level, age) for name in ("fz0", "tick"))
        mark = "*" if number("p", key, level, age) < SIZE else ""
        return f"{loss:.3f}{mark} ({1e4 * tick:.1f})" if np.isfinite(loss) else ""

    tables = []
    for place, level in enumerate(LEVELS):
        for title, cell, kind in (
            ("Exceedances of value at risk", covered, COVERED.format(level=level)),
            ("Losses of value at risk and expected shortfall", losses, LOSSES),
        ):
            note = NOTE.format(
                market=data.market.name,
                bars=bars,
                level=level,
                count=len(listed.starts),
                assets=assets,
                every=data.every,
                oldest=max(ages),
                kind=kind,
            )
            name = f"{title}: {level:.0%}, {bars}"
            tables.append(Table(name, columns, rows(cell, place), note))
    return tables
