"""What meta-learning is claimed to bring, measured where the truth is known and on real bars."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console

from benchmarks.reproduce.claims_bars import (
    Market,
    measure_market,
    real_market,
    settings_of,
    simulated_market,
)
from benchmarks.reproduce.claims_race import SCRATCH_RATES, SCRATCH_STEPS, figures, race
from benchmarks.reproduce.claims_tables import tables
from benchmarks.reproduce.known_answer_rows import cosine
from benchmarks.reproduce.progress import Advance, Progress
from benchmarks.reproduce.results import Job, perform, write, write_json
from benchmarks.reproduce.table import (
    QUICK_MARK,
    QUICK_SHARE,
    Table,
    require_positive,
    surroundings,
)
from benchmarks.reproduce.training import train
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.learners import maml
from maml_jax.models import mlp
from maml_jax.worlds.known_answer import World, known_answer_sampler, known_answer_tasks

SNRS = (1.0, 0.1)
"""Clean, and as noisy as markets on a good day."""

SEEDS = 5
STEPS = 600
META_BATCH = 64
SUPPORT = QUERY = 20
TEST_ROWS = 40
TASKS, QUICK_TASKS = 100, 20
QUICK_SCRATCH_STEPS = 10
WITHOUT_BARS = (
    "Real bars were not given (--bars FILE), so that nothing is said of them here; the claims are"
    " about them."
)


def reproduce_claims(
    *,
    bars: str | Path | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/claims",
    console: Console | None = None,
    command: str = "",
    worlds: Sequence[float] = SNRS,
) -> list[Table]:
    """Measure the claims, and write the tables.

    Every training's result is a file of its own in `out/results`; one that is there already, of the
    same protocol, is not made again. `claims.json` and `claims.md` hold what was asked for in the
    last call.

    Args:
        bars: a file of real bars of several assets; None leaves that part out, with a note.
        seeds: trainings of each world; default 5.
        steps: meta-steps of each; default 600.
        quick: one seed, a fiftieth of the meta-steps, few tasks.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.
        worlds: signal-to-noise ratios of what is simulated.

    Returns:
        The claims, and a table for each subject.

    Raises:
        ConfigError: if an option is impossible.
        DataError: if the bars cannot be read.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    count = seeds or (1 if quick else SEEDS)
    steps = steps or (STEPS // QUICK_SHARE if quick else STEPS)
    out = Path(out)
    markets = [simulated_market(snr) for snr in worlds]
    if bars is not None:
        markets.append(_given(Path(bars)))
    plan = [
        (f"simulated tasks, SNR {snr:g}", _race_job(snr, seed, steps, quick))
        for snr in worlds
        for seed in range(count)
    ]
    plan += [
        (market.name, _market_job(market, seed, steps, quick))
        for market in markets
        for seed in range(count)
    ]
    results = perform((job for _, job in plan), out / "results", Progress(console))
    by_world: dict[str, list[dict]] = {}
    failed = []
    for (name, job), result in zip(plan, results, strict=True):
        if "failed" in result:
            failed.append(f"{job.name}: {result['failed']}")
        else:
            by_world.setdefault(name, []).append(result)
    real = {market.name for market in markets}
    races = {
        name: [each.get("race", each) for each in found]
        for name, found in by_world.items()
        if name not in real or "race" in found[0]
    }
    made = tables(races, {name: found for name, found in by_world.items() if name in real})
    notes = ([] if bars is not None else [WITHOUT_BARS]) + [f"Failed: {each}" for each in failed]
    first = made[0]
    mark = QUICK_MARK if quick else ""
    note = " ".join([f"{count} seeds, {steps:,} meta-steps.", first.note, *notes])
    made[0] = first._replace(title=mark + first.title, note=note)
    write_json(
        out / "claims.json",
        {
            "command": command,
            "quick": quick,
            "where": surroundings(),
            "seeds": count,
            "meta_steps": steps,
            "notes": notes,
            "claims": [dict(zip(made[0].columns, row, strict=True)) for row in made[0].rows],
            "results": by_world,
        },
    )
    write(out / "claims.md", "\n".join(table.markdown() for table in made))
    return made


def _given(path: Path) -> Market:
    if not path.is_file():
        raise ConfigError(f"--bars {path}: no such file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return real_market(read_bars(path), {"file": path.name, "sha256": digest})


def _race_job(snr: float, seed: int, steps: int, quick: bool) -> Job:
    world, tasks = World(snr), QUICK_TASKS if quick else TASKS
    scratch = QUICK_SCRATCH_STEPS if quick else SCRATCH_STEPS
    model, learner = _network()

    def run(advance: Advance) -> dict:
        train_key, test_key, init_key = jax.random.split(jax.random.key(seed), 3)
        sampler = known_answer_sampler(world, meta_batch=META_BATCH, support=SUPPORT, query=QUERY)
        options = {"max_grad_norm": 1.0, "advance": advance}
        trained = train(learner, _optimizer(steps), sampler, train_key, steps=steps, **options)
        test, truth = known_answer_tasks(
            world, test_key, tasks=tasks, support=SUPPORT, query=TEST_ROWS
        )
        test = test._replace(query=truth.query)
        untrained = model.init(init_key, test.support.x[0])
        told = race(learner, trained.params, model, untrained, test, steps=scratch)
        return {**figures(told), "seconds": trained.seconds}

    settings = {
        "world": {"snr": snr},
        "meta_steps": steps,
        "meta_batch": META_BATCH,
        "support": SUPPORT,
        "query": QUERY,
        "network": "64-64",
        "tasks": tasks,
        "test_rows": TEST_ROWS,
        **_scratch(scratch),
    }
    return Job(f"tasks-snr{snr:g}-seed{seed}", {**settings, "seed": seed}, steps, run, _race_told)


def _market_job(market: Market, seed: int, steps: int, quick: bool) -> Job:
    windows = (QUICK_TASKS if quick else TASKS) if market.one_history else 0

    def run(advance: Advance) -> dict:
        told = measure_market(market, seed, steps, windows=windows)
        advance(steps)
        return told

    settings = {
        "market": {"key": market.key, **market.told},
        "run": settings_of(market, seed, steps),
        "tested": list(market.tested),
        "windows": windows,
        **(_scratch(SCRATCH_STEPS) if windows else {}),
    }
    return Job(f"{market.key}-seed{seed}", settings, steps, run, _market_told)


def _scratch(steps: int) -> dict[str, Any]:
    return {"scratch_steps": steps, "scratch_rates": {k: list(v) for k, v in SCRATCH_RATES.items()}}


@cache  # all worlds and seeds share their compiled programs
def _network():
    model = mlp((64, 64, 1))
    return model, maml(model)


_optimizer: Callable[[int], optax.GradientTransformation] = cache(cosine)


def _race_told(result: dict) -> str:
    return (
        f"MAML {result['adapted']:.3f} after {result['start']:.3f}, from scratch "
        f"{result['scratch']:.3f}"
    )


def _market_told(result: dict) -> str:
    net = result["unseen"]["net"]
    return f"net Sharpe {net['after']['value']:.2f} after {net['before']['value']:.2f}"
