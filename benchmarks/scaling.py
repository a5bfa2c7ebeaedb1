"""How time grows with tasks, inner steps, network, assets and bars; what more cores give.

Whole runs, from bars to report, are measured in processes of their own: with `--runs` they alone.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.harness import Worker, arguments, in_turn, show, use_devices, write
from benchmarks.problems import (
    make_learner,
    make_panel,
    make_params,
    seconds_per_step,
    target,
    training,
    warmed_up,
)
from benchmarks.whole_run import run_apart
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.parallel.machine import cores

SERIES = {
    "tasks": [4, 8, 16, 32, 64, 128, 256, 512, 1024],
    "inner steps": [1, 2, 5, 10, 20, 50],
    "hidden size": [16, 32, 64, 128, 256, 512],
    "assets": [1, 2, 4, 8, 16, 32],
    "bars": [500, 1000, 2000, 4000, 8000, 16_000],
}
LINEAR = ("tasks", "inner steps", "assets", "bars")
"""The work of a meta-step grows with the square of the hidden size, that of the rest linearly."""

MEASURED = {
    "tasks": "meta-step, 5 inner steps, hidden 64",
    "inner steps": "meta-step, 64 tasks, hidden 64",
    "hidden size": "meta-step, 32 tasks, 5 inner steps",
    "assets": "walk-forward, 500 bars each",
    "bars": "walk-forward, 1 asset",
}
RUNS = {
    "assets": [(62, 2500, "B"), (125, 2500, "B"), (250, 2500, "B"), (500, 2500, "B")],
    "bars": [(3, 25_000, "min"), (3, 50_000, "min"), (3, 100_000, "min"), (3, 200_000, "min")],
}
"""Assets, bars and their frequency, of whole runs."""

LARGEST = (1000, 2500, "B")
BOUNDS = {
    (500, 2500): {"seconds": 240, "peak_mb": 3000, "report_mb": 3},
    (1000, 2500): {"peak_mb": 6000, "report_mb": 3},
    (3, 200_000): {"seconds": 60, "peak_mb": 3000, "report_mb": 3},
}

WINDOW = 20
EFFICIENCY_TASKS = 256
ALL, ONE, ALONE, CORE = "all devices", "devices=1", "one device alone", "one core"


def growth(*, sizes: dict[str, list[int]]) -> dict[str, Callable]:
    """Compile every point of every series, on all cores."""
    use_devices()
    make = {
        "tasks": lambda size: training(make_learner(), size),
        "inner steps": lambda size: training(make_learner(inner_steps=size), 64),
        "hidden size": lambda size: training(make_learner(hidden=size), 32),
        "assets": lambda size: rolling(assets=size, bars=500),
        "bars": lambda size: rolling(assets=1, bars=size),
    }
    return {f"{series}: {size}": make[series](size) for series in sizes for size in sizes[series]}


def rolling(*, assets: int, bars: int) -> Callable[[], Any]:
    """Make a contestant that walks forward over all assets and bars."""
    learner, panel = make_learner(), make_panel(assets, bars)
    params = make_params(learner)

    def walk() -> Any:
        return walk_forward(learner, params, panel, find_supports(panel, WINDOW))

    return warmed_up(walk, meta_steps=1)


def sharing() -> dict[str, Callable]:
    """Compile training on all devices and on one of them."""
    use_devices()
    return {
        ALL: training(make_learner(), EFFICIENCY_TASKS, devices=cores()),
        ONE: training(make_learner(), EFFICIENCY_TASKS, devices=1),
    }


def alone(*, name: str) -> dict[str, Callable]:
    """Compile training in a process that has one device, and for `CORE` one core as well.

    A single device may use the threads of all cores within one operation.
    """
    if name == CORE:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    use_devices(1)
    return {name: training(make_learner(), EFFICIENCY_TASKS)}


def points(series: str, sizes: list[int], measured: dict[str, dict]) -> list[dict[str, Any]]:
    """List the points of a series with the growth exponent from one to the next."""
    runs = [measured[f"{series}: {size}"] for size in sizes]
    seconds = [seconds_per_step(run) for run in runs]
    exponents = [None, *(np.diff(np.log(seconds)) / np.diff(np.log(sizes))).tolist()]
    return [
        {
            series: size,
            "seconds": took,
            "exponent": exponent,
            "compile seconds": run["compile_seconds"],
        }
        for size, took, exponent, run in zip(sizes, seconds, exponents, runs, strict=True)
    ]


def slope(series: str, rows: list[dict[str, Any]]) -> float:
    """Fit the growth exponent over the upper half of the points."""
    upper = rows[len(rows) // 2 :]
    x, y = (np.log([row[key] for row in upper]) for key in (series, "seconds"))
    return float(np.polyfit(x, y, 1)[0])


def efficiencies(rounds: int) -> list[dict[str, Any]]:
    """Set all cores against one, in three senses of one."""
    workers = [Worker(sharing), Worker(alone, name=ALONE), Worker(alone, name=CORE)]
    measured = in_turn(workers, rounds=rounds)
    for worker in workers:
        worker.close()
    seconds = {name: seconds_per_step(each) for name, each in measured.items()}
    return [
        {
            "one": name,
            "one, ms": 1e3 * seconds[name],
            "all, ms": 1e3 * seconds[ALL],
            "efficiency": seconds[name] / (cores() * seconds[ALL]),
            "compile seconds": measured[name]["compile_seconds"],
        }
        for name in (ONE, ALONE, CORE)
    ]


def whole_runs(*, quick: bool) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """Run whole jobs one after the other, each after a small one that compiles what they share.

    Exponents are of what grows: of seconds beyond meta-training and compiling, and of the memory
    beyond that of the process before the run.

    Returns:
        Rows of each series, and targets with what was measured.
    """
    table, targets = {}, []
    for series, sizes in RUNS.items():
        rows = [run_apart(*size) for size in (sizes[:2] if quick else sizes)]
        for row in rows:
            row["growing seconds"] = row["seconds"] - row["training"] - row["compiling"]
            row["growing mb"] = row["peak_mb"] - row["before_mb"]
        table[series] = rows
        for what in ("growing seconds", "growing mb"):
            upper = rows[len(rows) // 2 - 1 :]
            x, y = (np.log([row[key] for row in upper]) for key in (series, what))
            exponent = float(np.polyfit(x, y, 1)[0])
            targets.append(target(f"whole runs, exponent of {what} in {series}", 1.1, exponent))
    if not quick:
        table["largest"] = [run_apart(*LARGEST)]
    for row in [row for rows in table.values() for row in rows]:
        for what, bound in BOUNDS.get((row["assets"], row["bars"]), {}).items():
            name = f"{row['assets']} assets x {row['bars']} bars, {what}"
            targets.append(target(name, bound, row[what]))
    return table, targets


def draw(table: dict[str, list[dict[str, Any]]], slopes: dict[str, float]) -> Figure:
    """Draw a panel for each series, both axes logarithmic."""
    pyplot.switch_backend("Agg")
    figure, panels = pyplot.subplots(1, len(table), figsize=(3.1 * len(table), 2.9))
    for axes, (series, rows) in zip(panels, table.items(), strict=True):
        axes.loglog([row[series] for row in rows], [row["seconds"] for row in rows], "o-")
        axes.set_title(f"upper half: exponent {slopes[series]:.2f}", fontsize=9)
        axes.set(xlabel=f"{series}\n({MEASURED[series]})", ylabel="seconds")
        axes.xaxis.set_minor_formatter("")
    figure.tight_layout()
    return figure


def main() -> None:
    """Measure the series, then the cores."""
    given = arguments(__doc__, runs="whole runs alone")
    quick = given.quick
    runs, run_targets = whole_runs(quick=quick)
    for series, rows in runs.items():
        shown = [{k: v for k, v in row.items() if k != "stages"} for row in rows]
        show(f"whole runs, {series}", shown)
    show("targets of whole runs", run_targets)
    if not quick:
        write("whole_runs", {"series": runs, "targets": run_targets})
    if given.runs:
        return
    sizes = {series: values[:3] if quick else values for series, values in SERIES.items()}
    worker = Worker(growth, sizes=sizes)
    measured = in_turn([worker], rounds=2 if quick else 3)
    worker.close()

    table = {series: points(series, sizes[series], measured) for series in sizes}
    slopes = {series: slope(series, rows) for series, rows in table.items()}
    for series, rows in table.items():
        show(f"{MEASURED[series]}; exponent of the upper half {slopes[series]:.2f}", rows)
    shares = efficiencies(rounds=3 if quick else 15)
    show(f"all {cores()} cores against one, {EFFICIENCY_TASKS} tasks, a meta-step", shares)
    targets = [
        *(target(f"growth exponent in {each}, upper half", 1.1, slopes[each]) for each in LINEAR),
        *(
            target(f"efficiency against {row['one']}", 0.85, row["efficiency"], at_least=True)
            for row in shares
        ),
    ]
    show("targets", targets)
    if not quick:
        record = {"series": table, "slopes": slopes, "cores": shares, "targets": targets}
        write("scaling", record, draw(table, slopes))


if __name__ == "__main__":
    main()
