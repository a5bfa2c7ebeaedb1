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
from maml_jax.experiment.folds.plan import find_spans_again, fold_seed, make_splitter, plan_folds
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.preparation.bars import Market, prepare_market, roles_of
from maml_jax.experiment.preparation.prepare import Fitted, Prepared, fit_fold, prepare
from maml_jax.experiment.preparation.requirements import (
    TESTING,
    TRAINING,
    choose_features,
    left_out,
)
from maml_jax.experiment.preparation.series import PAIRS, follows_rules
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.notes import Note
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
    notes: tuple[Note, ...]
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
    market = prepare_market(config, bars)
    roles = roles_of(config, market.given, trained=False)
    used = market.of(roles.train, roles.test)
    settings, spans = plan_folds(config, assets_timeline(used))
    config = config.changed(folds=settings)
    if not settings.reduce_test and not spans[0].tested:
        config = config.changed(data={"test_end": spans[-1].test_last.isoformat()})
    if config.features.names is None and not _trades_pairs(config):
        # Of all assets, so that folds before and after one joins read the same.
        names = tuple(each.name for each in choose_features(config, used))
        config = config.changed(features={"names": names})
    parts: list[Prepared] = []
    for number, own in enumerate(spans):
        with _name_fold(f"fold {number} of {len(spans)}, {_describe(own)}"):
            part = fit_fold(market, _of_fold(config, number, own), None, own)
        if not parts:  # pairs are chosen before all tests, and stay: they are what is traded
            config = config.changed(task=part.config.task)
        parts.append(part)
    _require_everywhere(config, parts)
    return _join(config, parts, list(range(len(parts))), market)


def prepare_again(config: Config, bars: Frames, folds: Sequence[Mapping[str, Checkpoint]]) -> Folds:
    """Prepare folds that were trained before, to walk forward on bars that may be others.

    Args:
        config: settings of the run, with what its backtest may override.
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
    if spans[0].tested and len(folds) < len(make_splitter(config.folds).choices):
        raise RunError(
            f"{len(folds)} of {len(make_splitter(config.folds).choices)} combinatorial folds were "
            "trained before the run was cut off, and paths need all of them; retrain"
        )
    settings = [_as_trained(config, each) for each in checkpoints]
    market = prepare_market(settings, bars, trained=True)
    first = roles_of(settings[0], market.given, trained=True)
    again = find_spans_again(config, spans, assets_timeline(market.of(first.test, first.context)))
    parts, numbers, notes, failed = [], [], [], None
    for number, (checkpoint, own) in enumerate(zip(checkpoints, again, strict=True)):
        if own is None:
            continue
        try:
            fold = _of_fold(settings[number], number, own)
            parts.append(fit_fold(market, fold, checkpoint.fitted, own))
            numbers.append(number)
        except DataError as error:
            if own.tested:
                raise
            failed = failed or error
            notes.append(Note("fold", f"Fold {number} skipped: {error}."))
    if not parts:
        raise failed or DataError("no fold has room for a walk-forward")
    found = _join(config, parts, numbers, market)
    return found._replace(notes=(*found.notes, *notes))


def _of_fold(config: Config, number: int, spans: Spans) -> Config:
    """Return the settings of one fold, those of a run of its own."""
    dates = dict.fromkeys(("train_start", "train_end", "test_start", "test_end"))
    if not spans.tested:
        moments = (spans.train_first, spans.train_last, spans.test_first, spans.test_last)
        dates = {name: each.isoformat() for name, each in zip(dates, moments, strict=True)}
    return config.changed(data=dates, seed=fold_seed(config.seed, number), folds=FoldsConfig())


def _as_trained(config: Config, checkpoint: Checkpoint) -> Config:
    """Return settings with what a fold was trained with."""
    own = checkpoint.config
    return config.changed(
        data={"train_assets": own.data.train_assets}, features=own.features, task=own.task
    )


def _join(config: Config, parts: list[Prepared], numbers: list[int], market: Market) -> Folds:
    """Join the test spans of folds."""
    first, last = parts[0], parts[-1]
    spans = first.spans._replace(
        test_first=min(part.spans.test_first for part in parts),
        test_last=max(part.spans.test_last for part in parts),
        trained=(),
        tested=(),
    )
    test_assets = _every(config, "test_assets", parts, market)
    known = last.config.changed(
        data={
            "test_assets": test_assets,
            "test_start": spans.test_first.isoformat(),
            "test_end": spans.test_last.isoformat(),
            "train_start": None,
            "train_end": None,
        },
        seed=config.seed,
    )
    joined = fit_fold(market, known, Fitted(last.scaler, last.chain), spans)
    trained_on = _every(config, "train_assets", parts, market)
    config = config.changed(
        data={
            "train_assets": trained_on or config.data.train_assets,
            "test_assets": test_assets,
        },
        **{name: getattr(last.config, name) for name in _FILLED},
    )
    notes = merge_notes([part.notes for part in parts], numbers)
    paths = make_splitter(config.folds).paths() if first.spans.tested else None
    return Folds(config, parts, numbers, joined._replace(config=config), notes, paths)


_FILLED = ("features", "backtest", "regimes", "task")
"""Sections in which `prepare` fills in what was left open."""


def _every(config: Config, key: str, parts: Sequence[Prepared], market: Market) -> tuple[str, ...]:
    """List the assets of all folds, in the order that the settings or the bars name them."""
    found = {name for part in parts for name in getattr(part.config.data, key) or ()}
    order = getattr(config.data, key) or tuple(market.given)
    return tuple(name for name in dict.fromkeys(order) if name in found)


def _require_everywhere(config: Config, parts: Sequence[Prepared]) -> None:
    """Refuse assets that the settings name and no fold has room for."""
    for key, role in (("train_assets", TRAINING), ("test_assets", TESTING)):
        named = getattr(config.data, key) or ()
        used = {name for part in parts for name in getattr(part.config.data, key) or ()}
        missing = [name for name in named if name not in used]
        if missing:
            reasons = [each.text for each in parts[-1].notes if each.kind == left_out(role)]
            raise DataError(
                f"{missing[0]}: has too few bars for {role} in every fold. "
                f"{reasons[-1] if reasons else ''}".strip()
            )


def merge_notes(
    notes: Sequence[Sequence[Note]], numbers: Sequence[int], of: str = "Fold"
) -> tuple[Note, ...]:
    """List the notes of several folds: once those of all folds, the others with their fold."""
    common = [note for note in notes[0] if all(note in each for each in notes)]
    own = [
        note._replace(text=f"{of} {number}: {note.text}")
        for number, each in zip(numbers, notes, strict=True)
        for note in each
        if note not in common
    ]
    return (*dict.fromkeys(common), *dict.fromkeys(own))


def _trades_pairs(config: Config) -> bool:
    return follows_rules(config) and PAIRS in config.task.strategies


def _describe(spans: Spans) -> str:
    trained = " and ".join(f"{first} to {last}" for first, last in spans.training())
    return f"trained on {trained}, tested on bars from {spans.test_first} to {spans.test_last}"


@contextmanager
def _name_fold(fold: str) -> Iterator[None]:
    """Say in errors which fold they are of."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(f"{fold}: {error}") from error
