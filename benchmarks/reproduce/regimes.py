"""After a switch of regime: frozen MAML, supports of the regime in force, and online updates."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.reproduce.estimate import average
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.regimes_rows import (
    BUCKETS,
    FIRST_SEED,
    HIDDEN,
    INITIAL_RATE,
    INNER_STEPS,
    LAST_RATE,
    META_BATCH,
    NAMES_IN_FILES,
    ONLINE,
    OUTER_RATE,
    QUERY,
    RETRAINED,
    ROWS,
    TITLES,
    WINDOW,
    WORLDS,
    RegimesRow,
)
from benchmarks.reproduce.results import Job, read_number
from benchmarks.reproduce.study import Call, Report, Study
from benchmarks.reproduce.table import Table
from benchmarks.reproduce.training import Trained, train
from maml_jax.backtest import OnlineTraining, find_supports, walk_forward, walk_online
from maml_jax.errors import TrainingError
from maml_jax.learners import maml
from maml_jax.meta import MetaState, learned_rates, meta_init
from maml_jax.models import mlp
from maml_jax.report.plots.style import COLOURS
from maml_jax.tasks import Panel, asset_family, market_sampler
from maml_jax.worlds.switching import SwitchingTruth, switching_panel

NOTE = (
    "Mean squared error of predictions of the noiseless signal, as a share of its own mean square"
    " (predicting 0 has 1), over {test:,} bars of {assets} assets after {first:,} of meta-training;"
    " stays of {stay:g} bars on average, a signal-to-noise ratio of {snr:g}. Supports are"
    " {window} rows of the asset. After a switch: the first {window} bars, in which plain supports"
    " hold rows of the last regime; settled: the others. The regime in force is inferred from"
    " returns up to the bar by a filter that knows the volatilities; the true one is an upper"
    " bound. Online: {online.steps} meta-steps every {online.every} bars on tasks of the last"
    " {online.recent}; from scratch: {scratch.steps} every {scratch.every} bars on those of the"
    " last {scratch.recent:,}. ± is the 95 % interval over {seeds} seeds, by Student's t;"
    " differences are paired by seed, lower is better."
)


@dataclass(frozen=True)
class Protocol:
    """What all trainings of a call have in common.

    Attributes:
        meta_steps: of the training before the test.
        seeds: how many, from `FIRST_SEED` on.
        assets: of the market.
        bars: of each.
        first: place of the first bar of the test.
        quick: whether this is a try of the machinery.
    """

    meta_steps: int = 600
    seeds: int = 10
    assets: int = 10
    bars: int = 3000
    first: int = 1500
    quick: bool = False


def run(call: Call) -> Report:
    """Measure errors by bars since a switch, on markets whose regimes are known."""
    rows, usual = call.rows, Protocol()
    size = {"bars": 600, "first": 300} if call.quick else {}
    counts = {
        "meta_steps": call.count_steps(usual.meta_steps),
        "seeds": call.count_seeds(usual.seeds),
    }
    protocol = Protocol(**counts, **size, quick=call.quick)
    # Seed by seed: walks of one seed share its market and its training.
    found = call.perform(
        ((row.key, world), _job(row, world, seed, protocol))
        for world in WORLDS
        for seed in range(FIRST_SEED, FIRST_SEED + protocol.seeds)
        for row in rows
        if world in row.worlds
    )
    record = {
        "worlds": {name: asdict(world) for name, world in WORLDS.items()},
        "buckets": BUCKETS,
        "cells": [
            {"row": key, "world": world, **_average_curves(each), "seeds": each}
            for (key, world), each in found.items()
        ],
    }
    tables = [_table(world, rows, found, protocol) for world in WORLDS]
    return Report(tables, record, _draw(rows, found, call.quick))


REGIMES = Study(
    "regimes",
    "Markets that switch between regimes: errors after a switch, frozen, by regime and online.",
    run,
    ROWS,
)


def measure_errors(
    predicted: Float[np.ndarray, "asset time"], truth: SwitchingTruth, first: int
) -> dict[str, Any]:
    """Measure predictions against the noiseless signal, by bars since the last switch.

    Args:
        predicted: NaN before `first`.
        truth: of the market.
        first: place of the first bar that counts.

    Returns:
        Squared errors as shares of the mean square of the signal in the same bars: `curve`, one for
        each of `BUCKETS`; `after` a switch, the first `WINDOW` bars; `settled`; and of `all` bars.
        NaN without such bars.
    """
    error = ((predicted - truth.expected) ** 2).mean(axis=0)
    power = (truth.expected**2).mean(axis=0)
    counts = np.arange(len(error)) >= first

    def share(chosen) -> float:
        chosen = chosen & counts
        return float(error[chosen].mean() / power[chosen].mean()) if chosen.any() else math.nan

    since = truth.since
    bucket = np.searchsorted(BUCKETS, since, side="right") - 1
    return {
        "curve": [share(bucket == place) for place in range(len(BUCKETS))],
        "after": share((since >= 0) & (since < WINDOW)),
        "settled": share((since < 0) | (since >= WINDOW)),
        "all": share(since >= -1),
    }


@lru_cache(maxsize=1)
def _learner(meta_steps: int):
    rates = learned_rates(INITIAL_RATE)
    learner = maml(mlp((HIDDEN, HIDDEN, 1)), inner_optimizer=rates, inner_steps=INNER_STEPS)
    schedule = optax.cosine_decay_schedule(OUTER_RATE, meta_steps, alpha=LAST_RATE / OUTER_RATE)
    return learner, optax.adam(schedule)


@lru_cache(maxsize=1)
def _market(world: str, seed: int, protocol: Protocol) -> tuple[Panel, SwitchingTruth]:
    setting = WORLDS[world]
    return switching_panel(
        setting,
        seed,
        assets=protocol.assets,
        bars=protocol.bars,
        new_from=protocol.first if setting.new_regimes else None,
    )


@lru_cache(maxsize=1)
def _train(world: str, seed: int, protocol: Protocol) -> Trained:
    """Meta-train on the bars before the test."""
    learner, optimizer = _learner(protocol.meta_steps)
    panel, _ = _market(world, seed, protocol)
    windows = asset_family(panel, support=WINDOW, query=QUERY, last=protocol.first - 1)
    sampler = market_sampler(panel, windows, meta_batch=META_BATCH)
    return train(learner, optimizer, sampler, jax.random.key(seed), steps=protocol.meta_steps)


def _job(row: RegimesRow, world: str, seed: int, protocol: Protocol) -> Job:
    def run(advance: Advance) -> dict[str, Any]:
        panel, truth = _market(world, seed, protocol)
        trained = _train(world, seed, protocol)
        advance(protocol.meta_steps)
        start = time.perf_counter()
        predicted = _walk(row, panel, truth, trained.state, seed, protocol)
        seconds = time.perf_counter() - start
        return {
            **measure_errors(predicted, truth, protocol.first),
            "seconds": seconds,
            "training_loss": trained.loss,
        }

    settings = {
        "row": row.key,
        "labels": NAMES_IN_FILES.get(row.labels, row.labels),
        "updates": None if row.updates is None else row.updates._asdict(),
        "world": asdict(WORLDS[world]),
        "protocol": {**asdict(protocol), "seeds": None},
        "support": WINDOW,
        "query": QUERY,
        "meta_batch": META_BATCH,
        "network": HIDDEN,
        "inner": [INNER_STEPS, INITIAL_RATE],
        "outer": [OUTER_RATE, LAST_RATE],
        "buckets": BUCKETS,
        "seed": seed,
    }
    name = f"{row.key}-{world}-seed{seed}"
    return Job(name, settings, protocol.meta_steps, run, _describe)


def _walk(
    row: RegimesRow,
    panel: Panel,
    truth: SwitchingTruth,
    state: MetaState,
    seed: int,
    protocol: Protocol,
) -> Float[np.ndarray, "asset time"]:
    learner, optimizer = _learner(protocol.meta_steps)
    labels = _labels(row, panel, truth)
    supports = find_supports(panel, WINDOW, labels=labels, first=protocol.first)
    if row.updates is None:
        return np.asarray(walk_forward(learner, state.params, panel, supports))
    updates = row.updates
    start_key, key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1))
    if updates.restart:
        updates = updates._replace(steps=protocol.meta_steps)
        state = meta_init(learner, optimizer, start_key, panel.features[0, :1])
    windows = asset_family(panel, support=WINDOW, query=QUERY)
    training = OnlineTraining(optimizer, windows, updates)
    online = walk_online(learner, state, panel, supports, training, key)
    if online.failed.any():
        raise TrainingError(
            f"{int(online.failed.sum())} meta-steps of updates were not finite",
            step=int(online.bars[online.failed.argmax()]),
            tasks=[],
        )
    return np.asarray(online.predictions)


def _labels(row: RegimesRow, panel: Panel, truth) -> Int[np.ndarray, "asset time"] | None:
    if row.labels is None:
        return None
    assert panel.regimes is not None
    if row.labels == "inferred":
        return panel.regimes
    return np.broadcast_to(truth.regime, panel.regimes.shape)


def _describe(result: dict) -> str:
    after, settled = read_number(result["after"]), read_number(result["settled"])
    return f"{result['seconds']:.0f} s; error {after:.3f} after a switch, {settled:.3f} settled"


def _values(results: Sequence[dict], name: str) -> np.ndarray:
    return np.array([read_number(result.get(name)) for result in results])


def _average_curves(results: Sequence[dict]) -> dict[str, Any]:
    """Return the mean error of each bucket over the seeds, and half of its interval."""
    empty = [None] * len(BUCKETS)
    curves = np.array([[read_number(v) for v in r.get("curve", empty)] for r in results])
    known = [column[np.isfinite(column)] for column in curves.T]
    pairs = [average(column) for column in known]
    return {"mean": [each.mean for each in pairs], "half_width": [each.half for each in pairs]}


def _table(world: str, rows, found, protocol: Protocol) -> Table:
    lines = []
    frozen = found.get(("frozen", world))
    for row in rows:
        results = found.get((row.key, world))
        if results is None:
            continue

        def share(name, results=results):
            return average(_values(results, name)).text(3)

        def minus_frozen(name, key=row.key, results=results):
            if frozen is None or key == "frozen":
                return ""
            return average(_values(results, name) - _values(frozen, name)).text(3)

        cells = (
            share("after"),
            minus_frozen("after"),
            share("settled"),
            share("all"),
            minus_frozen("all"),
        )
        lines.append((row.name, *cells))
    setting = WORLDS[world]
    note = NOTE.format(
        test=protocol.bars - protocol.first,
        assets=protocol.assets,
        first=protocol.first,
        stay=setting.stay,
        snr=setting.snr,
        window=WINDOW,
        online=ONLINE,
        scratch=RETRAINED._replace(steps=protocol.meta_steps),
        seeds=protocol.seeds,
    )
    columns = (
        "walk-forward",
        "after a switch",
        "minus frozen",
        "settled",
        "all bars",
        "minus frozen",
    )
    return Table(TITLES[world], columns, lines, note)


def _draw(rows, found, quick: bool) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(1, len(WORLDS), sharey=True)
    ends = np.array([*BUCKETS[1:], 1.25 * BUCKETS[-1]])
    middle = (np.array(BUCKETS) + ends - 1) / 2
    for axes, world in zip(panels, WORLDS, strict=True):
        for place, row in enumerate(rows):
            if (row.key, world) not in found:
                continue
            curve = _average_curves(found[row.key, world])
            mean, half = np.array(curve["mean"]), np.nan_to_num(np.array(curve["half_width"]))
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(middle, mean, color=colour, linewidth=1.3, label=row.name)
            axes.fill_between(middle, mean - half, mean + half, color=colour, alpha=0.1, lw=0)
        axes.axhline(1.0, color="#bbbbbb", linewidth=0.8)
        axes.set_xscale("symlog", linthresh=4)
        axes.set_xticks([0, 1, 2, 4, 8, 16, 32, 64], [0, 1, 2, 4, 8, 16, 32, 64])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(0, middle[-1])
        title = ("QUICK: " if quick else "") + TITLES[world]
        axes.set_title(title, loc="left", fontsize=9, fontweight="bold")
        axes.set_xlabel("bars since the switch")
        axes.grid(color="#eeeeee", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("squared error, share of the signal")
    panels[-1].legend(frameon=False, fontsize=7)
    return figure
