"""The spans of meta-training and test among the bars."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool

from maml_jax.data import parse_moment
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import DataConfig

TRAIN_SHARE = 0.6
"""Share of the bars that is for meta-training where the settings name no date."""


Stretch = tuple[pd.Timestamp, pd.Timestamp]
"""First and last bar of neighbouring bars."""


class Spans(NamedTuple):
    """The spans of meta-training and of test.

    Attributes:
        train_first: first bar of the meta-training span.
        train_last: its last bar.
        test_first: first bar of the test span.
        test_last: its last bar.
        trained: the stretches that the meta-training span is made of, where it has holes, as that
            of a combinatorial fold does.
        tested: the stretches that are tested, where they are several.
    """

    train_first: pd.Timestamp
    train_last: pd.Timestamp
    test_first: pd.Timestamp
    test_last: pd.Timestamp
    trained: tuple[Stretch, ...] = ()
    tested: tuple[Stretch, ...] = ()

    def training(self) -> tuple[Stretch, ...]:
        """Return the stretches of the meta-training span: one, where it has no holes."""
        return self.trained or ((self.train_first, self.train_last),)

    def testing(self) -> tuple[Stretch, ...]:
        """Return the stretches of the test span: one, where they are not several."""
        return self.tested or ((self.test_first, self.test_last),)

    def train_bars(self, times: pd.DatetimeIndex) -> Bool[np.ndarray, " time"]:
        """Say which bars may be trained on."""
        return _inside(times, self.training())

    def test_bars(self, times: pd.DatetimeIndex) -> Bool[np.ndarray, " time"]:
        """Say which bars are tested."""
        return _inside(times, self.testing())

    def of_training(self, table: pd.DataFrame) -> pd.DataFrame:
        """Cut a table to the bars of the meta-training span."""
        parts = [table.loc[first:last] for first, last in self.training()]
        return parts[0] if len(parts) == 1 else pd.concat(parts)

    def to_dict(self) -> dict:
        """Return the spans as texts."""
        record: dict = {name: getattr(self, name).isoformat() for name in _MOMENTS}
        for name in ("trained", "tested"):
            record[name] = [[a.isoformat(), b.isoformat()] for a, b in getattr(self, name)]
        return record

    @classmethod
    def from_dict(cls, record: dict) -> "Spans":
        """Return the spans that `to_dict` wrote."""

        def stretches(name: str) -> tuple[Stretch, ...]:
            return tuple((pd.Timestamp(a), pd.Timestamp(b)) for a, b in record[name])

        moments = {name: pd.Timestamp(record[name]) for name in _MOMENTS}
        return cls(**moments, trained=stretches("trained"), tested=stretches("tested"))


def _inside(times: pd.DatetimeIndex, stretches: tuple[Stretch, ...]) -> Bool[np.ndarray, " time"]:
    inside = np.zeros(len(times), bool)
    for first, last in stretches:
        inside[times.searchsorted(first) : times.searchsorted(last, side="right")] = True
    return inside


_MOMENTS = ("train_first", "train_last", "test_first", "test_last")


def find_spans(data: DataConfig, timeline: pd.DatetimeIndex, trained: bool) -> Spans:
    """Find the spans that the settings name among the bars, and refuse those that cannot be.

    What was trained before may be tested on bars that begin after the meta-training span.
    """

    def first_from(key: str, text: str) -> int:
        return first_bar_from(data, timeline, key, text)

    def last_to(key: str, text: str) -> int:
        return last_bar_to(data, timeline, key, text, early=trained and key == "data.train_end")

    train_first, test_last = 0, len(timeline) - 1
    if data.train_start:
        if trained:
            moment = parse_moment(data.train_start, timezone=data.timezone or "UTC", end=False)
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


def first_bar_from(data: DataConfig, timeline: pd.DatetimeIndex, key: str, text: str) -> int:
    """Return the index of the first bar from a moment on.

    Raises:
        ConfigError: naming the key, if there is none.
    """
    index = int(
        timeline.searchsorted(parse_moment(text, timezone=data.timezone or "UTC", end=False))
    )
    if index == len(timeline):
        raise ConfigError(f"key {key!r}: {text} is after the last bar, {timeline[-1]}")
    return index


def last_bar_to(
    data: DataConfig, timeline: pd.DatetimeIndex, key: str, text: str, early: bool = False
) -> int:
    """Return the index of the last bar up to a moment; -1 if there is none, where `early` may be.

    Raises:
        ConfigError: naming the key, if there is none.
    """
    moment = parse_moment(text, timezone=data.timezone or "UTC", end=True)
    index = int(timeline.searchsorted(moment, side="right")) - 1
    if index < 0 and not early:
        raise ConfigError(f"key {key!r}: {text} is before the first bar, {timeline[0]}")
    return index
