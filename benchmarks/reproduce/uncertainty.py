"""Whether predicted deviations are true, where the best possible distribution is known."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.reproduce.estimate import average
from benchmarks.reproduce.known_answer_rows import FEATURES, Network, cosine, network
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job, read_number
from benchmarks.reproduce.study import Call, Report, Study
from benchmarks.reproduce.table import Table, format_interval
from benchmarks.reproduce.training import compare_with_oracle, train
from maml_jax.backtest.inference.calibration import measure_calibration
from maml_jax.learners import alpaca, bayesian_maml, ensemble, maml
from maml_jax.meta import (
    Batch,
    MetaLearner,
    Prediction,
    Task,
    gaussian_nll,
    predict_tasks,
)
from maml_jax.meta.linalg import solve_spd
from maml_jax.models import gaussian
from maml_jax.parallel import map_tasks
from maml_jax.worlds.known_answer import (
    World,
    compute_signals,
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
    " seed; {support} support rows, noise of variance {variance:g}. The oracle knows the world and"
    " all but a task's coefficients. Share: correlation with the noiseless signal, as a share"
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
    # Twice MAML's default: the likelihood's derivative is half of the squared error's where the
    # deviation is 1.
    optimizer = optax.sgd(0.01)
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


def run(call: Call) -> Report:
    """Train learners where the best predictive distribution is known, and compare theirs."""
    tasks = QUICK_TEST_TASKS if call.quick else TEST_TASKS
    rows = [
        replace(row, steps=call.count_steps(row.steps), seeds=call.count_seeds(row.seeds))
        for row in call.rows
    ]
    found = call.perform(
        ((row.key, snr), job)
        for row in rows
        for snr in RATIOS
        for job in _jobs(row, snr, tasks, call.quick)
    )
    cells = {f"{snr:g}": [_cell(row, found[row.key, snr]) for row in rows] for snr in RATIOS}
    tables = [_table(snr, cells[f"{snr:g}"], tasks) for snr in RATIOS]
    return Report(tables, {"ratios": cells})


UNCERTAINTY = Study(
    "uncertainty",
    "A market with a known answer: whether predicted standard deviations are calibrated.",
    run,
    ROWS,
)


def predict_best(world: World, task: Task) -> Prediction:
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
    phi, queries = compute_signals(world, task.support.x), compute_signals(world, task.query.x)
    precision = jnp.eye(phi.shape[1], dtype=phi.dtype) + world.snr * phi.T @ phi
    variance = jnp.sum(queries * solve_spd(precision, queries.T).T, axis=1, keepdims=True)
    return Prediction(oracle(world, task), jnp.sqrt(variance + 1 / world.snr))


def rescale_targets(learner: MetaLearner, unit: float) -> MetaLearner:
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
        return learner.loss(
            meta_params, task._replace(support=scaled(task.support), query=scaled(task.query)), step
        )

    return MetaLearner(learner.init, adapt, predict, loss)


def _jobs(row: UncertaintyRow, snr: float, tasks: int, quick: bool) -> list[Job]:
    world = World(snr)

    @cache  # all seeds of a cell share its compiled programs
    def parts():
        learner = row.learner(network("tanh"))
        if row.in_deviations:
            learner = rescale_targets(learner, (signal_variance() + 1 / world.snr) ** 0.5)
        sampler = known_answer_sampler(
            world, meta_batch=row.meta_batch, support=SUPPORT, query=QUERY
        )
        return learner, row.optimizer(row.steps), sampler, partial(predict_best, world)

    def make(seed: int) -> Callable[[Advance], dict]:
        def run(advance: Advance) -> dict:
            learner, optimizer, sampler, best = parts()
            train_key, test_key = jax.random.split(jax.random.key(seed))
            options = {"max_grad_norm": row.max_grad_norm, "advance": advance}
            trained = train(learner, optimizer, sampler, train_key, steps=row.steps, **options)
            test, truth = known_answer_tasks(
                world, test_key, tasks=tasks, support=SUPPORT, query=TEST_ROWS
            )
            mine = predict_tasks(learner, trained.state.params, test)
            known = map_tasks(best, test)
            return {
                **_calibrate(mine, test.query.y),
                "oracle": _calibrate(known, test.query.y),
                "share": compare_with_oracle(mine.mean, known.mean, truth.query.y)["share"],
                **trained.record(),
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
            _describe,
        )
        for seed in range(row.seeds)
    ]


def _calibrate(prediction: Prediction, y) -> dict[str, float]:
    figures = measure_calibration(*(np.asarray(each, float) for each in (*prediction, y)))
    return {key: float(figures[name]) for name, key in NAMES.items()}


def _describe(result: dict) -> str:
    nll, covered, share = (read_number(result[name]) for name in ("nll", "coverage_90", "share"))
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
    return dict(zip(("mean", "half_width"), average([*map(read_number, values)]), strict=True))


def _table(snr: float, cells: list[dict], tasks: int) -> Table:
    def figures(of: dict) -> list[str]:
        return [
            format_interval(of[key]["mean"], of[key]["half_width"], digits)
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
        share = format_interval(cell["share"]["mean"], cell["share"]["half_width"])
        steps = f"{cell['meta_steps']:,} x {cell['meta_batch']}"
        seconds = f"{cell['seconds']['mean']:.0f}"
        rows.append((cell["name"] + failed, *figures(cell), share, steps, seconds))
    columns = ("learner", *COLUMNS, "share", "meta-steps x tasks", "seconds")
    note = NOTE.format(rows=TEST_ROWS, tasks=f"{tasks:,}", support=SUPPORT, variance=1 / snr)
    return Table(f"Uncertainty at a signal-to-noise ratio of {snr:g}", columns, rows, note)
