"""The check for looking ahead on the pipeline: meta-training and walk-forward on altered bars."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.strategy_names import online_name
from maml_jax.errors import ConfigError, DataError, LookAheadError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.folds.prepare import prepare_again
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.preparation.prepare import Fitted, Prepared, prepare
from maml_jax.experiment.preparation.requirements import span_needs, test_needs
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.experiment.timing import stage
from maml_jax.lookahead.findings import Finding
from maml_jax.lookahead.futures import Frames, cut_off, middle_cuts
from maml_jax.lookahead.job import CUT_OFF, Job, folds_of, keep_bars
from maml_jax.lookahead.panel import (
    check_labels,
    check_tasks,
    compare_fits,
    compare_rows,
    compare_tasks,
)
from maml_jax.lookahead.walk import (
    check_fills,
    compare_record,
    compare_recorded_orders,
    compare_walks,
    walk_around,
)

_FUTURES = 4
"""Walk-forwards at each cut: on the bars as they are, cut off, and altered twice."""

_FOLDS = 3
"""Folds at most that are looked at: the first, the last, and those between."""

_SHORTEST = 12
"""Bars at least that are walked through up to a cut."""


class Part(NamedTuple):
    """One fold of a run.

    Attributes:
        label: which one, for reports; empty where there is but one.
        checkpoints: what each method learned in it.
        config: its settings for the walk-forward.
        trained: its settings and
        spans: its spans for meta-training, where it is one of several folds.
        tested: and for the walk-forward.
        cuts: after how many bars of its test span the future is changed.
    """

    label: str
    checkpoints: dict[str, Checkpoint]
    config: Config
    trained: Config
    spans: Spans | None
    tested: Spans | None
    cuts: int

    @property
    def fitted(self) -> Fitted:
        """What was fitted in it."""
        return next(iter(self.checkpoints.values())).fitted


class Checked(NamedTuple):
    """What came of a part of the check: findings, what was looked at, and what was not."""

    findings: list[Finding]
    checked: list[str]
    notes: list[str]


def parts_of(job: Job) -> tuple[list[Part], Checked]:
    """List the folds of a run that are looked at, and say which are not."""
    folds, nothing = folds_of(job.result), Checked([], [], [])
    first = next(iter(folds[0].values()))
    if not job.result.folds:
        trained = keep_bars(first.config)
        return [Part("", folds[0], job.config, trained, None, None, job.cuts)], nothing
    if first.spans is not None and first.spans.tested:
        how = (
            'folds.kind = "combinatorial": what is tested is predicted by what was trained on '
            "later bars as well"
        )
        when = first.spans.test_first
        finding = Finding("fold", "every fold", "", when, None, float(len(folds)), "folds", how)
        left = "Not checked: scaling, tasks and predictions of combinatorial folds."
        return [], nothing._replace(findings=[finding], notes=[left])
    with stage("folds"):
        again = prepare_again(job.config, job.frames, folds)
    chosen = np.unique(np.linspace(0, len(again.parts) - 1, _FOLDS, dtype=int))
    parts = []
    for each in chosen:
        number, part = again.numbers[each], again.parts[each]
        checkpoint = next(iter(folds[number].values()))
        label = f"fold {number} of {len(folds)}: "
        cuts = -(-job.cuts // len(chosen))
        trained = keep_bars(checkpoint.config)
        spans = (checkpoint.spans, part.spans)
        parts.append(Part(label, folds[number], part.config, trained, *spans, cuts))
    others = len(again.parts) - len(parts)
    notes = [f"Not checked: {others} of {len(folds)} folds."] if others else []
    return parts, nothing._replace(notes=notes)


def check_training(job: Job, part: Part) -> Checked:
    """Fit scaling and chain again, and cut tasks, on bars altered after training."""
    trained, saved = part.trained, part.fitted
    left = f"Not checked: {part.label}scaling and tasks of meta-training"
    missing = [a for a in trained.data.train_assets or () if a not in job.frames]
    if missing:
        return Checked([], [], [f"{left}, for want of the bars of {', '.join(missing)}."])
    findings, notes = [], []
    with stage("meta-training with later bars altered"):
        try:
            base = prepare(trained, _of(trained, job.frames), None, part.spans)
        except ConfigError as error:  # a backtest on bars that begin later
            return Checked([], [], [f"{left}: {error}."])
        last = base.panel.timestamps[base.train_last]
        how = "the run's own, against one fitted again on its meta-training span"
        findings += compare_fits(base.scaler, saved.scaler, last, how)
        if base.chain != saved.chain:
            findings.append(Finding("chain", "of regimes", "", None, last, 1.0, "chains", how))
        findings += check_labels(base)
        found, rows = check_tasks(base)
        findings += found
        # Bars of the test span must remain for it to be a test span.
        first = base.panel.timestamps[base.test_first]
        for how, frames in job.futures(last):
            if how == CUT_OFF:
                frames = cut_off(job.frames, _later(base, base.test_first))
            try:
                other = prepare(trained, _of(trained, frames), None, part.spans)
            except LookAheadError:
                raise
            except DataError as error:  # an asset that begins later cannot be tested
                notes.append(f"{left}, {how}: {error}.")
                continue
            fits = compare_fits(base.scaler, other.scaler, last, how)
            findings += fits
            if base.chain != other.chain:
                findings.append(Finding("chain", "of regimes", "", None, last, 1.0, "chains", how))
            scaled = {each.name for each in fits}
            findings += compare_rows(base, other, last, how, without=scaled)
            findings += compare_tasks(base, other, how)
    looked = (
        f"{part.label}scaling, chain of regimes, labels and tasks of the meta-training span, to "
        f"{last}, with bars after it cut off and altered; test span from {first}"
    )
    return Checked(findings, [looked, f"{part.label}{rows}"], notes)


def _later(prepared: Prepared, place: int) -> pd.Timestamp:
    """Return the time at which every asset has a few bars after a time index."""
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


def check_walk(job: Job, part: Part) -> Checked:
    """Predict, decide and order around a few cuts, with the bars after them altered."""
    findings, notes = [], []
    params = {name: each.params for name, each in part.checkpoints.items()}
    with stage("walk-forward with later bars altered"):
        whole = prepare(part.config, job.frames, part.fitted, part.tested)
        findings += check_labels(whole)
        found, rows = check_tasks(whole)
        findings += found
        evaluation = job.result.evaluation
        if evaluation is not None and not part.label:
            findings += compare_recorded_orders(whole, evaluation)
        times = whole.panel.timestamps
        cuts = _cuts(job, part, whole)
        length = _length(job, whole, len(cuts))
        strategies: dict[str, None] = {}
        for cut in cuts:
            config, frames = _with_room(job, part, whole, cut)
            narrowed = job._replace(frames=frames)
            same = config is part.config
            base = whole if same else prepare(config, frames, part.fitted, part.tested)
            first = times[max(whole.test_first, int(times.searchsorted(cut)) - length + 1)]
            walked = walk_around(base, params, first, cut)
            strategies |= dict.fromkeys(walked.predicted)
            findings += check_fills(walked, cut, job.seed)
            if evaluation is not None and same:
                methods = _list_restarting(part.config, walked.predicted)
                findings += compare_record(walked, evaluation.predictions, cut, methods)
            for how, future in narrowed.futures(cut):
                try:
                    other = prepare(config, future, part.fitted, part.tested)
                except LookAheadError:
                    raise
                except DataError as error:  # bars that no market knows may not do
                    notes.append(f"Not checked: {part.label}{how} after {cut}: {error}.")
                    continue
                findings += compare_rows(base, other, cut, how)
                findings += compare_walks(walked, walk_around(other, params, first, cut), cut, how)
    if not cuts:
        notes.append(f"Not checked: {part.label}predictions; the test span has too few bars.")
        return Checked(findings, [f"{part.label}{rows}"], notes)
    text = (
        f"{part.label}predictions, positions and orders of {', '.join(strategies)} over the last "
        f"{length} bars up to {', '.join(str(cut) for cut in cuts)}, with later bars cut off and "
        "altered"
    )
    return Checked(findings, [f"{part.label}{rows}", text], notes)


def _cuts(job: Job, part: Part, prepared: Prepared) -> list[pd.Timestamp]:
    times = prepared.panel.timestamps
    first = prepared.test_first + span_needs(part.config, times[-1]).bars + 1
    last = min(prepared.test_last, len(times) - 2)
    places = middle_cuts(times, first, last, part.cuts, job.seed)
    return [times[place] for place in places]


def _length(job: Job, prepared: Prepared, cuts: int) -> int:
    """Return how many bars are walked through up to each cut: as many in all as the run did."""
    test = prepared.test_last - prepared.test_first + 1
    length = max(_SHORTEST, test // (_FUTURES * max(1, cuts)))
    online = job.config.online
    return max(length, 2 * online.every + 2) if online.variants else length


def _with_room(
    job: Job, part: Part, prepared: Prepared, cut: pd.Timestamp
) -> tuple[Config, dict[str, pd.DataFrame]]:
    """Leave out assets that have too few bars up to a cut to be tested, as nobody could have."""
    config, frames = part.config, job.frames
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
    left = {name: frame for name, frame in frames.items() if name not in dropped}
    return config.changed(data={"test_assets": kept}), left


def _list_restarting(config: Config, predicted: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the strategies whose predictions do not depend on where the walk-forward begins."""
    methods, variants = config.learner.methods, config.online.variants
    online = {online_name(method, variant) for method in methods for variant in variants}
    return tuple(name for name in predicted if name not in online)
