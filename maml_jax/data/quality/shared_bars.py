"""Find assets that have bars in the same years, but at other times."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

LEAST_SHARED = 0.1
"""Share of bars at times of another asset's below which two assets are apart."""
_FEWEST = 5
_MOST = 1000
"""Bars that stand for all of an asset."""


class Apart(NamedTuple):
    """An asset that is apart from another.

    Attributes:
        times: of its bars while the other has some.
        other: the other asset.
        shared: share of the times at which the other has a bar too.
    """

    times: pd.DatetimeIndex
    other: str
    shared: float


def find_apart(indices: Mapping[str, pd.DatetimeIndex]) -> dict[str, Apart]:
    """Find assets that share almost no bar with an earlier one, nor with any like it.

    Args:
        indices: opening times of the bars of each asset, ascending.
    """
    groups: dict[str, np.ndarray] = {}
    found: dict[str, Apart] = {}
    for name, index in indices.items():
        own = index.as_unit("us").asi8
        first: Apart | None = None
        for other, theirs in groups.items():
            low, high = max(own[0], theirs[0]), min(own[-1], theirs[-1])
            inside = (own >= low) & (own <= high)
            count = min(int(inside.sum()), int(((theirs >= low) & (theirs <= high)).sum()))
            if count < _FEWEST:
                continue
            few, many = (own[inside], theirs) if inside.sum() == count else (theirs, own)
            few = few[(few >= low) & (few <= high)]
            few = few[:: max(1, len(few) // _MOST)]
            places = np.minimum(np.searchsorted(many, few), len(many) - 1)
            shared = float((many[places] == few).mean())
            if shared >= LEAST_SHARED:
                break
            first = first or Apart(index[inside], other, shared)
        else:
            groups[name] = own
            if first is not None:
                found[name] = first
    return found
