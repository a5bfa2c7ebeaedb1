"""What adapting earns on real bars: every method, support set and seed, against all baselines."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks.reproduce.evidence_rows import MARKETS, EvidenceRow, require_market, rows_of
from benchmarks.reproduce.evidence_tables import Outcome, tables
from benchmarks.reproduce.progress import Advance, Progress
from benchmarks.reproduce.results import Job, is_there, perform, write, write_json
from benchmarks.reproduce.table import (
    QUICK_MARK,
    QUICK_SHARE,
    Table,
    choose,
    require_positive,
    surroundings,
)
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment import Result, run

SEEDS = 3
STEPS = 1000
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


def reproduce_evidence(
    *,
    stocks: str | Path | None = None,
    crypto: str | Path | None = None,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    present: bool = False,
    out: str | Path = "runs/evidence",
    console: Console | None = None,
    command: str = "",
) -> list[Table]:
    """Run the whole comparison, and write the tables.

    Every run's result is a file of its own in `out/results`; one that is there already, of the same
    settings and bars, is not made again, so that what was interrupted goes on and several processes
    may share the work. `evidence.json` and `evidence.md` hold what was asked for in the last call.

    Args:
        stocks: a file of daily bars of some twenty stocks from 1990 to 2022.
        crypto: a file of hourly bars of some twenty pairs in 2024.
        methods: keys of rows, or how they begin; default all of the markets given.
        seeds: trainings of each row; default 3.
        steps: meta-steps of each; default 1,000.
        quick: one seed, a fiftieth of the meta-steps.
        present: train nothing, and tell what the folder holds; the note says how many are missing.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.

    Returns:
        Tables of each market.

    Raises:
        ConfigError: if an option is impossible, or neither file is given.
        DataError: if the bars cannot be read.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    seeds = seeds or (1 if quick else SEEDS)
    steps = steps or (STEPS // QUICK_SHARE if quick else STEPS)
    out, files = Path(out), {"stocks": stocks, "crypto": crypto}
    given = {key: _read(key, Path(path)) for key, path in files.items() if path is not None}
    if not given:
        raise ConfigError("give bars, with --stocks FILE or --crypto FILE or both")
    rows = choose(rows_of([MARKETS[key] for key in given]), methods)
    plan = [
        (row, seed, _job(row, *given[row.market.key], seed, steps))
        for seed in range(seeds)
        for row in rows
    ]
    planned = len(plan)
    if present:
        plan = [each for each in plan if is_there(each[2], out / "results")]
        if not plan:
            raise ConfigError(f"--present: {out / 'results'} holds none of these runs yet")
    results = perform((job for _, _, job in plan), out / "results", Progress(console))
    outcomes, failed = [], []
    for (row, seed, job), result in zip(plan, results, strict=True):
        if "failed" in result:
            failed.append(f"Failed: {job.name}: {result['failed']}")
        else:
            outcomes.append(Outcome.of(row, seed, result))
    made = tables(outcomes)
    mark = QUICK_MARK if quick else ""
    missing = f" ({planned - len(plan)} more are not there yet)" if planned > len(plan) else ""
    told = f"{len(plan)} runs{missing}: {seeds} seeds, {steps:,} meta-steps each."
    told = " ".join([told, *failed])
    made = [t._replace(title=mark + t.title) for t in made]
    made[0] = made[0]._replace(note=f"{told} {made[0].note}")
    record = {
        "command": command,
        "quick": quick,
        "where": surroundings(),
        "seeds": seeds,
        "meta_steps": steps,
        "missing": planned - len(plan),
        "failed": failed,
        "tables": {
            t.title: [dict(zip(t.columns, row, strict=True)) for row in t.rows] for t in made
        },
    }
    write_json(out / "evidence.json", record)
    write(out / "evidence.md", "\n".join(table.markdown() for table in made))
    return made


def _read(key: str, path: Path) -> tuple[Bars, dict[str, str]]:
    if not path.is_file():
        raise ConfigError(f"--{key} {path}: no such file")
    bars = read_bars(path)
    require_market(MARKETS[key], bars)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return bars, {"file": path.name, "sha256": digest}


def _job(row: EvidenceRow, bars: Bars, told: dict[str, str], seed: int, steps: int) -> Job:
    settings = row.settings(sorted(bars), seed, steps)

    def make(advance: Advance) -> dict[str, Any]:
        backtest = {**settings["backtest"], "samples": FEWEST_SAMPLES}
        result = run(bars=dict(bars), **{**settings, "backtest": backtest})
        advance(steps)
        return kept(result)

    name = f"{row.key}-seed{seed}"
    return Job(name, {"bars": told, "run": settings}, steps, make, _told)


def kept(result: Result) -> dict[str, Any]:
    """Return what is kept of a run: of each strategy its figures, returns and errors by date."""
    table = result.predictions.dropna(subset=["target"])
    names = list(dict.fromkeys(table["strategy"]))
    # Where one strategy predicts and another does not, the other is taken to have predicted 0.
    told = table.drop_duplicates(["timestamp", "asset"])[["timestamp", "asset", "target"]]
    table = pd.concat([told.assign(strategy=name) for name in names]).merge(
        table[["timestamp", "asset", "strategy", "prediction"]],
        how="left",
        on=["timestamp", "asset", "strategy"],
    )
    error = (table["prediction"].fillna(0.0) - table["target"]) ** 2
    table = table.assign(error=error, zero=table["target"] ** 2)
    by_date = table.groupby(["strategy", "timestamp"])[["error", "zero"]].sum()
    kept_of = {}
    for name in result.stats.columns:
        figures = {key: result.stats.loc[key, name] for key in FIGURES if key in result.stats.index}
        kept_of[name] = {"figures": figures, "net": _short(result.returns[name])}
        if name in by_date.index.get_level_values("strategy"):
            errors = by_date.loc[name].reindex(result.returns.index)
            kept_of[name] |= {key: _short(errors[key]) for key in ("error", "zero")}
    return {
        "headline": next(iter(result.checkpoints)),
        "strategies": kept_of,
        "where": surroundings(),
    }


def _short(values: pd.Series) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values.to_numpy(np.float64)]


def _told(result: dict[str, Any]) -> str:
    own = result["strategies"][result["headline"]]["figures"]
    return f"net Sharpe {own['Sharpe Ratio']:.2f}, correlation {own['Correlation']:.3f}"
