"""Weights of one market on another file, beside weights that are trained there."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.reproduce.new_listing_market import Bars, Data, mean_error, on_timeline
from benchmarks.reproduce.new_listing_rows import forecast_members
from benchmarks.reproduce.new_listing_tables import interval_text
from benchmarks.reproduce.table import Table
from maml_jax.backtest.baselines.young import ewma_at_age
from maml_jax.backtest.inference import r_squared, r_squared_difference
from maml_jax.risk.histories import make_histories, outcome

LEAST = 600
"""Bars that a training takes."""

NOTE = (
    "R2 of the log of volatility over the next {horizon} bars, at every {every} bars of the later"
    " part of each file, as if listed n bars ago: by the weights of the table above (the ensemble,"
    " and one training, without any bar of the file), by one training on the earlier part of the"
    " file itself, on the same assets, and by EWMA, shifted by its mean error in that part (where"
    " none of its bars is so old, by that of the age before). Difference: of one training each,"
    " with its 95 % interval. The later part begins after half of the bars, and not before {start}"
    " where the file has {least} bars by then; files with fewer than {least} bars before it are"
    " too short to train on."
)


def split_time(data: Data, timeline: pd.DatetimeIndex) -> int:
    """Return the place of the first bar of the later part of a file."""
    half = len(timeline) // 2
    start = int(timeline.searchsorted(pd.Timestamp(data.market.start, tz="UTC")))
    return start if LEAST <= start < len(timeline) - LEAST and start > half else half


def transfer(data: Data, bars: Bars) -> dict[str, Any]:
    """Measure both weights on the later part of a file."""
    histories = make_histories(bars.frames)
    horizon, every = data.market.horizon, data.every
    first = split_time(data, histories.timeline)
    grid = np.arange(first, len(histories.timeline) - horizon, every)
    assets = [*range(len(histories.assets))]
    models = {"weights": data.model}
    shortest = min(own.searchsorted(histories.timeline[first]) for own in histories.times)
    if shortest >= LEAST:
        weights = replace(
            data.weights, given=None, settings=data.weights.settings._replace(members=1)
        )
        stop = histories.timeline[first]
        key = f"transfer-{bars.name.split('.')[0]}"
        models["there"] = weights.find(key, bars, histories, assets, stop)
    ahead = on_timeline(histories, [outcome(each, horizon)[0] for each in histories.returns])
    returns = on_timeline(histories, histories.returns)
    ages = data.market.held_ages
    ewma = ewma_at_age(returns, ages=ages)
    result: dict[str, Any] = {
        "assets": len(assets),
        "first": f"{histories.timeline[first]:%Y-%m-%d}",
        "last": f"{histories.timeline[-1]:%Y-%m-%d}",
        "ages": {},
    }
    shift = 0.0
    for place, age in enumerate(ages):
        found = mean_error((ahead - ewma[place])[:, : first - horizon])
        shift = found if np.isfinite(found) else shift
        forecasts = {"ewma": (ewma[place] + shift)[:, grid]}
        for key, model in models.items():
            each = forecast_members(model, histories, assets, grid, age=age, horizon=horizon)[0]
            forecasts[f"{key}-one"] = each[0]
            forecasts[key] = each.mean(axis=0)
        known = np.all([np.isfinite(each) for each in forecasts.values()], axis=0)
        truth = np.where(known, ahead[:, grid], np.nan)
        figures: dict[str, Any] = {k: r_squared(each, truth) for k, each in forecasts.items()}
        figures["count"] = int(np.isfinite(truth).sum())
        if "there" in models:
            block = max(2, 3 * data.market.block // every)
            pair = (forecasts["weights-one"], forecasts["there-one"])
            figures["difference"] = r_squared_difference(*pair, truth, block=block)._asdict()
        result["ages"][str(age)] = figures
    return result


def transfer_table(data: Data, found: dict[str, dict[str, Any]]) -> Table:
    """Lay out the R2 of both weights on each file."""
    rows = []
    for name, result in found.items():
        for age, figures in result["ages"].items():
            there = "too short" if "difference" not in figures else f"{figures['there']:.3f}"
            gain = interval_text(figures["difference"]) if "difference" in figures else ""
            weights = (f"{figures[key]:.3f}" for key in ("weights", "weights-one"))
            span = f"{name}, {result['assets']} assets, {result['first']} to {result['last']}"
            rows.append((span, age, *weights, there, gain, f"{figures['ewma']:.3f}"))
    columns = (
        "file",
        "n",
        "ensemble",
        "one training",
        "trained there",
        "difference",
        "EWMA",
    )
    market = data.market
    note = NOTE.format(horizon=market.horizon, every=data.every, start=market.start, least=LEAST)
    return Table(f"Weights of {market.name} elsewhere", columns, rows, note)
