"""What meta-learning is claimed to bring, measured where the truth is known and on real bars."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import optax

from benchmarks.reproduce.claims_bars import (
    Market,
    measure_market,
    real_market,
    settings_of,
    simulated_market,
)
from benchmarks.reproduce.claims_race import SCRATCH_RATES, SCRATCH_STEPS, run_race, summarise_race
from benchmarks.reproduce.claims_tables import make_tables
from benchmarks.reproduce.known_answer_rows import cosine
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.study import QUICK, SEEDS, STEPS, Call, Option, Report, Study
from benchmarks.reproduce.training import train
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.learners import maml
from maml_jax.models import mlp
from maml_jax.worlds.known_answer import World, known_answer_sampler, known_answer_tasks

SNRS = (1.0, 0.1)
"""Clean, and as noisy as markets on a good day."""

USUAL_SEEDS, USUAL_STEPS = 5, 600
META_BATCH = 64
SUPPORT = QUERY = 20
TEST_ROWS = 40
TASKS, QUICK_TASKS = 100, 20
QUICK_SCRATCH_STEPS = 10
WITHOUT_BARS = (
    "Real bars, which the claims are about, were not given (--bars FILE) and are left out."
)


def run(call: Call) -> Report:
    """Measure the claims on simulated tasks and bars, and on real bars where they are given."""
    count, steps = call.count_seeds(USUAL_SEEDS), call.count_steps(USUAL_STEPS)
    markets = [simulated_market(snr) for snr in SNRS]
    bars = call.options["bars"]
    if bars is not None:
        markets.append(_read_market(Path(bars)))
    jobs = [
        (f"simulated tasks, SNR {snr:g}", _race_job(snr, seed, steps, call.quick))
        for snr in SNRS
        for seed in range(count)
    ]
    jobs += [
        (market.name, _market_job(market, seed, steps, call.quick))
        for market in markets
        for seed in range(count)
    ]
    results = {
        name: whole
        for name, found in call.perform(jobs).items()
        if (whole := [each for each in found if "failed" not in each])
    }
    on_bars = {market.name for market in markets}
    races = {
        name: [each.get("race", each) for each in found]
        for name, found in results.items()
        if name not in on_bars or "race" in found[0]
    }
    tables = make_tables(races, {name: results[name] for name in results if name in on_bars})
    notes = ([] if bars is not None else [WITHOUT_BARS]) + [f"Failed: {e}" for e in call.failed]
    first = tables[0]
    note = " ".join([f"{count} seeds, {steps:,} meta-steps.", first.note, *notes])
    record = {
        "seeds": count,
        "meta_steps": steps,
        "notes": notes,
        "claims": [dict(zip(first.columns, row, strict=True)) for row in first.rows],
        "results": results,
    }
    return Report([first._replace(note=note), *tables[1:]], record)


CLAIMS = Study(
    "claims",
    "Claims made for meta-learning, next to what is measured.",
    run,
    options={
        "bars": Option(Path, "Real bars of several assets; without them that part is left out."),
        "seeds": SEEDS,
        "steps": STEPS,
        "quick": QUICK,
    },
)


def _read_market(path: Path) -> Market:
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
        options = {"steps": steps, "advance": advance}
        trained = train(learner, _optimizer(steps), sampler, train_key, **options)
        test, truth = known_answer_tasks(
            world, test_key, tasks=tasks, support=SUPPORT, query=TEST_ROWS
        )
        test = test._replace(query=truth.query)
        untrained = model.init(init_key, test.support.x[0])
        race = run_race(learner, trained.state.params, model, untrained, test, steps=scratch)
        return {**summarise_race(race), "seconds": trained.seconds}

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
    return Job(
        f"tasks-snr{snr:g}-seed{seed}", {**settings, "seed": seed}, steps, run, _describe_race
    )


def _market_job(market: Market, seed: int, steps: int, quick: bool) -> Job:
    windows = (QUICK_TASKS if quick else TASKS) if market.one_history else 0

    def run(advance: Advance) -> dict:
        measured = measure_market(market, seed, steps, windows=windows)
        advance(steps)
        return measured

    settings = {
        "market": {"key": market.key, **market.identity},
        "run": settings_of(market, seed, steps),
        "tested": list(market.tested),
        "windows": windows,
        **(_scratch(SCRATCH_STEPS) if windows else {}),
    }
    return Job(f"{market.key}-seed{seed}", settings, steps, run, _describe_market)


def _scratch(steps: int) -> dict[str, Any]:
    return {"scratch_steps": steps, "scratch_rates": {k: list(v) for k, v in SCRATCH_RATES.items()}}


@cache  # all worlds and seeds share their compiled programs
def _network():
    model = mlp((64, 64, 1))
    return model, maml(model)


_optimizer: Callable[[int], optax.GradientTransformation] = cache(cosine)


def _describe_race(result: dict) -> str:
    return (
        f"MAML {result['adapted']:.3f} after {result['start']:.3f}, from scratch "
        f"{result['scratch']:.3f}"
    )


def _describe_market(result: dict) -> str:
    net = result["unseen"]["net"]
    return f"net Sharpe {net['after']['value']:.2f} after {net['before']['value']:.2f}"
