"""Whether the verdict calls luck significant as seldom as it says, and edges as often as it can."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from scipy import stats

from benchmarks.reproduce.null_bars import (
    ASSETS,
    BARS,
    SIGNAL,
    follow_the_signal,
    traded_returns,
    walks,
)
from benchmarks.reproduce.null_series import (
    LENGTHS,
    MARKETS,
    QUICK_WORLDS,
    SAMPLES,
    STRATEGIES,
    WORLDS,
    size_of_test,
)
from benchmarks.reproduce.progress import Advance, Progress
from benchmarks.reproduce.results import Job, number, perform, write, write_json
from benchmarks.reproduce.table import QUICK_MARK, Table, require_positive, surroundings
from maml_jax.backtest.inference import Roles, assess_significance
from maml_jax.backtest.inference.alpha import SIZE, alpha_tests
from maml_jax.backtest.metrics import pooled_correlation
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.evaluation.decisions import BUY_AND_HOLD
from maml_jax.experiment.evaluation.evaluate import net_returns
from maml_jax.experiment.evaluation.forecasts import predict_all
from maml_jax.experiment.evaluation.verdict import called_significant
from maml_jax.experiment.learning.train import meta_train
from maml_jax.experiment.preparation.prepare import prepare

PARTS = ("test", "pipeline")
NULL_WORLDS, EDGE_WORLDS = 200, 50
ICS = (0.0, 0.02, 0.05, 0.1)
STEPS, QUICK_STEPS = 300, 2
SEED = 20_000
"""Of the first world; those on which the statistics were developed have others."""

_SETTINGS: dict[str, dict[str, Any]] = {
    "features": {"names": [SIGNAL, "return_1", "return_5", "volatility"]},
    "target": {"horizon": 1, "fill": "next_close"},
    "model": {"hidden": [16]},
    "learner": {"methods": ["maml"]},
    "training": {"meta_batch": 16},
    "backtest": {"fee": 0.0, "slippage": 0.0, "samples": SAMPLES, "baselines": []},
}
PIPELINE_NOTE = (
    "Worlds of {assets} assets and {bars} daily bars: meta-training on the first 60 %, verdict on"
    " the rest; MAML, {steps} meta-steps, takes the side of what it predicts. Costs are zero: with"
    " costs a strategy without an edge loses in the mean, and luck would be called significant less"
    " often. IC: correlation of a visible feature with the return that is traded. Signal known: the"
    " same test of an account that takes the side of the true signal, without learning. Intervals"
    " are those of Clopper and Pearson, 95 %."
)
TEST_NOTE = (
    "Share of worlds in % in which the test of the verdict rejects at 5 %, of strategies that have"
    " no alpha; {worlds} worlds, {samples} samples of each. The trend has an edge where returns go"
    " on (AR)."
)


def reproduce_null_world(
    *,
    parts: Sequence[str] = (),
    worlds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/null-world",
    console: Console | None = None,
    command: str = "",
) -> list[Table]:
    """Count how often luck is called significant, by the test alone and by whole runs.

    Every world's result is a file of its own in `out/results`; one that is there already, of the
    same protocol, is not made again. `null-world.json` and `null-world.md` hold what was asked for
    in the last call.

    Args:
        parts: "test" (the test alone, on series), "pipeline" (runs); none for both.
        worlds: how many of each kind, instead of the usual numbers.
        steps: meta-steps of a run.
        quick: few worlds, two meta-steps.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.

    Returns:
        A table for each part.

    Raises:
        ConfigError: if an option is impossible or names no part.
        RunError: if `out` cannot be written.
    """
    require_positive(worlds=worlds, steps=steps)
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"--part {part}: there is no such part; there are {', '.join(PARTS)}")
    out, progress = Path(out), Progress(console)
    makers = {
        "test": lambda: _test(worlds or (QUICK_WORLDS if quick else WORLDS), out, progress),
        "pipeline": lambda: _pipeline(worlds, steps, quick, out, progress),
    }
    made = [makers[part]() for part in PARTS if not parts or part in parts]
    tables = [table for table, _ in made]
    if quick:
        tables = [table._replace(title=QUICK_MARK + table.title) for table in tables]
    told: dict[str, Any] = {"command": command, "quick": quick, "where": surroundings()}
    for _, record in made:
        told |= record
    write_json(out / "null-world.json", told)
    write(out / "null-world.md", "\n".join(table.markdown() for table in tables))
    return tables


def _test(worlds: int, out: Path, progress: Progress) -> tuple[Table, dict]:
    cells = [(market, length) for market in MARKETS for length in LENGTHS]
    jobs = [
        Job(
            f"test-{MARKETS.index(market)}-{length}",
            {"market": market, "bars": length, "worlds": worlds, "seed": SEED, "samples": SAMPLES},
            worlds,
            partial(_count, market, length, worlds),
            lambda found: f"{found['rejected']} of {found['worlds']}",
        )
        for market, length in cells
    ]
    results = perform(jobs, out / "results", progress)
    rows = []
    for (market, length), found in zip(cells, results, strict=True):
        shares = [100 * found["rejected"][name] / found["worlds"] for name in STRATEGIES]
        rows.append((f"{market}, {length:,d} bars", *(f"{share:.1f}" for share in shares)))
    note = TEST_NOTE.format(worlds=f"{worlds:,d}", samples=SAMPLES)
    title = "The test alone: luck called significant"
    return Table(title, ("market", *STRATEGIES), rows, note), {"test": results}


def _count(market: str, length: int, worlds: int, advance: Advance) -> dict[str, Any]:
    return size_of_test(market, length, worlds, SEED, advance)._asdict()


def _pipeline(worlds, steps, quick, out: Path, progress: Progress) -> tuple[Table, dict]:
    steps = steps or (QUICK_STEPS if quick else STEPS)
    rows, told = [], []
    for ic in ICS:
        usual = NULL_WORLDS if ic == 0 else EDGE_WORLDS
        count = worlds or (2 if quick else usual)
        jobs = [_world_job(ic, SEED + world, steps) for world in range(count)]
        results = perform(jobs, out / "results", progress)
        found, known = (sum(r[key] for r in results) for key in ("significant", "known"))
        rows.append(
            (
                "none" if ic == 0 else f"IC {ic:g}",
                f"{count}",
                _share(found, count),
                _share(known, count),
                f"{pd.Series([number(r['ic']) for r in results]).mean():.3f}",
            )
        )
        told.append({"ic": ic, "worlds": count, "significant": found, "known": known})
    columns = (
        "edge",
        "worlds",
        "called significant [%]",
        "signal known [%]",
        "IC of predictions",
    )
    note = PIPELINE_NOTE.format(assets=len(ASSETS), bars=BARS, steps=steps)
    return Table("Whole runs: called significant", columns, rows, note), {"pipeline": told}


def _world_job(ic: float, seed: int, steps: int) -> Job:
    settings = {**_SETTINGS, "training": {**_SETTINGS["training"], "steps": steps}}
    return Job(
        f"world-{ic:g}-{seed}",
        {"ic": ic, "seed": seed, "bars": BARS, "settings": settings},
        1,
        partial(_judge_world, ic, seed, settings),
        lambda found: f"p = {number(found['p']):.3f}",
    )


def _judge_world(ic: float, seed: int, settings: dict, advance: Advance) -> dict[str, Any]:
    """Do on one world what a run does, but for figures that the verdict does not stand on."""
    world = walks(ic, seed)
    prepared = prepare(load_config({}, {**settings, "seed": seed}), world)
    methods = list(prepared.config.learner.methods)
    forecasts = predict_all(prepared, {name: meta_train(prepared, name)[0] for name in methods})
    net = net_returns(prepared, forecasts)
    table = assess_significance(
        net,
        Roles(methods[0], methods, [BUY_AND_HOLD], BUY_AND_HOLD),
        bars_per_year=prepared.bars_per_year,
        seed=seed,
        samples=prepared.config.backtest.samples,
    )
    known = pd.DataFrame(
        {"known": follow_the_signal(world, net.index), BUY_AND_HOLD: net[BUY_AND_HOLD]}
    )
    by_signal = alpha_tests(known, BUY_AND_HOLD, seed=seed, samples=SAMPLES)["known"].p_value
    mean = forecasts.predicted[methods[0]].mean
    advance(1)
    return {
        "significant": called_significant(table, methods[0]),
        "p": float(table["p_value"].iloc[0]),
        "alpha": float(table["alpha [%]"].iloc[0]),
        "ic": pooled_correlation(mean, traded_returns(world).reindex(mean.index)),
        "known": bool(by_signal < SIZE),
        "bars": len(net),
    }


def _share(found: int, count: int) -> str:
    interval = stats.binomtest(found, count).proportion_ci()
    return f"{100 * found / count:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
