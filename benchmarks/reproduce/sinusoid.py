"""Sinusoid regression: learners under the protocols of the literature, next to its figures."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

import jax
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job, read_number
from benchmarks.reproduce.sinusoid_rows import NAMES_IN_FILES, ROWS, SinusoidRow
from benchmarks.reproduce.study import Call, Report, Study
from benchmarks.reproduce.table import Table, format_interval
from benchmarks.reproduce.training import take_mean, train
from maml_jax.meta import evaluate
from maml_jax.report import plot_adaptation
from maml_jax.worlds.sinusoid import sinusoid_grid_sampler, sinusoid_sampler

TEST_TASKS, QUICK_TEST_TASKS = 2000, 200
TEST_POINTS = 100
NOTE = (
    "Mean squared error on {points} points of {tasks} fresh tasks for each seed; ± is 1.96 standard"
    " deviations over all tasks of all seeds, divided by the root of their number: it measures the"
    " draw of tasks, not the spread between trainings, which the JSON file has. The median over"
    " tasks is averaged over seeds."
)


def run(call: Call) -> Report:
    """Train and test the rows of the table."""
    tasks = QUICK_TEST_TASKS if call.quick else TEST_TASKS
    rows = [
        replace(row, meta_steps=call.count_steps(row.meta_steps), seeds=call.count_seeds(row.seeds))
        for row in call.rows
    ]
    found = call.perform((row.key, job) for row in rows for job in _jobs(row, tasks, call.quick))
    summary = [_summarise(row, found[row.key]) for row in rows]
    note = NOTE.format(points=TEST_POINTS, tasks=f"{tasks:,}") + _name_best(rows, summary)
    tables = [
        Table("Sinusoid regression", *_error_table(rows, summary), note),
        Table("Protocols", *_protocol_table(rows, summary)),
    ]
    return Report(tables, {"rows": summary}, _draw(rows, summary, call.quick))


SINUSOID = Study(
    "sinusoid",
    "Sinusoid regression: mean squared errors next to those of the literature.",
    run,
    ROWS,
)


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
        return row.learner(), row.optimizer(row.meta_steps), sampler, test

    def make(seed: int) -> Callable[[Advance], dict]:
        def run(advance: Advance) -> dict:
            learner, optimizer, sampler, test = parts()
            train_key, test_key = jax.random.split(jax.random.key(seed))
            options = {"max_grad_norm": row.max_grad_norm, "advance": advance}
            trained = train(learner, optimizer, sampler, train_key, steps=row.meta_steps, **options)
            test, steps = test(test_key), row.evaluated
            scores = evaluate(learner, trained.state.params, test, METRICS, steps=steps)
            errors = np.asarray(scores["error"], float)
            figures = [_describe_errors(*each) for each in zip(steps, errors.T, strict=True)]
            return {"figures": figures, **trained.record()}

        return run

    rate = {"inner_lr": NAMES_IN_FILES.get(row.inner_lr, row.inner_lr)}
    settings = {"row": row.key, **_protocol(row), **rate, "quick": quick, "tasks": tasks}
    return [
        Job(
            f"{row.key}-seed{seed}",
            {**settings, "points": TEST_POINTS, "seed": seed},
            row.meta_steps,
            make(seed),
            _describe,
        )
        for seed in range(row.seeds)
    ]


def _square_error(y_hat, y):
    return ((take_mean(y_hat) - y) ** 2).mean()


METRICS = {"error": _square_error}


def _describe_errors(steps: int | None, errors: np.ndarray) -> dict[str, Any]:
    return {
        "steps": steps,
        "mean": float(errors.mean()),
        "half_width": float(1.96 * errors.std(ddof=1) / len(errors) ** 0.5),
        # On tasks where adaptation diverged the error is as large as can be, not unknown.
        "median": float(np.median(np.where(np.isnan(errors), np.inf, errors))),
        "tasks": len(errors),
    }


def _describe(result: dict) -> str:
    words = (
        f"{_steps(each['steps'])}: {format_interval(each['mean'], each['half_width'])}"
        for each in result["figures"]
    )
    return f"{result['seconds']:.0f} s; mean squared error after steps " + ", ".join(words)


def _steps(steps: int | None) -> str:
    return "-" if steps is None else str(steps)


def _summarise(row: SinusoidRow, results: list[dict]) -> dict[str, Any]:
    whole = [result for result in results if "failed" not in result]
    references = {each.steps: each for each in row.references}
    figures = []
    for place, steps in enumerate(row.evaluated):
        seeds = [result["figures"][place] for result in whole]
        reference = references.get(steps)
        figures.append(
            {
                "steps": steps,
                **_pool(seeds),
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


def _pool(seeds: list[dict]) -> dict[str, float]:
    """Put the tasks of all seeds together; every seed has as many."""
    if not seeds:
        return dict.fromkeys(("mean", "half_width", "median"), math.nan)
    names = ("mean", "half_width", "median")
    mean, half, median = (np.array([read_number(each[name]) for each in seeds]) for name in names)
    count = seeds[0]["tasks"]
    total = count * len(seeds)
    within = (count - 1) * count * (half / 1.96) ** 2
    variance = (within.sum() + count * ((mean - mean.mean()) ** 2).sum()) / (total - 1)
    return {
        "mean": float(mean.mean()),
        "half_width": float(1.96 * (variance / total) ** 0.5),
        "median": float(median.mean()),
    }


def _name_best(rows, summary) -> str:
    """Say which learner has the lowest error of those with ten shots."""
    errors = {
        (row.name, figure["steps"]): figure["mean"]
        for row, found in zip(rows, summary, strict=True)
        for figure in found["figures"]
        if row.shots == 10 and math.isfinite(figure["mean"])
    }
    if len(errors) < 2:
        return ""
    name, steps = min(errors, key=errors.__getitem__)
    after = "" if steps is None else f" after {steps} steps"
    return (
        f" Lowest 10-shot error: {name}{after}, {format_interval(errors[name, steps], math.nan)}."
    )


def _error_table(rows, summary):
    columns = ("method", "inner lr", "shots", "steps", "error", "median", "known", "source")
    cells = []
    for row, found in zip(rows, summary, strict=True):
        for place, figure in enumerate(found["figures"]):
            head = (row.name, row.inner_lr, str(row.shots)) if place == 0 else ("", "", "")
            error = format_interval(figure["mean"], figure["half_width"])
            reference = figure["reference"] or {"figure": "", "source": ""}
            cells.append(
                (
                    *head,
                    _steps(figure["steps"]),
                    error,
                    format_interval(figure["median"], math.nan),
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
            f"{found['seconds']:.0f}",
        )
        for row, found in zip(rows, summary, strict=True)
    ]
    return columns, cells


def _draw(rows, summary, quick: bool) -> Figure:
    names = [row.name for row in rows]
    curves = {
        row.name
        if names.count(row.name) == 1
        else f"{row.name}, {row.inner_lr}, {row.shots} shots": pd.Series(
            {figure["steps"]: figure["mean"] for figure in found["figures"]}, dtype=float
        )
        for row, found in zip(rows, summary, strict=True)
    }
    level = {name: curve.iloc[0] for name, curve in curves.items() if curve.index.hasnans}
    errors = pd.DataFrame({name: each for name, each in curves.items() if name not in level})
    title = ("QUICK: " if quick else "") + "Sinusoids: error after adaptation"
    return plot_adaptation(errors, level, title=title)
