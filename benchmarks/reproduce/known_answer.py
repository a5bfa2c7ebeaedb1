"""Learners at the noise of markets, as a share of the best possible."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from scipy import stats

from benchmarks.reproduce.known_answer_rows import PARTS, ROWS, Column, KnownAnswerRow, network
from benchmarks.reproduce.progress import Advance, Progress
from benchmarks.reproduce.results import Job, number, perform, write, write_json
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
from maml_jax.errors import ConfigError
from maml_jax.meta import MetaLearner
from maml_jax.parallel import map_tasks
from maml_jax.worlds.known_answer import (
    World,
    information_coefficient,
    known_answer_sampler,
    known_answer_tasks,
    oracle,
)

TEST_TASKS, QUICK_TEST_TASKS = 1000, 200
TEST_ROWS = 200
SUPPORT = QUERY = 20

TITLES = {
    "learners": "Learners at three signal-to-noise ratios",
    "activations": "Activations at a signal-to-noise ratio of 0.1",
    "worlds": "Worlds at a signal-to-noise ratio of 0.1",
}
NOTE = (
    "Correlation with the noiseless signal on {rows} rows of {tasks} fresh tasks for each seed, as"
    " a share of the oracle's on the same tasks; {support} support rows. ± is the 95 %"
    " interval of the mean share over seeds, by Student's t. Seconds: training of one"
    " seed, compilation included, column by column."
)


def reproduce_known_answer(
    *,
    parts: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/known-answer",
    console: Console | None = None,
    command: str = "",
    rows: Sequence[KnownAnswerRow] = ROWS,
) -> list[Table]:
    """Train and test learners where the best possible prediction is known, and write the tables.

    Every training's result is a file of its own in `out/results`; one that is there already, of the
    same protocol, is not made again. `known-answer.json` and `known-answer.md` hold what was asked
    for in the last call.

    Args:
        parts: `learners`, `activations`, `worlds`; none for all.
        methods: keys of rows, or their beginnings; none for all.
        seeds: trainings per cell, instead of the row's own number.
        steps: meta-steps, instead of the row's own number.
        quick: one seed, a fiftieth of the meta-steps, 200 tasks.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.
        rows: the table to choose from.

    Returns:
        A table for each part.

    Raises:
        ConfigError: if an option is impossible or names no part or row.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"--part {part}: there is no such part; there are {', '.join(PARTS)}")
    out = Path(out)
    chosen = [_shortened(row, seeds, steps, quick) for row in choose(rows, methods)]
    wanted = [part for part in PARTS if part in parts or not parts]
    # Parts share cells; a cell is a row in the world of a column.
    cells = {
        (row.key, column.world, column.activation): (row, column)
        for part in wanted
        for row in chosen
        if part in row.parts
        for column in PARTS[part]
    }
    tasks = QUICK_TEST_TASKS if quick else TEST_TASKS
    jobs = [(cell, job) for cell, pair in cells.items() for job in _jobs(*pair, tasks, quick)]
    results = perform((job for _, job in jobs), out / "results", Progress(console))
    found = {
        cell: [r for (each, _), r in zip(jobs, results, strict=True) if each == cell]
        for cell in cells
    }
    told = {part: _summary(part, chosen, found) for part in wanted}
    note = NOTE.format(rows=TEST_ROWS, tasks=f"{tasks:,}", support=SUPPORT)
    mark = QUICK_MARK if quick else ""
    tables = [Table(mark + TITLES[part], *_table(part, told[part]), note) for part in wanted]
    write_json(
        out / "known-answer.json",
        {"command": command, "quick": quick, "where": surroundings(), "parts": told},
    )
    write(out / "known-answer.md", "\n".join(table.markdown() for table in tables))
    return tables


def _shortened(row, seeds, steps, quick) -> KnownAnswerRow:
    meta_steps = {
        snr: steps or (max(1, count // QUICK_SHARE) if quick else count)
        for snr, count in row.steps.items()
    }
    return replace(row, steps=meta_steps, seeds=seeds or (1 if quick else row.seeds))


def _jobs(row: KnownAnswerRow, column: Column, tasks: int, quick: bool) -> list[Job]:
    world, steps = column.world, row.steps[column.world.snr]

    @cache  # all seeds of a cell share its compiled programs
    def parts():
        learner = row.learner(network(column.activation))
        sampler = known_answer_sampler(
            world, meta_batch=row.meta_batch, support=SUPPORT, query=QUERY
        )
        return learner, row.optimizer(steps), sampler, *_predictors(learner, world)

    def make(seed: int) -> Callable[[Advance], dict]:
        def run(advance: Advance) -> dict:
            learner, optimizer, sampler, ours, best = parts()
            train_key, test_key = jax.random.split(jax.random.key(seed))
            options = {"max_grad_norm": row.max_grad_norm, "advance": advance}
            trained = train(learner, optimizer, sampler, train_key, steps=steps, **options)
            test, truth = known_answer_tasks(
                world, test_key, tasks=tasks, support=SUPPORT, query=TEST_ROWS
            )
            ic, oracle_ic = (
                float(information_coefficient(predictions, truth.query.y))
                for predictions in (map_tasks(ours, test, trained.params), map_tasks(best, test))
            )
            return {
                "ic": ic,
                "oracle_ic": oracle_ic,
                "share": ic / oracle_ic,
                "seconds": trained.seconds,
                "training_loss": trained.loss,
            }

        return run

    settings = {
        "row": row.key,
        "world": asdict(world),
        "activation": column.activation,
        "network": "64-64",
        "meta_steps": steps,
        "meta_batch": row.meta_batch,
        "support": SUPPORT,
        "query": QUERY,
        "details": row.details,
        "outer": row.outer,
        "max_grad_norm": row.max_grad_norm,
        "quick": quick,
        "tasks": tasks,
        "test_rows": TEST_ROWS,
    }
    where = f"{world.link}-{world.noise}-{column.activation}"
    name = f"{row.key}-snr{world.snr:g}-{where}-drift{world.drift:g}"
    return [
        Job(f"{name}-seed{seed}", {**settings, "seed": seed}, steps, make(seed), _told)
        for seed in range(row.seeds)
    ]


def _predictors(learner: MetaLearner, world: World):
    def ours(task, params):
        return point(learner.predict(learner.adapt(params, task.support), task.query.x))

    return ours, lambda task: oracle(world, task)


def _told(result: dict) -> str:
    ic, best, share = (number(result[name]) for name in ("ic", "oracle_ic", "share"))
    return f"{result['seconds']:.0f} s; IC {ic:.3f} of {best:.3f}, share {share:.3f}"


def _summary(part, rows, found) -> dict[str, Any]:
    columns = PARTS[part]
    told = []
    for row in rows:
        if part not in row.parts:
            continue
        cells = [
            _cell(row, column, found[row.key, column.world, column.activation])
            for column in columns
        ]
        told.append({"key": row.key, "name": row.name, "cells": cells})
    return {"columns": [column.label for column in columns], "rows": told}


def _cell(row: KnownAnswerRow, column: Column, results: list[dict]) -> dict[str, Any]:
    whole = [result for result in results if "failed" not in result]
    values = {
        name: np.array([number(result[name]) for result in whole] or [math.nan])
        for name in ("share", "ic", "oracle_ic", "seconds")
    }
    share, count = values["share"], len(whole)
    factor = float(stats.t.ppf(0.975, count - 1)) if count > 1 else math.nan
    spread = factor * share.std(ddof=1) / count**0.5 if count > 1 else math.nan
    return {
        "world": asdict(column.world),
        "activation": column.activation,
        "meta_steps": row.steps[column.world.snr],
        **{name: float(each.mean()) for name, each in values.items()},
        "half_width": float(spread),
        "failed": len(results) - count,
        "seeds": results,
    }


def _table(part, told):
    rows = []
    if told["rows"]:
        # All rows are tested on the same tasks; one whose trainings all failed was not tested.
        best = [
            [row["cells"][place]["oracle_ic"] for row in told["rows"]]
            for place in range(len(told["columns"]))
        ]
        known = ([ic for ic in each if math.isfinite(ic)] for each in best)
        rows.append(("oracle (IC)", *(f"{ics[0]:.3f}" if ics else "-" for ics in known), "", ""))
    for row in told["rows"]:
        cells = row["cells"]
        shares = (
            plus_minus(cell["share"], cell["half_width"])
            + (f" ({cell['failed']} failed)" if cell["failed"] else "")
            for cell in cells
        )
        steps = dict.fromkeys(f"{cell['meta_steps']:,}" for cell in cells)
        seconds = " / ".join(f"{cell['seconds']:.0f}" for cell in cells)
        rows.append((row["name"], *shares, " / ".join(steps), seconds))
    return ("learner", *told["columns"], "meta-steps", "seconds"), rows
