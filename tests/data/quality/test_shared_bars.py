"""Assets that never have a bar at the same time are found, and only these."""

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import check_bars, clean_bars
from maml_jax.data.quality.shared_bars import LEAST_SHARED, find_apart


def naive(indices):
    """Compare every two assets, bar by bar."""
    share = {}
    for a, own in indices.items():
        for b, theirs in indices.items():
            low, high = max(own[0], theirs[0]), min(own[-1], theirs[-1])
            few = min((each[(each >= low) & (each <= high)] for each in (own, theirs)), key=len)
            share[a, b] = len(few.intersection(own).intersection(theirs)) / max(len(few), 1)
    return share


@pytest.mark.parametrize("seed", range(5))
def test_two_clocks_are_apart_and_holidays_are_not(seed):
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2019", periods=300, tz="UTC")
    shifted = days - pd.Timedelta(hours=9)
    indices = {}
    for i in range(8):
        index = (days if i % 3 else shifted)[np.sort(rng.choice(300, 250, replace=False))]
        indices[f"A{i}"] = index[rng.integers(0, 40) :]
    found = find_apart(indices)
    assert len(found) == 1  # one for each clock after the first
    ((name, apart),) = found.items()
    share = naive(indices)
    assert share[name, apart.other] == apart.shared < LEAST_SHARED
    assert all(
        share[a, b] > 0.5
        for a in indices
        for b in indices
        if (int(a[1]) % 3 > 0) == (int(b[1]) % 3 > 0)
    )


def test_a_note_says_it():
    bars = {"NY": random_bars(count=300, step="D"), "TK": random_bars(count=300, step="D", seed=2)}
    assert not any("apart" in note for note in clean_bars(bars).notes)
    bars["TK"].index = bars["TK"].index + pd.Timedelta(hours=15)
    (note,) = [note for note in clean_bars(bars).notes if "apart" in note]
    assert "TK (299)" in note or "TK (300)" in note
    assert "NY" in note and "time zone" in note
    bars["TK"].index = bars["TK"].index + pd.Timedelta(days=4000)  # no years in common
    assert not any(each.kind == "apart" for each in check_bars(bars)["TK"])
