"""Sinusoid regression: learners under the protocols of the literature, next to its figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks.reproduce.progress import Advance, Progress
from benchmarks.reproduce.results import Job, number, perform, write, write_json
from benchmarks.reproduce.sinusoid_rows import ROWS, SinusoidRow
from benchmarks.reproduce.table import (
    QUICK_MARK,
    QUICK_SHARE,
    Table,
    choose,
    plus_minus,
    require_positive,
    surroundings,
)
from benchmarks.reproduce.training import point, train
from maml_jax.meta import MetaLearner
from maml_jax.parallel import map_tasks
from maml_jax.report import plot_adaptation
from maml_jax.worlds.sinusoid import sinusoid_grid_sampler, sinusoid_sampler

TEST_TASKS, QUICK_TEST_TASKS = 2000, 200
TEST_POINTS = 100
NOTE = (
    "Mean squared error on {points} points of {tasks} fresh tasks for each seed; ± is 1.96 standard"
    " deviations over all tasks of all seeds, over the root of their number: it tells of the draw"
    " of tasks, not of the spread between trainings, which the JSON file has. The median over tasks"
    " is averaged over seeds."
)


def reproduce_sinusoid(
    *,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/sinusoid",
    console: Console | None = None,
    command: str = "",
    rows: Sequence[SinusoidRow] = ROWS,
) -> list[Table]:
    """Train and test the rows of the table, and write it.

    Every training's result is a file of its own in `out/results`; one that is there already, of the
    same protocol, is not made again. `sinusoid.json`, `sinusoid.md` and `sinusoid.png` hold the
    rows asked for in the last call.

    Args:
        methods: keys of rows, or their beginnings; none for all.
        seeds: trainings per row, instead of the row's own number.
        steps: meta-steps, instead of the row's own number.
        quick: one seed, a fiftieth of the meta-steps, 200 tasks.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.
        rows: the table to choose from.

    Returns:
        The errors, and the protocols behind them.

    Raises:
        ConfigError: if an option is impossible or names no row.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    out = Path(out)
    tasks = QUICK_TEST_TASKS if quick else TEST_TASKS
    chosen = [_shortened(row, seeds, steps, quick) for row in choose(rows, methods)]
    jobs = [(row, job) for row in chosen for job in _jobs(row, tasks, quick)]
    results = perform((job for _, job in jobs), out / "results", Progress(console))
    found = {
        row.key: [r for (each, _), r in zip(jobs, results, strict=True) if each is row]
        for row in chosen
    }
    summary = [_summary(row, found[row.key]) for row in chosen]
    note = NOTE.format(points=TEST_POINTS, tasks=f"{tasks:,}") + _best(chosen, summary)
    mark = QUICK_MARK if quick else ""
    tables = [
        Table(mark + "Sinusoid regression", *_error_table(chosen, summary), note),
        Table(mark + "Protocols", *_protocol_table(chosen, summary)),
    ]
    write_json(
        out / "sinusoid.json",
        {"command": command, "quick": quick, "where": surroundings(), "rows": summary},
    )
    write(out / "sinusoid.md", "\n".join(table.markdown() for table in tables))
    _draw(chosen, summary, out / "sinusoid.png", mark)
    return tables


def _shortened(row, seeds, steps, quick) -> SinusoidRow:
    meta_steps = max(1, row.meta_steps // QUICK_SHARE) if quick else row.meta_steps
    return replace(row, meta_steps=steps or meta_steps, seeds=seeds or (1 if quick else row.seeds))


def _protocol(row: SinusoidRow) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    beside = ("key", "name", "seeds", "references")
    return {k: v for k, v in values.items() if k not in beside and not callable(v)}


def _jobs(row: SinusoidRow, tasks: int, quick: bool) -> list[Job]:
    @cache  # all seeds of a row share its compiled programs
    def parts():
        curves = {"amplitude": row.amplitude, "phase": row.phase}
        make = {"meta_batch": row.meta_batch, "query": row.query, **curves}
        if row.form == "grid":
            sampler = sinusoid_grid_sampler(**make)
        else:
            sampler = sinusoid_sampler(shots=row.shots, **make)
        test = sinusoid_sampler(meta_batch=tasks, shots=row.shots, query=TEST_POINTS, **curves)
        learner = row.learner()
        return (
            learner,
            row.optimizer(row.meta_steps),
            sampler,
            test,
            _errors(learner, row.evaluated),
        )

    def make(seed: int) -> Callable[[Advance], dict]:
        def run(advance: Advance) -> dict:
            learner, optimizer, sampler, test, errors = parts()
            train_key, test_key = jax.random.split(jax.random.key(seed))
            options = {"max_grad_norm": row.max_grad_norm, "advance": advance}
            trained = train(learner, optimizer, sampler, train_key, steps=row.meta_steps, **options)
            found = np.asarray(map_tasks(errors, test(test_key), trained.params), float)
            figures = [_figure(*each) for each in zip(row.evaluated, found.T, strict=True)]
            return {"figures": figures, "seconds": trained.seconds, "training_loss": trained.loss}

        return run

    settings = {"row": row.key, **_protocol(row), "quick": quick, "tasks": tasks}
    return [
        Job(
            f"{row.key}-seed{seed}",
            {**settings, "points": TEST_POINTS, "seed": seed},
            row.meta_steps,
            make(seed),
            _told,
        )
        for seed in range(row.seeds)
    ]


def _errors(learner: MetaLearner, evaluated: Sequence[int | None]):
    def errors(task, params):
        def error(steps):
            told = {} if steps is None else {"steps": steps}
            adapted = learner.adapt(params, task.support, **told)
            return jnp.mean((point(learner.predict(adapted, task.query.x)) - task.query.y) ** 2)

        return jnp.stack([error(steps) for steps in evaluated])

    return errors


def _figure(steps: int | None, errors: np.ndarray) -> dict[str, Any]:
    return {
        "steps": steps,
        "mean": float(errors.mean()),
        "half_width": float(1.96 * errors.std(ddof=1) / len(errors) ** 0.5),
        # On tasks where adaptation diverged the error is as large as can be, not unknown.
        "median": float(np.median(np.where(np.isnan(errors), np.inf, errors))),
        "tasks": len(errors),
    }


def _told(result: dict) -> str:
    said = (
        f"{_steps(each['steps'])}: {plus_minus(each['mean'], each['half_width'])}"
        for each in result["figures"]
    )
    return f"{result['seconds']:.0f} s; mean squared error after steps " + ", ".join(said)


def _steps(steps: int | None) -> str:
    return "-" if steps is None else str(steps)


def _summary(row: SinusoidRow, results: list[dict]) -> dict[str, Any]:
    whole = [result for result in results if "failed" not in result]
    references = {each.steps: each for each in row.references}
    figures = []
    for place, steps in enumerate(row.evaluated):
        seeds = [result["figures"][place] for result in whole]
        reference = references.get(steps)
        figures.append(
            {
                "steps": steps,
                **_pooled(seeds),
                "seed_means": [each["mean"] for each in seeds],
                "reference": None if reference is None else vars(reference),
            }
        )
    seconds = [result["seconds"] for result in whole]
    return {
        "key": row.key,
        "name": row.name,
        "protocol": _protocol(row),
        "figures": figures,
        "seconds": float(np.mean(seconds)) if seconds else math.nan,
        "seeds": results,
    }


def _pooled(seeds: list[dict]) -> dict[str, float]:
    """Put the tasks of all seeds together; every seed has as many."""
    if not seeds:
        return dict.fromkeys(("mean", "half_width", "median"), math.nan)
    names = ("mean", "half_width", "median")
    mean, half, median = (np.array([number(each[name]) for each in seeds]) for name in names)
    count = seeds[0]["tasks"]
    total = count * len(seeds)
    within = (count - 1) * count * (half / 1.96) ** 2
    variance = (within.sum() + count * ((mean - mean.mean()) ** 2).sum()) / (total - 1)
    return {
        "mean": float(mean.mean()),
        "half_width": float(1.96 * (variance / total) ** 0.5),
        "median": float(median.mean()),
    }


def _best(rows, summary) -> str:
    """Say which learner has the lowest error of those with ten shots."""
    errors = {
        (row.name, figure["steps"]): figure["mean"]
        for row, told in zip(rows, summary, strict=True)
        for figure in told["figures"]
        if row.shots == 10 and math.isfinite(figure["mean"])
    }
    if len(errors) < 2:
        return ""
    name, steps = min(errors, key=errors.__getitem__)
    after = "" if steps is None else f" after {steps} steps"
    return f" Lowest 10-shot error: {name}{after}, {plus_minus(errors[name, steps], math.nan)}."


def _error_table(rows, summary):
    columns = ("method", "inner lr", "shots", "steps", "error", "median", "known", "source")
    cells = []
    for row, told in zip(rows, summary, strict=True):
        for place, figure in enumerate(told["figures"]):
            head = (row.name, row.inner_lr, str(row.shots)) if place == 0 else ("", "", "")
            error = plus_minus(figure["mean"], figure["half_width"])
            reference = figure["reference"] or {"figure": "", "source": ""}
            cells.append(
                (
                    *head,
                    _steps(figure["steps"]),
                    error,
                    plus_minus(figure["median"], math.nan),
                    reference["figure"],
                    reference["source"],
                )
            )
    return columns, cells


def _protocol_table(rows, summary):
    columns = (
        *("method", "inner lr", "amplitude", "phase", "meta-batch", "meta-steps", "shots", "outer"),
        *("clipping", "details", "seeds", "seconds a seed"),
    )
    cells = [
        (
            f"{row.name} ({row.key})",
            row.inner_lr,
            f"{row.amplitude[0]:g} - {row.amplitude[1]:g}",
            f"{row.phase[0] / math.pi:g} - {row.phase[1] / math.pi:g} π",
            str(row.meta_batch),
            f"{row.meta_steps:,}",
            str(row.shots),
            row.outer,
            "none" if row.max_grad_norm is None else f"{row.max_grad_norm:g}",
            row.details,
            str(row.seeds),
            f"{told['seconds']:.0f}",
        )
        for row, told in zip(rows, summary, strict=True)
    ]
    return columns, cells


def _draw(rows, summary, path: Path, mark: str) -> None:
    names = [row.name for row in rows]
    curves = {
        row.name
        if names.count(row.name) == 1
        else f"{row.name}, {row.inner_lr}, {row.shots} shots": pd.Series(
            {figure["steps"]: figure["mean"] for figure in told["figures"]}, dtype=float
        )
        for row, told in zip(rows, summary, strict=True)
    }
    level = {name: curve.iloc[0] for name, curve in curves.items() if curve.index.hasnans}
    errors = pd.DataFrame({name: each for name, each in curves.items() if name not in level})
    title = ("QUICK: " if mark else "") + "Sinusoids: error after adaptation"
    plot_adaptation(errors, level, title=title).savefig(path, dpi=150)
