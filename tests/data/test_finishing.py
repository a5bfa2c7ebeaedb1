"""Missing opens stay missing, in every step after the reader; what was done is said."""

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import (
    Store,
    as_bars,
    check_bars,
    clean_bars,
    fetch,
    frames_source,
    read_bars,
    to_bars,
    write_bars,
)
from maml_jax.errors import DataError


def without_opens(bars, rows, value):
    bars = bars.copy()
    bars.iloc[rows, 0] = value
    return bars


@pytest.mark.parametrize("value", [0.0, np.nan])
@pytest.mark.parametrize("missing", ["error", "drop"])
def test_an_open_that_is_missing_leaves_its_bar(tmp_path, value, missing):
    bars, rows = random_bars(count=60), [0, 1, 2, 40]
    given = without_opens(bars, rows, value)
    given.to_csv(tmp_path / "X.csv")
    read = read_bars(tmp_path / "X.csv", missing=missing)
    frame = read["X"]
    assert len(frame) == 60 and list(np.flatnonzero(frame["open"].isna())) == rows
    pd.testing.assert_frame_equal(
        frame.drop(columns="open"), bars.drop(columns="open"), check_freq=False
    )
    notes = clean_bars(read).notes
    assert any("no_open: X (4)" in note for note in notes)
    again = as_bars(read, missing=missing)["X"]
    pd.testing.assert_frame_equal(again, frame)
    write_bars(read, tmp_path / "back.csv")
    pd.testing.assert_frame_equal(read_bars(tmp_path / "back.csv")["X"], frame, rtol=1e-12)
    store = Store(tmp_path / "store")
    span = {"start": frame.index[0], "end": frame.index[-1]}
    fetch(frames_source("files", read), ["X"], "1d", store=store, again=True, **span)
    (key,) = store.keys()
    assert store.read(key)["open"].isna().sum() == 4
    assert not store.verify(key)


def test_a_column_of_no_opens_is_left_out_with_a_note():
    bars = without_opens(random_bars(count=60), slice(None), 0.0)
    frame = to_bars(bars, symbol="X")["X"]
    assert "open" not in frame and len(frame) == 60
    assert clean_bars({"X": frame}).notes == (
        "Bars of ['X']: column 'open' has no values (empty or 0) and is left out.",
    )


@pytest.mark.parametrize("column", ["high", "low", "close", "volume"])
def test_other_values_are_still_refused(column):
    bars = random_bars(count=60)
    bars.loc[bars.index[5], column] = np.nan
    with pytest.raises(
        DataError, match=rf"column '{column}' has no value.*\(row 5\).*missing='drop'"
    ):
        to_bars(bars)
    assert len(to_bars(bars, missing="drop")["asset"]) == 59
    if column != "close":
        bars.loc[bars.index[5], column] = -1.0
        with pytest.raises(DataError, match=rf'data.columns = \{{{column} = ""\}} leaves it out'):
            to_bars(bars)
        assert column not in to_bars(bars.reset_index(), columns={column: ""})["asset"]


def test_checks_of_bars_without_some_opens_find_what_they_did():
    bars = random_bars(count=400)
    bars.loc[bars.index[300], "high"] *= 2
    found = {each.kind: each for each in check_bars({"X": bars})["X"]}
    less = without_opens(bars, slice(0, 200), np.nan)
    again = {each.kind: each for each in check_bars({"X": less})["X"]}
    assert set(found) == set(again) and list(again["wick"].times) == list(found["wick"].times)
