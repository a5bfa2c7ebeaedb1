"""Three levels against one pool: hierarchical MAML and MAML on the same support rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from benchmarks.reproduce.estimate import average
from benchmarks.reproduce.known_answer import describe
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job, read_number
from benchmarks.reproduce.study import Call, Report, Study
from benchmarks.reproduce.table import Table, format_interval
from benchmarks.reproduce.training import compare_with_oracle, predict_means, train
from maml_jax.learners import Level, hierarchical_maml, maml
from maml_jax.meta import MetaLearner, learned_rates
from maml_jax.models import mlp
from maml_jax.parallel import map_tasks
from maml_jax.worlds.hierarchy import (
    Hierarchy,
    by_level,
    hierarchy_oracle,
    hierarchy_sampler,
    hierarchy_tasks,
)
from maml_jax.worlds.known_answer import World

SNR = 1.0
ROWS_OF_LEVELS = (60, 20, 10)
SIBLINGS = (6, 2)
META_BATCH, QUERY = 16, 20
META_STEPS, SEEDS = 1000, 10
TEST_TASKS, QUICK_TEST_TASKS, TEST_ROWS = 500, 200, 100
HIDDEN = 24
INITIAL_RATE, OUTER_RATE = 0.02, 5e-3
SPEED = 10.0
"""How many times as fast as weights rates are learned, by all learners alike: a level that says
nothing must be left out, which at the speed of weights takes thousands of meta-steps."""

STEPS = (4,)
"""Inner steps that are tried: for each level, and as many in all where there is one level. More of
them than one are chosen among on seeds of their own."""

VALIDATION_SEEDS = (1000, 1001)
"""Choose the inner steps; no table is made of them."""

LEVELS = len(ROWS_OF_LEVELS)


def _world(*variances: float) -> Hierarchy:
    return Hierarchy(World(SNR), variances, ROWS_OF_LEVELS, SIBLINGS)


WORLDS = {"structured": _world(0.4, 0.4, 0.2), "flat": _world(1.0, 0.0, 0.0)}


class HierarchyRow(NamedTuple):
    """One learner of the table.

    Attributes:
        key: its name on the command line.
        name: its name in the table.
        learner: makes it, given the inner steps of each level, of which flat ones take the sum.
        own_rows: whether it sees the rows of the finest level alone.
    """

    key: str
    name: str
    learner: Callable[[int], MetaLearner]
    own_rows: bool = False


def _levels(steps: int, nested: bool = False) -> MetaLearner:
    levels = (Level(steps, learned_rates(INITIAL_RATE, speed=SPEED)),) * LEVELS
    return hierarchical_maml(mlp((HIDDEN, 1)), levels=levels, rows=ROWS_OF_LEVELS, nested=nested)


def _flat(steps: int) -> MetaLearner:
    rates = learned_rates(INITIAL_RATE, speed=SPEED)
    return maml(mlp((HIDDEN, 1)), inner_optimizer=rates, inner_steps=LEVELS * steps)


ROWS = (
    HierarchyRow("nested", "three levels, nested", partial(_levels, nested=True)),
    HierarchyRow("hierarchical", "three levels, apart", _levels),
    HierarchyRow("maml", "MAML, all rows", _flat),
    HierarchyRow("own-rows", "MAML, the finest level's rows", _flat, own_rows=True),
)

NOTE = (
    "Correlation with the noiseless signal on {rows} rows of {tasks} fresh tasks for each seed, as"
    " a share of the oracle's on the same tasks. Support rows of the class, the asset and the time"
    " scale: {support}; a signal-to-noise ratio of {snr:g}. Variance of the coefficients by level:"
    " structured {structured}, flat {flat}. ± is the 95 % interval over {seeds} seeds, by Student's"
    " t; gains are those of the first learner over the other, paired by seed. Inner steps in all:"
    " {tried}. {steps:,} meta-steps; rates are learned {speed:g} times as fast as weights."
)


@dataclass(frozen=True)
class Protocol:
    """What all trainings of a call have in common."""

    meta_steps: int
    seeds: int = 1
    tasks: int = TEST_TASKS
    quick: bool = False


def run(call: Call) -> Report:
    """Compare adaptation level by level with MAML on a world with levels and on one without."""
    protocol = Protocol(
        call.count_steps(META_STEPS),
        call.count_seeds(SEEDS),
        QUICK_TEST_TASKS if call.quick else TEST_TASKS,
        call.quick,
    )
    cells = {
        (row.key, world): _choose_steps([Cell(row, world, n, protocol) for n in STEPS], call)
        for row in call.rows
        for world in WORLDS
    }
    differences = _compare(call.rows[0].key, cells)
    note = NOTE.format(
        rows=TEST_ROWS,
        tasks=f"{protocol.tasks:,}",
        support=", ".join(map(str, ROWS_OF_LEVELS)),
        snr=SNR,
        **{name: " / ".join(f"{v:g}" for v in w.variances) for name, w in WORLDS.items()},
        seeds=protocol.seeds,
        tried=", ".join(str(LEVELS * count) for count in STEPS),
        steps=protocol.meta_steps,
        speed=SPEED,
    )
    title = "Levels of adaptation against one support set"
    record = {
        "cells": [{"row": row, "world": world, **cell} for (row, world), cell in cells.items()],
        "differences": [
            {"less": row, "world": world, **each} for (row, world), each in differences.items()
        ],
    }
    return Report([Table(title, *_table(call.rows, cells, differences), note)], record)


HIERARCHY = Study(
    "hierarchy", "Adaptation level by level against MAML on the same support rows.", run, ROWS
)


class Cell:
    """A learner of so many inner steps in one world; its seeds share the compiled programs."""

    def __init__(self, row: HierarchyRow, world: str, steps: int, protocol: Protocol):
        self.row, self.world, self.steps, self.protocol = row, world, steps, protocol
        self.parts = cache(self._parts)

    def _parts(self) -> tuple:
        learner, hierarchy = self.row.learner(self.steps), WORLDS[self.world]
        sample = hierarchy_sampler(hierarchy, meta_batch=META_BATCH, query=QUERY)

        def seen(task):
            own = by_level(hierarchy, task.support)[-1]
            return task._replace(support=own) if self.row.own_rows else task

        schedule = optax.cosine_decay_schedule(OUTER_RATE, self.protocol.meta_steps, alpha=0.01)
        return (
            learner,
            optax.adam(schedule),
            lambda key: seen(sample(key)),
            seen,
            partial(hierarchy_oracle, hierarchy),
        )

    def _run(self, seed: int, advance: Advance) -> dict:
        learner, optimizer, sampler, seen, best = self.parts()
        train_key, test_key = jax.random.split(jax.random.key(seed))
        trained = train(
            learner,
            optimizer,
            sampler,
            train_key,
            steps=self.protocol.meta_steps,
            advance=advance,
        )
        test, truth = hierarchy_tasks(
            WORLDS[self.world], test_key, tasks=self.protocol.tasks, query=TEST_ROWS
        )
        predicted = predict_means(learner, trained.state.params, seen(test))
        compared = compare_with_oracle(predicted, map_tasks(best, test), truth.query.y)
        return {**compared, **trained.record()}

    def job(self, seed: int) -> Job:
        """Return the training of one seed."""
        settings = {
            "row": self.row.key,
            "hierarchy": asdict(WORLDS[self.world]),
            "own_rows": self.row.own_rows,
            "inner_steps": LEVELS * self.steps,
            "network": HIDDEN,
            "initial_rate": INITIAL_RATE,
            "rate_speed": SPEED,
            "outer_rate": OUTER_RATE,
            "meta_steps": self.protocol.meta_steps,
            "meta_batch": META_BATCH,
            "query": QUERY,
            "quick": self.protocol.quick,
            "tasks": self.protocol.tasks,
            "test_rows": TEST_ROWS,
            "seed": seed,
        }
        name = f"{self.row.key}-{self.world}-steps{LEVELS * self.steps}-seed{seed}"
        make = partial(self._run, seed)
        return Job(name, settings, self.protocol.meta_steps, make, describe)


def _choose_steps(candidates: Sequence[Cell], call: Call) -> dict[str, Any]:
    """Choose the inner steps on the validation seeds, and train the others with them."""
    seeds = VALIDATION_SEEDS if len(candidates) > 1 else ()

    def perform(cell: Cell, seeds) -> list[dict]:
        return call.perform((None, cell.job(seed)) for seed in seeds).get(None, [])

    tried = {cell: _shares(perform(cell, seeds)) for cell in candidates}
    best = max(
        candidates,
        key=lambda cell: np.nan_to_num(tried[cell].mean(), nan=-math.inf) if seeds else 0.0,
    )
    results = perform(best, range(best.protocol.seeds))
    share, half_width = average(_shares(results))
    return {
        "inner_steps": LEVELS * best.steps,
        "validation": {LEVELS * cell.steps: each.tolist() for cell, each in tried.items()},
        "share": share,
        "half_width": half_width,
        "seeds": results,
    }


def _shares(results: Sequence[dict]) -> np.ndarray:
    return np.array([read_number(result.get("share")) for result in results])


def _compare(
    first: str, cells: dict[tuple[str, str], dict]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return what the first row gains over each other one, seed by seed on the same tasks."""
    found = {}
    for (row, world), cell in cells.items():
        if row != first:
            ours = cells[first, world]
            gain = average(_shares(ours["seeds"]) - _shares(cell["seeds"]))
            found[row, world] = {"mean": gain.mean, "half_width": gain.half}
    return found


def _table(rows, cells, differences):
    lines = []
    best = [
        next(read_number(r.get("oracle_ic")) for r in cells[rows[0].key, world]["seeds"])
        for world in WORLDS
    ]
    lines.append(("oracle (IC)", *(text for ic in best for text in (f"{ic:.3f}", "", ""))))
    for row in rows:
        texts = []
        for world in WORLDS:
            cell, gain = cells[row.key, world], differences.get((row.key, world))
            texts += [
                format_interval(cell["share"], cell["half_width"]),
                format_interval(gain["mean"], gain["half_width"]) if gain else "",
                str(cell["inner_steps"]),
            ]
        lines.append((row.name, *texts))
    columns = (text for world in WORLDS for text in (world, "the first gains", "inner steps"))
    return ("learner", *columns), lines
