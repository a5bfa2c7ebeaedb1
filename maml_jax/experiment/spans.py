"""The spans of meta-training and test among the bars."""

from typing import NamedTuple

import pandas as pd

from maml_jax.data import parse_moment
from maml_jax.errors import ConfigError
from maml_jax.experiment.config import DataConfig

TRAIN_SHARE = 0.6
"""Share of the bars that is for meta-training where the settings name no date."""


class Spans(NamedTuple):
    """First and last bar of the meta-training and of the test span."""

    train_first: pd.Timestamp
    train_last: pd.Timestamp
    test_first: pd.Timestamp
    test_last: pd.Timestamp


def find_spans(data: DataConfig, timeline: pd.DatetimeIndex, trained: bool) -> Spans:
    """Find the spans that the settings name among the bars, and refuse those that cannot be.

    What was trained before may be tested on bars that begin after the meta-training span.
    """

    def first_from(key: str, text: str) -> int:
        place = int(timeline.searchsorted(parse_moment(text, timezone=data.timezone, end=False)))
        if place == len(timeline):
            raise ConfigError(f"key {key!r}: {text} is after the last bar, {timeline[-1]}")
        return place

    def last_to(key: str, text: str) -> int:
        moment = parse_moment(text, timezone=data.timezone, end=True)
        place = int(timeline.searchsorted(moment, side="right")) - 1
        if place < 0 and not (trained and key == "data.train_end"):
            raise ConfigError(f"key {key!r}: {text} is before the first bar, {timeline[0]}")
        return place

    train_first, test_last = 0, len(timeline) - 1
    if data.train_start:
        if trained:
            moment = parse_moment(data.train_start, timezone=data.timezone, end=False)
            train_first = min(int(timeline.searchsorted(moment)), test_last)
        else:
            train_first = first_from("data.train_start", data.train_start)
    if data.test_end:
        test_last = last_to("data.test_end", data.test_end)
    if data.train_end:
        train_last = last_to("data.train_end", data.train_end)
    elif data.test_start:
        train_last = first_from("data.test_start", data.test_start) - 1
    else:
        train_last = int(TRAIN_SHARE * len(timeline)) - 1
    test_first = train_last + 1
    if data.test_start:
        test_first = first_from("data.test_start", data.test_start)
    if test_first <= train_last:
        raise ConfigError(
            "keys 'data.train_end' and 'data.test_start': the meta-training span ends at "
            f"{timeline[train_last]} and overlaps the test span, which begins at "
            f"{timeline[test_first]}; a test on bars that were trained on shows nothing"
        )
    if train_first > train_last and not trained:
        raise ConfigError(
            f"keys 'data.train_start' and 'data.train_end': the meta-training span holds none of "
            f"the {len(timeline)} bars, which run from {timeline[0]} to {timeline[-1]}"
        )
    if test_first > test_last:
        raise ConfigError(
            f"keys 'data.test_start' and 'data.test_end': the test span holds no bar; bars run "
            f"from {timeline[0]} to {timeline[-1]}, and the meta-training span ends at "
            f"{data.train_end or timeline[train_last]}"
        )
    before = timeline[0] - pd.Timedelta(microseconds=1)
    return Spans(
        timeline[train_first],
        timeline[train_last] if train_last >= 0 else before,
        timeline[test_first],
        timeline[test_last],
    )
