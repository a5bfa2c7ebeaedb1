"""Learners at the noise of markets, as a share of the best possible."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from benchmarks.reproduce.estimate import average
from benchmarks.reproduce.known_answer_rows import PARTS, ROWS, Column, KnownAnswerRow, network
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job, read_number
from benchmarks.reproduce.study import USUAL, Call, Report, Study, name_parts
from benchmarks.reproduce.table import Table, format_interval
from benchmarks.reproduce.training import compare_with_oracle, predict_means, train
from maml_jax.parallel import map_tasks
from maml_jax.worlds.known_answer import known_answer_sampler, known_answer_tasks, oracle

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


def run(call: Call) -> Report:
    """Train and test learners where the best possible prediction is known."""
    parts = call.choose_parts(PARTS)
    rows = [_shorten(row, call) for row in call.rows]
    # Parts share cells; a cell is a row in the world of a column.
    cells = {
        (row.key, column.world, column.activation): (row, column)
        for part in parts
        for row in rows
        if part in row.parts
        for column in PARTS[part]
    }
    tasks = QUICK_TEST_TASKS if call.quick else TEST_TASKS
    found = call.perform(
        (cell, job) for cell, pair in cells.items() for job in _jobs(*pair, tasks, call.quick)
    )
    summary = {part: _summarise(part, rows, found) for part in parts}
    note = NOTE.format(rows=TEST_ROWS, tasks=f"{tasks:,}", support=SUPPORT)
    tables = [Table(TITLES[part], *_table(summary[part]), note) for part in parts]
    return Report(tables, {"parts": summary})


KNOWN_ANSWER = Study(
    "known-answer",
    "A market with a known answer: skill as a share of the best possible.",
    run,
    ROWS,
    {"parts": name_parts(PARTS), **USUAL},
)


def _shorten(row: KnownAnswerRow, call: Call) -> KnownAnswerRow:
    steps = {snr: call.count_steps(usual) for snr, usual in row.steps.items()}
    return replace(row, steps=steps, seeds=call.count_seeds(row.seeds))


def _jobs(row: KnownAnswerRow, column: Column, tasks: int, quick: bool) -> list[Job]:
    world, steps = column.world, row.steps[column.world.snr]

    @cache  # all seeds of a cell share its compiled programs
    def parts():
        learner = row.learner(network(column.activation))
        sampler = known_answer_sampler(
            world, meta_batch=row.meta_batch, support=SUPPORT, query=QUERY
        )
        return learner, row.optimizer(steps), sampler, partial(oracle, world)

    def make(seed: int) -> Callable[[Advance], dict]:
        def run(advance: Advance) -> dict:
            learner, optimizer, sampler, best = parts()
            train_key, test_key = jax.random.split(jax.random.key(seed))
            options = {"max_grad_norm": row.max_grad_norm, "advance": advance}
            trained = train(learner, optimizer, sampler, train_key, steps=steps, **options)
            test, truth = known_answer_tasks(
                world, test_key, tasks=tasks, support=SUPPORT, query=TEST_ROWS
            )
            predicted = predict_means(learner, trained.state.params, test)
            compared = compare_with_oracle(predicted, map_tasks(best, test), truth.query.y)
            return {**compared, **trained.record()}

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
        Job(f"{name}-seed{seed}", {**settings, "seed": seed}, steps, make(seed), describe)
        for seed in range(row.seeds)
    ]


def describe(result: dict) -> str:
    """Put the result of a comparison with an oracle in a few words."""
    ic, best, share = (read_number(result[name]) for name in ("ic", "oracle_ic", "share"))
    return f"{result['seconds']:.0f} s; IC {ic:.3f} of {best:.3f}, share {share:.3f}"


def _summarise(part, rows, found) -> dict[str, Any]:
    columns = PARTS[part]
    lines = []
    for row in rows:
        if part not in row.parts:
            continue
        cells = [
            _cell(row, column, found[row.key, column.world, column.activation])
            for column in columns
        ]
        lines.append({"key": row.key, "name": row.name, "cells": cells})
    return {"columns": [column.label for column in columns], "rows": lines}


def _cell(row: KnownAnswerRow, column: Column, results: list[dict]) -> dict[str, Any]:
    whole = [result for result in results if "failed" not in result]
    values = {
        name: np.array([read_number(result[name]) for result in whole] or [math.nan])
        for name in ("share", "ic", "oracle_ic", "seconds")
    }
    return {
        "world": asdict(column.world),
        "activation": column.activation,
        "meta_steps": row.steps[column.world.snr],
        **{name: float(each.mean()) for name, each in values.items()},
        "half_width": average(values["share"]).half,
        "failed": len(results) - len(whole),
        "seeds": results,
    }


def _table(found):
    rows = []
    if found["rows"]:
        # All rows are tested on the same tasks; one whose trainings all failed was not tested.
        best = [
            [row["cells"][place]["oracle_ic"] for row in found["rows"]]
            for place in range(len(found["columns"]))
        ]
        known = ([ic for ic in each if math.isfinite(ic)] for each in best)
        rows.append(("oracle (IC)", *(f"{ics[0]:.3f}" if ics else "-" for ics in known), "", ""))
    for row in found["rows"]:
        cells = row["cells"]
        shares = (
            format_interval(cell["share"], cell["half_width"])
            + (f" ({cell['failed']} failed)" if cell["failed"] else "")
            for cell in cells
        )
        steps = dict.fromkeys(f"{cell['meta_steps']:,}" for cell in cells)
        seconds = " / ".join(f"{cell['seconds']:.0f}" for cell in cells)
        rows.append((row["name"], *shares, " / ".join(steps), seconds))
    return ("learner", *found["columns"], "meta-steps", "seconds"), rows
