"""Volatility of assets that meta-training never saw, from a few of their rows."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.study import USUAL, Call, Option, Report, Study
from benchmarks.reproduce.training import take_mean
from benchmarks.reproduce.volatility_rows import (
    ALWAYS,
    MARKETS,
    ROWS,
    UNSEEN_SHARE,
    WINDOWS,
    VolatilityMarket,
    VolatilityRow,
    forecast_baselines,
)
from benchmarks.reproduce.volatility_tables import CALIBRATION, Comparison, first_bar
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.train import make_learner, meta_train
from maml_jax.experiment.preparation.prepare import Prepared, prepare

DIGITS = 4
"""Of the forecasts in files of results, in deviations of the target."""


@dataclass(frozen=True)
class Data:
    """The bars of a call, split into assets to meta-train on and unseen ones.

    Attributes:
        market: dates and horizons.
        frames: bars by asset.
        seen: assets to meta-train on.
        unseen: the others.
        identity: marks these bars in files of results.
        first: the settings of the first training, whose panel all jobs share.
    """

    market: VolatilityMarket
    frames: Mapping[str, pd.DataFrame]
    seen: list[str]
    unseen: list[str]
    identity: Mapping[str, Any]
    first: VolatilityRow

    @cached_property
    def prepared(self) -> Prepared:
        """The panel, which all jobs share."""
        return prepare(load_config(self.settings(self.first, WINDOWS[0], 0)), self.frames)

    def settings(self, row: VolatilityRow, support: int, seed: int) -> dict[str, Any]:
        """Return the settings of a run."""
        settings = row.settings(self.market, support)
        assets = {"train_assets": self.seen, "test_assets": self.unseen}
        return {**settings, "seed": seed, "data": {**settings["data"], **assets}}


def run(call: Call) -> Report:
    """Meta-train on most assets of a file, forecast the volatility of the others, and compare.

    The first row that is asked for is the one that is compared with the baselines: it is chosen
    beforehand, not by its results.
    """
    bars, market = Path(call.options["bars"]), call.options["market"]
    if market not in MARKETS:
        raise ConfigError(f"--market {market}: no such market; there are {[*MARKETS]}")
    if not bars.is_file():
        raise ConfigError(f"--bars {bars}: no such file")
    setting = MARKETS[market]
    rows = [
        replace(row, steps=call.count_steps(row.steps), seeds=call.count_seeds(row.seeds))
        for row in call.rows
    ]
    frames = read_bars(bars)
    digest = hashlib.sha256(bars.read_bytes()).hexdigest()[:16]
    identity = {"market": setting.key, "sha256": digest, "before": CALIBRATION}
    data = Data(setting, frames, *_split_assets(sorted(frames)), identity, rows[0])
    jobs = [
        (row.key, _make_job(row, data, support, seed))
        for row in rows
        for seed in range(row.seeds)
        for support in row.trainings()
    ]
    found = call.perform([*jobs, ("baselines", _make_baseline_job(data))])
    comparison = Comparison(data.prepared, setting, rows, found)
    tables = comparison.make_tables()
    record = {
        "bars": {"file": bars.name, "sha256": digest},
        "rows": {
            row.key: [row.settings(setting, support) for support in row.trainings()] for row in rows
        },
        **comparison.record,
    }
    return Report(tables, record, suffix=f"-{setting.key}")


VOLATILITY = Study(
    "volatility",
    "Volatility of assets never seen, from a few rows, against HAR, EWMA, GARCH and ridge.",
    run,
    ROWS,
    {
        "bars": Option(Path, "Bars of several assets, a file.", required=True),
        "market": Option(str, f"Which dates and horizons: {' or '.join(MARKETS)}.", "", "stocks"),
        **USUAL,
    },
)


def _split_assets(names: list[str]) -> tuple[list[str], list[str]]:
    if len(names) < UNSEEN_SHARE:
        raise ConfigError(
            f"--bars: needs at least {UNSEEN_SHARE} assets, there are {len(names)}: {names}"
        )
    count = len(names) // UNSEEN_SHARE
    return names[:-count], names[-count:]


def _make_job(row: VolatilityRow, data: Data, support: int, seed: int) -> Job:
    settings, windows = data.settings(row, support, seed), row.trainings()[support]

    def run(advance: Advance) -> dict:
        ready = data.prepared._replace(config=load_config(settings))
        params, history = meta_train(ready, row.method)
        advance(row.steps)
        forecasts = _forecast(row, ready, params, windows)
        loss = history["loss"].to_numpy()
        last = float(loss[-max(1, len(loss) // 10) :].mean())
        return {"forecasts": forecasts, "training_loss": last}

    trained = f"{support}rows-" if row.support is None else ""
    name = f"{data.market.key}-{row.key}-{trained}seed{seed}"
    tested = windows if row.support is None else WINDOWS
    identity = {**data.identity, "run": settings, "adapts": row.adapts, "windows": tested}
    return Job(name, identity, row.steps, run, lambda r: f"training loss {r['training_loss']:.4f}")


def _forecast(row: VolatilityRow, prepared: Prepared, params, windows) -> dict[str, list]:
    """Walk a trained learner forward on the unseen assets, with each number of rows."""
    learner = make_learner(prepared.config, row.method)
    forecasts = {}
    for window in windows:
        span = {"first": first_bar(prepared), "last": prepared.test_last}
        supports = find_supports(prepared.panel, window, assets=prepared.test_assets, **span)
        steps = None if row.adapts else 0
        predictions = walk_forward(learner, params, prepared.panel, supports, steps=steps)
        key = str(window) if row.adapts else ALWAYS
        forecasts[key] = _keep(np.asarray(take_mean(predictions), float), prepared)
    return forecasts


def _make_baseline_job(data: Data) -> Job:
    market = data.market
    protocol = {
        "features": list(market.features),
        "har": list(market.har),
        "garch": dict(market.garch),
        "trailing": market.trailing,
        "horizon": market.horizon,
        "dates": dict(market.dates),
        "assets": [data.seen, data.unseen],
        "windows": WINDOWS,
    }
    identity, make = {**data.identity, **protocol}, partial(_forecast_baselines, data)
    return Job(f"{market.key}-baselines", identity, 1, make, ", ".join)


def _forecast_baselines(data: Data, advance: Advance) -> dict[str, Any]:
    ready = data.prepared
    made = forecast_baselines(ready, data.market, first_bar(ready))
    advance(1)
    return {
        key: {window: _keep(values, ready) for window, values in forecasts.items()}
        for key, forecasts in made.items()
    }


def _keep(values: Float[np.ndarray, "asset time"], prepared: Prepared) -> list[list[float]]:
    """Keep the forecasts of the unseen assets from the first bar that counts."""
    assets = [prepared.panel.assets.index(asset) for asset in prepared.test_assets]
    kept = values[assets, first_bar(prepared) : prepared.test_last + 1]
    return np.round(kept, DIGITS).tolist()
