"""Whether predicted deviations are true, where the best possible distribution is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from scipy import stats

from benchmarks.reproduce.known_answer_rows import FEATURES, Network, cosine, network
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
from maml_jax.backtest.inference.calibration import measure_calibration
from maml_jax.learners import alpaca, maml
from maml_jax.learners._bayesian import bayesian_maml
from maml_jax.learners._ensemble import ensemble
from maml_jax.learners._maml import INNER_LEARNING_RATE
from maml_jax.meta import Batch, MetaLearner, Prediction, Task, gaussian_nll
from maml_jax.meta.linalg import solve_spd
from maml_jax.models import gaussian
from maml_jax.parallel import map_tasks
from maml_jax.worlds.known_answer import (
    World,
    _signals,
    information_coefficient,
    known_answer_sampler,
    known_answer_tasks,
    oracle,
    signal_variance,
)

TEST_TASKS, QUICK_TEST_TASKS = 500, 100
TEST_ROWS = 200
SUPPORT = QUERY = 20
RATIOS = (1.0, 0.1)

COLUMNS = {
    "NLL": ("nll", 3),
    "CRPS": ("crps", 3),
    "coverage 50 % [%]": ("coverage_50", 1),
    "coverage 90 % [%]": ("coverage_90", 1),
    "calibration error [%]": ("calibration_error", 2),
}
NAMES = dict(
    zip(
        ("NLL", "CRPS", "Coverage 50 % [%]", "Coverage 90 % [%]", "Calibration Error [%]"),
        (key for key, _ in COLUMNS.values()),
        strict=True,
    )
)
NOTE = (
    "Predictive distributions of the noisy outcomes on {rows} rows of {tasks} fresh tasks for each"
    " seed; {support} support rows, noise of variance {variance:g}. The oracle is told the world"
    " and all but a task's coefficients. Share: correlation with the noiseless signal, as a share"
    " of the oracle's. Gaussian heads are given targets in units of their standard deviation,"
    " as those of markets are. ± is the 95 % interval of the mean over seeds, by Student's t."
)


@dataclass(frozen=True)
class UncertaintyRow:
    """One learner whose predictions are distributions.

    What a result depends on and is not a function takes part in finding it again; so a change of
    `learner` or `optimizer` belongs into `details` or `outer` as well.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        learner: makes it from what makes its network.
        steps: meta-steps.
        meta_batch: tasks of a meta-step.
        details: what else is worth knowing of the learner.
        outer: the outer optimizer, as shown.
        optimizer: makes it for a number of meta-steps.
        max_grad_norm: bound on the norm of the meta-gradient.
        seeds: how many trainings.
        in_deviations: whether it is given targets in units of their standard deviation, as those of
            markets are, where its rates depend on the units.
    """

    key: str
    name: str
    learner: Callable[[Network], MetaLearner]
    steps: int
    meta_batch: int = 32
    details: str = "the defaults"
    outer: str = "Adam 1e-3, cosine to 1e-5"
    optimizer: Callable[[int], optax.GradientTransformation] = cosine
    max_grad_norm: float | None = 1.0
    seeds: int = 3
    in_deviations: bool = False


def _heteroscedastic(network: Network) -> MetaLearner:
    # The likelihood's derivative is half of the squared error's where the deviation is 1.
    optimizer = optax.sgd(2 * INNER_LEARNING_RATE)
    return maml(gaussian(network(2)), inner_optimizer=optimizer, loss=gaussian_nll)


HETEROSCEDASTIC = {
    "details": "inner rate 0.01, targets in units of their deviation",
    "in_deviations": True,
}

ROWS = (
    UncertaintyRow("alpaca", "Bayesian head", lambda network: alpaca(network(FEATURES)), 1_000),
    UncertaintyRow(
        "bayesian-maml",
        "Bayesian MAML",
        lambda network: bayesian_maml(network(1)),
        600,
        meta_batch=16,
    ),
    UncertaintyRow(
        "ensemble",
        "ensemble of MAML, Gaussian head",
        lambda network: ensemble(_heteroscedastic(network)),
        600,
        meta_batch=16,
        **HETEROSCEDASTIC,
    ),
    UncertaintyRow(
        "gaussian-maml", "MAML, Gaussian head", _heteroscedastic, 1_000, **HETEROSCEDASTIC
    ),
)
"""In the order in which they are shown; particles and members make meta-steps of five networks."""


def reproduce_uncertainty(
    *,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/uncertainty",
    console: Console | None = None,
    command: str = "",
    rows: Sequence[UncertaintyRow] = ROWS,
) -> list[Table]:
    """Train learners where the best predictive distribution is known, and judge theirs.

    Every training's result is a file of its own in `out/results`; one that is there already, of the
    same protocol, is not made again. `uncertainty.json` and `uncertainty.md` hold what was asked
    for in the last call.

    Args:
        methods: keys of rows, or their beginnings; none for all.
        seeds: trainings per cell, instead of the row's own number.
        steps: meta-steps, instead of the row's own number.
        quick: one seed, a fiftieth of the meta-steps, 100 tasks.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.
        rows: the table to choose from.

    Returns:
        A table for each signal-to-noise ratio.

    Raises:
        ConfigError: if an option is impossible or names no row.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    out = Path(out)
    chosen = [_shortened(row, seeds, steps, quick) for row in choose(rows, methods)]
    tasks = QUICK_TEST_TASKS if quick else TEST_TASKS
    cells = [(row, snr) for row in chosen for snr in RATIOS]
    jobs = [(cell, job) for cell in cells for job in _jobs(*cell, tasks, quick)]
    results = perform((job for _, job in jobs), out / "results", Progress(console))
    told: dict[str, list] = {f"{snr:g}": [] for snr in RATIOS}
    for row, snr in cells:
        own = [r for (each, _), r in zip(jobs, results, strict=True) if each == (row, snr)]
        told[f"{snr:g}"].append(_cell(row, own))
    tables = [_table(snr, told[f"{snr:g}"], tasks, quick) for snr in RATIOS]
    write_json(
        out / "uncertainty.json",
        {"command": command, "quick": quick, "where": surroundings(), "ratios": told},
    )
    write(out / "uncertainty.md", "\n".join(table.markdown() for table in tables))
    return tables


def oracle_prediction(world: World, task: Task) -> Prediction:
    r"""Predict one task's query rows as well as can be done, with the deviation of outcomes.

    $$y_* \sim N\bigl(m_*,\ \phi_*^\top (I + \mathrm{snr}\, \Phi^\top\Phi)^{-1} \phi_*
      + 1 / \mathrm{snr}\bigr)$$

    with $m_*$ what `oracle` predicts and $\phi$ the task's true signals, whose coefficients are
    standard normal.

    Args:
        world: where the task was drawn: Gaussian noise, no drift.
        task: one task; y of the query is not looked at.

    Raises:
        ValueError: if the world's distribution is not normal, or its coefficients drift.
    """
    if world.noise != "gaussian" or world.drift != 1:
        raise ValueError(
            f"the distribution is known for Gaussian noise without drift, not for {world}"
        )
    phi, asked = _signals(world, task.support.x), _signals(world, task.query.x)
    precision = jnp.eye(phi.shape[1], dtype=phi.dtype) + world.snr * phi.T @ phi
    doubt = jnp.sum(asked * solve_spd(precision, asked.T).T, axis=1, keepdims=True)
    return Prediction(oracle(world, task), jnp.sqrt(doubt + 1 / world.snr))


def in_units(learner: MetaLearner, unit: float) -> MetaLearner:
    """Give a learner targets in other units, and take its predictions back.

    Args:
        learner: predicts a `Prediction`, of the targets that it is given.
        unit: what is 1 to it, in units of the task's targets.
    """

    def scaled(rows: Batch) -> Batch:
        return rows._replace(y=rows.y / unit)

    def adapt(meta_params, support: Batch, steps: int | None = None):
        return learner.adapt(meta_params, scaled(support), steps=steps)

    def predict(adapted, x, /) -> Prediction:
        return Prediction(*(unit * each for each in learner.predict(adapted, x)))

    def loss(meta_params, task: Task, step):
        return learner.loss(meta_params, Task(*map(scaled, task)), step)

    return MetaLearner(learner.init, adapt, predict, loss)


def _shortened(row: UncertaintyRow, seeds, steps, quick) -> UncertaintyRow:
    meta_steps = steps or (max(1, row.steps // QUICK_SHARE) if quick else row.steps)
    return replace(row, steps=meta_steps, seeds=seeds or (1 if quick else row.seeds))


def _jobs(row: UncertaintyRow, snr: float, tasks: int, quick: bool) -> list[Job]:
    world = World(snr)

    @cache  # all seeds of a cell share its compiled programs
    def parts():
        learner = row.learner(network("tanh"))
        if row.in_deviations:
            learner = in_units(learner, (signal_variance() + 1 / world.snr) ** 0.5)
        sampler = known_answer_sampler(
            world, meta_batch=row.meta_batch, support=SUPPORT, query=QUERY
        )

        def ours(task, params):
            return learner.predict(learner.adapt(params, task.support), task.query.x)

        return learner, row.optimizer(row.steps), sampler, ours, partial(oracle_prediction, world)

    def make(seed: int) -> Callable[[Advance], dict]:
        def run(advance: Advance) -> dict:
            learner, optimizer, sampler, ours, best = parts()
            train_key, test_key = jax.random.split(jax.random.key(seed))
            options = {"max_grad_norm": row.max_grad_norm, "advance": advance}
            trained = train(learner, optimizer, sampler, train_key, steps=row.steps, **options)
            test, truth = known_answer_tasks(
                world, test_key, tasks=tasks, support=SUPPORT, query=TEST_ROWS
            )
            mine, known = map_tasks(ours, test, trained.params), map_tasks(best, test)
            ic, best_ic = (
                float(information_coefficient(each.mean, truth.query.y)) for each in (mine, known)
            )
            return {
                **_judged(mine, test.query.y),
                "oracle": _judged(known, test.query.y),
                "share": ic / best_ic,
                "seconds": trained.seconds,
                "training_loss": trained.loss,
            }

        return run

    settings = {
        "row": row.key,
        "world": asdict(world),
        "network": "64-64",
        "meta_steps": row.steps,
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
    return [
        Job(
            f"{row.key}-snr{snr:g}-seed{seed}",
            {**settings, "seed": seed},
            row.steps,
            make(seed),
            _told,
        )
        for seed in range(row.seeds)
    ]


def _judged(prediction: Prediction, y) -> dict[str, float]:
    figures = measure_calibration(*(np.asarray(each, float) for each in (*prediction, y)))
    return {key: float(figures[name]) for name, key in NAMES.items()}


def _told(result: dict) -> str:
    nll, covered, share = (number(result[name]) for name in ("nll", "coverage_90", "share"))
    return (
        f"{result['seconds']:.0f} s; NLL {nll:.3f}, 90 % covers {covered:.1f} %, share {share:.3f}"
    )


def _cell(row: UncertaintyRow, results: list[dict]) -> dict[str, Any]:
    whole = [result for result in results if "failed" not in result]
    keys = [key for key, _ in COLUMNS.values()]
    return {
        "key": row.key,
        "name": row.name,
        "meta_steps": row.steps,
        "meta_batch": row.meta_batch,
        **{key: _interval([result[key] for result in whole]) for key in (*keys, "share")},
        "oracle": {key: _interval([result["oracle"][key] for result in whole]) for key in keys},
        "seconds": _interval([result["seconds"] for result in whole]),
        "failed": len(results) - len(whole),
        "seeds": results,
    }


def _interval(values: list) -> dict[str, float]:
    """Return the mean over seeds and half the width of its 95 % interval."""
    found = np.array([number(value) for value in values] or [math.nan])
    count = len(found)
    half = math.nan
    if count > 1:
        half = float(stats.t.ppf(0.975, count - 1) * found.std(ddof=1) / count**0.5)
    return {"mean": float(found.mean()), "half_width": half}


def _table(snr: float, cells: list[dict], tasks: int, quick: bool) -> Table:
    def figures(of: dict) -> list[str]:
        return [
            plus_minus(of[key]["mean"], of[key]["half_width"], digits)
            for key, digits in COLUMNS.values()
        ]

    rows = []
    # All rows are tested on the same tasks; one whose trainings all failed was not tested.
    tested = [cell for cell in cells if math.isfinite(cell["nll"]["mean"])]
    if tested:
        known = max(tested, key=lambda cell: len(cell["seeds"]) - cell["failed"])
        rows.append(("oracle", *figures(known["oracle"]), "", "", ""))
    for cell in cells:
        failed = f" ({cell['failed']} failed)" if cell["failed"] else ""
        share = plus_minus(cell["share"]["mean"], cell["share"]["half_width"])
        steps = f"{cell['meta_steps']:,} x {cell['meta_batch']}"
        seconds = f"{cell['seconds']['mean']:.0f}"
        rows.append((cell["name"] + failed, *figures(cell), share, steps, seconds))
    columns = ("learner", *COLUMNS, "share", "meta-steps x tasks", "seconds")
    note = NOTE.format(rows=TEST_ROWS, tasks=f"{tasks:,}", support=SUPPORT, variance=1 / snr)
    mark = QUICK_MARK if quick else ""
    return Table(f"{mark}Uncertainty at a signal-to-noise ratio of {snr:g}", columns, rows, note)
