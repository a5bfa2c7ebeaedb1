"""How often the verdict calls luck significant, and how often a real edge."""

from functools import partial
from typing import Any

import pandas as pd
from scipy import stats

from benchmarks.reproduce.null_bars import (
    ASSETS,
    BARS,
    SIGNAL,
    follow_the_signal,
    simulate_walks,
    traded_returns,
)
from benchmarks.reproduce.null_series import (
    LENGTHS,
    MARKETS,
    QUICK_WORLDS,
    SAMPLES,
    STRATEGIES,
    WORLDS,
    count_rejections,
)
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job, read_number
from benchmarks.reproduce.study import QUICK, STEPS, Call, Option, Report, Study, name_parts
from benchmarks.reproduce.table import Table
from maml_jax.backtest.inference import Roles, assess_significance
from maml_jax.backtest.inference.alpha import SIZE, alpha_tests
from maml_jax.backtest.metrics import pooled_correlation
from maml_jax.backtest.strategy_names import BUY_AND_HOLD
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.evaluation.evaluate import net_returns
from maml_jax.experiment.evaluation.forecasts import predict_all
from maml_jax.experiment.evaluation.verdict import called_significant
from maml_jax.experiment.learning.train import meta_train
from maml_jax.experiment.preparation.prepare import prepare

NULL_WORLDS, EDGE_WORLDS = 200, 50
ICS = (0.0, 0.02, 0.05, 0.1)
USUAL_STEPS, QUICK_STEPS = 300, 2
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


def run(call: Call) -> Report:
    """Count how often luck is called significant, by the test alone and by whole runs."""
    made = [PARTS[part](call) for part in call.choose_parts(PARTS)]
    record = {key: value for _, part in made for key, value in part.items()}
    return Report([table for table, _ in made], record)


def _test(call: Call) -> tuple[Table, dict]:
    worlds = call.options["worlds"] or (QUICK_WORLDS if call.quick else WORLDS)
    cells = [(market, length) for market in MARKETS for length in LENGTHS]
    found = call.perform((cell, _test_job(*cell, worlds)) for cell in cells)
    rows = []
    for (market, length), (result,) in found.items():
        shares = [100 * result["rejected"][name] / result["worlds"] for name in STRATEGIES]
        rows.append((f"{market}, {length:,d} bars", *(f"{share:.1f}" for share in shares)))
    note = TEST_NOTE.format(worlds=f"{worlds:,d}", samples=SAMPLES)
    title = "The test alone: luck called significant"
    record = {"test": [result for (result,) in found.values()]}
    return Table(title, ("market", *STRATEGIES), rows, note), record


def _count(market: str, length: int, worlds: int, advance: Advance) -> dict[str, Any]:
    return count_rejections(market, length, worlds, SEED, advance)._asdict()


def _test_job(market: str, length: int, worlds: int) -> Job:
    return Job(
        f"test-{MARKETS.index(market)}-{length}",
        {"market": market, "bars": length, "worlds": worlds, "seed": SEED, "samples": SAMPLES},
        worlds,
        partial(_count, market, length, worlds),
        lambda found: f"{found['rejected']} of {found['worlds']}",
    )


def _pipeline(call: Call) -> tuple[Table, dict]:
    steps = call.options["steps"] or (QUICK_STEPS if call.quick else USUAL_STEPS)
    rows, record = [], []
    for ic in ICS:
        usual = NULL_WORLDS if ic == 0 else EDGE_WORLDS
        count = call.options["worlds"] or (2 if call.quick else usual)
        jobs = ((ic, _world_job(ic, SEED + world, steps)) for world in range(count))
        results = call.perform(jobs)[ic]
        found, known = (sum(r[key] for r in results) for key in ("significant", "known"))
        rows.append(
            (
                "none" if ic == 0 else f"IC {ic:g}",
                f"{count}",
                _share(found, count),
                _share(known, count),
                f"{pd.Series([read_number(r['ic']) for r in results]).mean():.3f}",
            )
        )
        record.append({"ic": ic, "worlds": count, "significant": found, "known": known})
    columns = (
        "edge",
        "worlds",
        "called significant [%]",
        "signal known [%]",
        "IC of predictions",
    )
    note = PIPELINE_NOTE.format(assets=len(ASSETS), bars=BARS, steps=steps)
    return Table("Whole runs: called significant", columns, rows, note), {"pipeline": record}


PARTS = {"test": _test, "pipeline": _pipeline}

NULL_WORLD = Study(
    "null-world",
    "How often the verdict calls a random walk significant, and how often it finds a planted edge.",
    run,
    options={
        "parts": name_parts(PARTS),
        "worlds": Option(int, "Worlds of each kind."),
        "steps": STEPS,
        "quick": QUICK._replace(help="Few worlds, two meta-steps each."),
    },
)


def _world_job(ic: float, seed: int, steps: int) -> Job:
    settings = {**_SETTINGS, "training": {**_SETTINGS["training"], "steps": steps}}
    return Job(
        f"world-{ic:g}-{seed}",
        {"ic": ic, "seed": seed, "bars": BARS, "settings": settings},
        1,
        partial(_judge_world, ic, seed, settings),
        lambda found: f"p = {read_number(found['p']):.3f}",
    )


def _judge_world(ic: float, seed: int, settings: dict, advance: Advance) -> dict[str, Any]:
    """Do on one world what a run does, without the figures that the verdict does not need."""
    world = simulate_walks(ic, seed)
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
