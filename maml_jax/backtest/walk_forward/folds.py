"""Folds: which bars are meta-trained on and which are tested, by their indices on the time axis."""

from collections.abc import Iterator
from itertools import combinations
from math import comb
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Int

Size: TypeAlias = int | str | pd.Timedelta
"""So many bars, or all bars within a time such as "365D"."""

Bars: TypeAlias = int | pd.DatetimeIndex
"""How many bars there are, or when each one opens."""

Indices: TypeAlias = Int[np.ndarray, " bar"]


class WalkForwardFolds(NamedTuple):
    r"""Meta-train on a span, test on the next, and again from there on.

    With `train_size=6`, `test_size=3`, `purge=1`, `embargo=1` and 16 bars; T is trained on, t is
    tested, x is left out:

        bar      0 1 2 3 4 5 6 7 8 9 . . . . . .
        fold 0   T T T T T T x x t t t
        fold 1         T T T T T T x x t t t
        fold 2               T T T T T T x x t t

    With `expand_train` each span of training begins at bar 0. Exactly `purge + embargo` bars lie
    between the last bar trained on and the first one tested, on no other side: what is trained on
    always comes before. So there is but one gap; `purge` is for labels that reach into the
    test span (which are harmless where training takes only labels that are complete within its
    span, as meta-training does), `embargo` for what else wears off with time.

    The test spans follow each other without gap or overlap. The last one is shorter where the bars
    end (`reduce_test`), or is left out.

    Times instead of numbers, as in `test_size="30D"`, take all bars that open within them: test
    spans begin at multiples of the time, and a span without a bar makes no fold.

    Attributes:
        train_size: bars, or time, of a span of training; of the first one with `expand_train`.
        test_size: bars, or time, of a test span.
        purge: bars left out before each test span.
        embargo: further ones.
        expand_train: train on all earlier bars, not on the last `train_size`.
        reduce_test: whether what is left at the end makes a shorter last test span.
        first_test: index of the first bar tested; default: as soon as `train_size` and what is left
            out lie before it.

    Reference:
        Pardo (2008), The Evaluation and Optimization of Trading Strategies, ch. 11.

    >>> folds = WalkForwardFolds(train_size=3, test_size=2, purge=1)
    >>> [(train.tolist(), test.tolist()) for train, test in folds.split(8)]
    [([0, 1, 2], [4, 5]), ([2, 3, 4], [6, 7])]
    """

    train_size: Size
    test_size: Size
    purge: int = 0
    embargo: int = 0
    expand_train: bool = False
    reduce_test: bool = True
    first_test: int | None = None

    def split(self, bars: Bars) -> Iterator[tuple[Indices, Indices]]:
        """Yield the indices trained on and tested of each fold, in the order of time.

        Raises:
            ValueError: if a size is impossible, or the bars are too few for one fold.
        """
        _require_not_negative(purge=self.purge, embargo=self.embargo)
        axis = _Axis(bars)
        train_size = _size("train_size", self.train_size)
        test_size = _size("test_size", self.test_size)
        gap = self.purge + self.embargo
        begin = axis.after(0, train_size) + gap
        if self.first_test is not None:
            if self.first_test < begin:
                raise ValueError(
                    f"the first bar tested, {self.first_test}{axis.at(self.first_test)}, has less "
                    f"before it than train_size {self.train_size} + purge {self.purge} + embargo "
                    f"{self.embargo}: that ends with bar {begin}"
                )
            begin = self.first_test
        found = False
        for first, stop, whole in axis.spans(begin, test_size):
            if not (whole or self.reduce_test):
                break
            end = first - gap
            start = 0 if self.expand_train else axis.before(end, train_size)
            if first == stop:  # no bar opens within this time
                continue
            if start >= end:
                raise ValueError(
                    f"no bar lies within train_size {self.train_size} before bar {first}"
                    f"{axis.at(first)}, which is to be tested"
                )
            found = True
            yield np.arange(start, end), np.arange(first, stop)
        if not found:
            least = "at least one bar" if self.reduce_test else f"test_size {self.test_size}"
            raise ValueError(
                f"one fold needs train_size {self.train_size} + purge {self.purge} + embargo "
                f"{self.embargo} + {least} to test, and there are {axis.count} bars{axis.range}"
            )


class CombinatorialFolds(NamedTuple):
    r"""Split the bars into groups; each choice of `test_groups` of them is tested once.

    There are $\binom{N}{k}$ splits of N groups of which k are tested. Each group is tested in
    $\binom{N-1}{k-1}$ of them, and taking one of these for each group gives so many **paths**, each
    of which tests every bar once.

    This is not a walk-forward: what comes later is trained on as well. It shows how much a result
    depends on the stretch of history that it was found in.

    Around each run of neighbouring tested groups bars are left out of training. With
    `groups=5, test_groups=2, purge=1, embargo=1`, 15 bars and groups 1 and 3 tested:

        bar      0 1 2 3 4 5 6 7 8 9 . . . . .
                 T T x t t t x x x t t t x x T

    That is `purge` bars before, whose labels would reach into what is tested; and after it `purge`
    bars, which the labels of what is tested reach into, and `embargo` further ones, for what wears
    off slowly. The last group takes what is left where the bars cannot be split equally.

    Attributes:
        groups: N, at least 3.
        test_groups: k, at least 1, fewer than N.
        purge: bars left out on both sides of what is tested.
        embargo: further bars left out after it.

    Reference:
        López de Prado (2018), Advances in Financial Machine Learning, ch. 7.4 and 12.

    >>> folds = CombinatorialFolds(groups=3, test_groups=1)
    >>> [(train.tolist(), [group.tolist() for group in test]) for train, test in folds.split(6)]
    [([2, 3, 4, 5], [[0, 1]]), ([0, 1, 4, 5], [[2, 3]]), ([0, 1, 2, 3], [[4, 5]])]
    """

    groups: int = 6
    test_groups: int = 2
    purge: int = 0
    embargo: int = 0

    @property
    def choices(self) -> list[tuple[int, ...]]:
        """The groups that each split tests."""
        return list(combinations(range(self.groups), self.test_groups))

    @property
    def count_paths(self) -> int:
        """How many paths there are."""
        return comb(self.groups - 1, self.test_groups - 1)

    def paths(self) -> Int[np.ndarray, "path group"]:
        """Return the split that tests each group on each path.

        Path p takes, for every group, the p-th of the splits that test it.

        >>> CombinatorialFolds(groups=4, test_groups=2).paths().tolist()
        [[0, 0, 1, 2], [1, 3, 3, 4], [2, 4, 5, 5]]
        """
        testing = [
            [number for number, choice in enumerate(self.choices) if group in choice]
            for group in range(self.groups)
        ]
        return np.array(testing).T

    def parts(self, count: int) -> list[Indices]:
        """Return the indices of each group among `count` bars."""
        _require_not_negative(purge=self.purge, embargo=self.embargo)
        if self.groups < 3 or not 1 <= self.test_groups < self.groups:
            raise ValueError(
                f"combinatorial folds need at least 3 groups and fewer test_groups, at least 1; "
                f"got {self.groups} and {self.test_groups}"
            )
        size = count // self.groups
        if size <= self.purge + self.embargo:
            raise ValueError(
                f"a group of {count} bars in {self.groups} groups has {size} bars, and purge "
                f"{self.purge} + embargo {self.embargo} leave none of it to train on"
            )
        edges = [*(size * group for group in range(self.groups)), count]
        return [np.arange(*pair) for pair in zip(edges, edges[1:], strict=False)]

    def split(self, bars: Bars) -> Iterator[tuple[Indices, list[Indices]]]:
        """Yield the indices trained on, and those of each tested group, of each split.

        Raises:
            ValueError: if a number is impossible, or the bars are too few.
        """
        count = _Axis(bars).count
        parts = self.parts(count)
        for choice in self.choices:
            kept = np.ones(count, bool)
            for group in choice:
                first, last = parts[group][0], parts[group][-1]
                kept[max(0, first - self.purge) : last + 1 + self.purge + self.embargo] = False
            yield np.flatnonzero(kept), [parts[group] for group in choice]


class _Axis:
    """The time axis: indices, and what stands a number of bars or a time away from them."""

    def __init__(self, bars: Bars):
        self.times, self.count, self.range = None, 0, ""
        if not isinstance(bars, pd.DatetimeIndex):
            self.count = int(bars)
        elif len(bars):
            self.times, self.count = bars, len(bars)
            self.range = f" from {bars[0]} to {bars[-1]}"

    def after(self, index: int, size: int | pd.Timedelta) -> int:
        """Return the index of the first bar that is `size` or more after another."""
        return index + size if isinstance(size, int) else self._at(self._time(index) + size)

    def before(self, stop: int, size: int | pd.Timedelta) -> int:
        """Return the index of the first of the bars that make up `size` before `stop`."""
        if isinstance(size, int):
            return max(0, stop - size)
        return self._at(self._time(stop) - size)

    def spans(self, begin: int, size: int | pd.Timedelta) -> Iterator[tuple[int, int, bool]]:
        """Yield first index, index past the end, and whether the bars do not end before it."""
        if begin >= self.count:
            return
        if isinstance(size, int):
            for first in range(begin, self.count, size):
                yield first, min(first + size, self.count), first + size <= self.count
            return
        start, turn = self._time(begin), 0
        last = self._time(self.count - 1)
        while start + turn * size <= last:
            first, stop = self._at(start + turn * size), self._at(start + (turn + 1) * size)
            yield first, stop, stop < self.count
            turn += 1

    def at(self, index: int) -> str:
        """Describe the time of a bar, where it is known."""
        if self.times is None or not 0 <= index < self.count:
            return ""
        return f" ({self.times[index]})"

    def _time(self, index: int) -> pd.Timestamp:
        if self.times is None:
            raise ValueError("sizes that are times need the times of the bars, not their number")
        return self.times[index] if index < self.count else self.times[-1] + pd.Timedelta(1, "us")

    def _at(self, time: pd.Timestamp) -> int:
        assert self.times is not None
        return int(self.times.searchsorted(time))


def _size(name: str, size: Size) -> int | pd.Timedelta:
    if isinstance(size, str):
        size = pd.Timedelta(size)
    if isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0:
        return int(size)
    if isinstance(size, pd.Timedelta) and size > pd.Timedelta(0):
        return size
    raise ValueError(f"{name} must be a positive number of bars or time, got {size!r}")


def _require_not_negative(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 0:
            raise ValueError(f"{name} must not be negative, got {size}")
