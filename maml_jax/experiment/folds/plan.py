"""Where the folds of a run begin and end among its bars."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from maml_jax.backtest.walk_forward.folds import CombinatorialFolds, WalkForwardFolds
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.folds import FoldsConfig
from maml_jax.experiment.preparation.requirements import target_of
from maml_jax.experiment.preparation.spans import (
    TRAIN_SHARE,
    Spans,
    Stretch,
    first_bar_from,
    last_bar_to,
)

_TESTS = 4
"""Test spans that the bars after the first meta-training span are split into."""


def plan_folds(config: Config, timeline: pd.DatetimeIndex) -> tuple[FoldsConfig, list[Spans]]:
    """Lay the folds that the settings ask for over the bars.

    Args:
        config: the settings; bars before `data.train_start` and after `data.test_end` are in no
            fold.
        timeline: opening times of the bars.

    Returns:
        The settings of folds with what was left open filled in, and the spans of each fold.

    Raises:
        ConfigError: if the bars are too few for one fold, or a date lies outside of them.
    """
    data, settings = config.data, config.folds
    first, last = 0, len(timeline) - 1
    if data.train_start:
        first = first_bar_from(data, timeline, "data.train_start", data.train_start)
    if data.test_end:
        last = last_bar_to(data, timeline, "data.test_end", data.test_end)
    times = timeline[first : last + 1]
    try:
        if settings.kind == "combinatorial":
            delay = target_of(config).label_delay
            settings = settings.changed(purge=max(settings.purge, delay))
            return settings, _combinatorial(settings, times)
        tested = None
        if data.test_start:
            tested = first_bar_from(data, times, "data.test_start", data.test_start)
        settings = _fill_sizes(settings, times, tested)
        return settings, _walk_forward(settings, times, tested)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"section 'folds': {error}") from None


def make_splitter(settings: FoldsConfig) -> CombinatorialFolds:
    """Return how combinatorial folds split the bars."""
    return CombinatorialFolds(
        settings.groups, settings.test_groups, settings.purge, settings.embargo
    )


def fold_seed(seed: int, number: int) -> int:
    """Return the seed of a fold; the first fold's is that of the run.

    >>> fold_seed(3, 0), fold_seed(3, 1) != fold_seed(4, 1)
    (3, True)
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) if number else seed


def _fill_sizes(settings: FoldsConfig, times: pd.DatetimeIndex, tested: int | None) -> FoldsConfig:
    """Fill in the sizes that were left open, as numbers of bars."""
    gap, size = settings.purge + settings.embargo, settings.train_size
    if size is None:
        size = (int(TRAIN_SHARE * len(times)) if tested is None else tested) - gap
        if size < 1:
            raise ValueError(
                f"{size + gap} bars come before the first one tested, and purge "
                f"{settings.purge} + embargo {settings.embargo} leave none of them to train on"
            )
    test_size = settings.test_size
    if test_size is None:
        begin = tested
        if begin is None and isinstance(size, str):
            begin = int(times.searchsorted(times[0] + pd.Timedelta(size))) + gap
        elif begin is None:
            begin = int(size) + gap
        test_size = max(1, -(-(len(times) - begin) // _TESTS))
    return settings.changed(train_size=size, test_size=test_size)


def _walk_forward(
    settings: FoldsConfig, times: pd.DatetimeIndex, tested: int | None
) -> list[Spans]:
    assert settings.train_size is not None and settings.test_size is not None
    folds = WalkForwardFolds(
        settings.train_size,
        settings.test_size,
        settings.purge,
        settings.embargo,
        expand_train=settings.kind == "anchored",
        reduce_test=settings.reduce_test,
        first_test=tested,
    )
    return [
        Spans(times[train[0]], times[train[-1]], times[test[0]], times[test[-1]])
        for train, test in folds.split(times)
    ]


def _combinatorial(settings: FoldsConfig, times: pd.DatetimeIndex) -> list[Spans]:
    found = []
    for train, groups in make_splitter(settings).split(times):
        if not len(train):
            raise ValueError(
                f"{len(times)} bars in {settings.groups} groups, of which {settings.test_groups} "
                f"are tested, leave none to train on with purge {settings.purge} and embargo "
                f"{settings.embargo}"
            )
        cuts = np.flatnonzero(np.diff(train) > 1) + 1
        trained = _stretches(times, np.split(train, cuts))
        tested = _stretches(times, groups)
        found.append(
            Spans(trained[0][0], trained[-1][1], tested[0][0], tested[-1][1], trained, tested)
        )
    return found


def _stretches(times: pd.DatetimeIndex, places: Sequence[np.ndarray]) -> tuple[Stretch, ...]:
    return tuple((times[part[0]], times[part[-1]]) for part in places)


def find_spans_again(
    config: Config, spans: Sequence[Spans], timeline: pd.DatetimeIndex
) -> list[Spans | None]:
    """Find the test spans of folds that were trained before, among bars that may be others.

    What a fold learned is in force until the next one's test span begins, and what the last one
    learned until the end. Spans of combinatorial folds are what they were.

    Args:
        config: the settings, of which `data.test_start` and `data.test_end` bound what is tested.
        spans: of each fold when it was trained.
        timeline: opening times of the bars.

    Returns:
        The spans of each fold; None where it tests none of these bars.

    Raises:
        ConfigError: if no fold tests any of them, or the test would begin in the first fold's
            meta-training span.
    """
    data = config.data
    if spans[0].tested:
        return list(spans)
    start, stop = 0, len(timeline) - 1
    if data.test_start:
        start = first_bar_from(data, timeline, "data.test_start", data.test_start)
        if timeline[start] <= spans[0].train_last:
            raise ConfigError(
                "key 'data.test_start': the first fold's meta-training span ends at "
                f"{spans[0].train_last} and overlaps the test span, which begins at "
                f"{timeline[start]}; a test on bars that were trained on shows nothing"
            )
    if data.test_end:
        stop = last_bar_to(data, timeline, "data.test_end", data.test_end)
    begins = [int(timeline.searchsorted(each.test_first)) for each in spans]
    begins[0] = start if data.test_start and begins[0] > start else begins[0]
    edges = [*begins, stop + 1]
    found: list[Spans | None] = []
    for own, begin, end in zip(spans, edges, edges[1:], strict=False):
        begin, end = max(begin, start), min(end, stop + 1)
        bars = timeline[begin:end] if begin < end else timeline[:0]
        test = (bars[0], bars[-1]) if len(bars) else None
        found.append(own._replace(test_first=test[0], test_last=test[1]) if test else None)
    if not any(found):
        raise ConfigError(
            f"keys 'data.test_start' and 'data.test_end': no bar is in the test span of a fold; "
            f"folds are tested from {spans[0].test_first} on, and bars run from {timeline[0]} to "
            f"{timeline[-1]}"
        )
    return found
