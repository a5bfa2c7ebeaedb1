"""Volatility and tail risk of assets as if each had been listed a few bars ago."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reproduce.new_listing_learners import compare_learners
from benchmarks.reproduce.new_listing_market import MARKETS, Data, Weights, read_file
from benchmarks.reproduce.new_listing_rows import (
    DONORS,
    MODEL,
    ROWS,
    ListingRow,
    forecast_model,
    forecast_row,
    outside_row,
)
from benchmarks.reproduce.new_listing_tables import Comparison
from benchmarks.reproduce.new_listing_tails import (
    LEVELS,
    forecast_tails_of_model,
    forecast_tails_of_others,
    imagine,
    judge_tails,
    tail_tables,
)
from benchmarks.reproduce.new_listing_target import (
    COST,
    LEVERAGE,
    hold_listed,
    listed_tables,
    target_tables,
)
from benchmarks.reproduce.new_listing_transfer import transfer, transfer_table
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.study import USUAL, Call, Option, Report, Study
from benchmarks.reproduce.table import Table
from maml_jax.errors import ConfigError

EVERY = 5
"""Bars from one forecast to the next."""

PARTS = ("volatility", "tails", "target", "listed", "transfer")
LEARNERS = "learners"
"""A part that takes long, and stands by itself: done where it is asked for."""

DIGITS = 6
"""Of forecasts of tails in files of results."""


def run(call: Call) -> Report:
    """Train on most assets of a file, forecast the others as new listings, and compare."""
    data = _prepare(call)
    parts, rows = call.choose_parts((*PARTS, LEARNERS)), list(call.rows)
    if not call.options["parts"]:
        parts.remove(LEARNERS)
    if (path := call.options["forecasts"]) is not None:
        rows.append(_outside(Path(path)))
    trained = any(row.key == MODEL for row in rows)
    tables: list[Table] = []
    record: dict[str, Any] = {
        "bars": {"file": data.bars.name, "sha256": data.bars.sha256},
        "weights": data.weights.identity,
    }
    if {"volatility", "target"} & set(parts):
        found = call.perform((row.key, _row_job(data, row)) for row in rows)
        comparison = Comparison(data, rows, found)
        if "volatility" in parts:
            tables += comparison.make_tables()
        if "target" in parts:
            tables += target_tables(comparison)
        record |= comparison.record
    if "tails" in parts and trained:
        record["tails"], made = _tails(call, data)
        tables += made
    if "listed" in parts and trained and call.options["listed"] is not None:
        record["listed"], made = _listed(call, data)
        tables += made
    if "transfer" in parts and trained and call.options["transfer"]:
        record["transfer"], made = _transfer(call, data)
        tables += made
    if LEARNERS in parts:
        record[LEARNERS], made = compare_learners(call, data)
        tables += made
    alone = "-learners" if parts == [LEARNERS] else ""
    return Report(tables, record, suffix=f"-{data.market.key}{alone}")


def _prepare(call: Call) -> Data:
    market = call.options["market"]
    if market not in MARKETS:
        raise ConfigError(f"--market {market}: no such market; there are {[*MARKETS]}")
    chosen = MARKETS[market]
    usual = chosen.settings
    steps = call.count_steps(usual.steps)
    settings = usual._replace(
        steps=steps,
        pooled_steps=max(1, usual.pooled_steps * steps // usual.steps),
        members=call.count_seeds(usual.members),
    )
    given, log = call.options["weights"], call.progress.log
    weights = Weights(call.folder, settings, given, log)
    bars = read_file(Path(call.options["bars"]), "bars")
    return Data(chosen, bars, call.options["every"], weights)


def _outside(path: Path) -> ListingRow:
    import hashlib

    if not path.is_file():
        raise ConfigError(f"--forecasts {path}: no such file")
    return outside_row(path, hashlib.sha256(path.read_bytes()).hexdigest()[:16])


def _job(
    name: str,
    identity: dict[str, Any],
    make: Callable[[], dict[str, Any]],
    describe: Callable[[dict[str, Any]], str] = lambda _: "done",
) -> Job:
    def run(advance: Advance) -> dict[str, Any]:
        result = make()
        advance(1)
        return result

    return Job(name, identity, 1, run, describe)


def _row_job(data: Data, row: ListingRow) -> Job:
    identity = {**data.identity, "row": row.key, **row.setting}
    make = partial(forecast_model if row.forecast is None else forecast_row, data, row)
    if row.forecast is None:
        identity["weights"] = data.weights.identity
    if row.key == DONORS:
        identity["ages"] = data.market.donor_ages
    return _job(f"{data.market.key}-{row.key}", identity, make)


def _tails(call: Call, data: Data) -> tuple[dict[str, Any], list[Table]]:
    record, tables = {}, []
    listed = imagine(data)
    for horizon in data.market.tail_horizons:
        protocol = {"tail_ages": data.market.tail_ages, "levels": LEVELS, "tail_horizon": horizon}
        identity = {**data.identity, **protocol}
        jobs = [
            (
                "model",
                _job(
                    f"{data.market.key}-tails-model-{horizon}",
                    {**identity, "weights": data.weights.identity},
                    lambda horizon=horizon: _keep(forecast_tails_of_model(data, listed, horizon)),
                ),
            ),
            (
                "others",
                _job(
                    f"{data.market.key}-tails-others-{horizon}",
                    identity,
                    lambda horizon=horizon: _keep(forecast_tails_of_others(data, listed, horizon)),
                ),
            ),
        ]
        found = call.perform(jobs)
        results = [found[key][0] for key in ("model", "others")]
        if any("failed" in result for result in results):
            continue
        judged = judge_tails(data, horizon, {**results[0], **results[1]})
        record[horizon] = judged
        tables += tail_tables(data, horizon, judged)
    return record, tables


def _keep(forecasts: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key: np.round(values, DIGITS).tolist() for key, values in forecasts.items()}


def _listed(call: Call, data: Data) -> tuple[dict[str, Any], list[Table]]:
    bars = read_file(Path(call.options["listed"]), "listed")
    identity = {
        **data.identity,
        "weights": data.weights.identity,
        "listed": bars.sha256,
        "costs": [COST, LEVERAGE, data.market.target, data.market.block],
    }
    job = _job(f"{data.market.key}-listed", identity, lambda: hold_listed(data, bars))
    result = call.perform([("listed", job)])["listed"][0]
    return result, [] if "failed" in result else listed_tables(data, result)


def _transfer(call: Call, data: Data) -> tuple[dict[str, Any], list[Table]]:
    jobs = []
    for path in call.options["transfer"]:
        bars = read_file(Path(path), "transfer")
        identity = {
            **data.identity,
            "weights": data.weights.identity,
            "there": data.weights.settings._replace(members=1)._asdict(),
            "file": bars.sha256,
            "ages": data.market.held_ages,
        }
        name = f"{data.market.key}-transfer-{bars.name.split('.')[0]}"
        jobs.append((bars.name, _job(name, identity, partial(transfer, data, bars))))
    found = {key: results[0] for key, results in call.perform(jobs).items()}
    good = {key: result for key, result in found.items() if "failed" not in result}
    return found, [transfer_table(data, good)] if good else []


NEW_LISTING = Study(
    "new-listing",
    "Risk of assets as if listed n bars ago, against refitted regressions, EWMA, GARCH and more.",
    run,
    ROWS,
    {
        "bars": Option(Path, "Bars of several assets, a file.", required=True),
        "market": Option(str, f"Which dates and horizons: {' or '.join(MARKETS)}.", "", "stocks"),
        "every": Option(int, "Bars from one forecast to the next.", default=EVERY),
        "weights": Option(str, "Name or folder of weights to measure. Default: train them."),
        "listed": Option(Path, "Bars of a file with true listings, to hold at a volatility."),
        "transfer": Option(list[str], "File on which the weights are tried; repeatable."),
        "forecasts": Option(Path, "Parquet file of forecasts of any model, a row of its own."),
        "parts": Option(
            list[str],
            f"{', '.join(PARTS)} or {LEARNERS}; repeatable. Default: all but {LEARNERS}.",
            "part",
        ),
        **USUAL,
    },
)
