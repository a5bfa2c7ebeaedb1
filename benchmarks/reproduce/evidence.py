"""What adapting earns on real bars: every method, support set and seed, against all baselines."""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.reproduce.evidence_rows import MARKETS, EvidenceRow, require_market, rows_of
from benchmarks.reproduce.evidence_tables import Outcome, make_tables
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.study import USUAL, Call, Option, Report, Study
from benchmarks.reproduce.table import choose, describe_machine
from maml_jax import experiment
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment import Result

USUAL_SEEDS, USUAL_STEPS = 3, 1000
DIGITS = 6
"""Significant digits of returns and errors in files of results."""

FEWEST_SAMPLES = 20
"""Of a run's own bootstrap, whose intervals are not used: the tables draw samples of their own."""

FIGURES = (
    "CAGR [%]",
    "Volatility (Ann.) [%]",
    "Sharpe Ratio",
    "Gross Sharpe Ratio",
    "Max. Drawdown [%]",
    "Turnover (Ann.)",
    "Exposure Time [%]",
    "# Trades",
    "Correlation",
    "IC",
    "Rank IC",
    "Bars per Year",
)
"""Figures of each strategy that are kept."""

Bars = Mapping[str, pd.DataFrame]


def run(call: Call) -> Report:
    """Run every method on rows of the asset and of all assets, and compare with all baselines."""
    seeds, steps = call.count_seeds(USUAL_SEEDS), call.count_steps(USUAL_STEPS)
    files = {key: call.options[key] for key in MARKETS if call.options[key] is not None}
    given = {key: _read(key, Path(path)) for key, path in files.items()}
    if not given:
        raise ConfigError("give bars, with --stocks FILE or --crypto FILE or both")
    rows = choose(rows_of([MARKETS[key] for key in given]), call.options["methods"] or ())
    jobs = [
        ((row, seed), _make_job(row, *given[row.market.key], seed, steps))
        for seed in range(seeds)
        for row in rows
    ]
    planned = len(jobs)
    if call.options["present"]:
        jobs = [each for each in jobs if call.holds(each[1])]
        if not jobs:
            raise ConfigError(f"--show-only: {call.folder} holds none of these runs yet")
    found = call.perform(jobs)
    tables = make_tables(
        [Outcome.of(*key, result) for key, (result,) in found.items() if "failed" not in result]
    )
    failed = [f"Failed: {each}" for each in call.failed]
    missing = planned - len(jobs)
    more = f" ({missing} more are not there yet)" if missing else ""
    head = f"{len(jobs)} runs{more}: {seeds} seeds, {steps:,} meta-steps each."
    note = " ".join([head, *failed, tables[0].note])
    record = {
        "seeds": seeds,
        "meta_steps": steps,
        "missing": missing,
        "failed": failed,
        "tables": {
            t.title: [dict(zip(t.columns, row, strict=True)) for row in t.rows] for t in tables
        },
    }
    return Report([tables[0]._replace(note=note), *tables[1:]], record)


EVIDENCE = Study(
    "evidence",
    "Real bars: every method, on rows of the asset and of all assets, against all baselines.",
    run,
    options={
        "stocks": Option(Path, "Daily bars of stocks, 1990 to 2022."),
        "crypto": Option(Path, "Hourly bars of crypto pairs, 2024."),
        **USUAL,
        "present": Option(
            bool, "Train nothing; print existing results.", "show-only", default=False
        ),
    },
)


def _read(key: str, path: Path) -> tuple[Bars, dict[str, str]]:
    if not path.is_file():
        raise ConfigError(f"--{key} {path}: no such file")
    bars = read_bars(path)
    require_market(MARKETS[key], bars)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return bars, {"file": path.name, "sha256": digest}


def _make_job(row: EvidenceRow, bars: Bars, identity: dict[str, str], seed: int, steps: int) -> Job:
    settings = row.settings(sorted(bars), seed, steps)
    make = partial(_run, bars, settings)
    identity_of_run = {"bars": identity, "run": settings}
    return Job(f"{row.key}-seed{seed}", identity_of_run, steps, make, _describe)


def _run(bars: Bars, settings: dict[str, Any], advance: Advance) -> dict[str, Any]:
    backtest = {**settings["backtest"], "samples": FEWEST_SAMPLES}
    result = experiment.run(bars=dict(bars), **{**settings, "backtest": backtest})
    advance(settings["training"]["steps"])
    return keep_result(result)


def keep_result(result: Result) -> dict[str, Any]:
    """Return what to keep of a run: of each strategy its figures, returns and errors by date."""
    table = result.predictions.dropna(subset=["target"])
    names = list(dict.fromkeys(table["strategy"]))
    # Where one strategy predicts and another does not, the other is taken to have predicted 0.
    targets = table.drop_duplicates(["timestamp", "asset"])[["timestamp", "asset", "target"]]
    table = pd.concat([targets.assign(strategy=name) for name in names]).merge(
        table[["timestamp", "asset", "strategy", "prediction"]],
        how="left",
        on=["timestamp", "asset", "strategy"],
    )
    error = (table["prediction"].fillna(0.0) - table["target"]) ** 2
    table = table.assign(error=error, zero=table["target"] ** 2)
    by_date = table.groupby(["strategy", "timestamp"])[["error", "zero"]].sum()
    strategies = {}
    for name in result.stats.columns:
        figures = {key: result.stats.loc[key, name] for key in FIGURES if key in result.stats.index}
        strategies[name] = {"figures": figures, "net": _round(result.returns[name])}
        if name in by_date.index.get_level_values("strategy"):
            errors = by_date.loc[name].reindex(result.returns.index)
            strategies[name] |= {key: _round(errors[key]) for key in ("error", "zero")}
    return {
        "headline": next(iter(result.checkpoints)),
        "strategies": strategies,
        "where": describe_machine(),
    }


def _round(values: pd.Series) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.to_numpy(np.float64)]


def _describe(result: dict[str, Any]) -> str:
    own = result["strategies"][result["headline"]]["figures"]
    return f"net Sharpe {own['Sharpe Ratio']:.2f}, correlation {own['Correlation']:.3f}"
