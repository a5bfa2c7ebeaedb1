"""The check for looking ahead on the pipeline: meta-training and walk-forward on other futures."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from maml_jax.errors import DataError
from maml_jax.experiment.config import Config
from maml_jax.experiment.forecast import INCREMENTAL
from maml_jax.experiment.lookahead_bars import Frames, cut_off, middle_cuts
from maml_jax.experiment.lookahead_findings import Finding
from maml_jax.experiment.lookahead_job import Job, kept_bars
from maml_jax.experiment.lookahead_panel import (
    check_labels,
    check_tasks,
    compare_fits,
    compare_rows,
    compare_tasks,
)
from maml_jax.experiment.lookahead_walk import (
    check_fills,
    compare_record,
    compare_walks,
    walk_around,
)
from maml_jax.experiment.needs import span_needs, test_needs
from maml_jax.experiment.prepare import Prepared, prepare
from maml_jax.experiment.stages import stage

_FUTURES = 4
"""Walk-forwards at each cut: on the bars as they are, cut off, and altered twice."""

_SHORTEST = 12
"""Bars at least that are walked through up to a cut."""


Part = tuple[list[Finding], list[str], list[str]]


def check_training(job: Job) -> Part:
    """Fit scaling and chain anew, and cut tasks, on bars with another future than training had."""
    trained = kept_bars(job.checkpoint.config)
    missing = [a for a in trained.data.train_assets or () if a not in job.frames]
    if missing:
        note = (
            "Not looked at: scaling and tasks of meta-training, for want of the bars of "
            f"{', '.join(missing)}."
        )
        return [], [], [note]
    findings: list[Finding] = []
    with stage("meta-training on other futures"):
        base = prepare(trained, _of(trained, job.frames))
        last = base.panel.timestamps[base.train_last]
        how = "the run's own, against one fitted anew on its meta-training span"
        findings += compare_fits(base.scaler, job.checkpoint.scaler, last, how)
        if base.chain != job.checkpoint.chain:
            findings.append(Finding("chain", "of regimes", "", None, last, 1.0, "chains", how))
        findings += check_labels(base)
        found, told = check_tasks(base)
        findings += found
        # Bars of the test span must remain for it to be a test span.
        first = base.panel.timestamps[base.test_first]
        for how, frames in job.futures(last):
            if how == "bars cut off":
                frames = cut_off(job.frames, _later(base, base.test_first))
            try:
                other = prepare(trained, _of(trained, frames))
            except DataError:
                if how == "bars cut off":  # an asset that begins later cannot be tested
                    continue
                raise
            fits = compare_fits(base.scaler, other.scaler, last, how)
            findings += fits
            if base.chain != other.chain:
                findings.append(Finding("chain", "of regimes", "", None, last, 1.0, "chains", how))
            scaled = {each.name for each in fits}
            findings += compare_rows(base, other, last, how, without=scaled)
            findings += compare_tasks(base, other, how)
    told = [
        f"scaling, chain of regimes, labels and tasks of the meta-training span, to {last}, with "
        f"bars after it cut off and altered; test span from {first}",
        told,
    ]
    return findings, told, []


def _later(prepared: Prepared, place: int) -> pd.Timestamp:
    """Return the time at which every asset has a few bars after a place."""
    times = prepared.panel.timestamps
    stop = times[min(place + 5, len(times) - 1)]
    for asset in prepared.test_assets:
        own = prepared.bars[asset].loc[times[place] :].index
        if len(own):
            stop = max(stop, own[min(5, len(own) - 1)])
    return stop


def _of(config: Config, frames: Frames) -> dict[str, pd.DataFrame]:
    names = {*(config.data.train_assets or frames), *(config.data.test_assets or frames)}
    return {name: frame for name, frame in frames.items() if name in names}


def check_walk(job: Job) -> Part:
    """Predict, decide and order around a few cuts, on other futures after them."""
    findings: list[Finding] = []
    params = {name: each.params for name, each in job.result.checkpoints.items()}
    fitted = job.checkpoint.fitted
    with stage("walk-forward on other futures"):
        whole = prepare(job.config, job.frames, fitted)
        findings += check_labels(whole)
        found, rows = check_tasks(whole)
        findings += found
        times = whole.panel.timestamps
        cuts = _cuts(job, whole)
        length = _length(job, whole, len(cuts))
        strategies: dict[str, None] = {}
        for cut in cuts:
            config, frames = _with_room(job, whole, cut)
            narrowed = job._replace(config=config, frames=frames)
            same = config is job.config
            base = whole if same else prepare(config, frames, fitted)
            first = times[max(whole.test_first, int(times.searchsorted(cut)) - length + 1)]
            walked = walk_around(base, params, first, cut)
            strategies |= dict.fromkeys(walked.predicted)
            findings += check_fills(walked, cut, job.seed)
            evaluation = job.result.evaluation
            if evaluation is not None and same:
                methods = _restarting(job.config, walked.predicted)
                findings += compare_record(walked, evaluation.predictions, cut, methods)
            for how, future in narrowed.futures(cut):
                other = prepare(config, future, fitted)
                findings += compare_rows(base, other, cut, how)
                findings += compare_walks(walked, walk_around(other, params, first, cut), cut, how)
    if not cuts:
        return findings, [rows], ["Not looked at: predictions, for the test span has too few bars."]
    told = (
        f"predictions, positions and orders of {', '.join(strategies)} over the last {length} bars "
        f"up to {', '.join(str(cut) for cut in cuts)}, with later bars cut off and altered"
    )
    return findings, [rows, told], []


def _cuts(job: Job, prepared: Prepared) -> list[pd.Timestamp]:
    times = prepared.panel.timestamps
    first = prepared.test_first + span_needs(job.config, times[-1]).bars + 1
    last = min(prepared.test_last, len(times) - 2)
    places = middle_cuts(times, first, last, job.cuts, job.seed)
    return [times[place] for place in places]


def _length(job: Job, prepared: Prepared, cuts: int) -> int:
    """Return how many bars are walked through up to each cut: as many in all as the run did."""
    test = prepared.test_last - prepared.test_first + 1
    length = max(_SHORTEST, test // (_FUTURES * max(1, cuts)))
    online = job.config.online
    return max(length, 2 * online.every + 2) if online.variants else length


def _with_room(job: Job, prepared: Prepared, cut: pd.Timestamp) -> tuple[Config, Mapping[str, Any]]:
    """Leave out assets that have too few bars up to a cut to be tested, as nobody could have."""
    config, frames = job.config, job.frames
    start = prepared.panel.timestamps[prepared.test_first]
    names = config.data.test_assets or tuple(frames)
    before = test_needs(config, job.features, cut).bars
    within = span_needs(config, cut).bars
    kept = tuple(
        name
        for name in names
        if len(frames[name].loc[:cut]) >= before and len(frames[name].loc[start:cut]) >= within
    )
    if kept == names or not kept:
        return config, frames
    dropped = {*names} - {*kept} - {*(config.data.train_assets or ())}
    data = config.data.model_copy(update={"test_assets": kept})
    left = {name: frame for name, frame in frames.items() if name not in dropped}
    return config.model_copy(update={"data": data}), left


def _restarting(config: Config, predicted: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the strategies whose predictions do not depend on where the walk-forward begins."""
    methods, variants = config.learner.methods, config.online.variants
    online = {INCREMENTAL, *(f"{method} {variant}" for method in methods for variant in variants)}
    return tuple(name for name in predicted if name not in online)
