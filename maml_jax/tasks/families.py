"""Task families: tables of windows, told apart by how they assign the group."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from maml_jax.errors import DataError
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.rows import LabelledRows, labelled_rows


class Windows(NamedTuple):
    """Where tasks can be cut from a Panel; sorted by group.

    Attributes:
        asset: `[window]`.
        support: number, among the asset's labelled rows, of the first support row, `[window]`.
        query: number of the first query row, `[window]`.
        group: `[window]`; a task is drawn by drawing a group, then a window in it.
        support_size: rows of a support set.
        query_size: rows of a query set.
        rows: the labelled rows that `support` and `query` count.
    """

    asset: Int[np.ndarray, " window"]
    support: Int[np.ndarray, " window"]
    query: Int[np.ndarray, " window"]
    group: Int[np.ndarray, " window"]
    support_size: int
    query_size: int
    rows: LabelledRows


def asset_family(
    panel: Panel,
    *,
    support: int,
    query: int,
    embargo: int = 0,
    assets: Sequence[str] | None = None,
    first: int = 0,
    last: int | None = None,
    length: int | None = None,
) -> Windows:
    """List the windows of the asset family: one asset is one group.

    A window is `support` rows in a row, then `query` rows in a row. The first query row is the
    first whose bar closes with the last support label complete, plus `embargo` rows: no support
    label reaches into what the query is asked.

        rows     s s s s . . . q q q
        labels         |-----|            label_delay bars from the last s to the first q

    Args:
        panel: what to cut from.
        support: rows of a support set.
        query: rows of a query set.
        embargo: further rows left out between the two.
        assets: names of the assets to use; default all.
        first: place on the time axis of the first row that may be used.
        last: place at which the last label must be complete; default the end.
        length: how many bars a sequence model reads at a row, itself last: `x` of a task is
            `[row, length, feature]`. They may reach back before `first`. None for models that read
            the row's features alone.

    Raises:
        DataError: if an asset is unknown, or none has room for a window.
    """
    if support < 1 or query < 1 or embargo < 0:
        raise ValueError("support and query need at least 1 row, and embargo at least 0")
    rows = labelled_rows(panel, length)
    last = len(panel.timestamps) - 1 if last is None else last
    parts = [
        _windows_of(rows, asset, support, query, embargo, first, last)
        for asset in asset_numbers(panel, assets)
    ]
    table = np.concatenate(parts)
    if not len(table):
        read = f" that each read {length} bars" if length is not None else ""
        raise DataError(
            f"no asset has room for a window of {support} support and {query} query rows{read}"
        )
    asset, start, ask = table.T
    return Windows(asset, start, ask, asset, support, query, rows)


def bars_needed(
    *,
    warm_up: int,
    support: int,
    query: int,
    label_delay: int,
    embargo: int,
    length: int | None = None,
) -> int:
    """Return the length of the shortest series that holds one window.

    >>> sizes = {"support": 20, "query": 10, "label_delay": 6, "embargo": 0}
    >>> bars_needed(warm_up=20, **sizes), bars_needed(warm_up=20, length=16, **sizes)
    (61, 76)
    """
    first_row = warm_up + (0 if length is None else length - 1)
    first_query = first_row + support - 1 + label_delay + embargo
    return first_query + query - 1 + label_delay + 1


def asset_numbers(panel: Panel, assets: Sequence[str] | None) -> list[int]:
    """Return the places of assets in a panel; all of them if None.

    Raises:
        DataError: naming an asset that the panel does not hold.
    """
    if assets is None:
        return list(range(len(panel.assets)))
    unknown = [name for name in assets if name not in panel.assets]
    if unknown:
        raise DataError(f"unknown assets {unknown}; the panel holds {list(panel.assets)}")
    return [panel.assets.index(name) for name in assets]


def _windows_of(rows, asset, support, query, embargo, first, last) -> Int[np.ndarray, "window 3"]:
    time = rows.time[asset, : rows.count[asset]]
    ends = rows.label_end[asset, : rows.count[asset]]
    start = np.arange(max(0, len(time) - support - query + 1))
    ask = np.searchsorted(time, ends[start + support - 1]) + embargo
    fits = ask + query <= len(time)
    start, ask = start[fits], ask[fits]
    inside = (time[start] >= first) & (ends[ask + query - 1] <= last)
    start, ask = start[inside], ask[inside]
    return np.stack([np.full_like(start, asset), start, ask], axis=1)
