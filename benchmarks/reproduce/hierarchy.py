"""Three levels against one pool: hierarchical MAML and MAML on the same support rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console
from scipy import stats

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
from benchmarks.reproduce.training import train
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
from maml_jax.worlds.known_answer import World, information_coefficient

SNR = 1.0
ROWS_OF_LEVELS = (60, 20, 10)
SIBLINGS = (6, 2)
META_BATCH, QUERY = 16, 20
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
class _Protocol:
    """What all trainings of a call have in common."""

    meta_steps: int = 1000
    seeds: int = 10
    tasks: int = TEST_TASKS
    quick: bool = False


def reproduce_hierarchy(
    *,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/hierarchy",
    console: Console | None = None,
    command: str = "",
    rows: Sequence[HierarchyRow] = ROWS,
) -> list[Table]:
    """Compare adaptation level by level with MAML on a world with levels and on one without.

    Every training's result is a file of its own in `out/results`; one that is there already, of the
    same protocol, is not made again. `hierarchy.json` and `hierarchy.md` hold what was asked for in
    the last call.

    Args:
        methods: keys of rows, or their beginnings; none for all.
        seeds: trainings per cell, instead of ten.
        steps: meta-steps, instead of 1,000.
        quick: one seed, a fiftieth of the meta-steps, 200 tasks.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.
        rows: the table to choose from.

    Returns:
        One table.

    Raises:
        ConfigError: if an option is impossible or names no row.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    chosen, out = choose(rows, methods), Path(out)
    protocol = _Protocol()
    if quick:
        protocol = _Protocol(protocol.meta_steps // QUICK_SHARE, 1, QUICK_TEST_TASKS, True)
    protocol = replace(
        protocol, meta_steps=steps or protocol.meta_steps, seeds=seeds or protocol.seeds
    )
    cells = {
        (row.key, world): [_Cell(row, world, count, protocol) for count in STEPS]
        for row in chosen
        for world in WORLDS
    }
    told = {key: _judged(each, out, Progress(console)) for key, each in cells.items()}
    differences = _differences(chosen[0].key, told)
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
    table = Table((QUICK_MARK if quick else "") + title, *_table(chosen, told, differences), note)
    write_json(
        out / "hierarchy.json",
        {
            "command": command,
            "quick": quick,
            "where": surroundings(),
            "cells": [{"row": row, "world": world, **cell} for (row, world), cell in told.items()],
            "differences": [
                {"less": row, "world": world, **each} for (row, world), each in differences.items()
            ],
        },
    )
    write(out / "hierarchy.md", table.markdown())
    return [table]


class _Cell:
    """A learner of so many inner steps in one world; its seeds share the compiled programs."""

    def __init__(self, row: HierarchyRow, world: str, steps: int, protocol: _Protocol):
        self.row, self.world, self.steps, self.protocol = row, world, steps, protocol
        self.parts = cache(self._parts)

    def _parts(self) -> tuple:
        learner, hierarchy = self.row.learner(self.steps), WORLDS[self.world]
        sample = hierarchy_sampler(hierarchy, meta_batch=META_BATCH, query=QUERY)

        def seen(task):
            own = by_level(hierarchy, task.support)[-1]
            return task._replace(support=own) if self.row.own_rows else task

        def ours(task, params):
            return learner.predict(learner.adapt(params, seen(task).support), task.query.x)

        schedule = optax.cosine_decay_schedule(OUTER_RATE, self.protocol.meta_steps, alpha=0.01)
        return (
            learner,
            optax.adam(schedule),
            lambda key: seen(sample(key)),
            ours,
            lambda task: hierarchy_oracle(hierarchy, task),
        )

    def _run(self, seed: int, advance: Advance) -> dict:
        learner, optimizer, sampler, ours, best = self.parts()
        train_key, test_key = jax.random.split(jax.random.key(seed))
        trained = train(
            learner,
            optimizer,
            sampler,
            train_key,
            steps=self.protocol.meta_steps,
            max_grad_norm=1.0,
            advance=advance,
        )
        test, truth = hierarchy_tasks(
            WORLDS[self.world], test_key, tasks=self.protocol.tasks, query=TEST_ROWS
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
        return Job(
            name, settings, self.protocol.meta_steps, lambda told: self._run(seed, told), _told
        )


def _judged(candidates: Sequence[_Cell], out: Path, progress: Progress) -> dict[str, Any]:
    """Choose the inner steps on the validation seeds, and train the others with them."""
    folder = out / "results"
    seeds = VALIDATION_SEEDS if len(candidates) > 1 else ()
    tried = {
        cell: _shares(perform([cell.job(s) for s in seeds], folder, progress))
        for cell in candidates
    }
    best = max(
        candidates,
        key=lambda cell: np.nan_to_num(tried[cell].mean(), nan=-math.inf) if seeds else 0.0,
    )
    results = perform([best.job(s) for s in range(best.protocol.seeds)], folder, progress)
    share, half_width = _mean_of(_shares(results))
    return {
        "inner_steps": LEVELS * best.steps,
        "validation": {LEVELS * cell.steps: each.tolist() for cell, each in tried.items()},
        "share": share,
        "half_width": half_width,
        "seeds": results,
    }


def _shares(results: Sequence[dict]) -> np.ndarray:
    return np.array([number(result.get("share")) for result in results])


def _mean_of(values: np.ndarray) -> tuple[float, float]:
    """Return the mean over seeds and half of the width of its interval."""
    count = len(values)
    if count < 2:
        return float(values.mean()), math.nan
    factor = float(stats.t.ppf(0.975, count - 1))
    return float(values.mean()), factor * float(values.std(ddof=1)) / count**0.5


def _differences(
    first: str, told: dict[tuple[str, str], dict]
) -> dict[tuple[str, str], dict[str, float]]:
    """Return what the first row gains over each other one, seed by seed on the same tasks."""
    found = {}
    for (row, world), cell in told.items():
        if row != first:
            ours = told[first, world]
            mean, half_width = _mean_of(_shares(ours["seeds"]) - _shares(cell["seeds"]))
            found[row, world] = {"mean": mean, "half_width": half_width}
    return found


def _told(result: dict) -> str:
    ic, best, share = (number(result[name]) for name in ("ic", "oracle_ic", "share"))
    return f"{result['seconds']:.0f} s; IC {ic:.3f} of {best:.3f}, share {share:.3f}"


def _table(rows, told, differences):
    lines = []
    best = [
        next(number(r.get("oracle_ic")) for r in told[rows[0].key, world]["seeds"])
        for world in WORLDS
    ]
    lines.append(("oracle (IC)", *(text for ic in best for text in (f"{ic:.3f}", "", ""))))
    for row in rows:
        texts = []
        for world in WORLDS:
            cell, less = told[row.key, world], differences.get((row.key, world))
            texts += [
                plus_minus(cell["share"], cell["half_width"]),
                plus_minus(less["mean"], less["half_width"]) if less else "",
                str(cell["inner_steps"]),
            ]
        lines.append((row.name, *texts))
    columns = (text for world in WORLDS for text in (world, "the first gains", "inner steps"))
    return ("learner", *columns), lines
