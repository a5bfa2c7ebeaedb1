"""Which bars are trained on and which are tested: as skfolio parts them, and what must always hold.

The golden places are those of skfolio 1.12.2, `WalkForward` and `CombinatorialPurgedCV`.
"""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from maml_jax.backtest.walk_forward.folds import CombinatorialFolds, WalkForwardFolds


def ends(folds):
    """First place and place past the end of what each fold trains on and tests."""
    return [(int(a[0]), int(a[-1]) + 1, int(b[0]), int(b[-1]) + 1) for a, b in folds]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"purge": 2}, [(0, 6, 8, 11), (3, 9, 11, 14), (6, 12, 14, 16)]),
        ({"purge": 1, "embargo": 1}, [(0, 6, 8, 11), (3, 9, 11, 14), (6, 12, 14, 16)]),
        ({"purge": 2, "reduce_test": False}, [(0, 6, 8, 11), (3, 9, 11, 14)]),
        (
            {"train_size": 5, "test_size": 4, "expand_train": True},
            [(0, 5, 5, 9), (0, 9, 9, 13), (0, 13, 13, 16)],
        ),
        (
            {
                "train_size": 5,
                "test_size": 4,
                "purge": 1,
                "expand_train": True,
                "reduce_test": False,
            },
            [(0, 5, 6, 10), (0, 9, 10, 14)],
        ),
    ],
)
def test_walk_forward_parts_bars_as_skfolio_does(settings, expected):
    folds = WalkForwardFolds(**{"train_size": 6, "test_size": 3, **settings})
    assert ends(folds.split(16)) == expected


def runs(places):
    """Write places as runs: first place and place past the end of each."""
    cuts = np.flatnonzero(np.diff(places) > 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(places, cuts)]


def test_combinatorial_folds_part_bars_as_skfolio_does():
    folds = CombinatorialFolds(groups=5, test_groups=2, purge=1, embargo=1)
    trained, tested = zip(*folds.split(23), strict=True)
    assert [runs(each) for each in trained] == [
        [(10, 23)],
        [(6, 7), (14, 23)],
        [(6, 11), (18, 23)],
        [(6, 15)],
        [(0, 3), (14, 23)],
        [(0, 3), (10, 11), (18, 23)],
        [(0, 3), (10, 15)],
        [(0, 7), (18, 23)],
        [(0, 7), (14, 15)],
        [(0, 11)],
    ]
    groups = [(0, 4), (4, 8), (8, 12), (12, 16), (16, 23)]
    assert [[runs(group)[0] for group in test] for test in tested] == [
        [groups[number] for number in choice] for choice in folds.choices
    ]
    assert folds.paths().tolist() == [
        [0, 0, 1, 2, 3],
        [1, 4, 4, 5, 6],
        [2, 5, 7, 7, 8],
        [3, 6, 8, 9, 9],
    ]
    assert folds.count_paths == 4


@given(
    count=st.integers(1, 120),
    train_size=st.integers(1, 40),
    test_size=st.integers(1, 20),
    purge=st.integers(0, 5),
    embargo=st.integers(0, 5),
    expand=st.booleans(),
)
def test_walk_forward_tests_every_bar_once_and_keeps_its_distance(
    count, train_size, test_size, purge, embargo, expand
):
    folds = WalkForwardFolds(train_size, test_size, purge, embargo, expand)
    begin = train_size + purge + embargo
    if begin >= count:
        with pytest.raises(ValueError, match=f"there are {count} bars"):
            list(folds.split(count))
        return
    found = list(folds.split(count))
    np.testing.assert_array_equal(
        np.concatenate([test for _, test in found]), np.arange(begin, count)
    )
    for train, test in found:
        assert test[0] - train[-1] == purge + embargo + 1
        np.testing.assert_array_equal(train, np.arange(train[0], train[-1] + 1))
        assert train[0] == 0 if expand else len(train) == train_size
        assert len(test) <= test_size
    assert all(len(test) == test_size for _, test in found[:-1])


@given(
    count=st.integers(20, 120),
    groups=st.integers(3, 6),
    test_groups=st.integers(1, 5),
    purge=st.integers(0, 2),
    embargo=st.integers(0, 2),
)
def test_every_path_tests_every_bar_once_on_what_lies_clear_of_it(
    count, groups, test_groups, purge, embargo
):
    if test_groups >= groups or count // groups <= purge + embargo:
        return
    folds = CombinatorialFolds(groups, test_groups, purge, embargo)
    found = list(folds.split(count))
    paths = folds.paths()
    assert paths.shape == (folds.count_paths, groups)
    used = np.zeros((len(found), groups), int)
    for path in paths:
        tested = []
        for group, number in enumerate(path):
            place = folds.choices[number].index(group)
            tested.append(found[number][1][place])
            used[number, group] += 1
        np.testing.assert_array_equal(np.concatenate(tested), np.arange(count))
    # Each group of each split is on one path.
    chosen = np.zeros_like(used)
    for number, choice in enumerate(folds.choices):
        chosen[number, list(choice)] = 1
    np.testing.assert_array_equal(used, chosen)
    for train, tests in found:
        test = np.concatenate(tests)
        barred = {
            bar + shift for bar in test for shift in range(-purge, purge + embargo + 1)
        } & set(range(count))
        assert set(train.tolist()) == set(range(count)) - barred


def test_sizes_may_be_times():
    days = pd.date_range("2020-01-01", periods=900, tz="UTC")
    assert ends(WalkForwardFolds("365D", "180D", purge=5).split(days)) == ends(
        WalkForwardFolds(365, 180, purge=5).split(900)
    )
    hours = pd.date_range("2020-01-06", periods=14 * 24, freq="h", tz="UTC")
    open_ = hours[hours.day_of_week < 5]
    found = list(WalkForwardFolds("3D", "1D").split(open_))
    # Saturday and Sunday have no bar, hence make no fold; no bar is tested twice or passed over.
    assert [len(test) for _, test in found] == [24] * 7
    assert [len(train) for train, _ in found] == [72, 72, 24, 24, 48, 72, 72]
    np.testing.assert_array_equal(
        np.concatenate([test for _, test in found]), np.arange(72, len(open_))
    )
    with pytest.raises(ValueError, match=r"no bar lies within train_size 2D before bar 120 \(2020"):
        list(WalkForwardFolds("2D", "1D").split(open_))


def test_the_first_bar_tested_may_be_named():
    assert ends(WalkForwardFolds(5, 4, purge=1, first_test=8).split(16)) == [
        (2, 7, 8, 12),
        (6, 11, 12, 16),
    ]
    anchored = WalkForwardFolds(5, 4, purge=1, expand_train=True, first_test=8)
    assert ends(anchored.split(16)) == [(0, 7, 8, 12), (0, 11, 12, 16)]
    with pytest.raises(ValueError, match=r"first bar tested, 5, has less .* ends with bar 6"):
        list(WalkForwardFolds(5, 4, purge=1, first_test=5).split(16))


def test_growing_history_changes_no_earlier_fold():
    folds = WalkForwardFolds(20, 7, purge=1)
    shorter, longer = list(folds.split(50)), list(folds.split(64))
    for (a, b), (c, d) in zip(shorter, longer, strict=False):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d[: len(b)])


def test_bad_numbers_are_refused():
    sizes: list[Any] = [0, -3, True, 2.5, "-1D"]
    for size in sizes:
        with pytest.raises(ValueError, match="train_size must be a positive number"):
            list(WalkForwardFolds(size, 5).split(50))
    with pytest.raises(ValueError, match="purge must not be negative, got -1"):
        list(WalkForwardFolds(5, 5, purge=-1).split(50))
    with pytest.raises(ValueError, match="need the times of the bars"):
        list(WalkForwardFolds("5D", 5).split(50))
    with pytest.raises(
        ValueError, match=r"train_size 40 \+ purge 5 \+ embargo 5 \+ at least one bar"
    ):
        list(WalkForwardFolds(40, 10, purge=5, embargo=5).split(50))
    with pytest.raises(ValueError, match="got 4 and 4"):
        list(CombinatorialFolds(4, 4).split(50))
    with pytest.raises(ValueError, match=r"10 bars in 5 groups has 2 bars, and purge 1"):
        list(CombinatorialFolds(5, 2, purge=1, embargo=1).split(10))
