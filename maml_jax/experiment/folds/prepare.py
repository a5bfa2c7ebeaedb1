"""The folds of a run: each is prepared like a run of its own, and all are judged together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from maml_jax.errors import ConfigError, DataError, RunError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.folds import FoldsConfig
from maml_jax.experiment.folds.plan import fold_seed, plan_folds, spans_again, splitter
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.preparation.prepare import Fitted, Prepared, prepare
from maml_jax.experiment.preparation.requirements import choose_features
from maml_jax.experiment.preparation.series import PAIRS, follows_rules
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.experiment.preparation.usable import usable_bars
from maml_jax.tasks.panel import assets_timeline

Frames = Mapping[str, pd.DataFrame]


class Folds(NamedTuple):
    """The folds of a run.

    Attributes:
        config: settings of the run, with what was left open filled in.
        parts: each fold, prepared like a run of its own, in the order of time.
        numbers: which of the run's folds each part is.
        joined: settings and bars over the test spans of all parts together, to judge what they
            predict; nothing is fitted on it.
        notes: what a reader must know.
        paths: the number of the fold that tests each group on each path; None where each bar is
            tested once.
    """

    config: Config
    parts: list[Prepared]
    numbers: list[int]
    joined: Prepared
    notes: tuple[str, ...]
    paths: Int[np.ndarray, "path group"] | None = None


def prepare_folds(config: Config, bars: Frames) -> Folds:
    """Prepare every fold that the settings ask for, checked as far as that goes before training.

    Args:
        config: the settings.
        bars: in normal form.

    Raises:
        ConfigError: naming the key of a setting that these bars make impossible.
        DataError: naming the asset whose bars will not do, and the fold.
    """
    if not config.folds.several():
        prepared = prepare(config, bars)
        return Folds(prepared.config, [prepared], [0], prepared, prepared.notes)
    usable = usable_bars(config, bars, trained=False)
    settings, spans = plan_folds(config, assets_timeline(usable.bars))
    config = config.model_copy(update={"folds": settings})
    if not settings.reduce_test and not spans[0].tested:
        config = _with_data(config, test_end=spans[-1].test_last.isoformat())
    if config.features.names is None and not _trades_pairs(config):
        # Of all assets, so that folds before and after one joins read the same.
        names = tuple(each.name for each in choose_features(config, usable.bars))
        chosen = config.features.model_copy(update={"names": names})
        config = config.model_copy(update={"features": chosen})
    parts: list[Prepared] = []
    for number, own in enumerate(spans):
        told = f"fold {number} of {len(spans)}, {_told(own)}"
        with _naming(told):
            part = prepare(_of_fold(config, number, own), bars, None, own)
        if not parts:  # pairs are chosen before all tests, and stay: they are what is traded
            config = config.model_copy(update={"task": part.config.task})
        parts.append(part)
    _require_everywhere(config, parts)
    return _together(config, parts, list(range(len(parts))), bars)


def prepare_again(config: Config, bars: Frames, folds: Sequence[Mapping[str, Checkpoint]]) -> Folds:
    """Prepare folds that were trained before, to walk forward on bars that may be others.

    Args:
        config: settings of the run, with what its backtest may set anew.
        bars: in normal form.
        folds: checkpoints of each fold, by method.

    Raises:
        ConfigError: as `prepare_folds`, and where no fold tests any of the bars.
        DataError: where no fold has room.
        RunError: if combinatorial folds were not all trained.
    """
    checkpoints = [next(iter(fold.values())) for fold in folds]
    spans = [each.spans for each in checkpoints if each.spans is not None]
    if len(spans) < len(folds):
        raise RunError("the checkpoints of folds do not say which spans they belong to")
    if spans[0].tested and len(folds) < len(splitter(config.folds).choices):
        raise RunError(
            f"{len(folds)} of {len(splitter(config.folds).choices)} combinatorial folds were "
            "trained before the run was cut off, and paths need all of them; train anew"
        )
    usable = usable_bars(_as_trained(config, 0, checkpoints[0]), bars, trained=True)
    again = spans_again(config, spans, assets_timeline(usable.bars))
    parts, numbers, notes, failed = [], [], [], None
    for number, (checkpoint, own) in enumerate(zip(checkpoints, again, strict=True)):
        if own is None:
            continue
        settings = _of_fold(_as_trained(config, number, checkpoint), number, own)
        try:
            parts.append(prepare(settings, bars, checkpoint.fitted, own))
            numbers.append(number)
        except DataError as error:
            if own.tested:
                raise
            failed = failed or error
            notes.append(f"Fold {number} is not walked forward: {error}.")
    if not parts:
        raise failed or DataError("no fold has room for a walk-forward")
    found = _together(config, parts, numbers, bars)
    return found._replace(notes=(*found.notes, *notes))


def _of_fold(config: Config, number: int, spans: Spans) -> Config:
    """Return the settings of one fold, those of a run of its own."""
    dates = dict.fromkeys(("train_start", "train_end", "test_start", "test_end"))
    if not spans.tested:
        moments = (spans.train_first, spans.train_last, spans.test_first, spans.test_last)
        dates = {name: each.isoformat() for name, each in zip(dates, moments, strict=True)}
    seed = fold_seed(config.seed, number)
    return _with_data(config, **dates).model_copy(update={"seed": seed, "folds": FoldsConfig()})


def _as_trained(config: Config, number: int, checkpoint: Checkpoint) -> Config:
    """Return settings with what a fold was trained with."""
    own = checkpoint.config
    config = _with_data(config, train_assets=own.data.train_assets)
    return config.model_copy(update={"features": own.features, "task": own.task})


def _together(config: Config, parts: list[Prepared], numbers: list[int], bars: Frames) -> Folds:
    """Join the test spans of folds."""
    first, last = parts[0], parts[-1]
    spans = first.spans._replace(
        test_first=min(part.spans.test_first for part in parts),
        test_last=max(part.spans.test_last for part in parts),
        trained=(),
        tested=(),
    )
    test_assets = _every(config, "test_assets", parts, bars)
    known = _with_data(
        last.config,
        test_assets=test_assets,
        test_start=spans.test_first.isoformat(),
        test_end=spans.test_last.isoformat(),
        train_start=None,
        train_end=None,
    )
    known = known.model_copy(update={"seed": config.seed})
    joined = prepare(known, bars, Fitted(last.scaler, last.chain), spans)
    config = _with_data(
        config,
        train_assets=_every(config, "train_assets", parts, bars) or config.data.train_assets,
        test_assets=tuple(known.data.test_assets or ()),
    )
    filled = {name: getattr(last.config, name) for name in _FILLED}
    config = config.model_copy(update=filled)
    notes = merged_notes([part.notes for part in parts], numbers)
    paths = splitter(config.folds).paths() if first.spans.tested else None
    return Folds(config, parts, numbers, joined._replace(config=config), notes, paths)


_FILLED = ("features", "backtest", "regimes", "task")
"""Sections in which `prepare` fills in what was left open."""


def _every(config: Config, key: str, parts: Sequence[Prepared], bars: Frames) -> tuple[str, ...]:
    """List the assets of all folds, in the order that the settings or the bars name them."""
    found = {name for part in parts for name in getattr(part.config.data, key) or ()}
    order = getattr(config.data, key) or tuple(bars)
    return tuple(name for name in dict.fromkeys(order) if name in found)


def _require_everywhere(config: Config, parts: Sequence[Prepared]) -> None:
    """Refuse assets that the settings name and no fold has room for."""
    for key, told in (("train_assets", "meta-training"), ("test_assets", "walk-forward")):
        named = getattr(config.data, key) or ()
        used = {name for part in parts for name in getattr(part.config.data, key) or ()}
        missing = [name for name in named if name not in used]
        if missing:
            reasons = [n for n in parts[-1].notes if n.startswith(f"Left out of {told}")]
            raise DataError(
                f"{missing[0]}: has too few bars for {told} in every fold. "
                f"{reasons[-1] if reasons else ''}".strip()
            )


def merged_notes(
    notes: Sequence[Sequence[str]], numbers: Sequence[int], of: str = "Fold"
) -> tuple[str, ...]:
    """List what is told of several folds: once what is told of all, else with the fold's number."""
    common = [note for note in notes[0] if all(note in each for each in notes)]
    own = [
        f"{of} {number}: {note}"
        for number, each in zip(numbers, notes, strict=True)
        for note in each
        if note not in common
    ]
    return (*dict.fromkeys(common), *dict.fromkeys(own))


def _with_data(config: Config, **changes) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def _trades_pairs(config: Config) -> bool:
    return follows_rules(config) and PAIRS in config.task.strategies


def _told(spans: Spans) -> str:
    trained = " and ".join(f"{first} to {last}" for first, last in spans.training())
    return f"trained on {trained}, tested on bars from {spans.test_first} to {spans.test_last}"


@contextmanager
def _naming(told: str) -> Iterator[None]:
    """Say in errors which fold they are of."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{told}: {error}") from error
