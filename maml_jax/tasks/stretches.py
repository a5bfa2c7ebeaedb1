"""Windows that keep clear of bars that may not be trained on, or ask of later bars alone."""

import numpy as np
from jaxtyping import Bool, Int

from maml_jax.errors import DataError
from maml_jax.tasks.families import Windows


def keep_within_stretches(windows: Windows, allowed: Bool[np.ndarray, " time"]) -> Windows:
    """Keep the windows that lie wholly in one stretch of bars.

    From a window's first support row to the bar that completes its last query label, every bar is
    allowed: neither its rows nor what their labels are made of touch, or span, a bar that is not.

    Args:
        windows: of any one family.
        allowed: whether each bar may be trained on, `[time]`.

    Raises:
        DataError: if no window is left, naming the longest stretch and the shortest window.
    """
    barred = np.append(0, np.cumsum(~allowed))  # how many stand before each bar
    first = _first_bars(windows)
    kept = barred[windows.known + 1] == barred[first]
    if not kept.any():
        edges = np.flatnonzero(np.diff(np.concatenate([[False], allowed, [False]])))
        longest = int((edges[1::2] - edges[::2]).max(initial=0))
        shortest = int((windows.known - first).min()) + 1
        raise DataError(
            f"no window of a task lies wholly in one of the stretches that may be trained on: the "
            f"longest has {longest} bars, and the shortest window takes {shortest} of them, from "
            "its first support row to its last query label"
        )
    return _keep(windows, kept)


def keep_queries_from(windows: Windows, bar: int) -> Windows:
    """Keep the windows whose query rows are of a bar or later; supports may lie before it.

    Args:
        windows: of any one family.
        bar: index on the time axis.

    Raises:
        DataError: if no window is left.
    """
    kept = _times(windows)[windows.query] >= bar
    if not kept.any():
        raise DataError(f"no window of a task asks for {windows.query_size} rows there")
    return _keep(windows, kept)


def _keep(windows: Windows, kept: Bool[np.ndarray, " window"]) -> Windows:
    fields = ("asset", "stop", "query", "group", "known")
    return windows._replace(**{name: getattr(windows, name)[kept] for name in fields})


def _times(windows: Windows) -> Int[np.ndarray, " entry"]:
    """Return the index on the time axis of each entry."""
    rows = windows.rows
    # Rows counted through all assets, in their order: each asset's own rows ascend.
    there = np.arange(rows.time.shape[1]) < rows.count[:, None]
    return rows.time[there][windows.entries]


def _first_bars(windows: Windows) -> Int[np.ndarray, " window"]:
    """Return the index on the time axis of the earliest row of each window."""
    time = _times(windows)
    first = time[windows.query].copy()
    spans = [(windows.query, windows.query + windows.query_size)]
    spans += [
        (windows.stop[:, part] - size, windows.stop[:, part])
        for part, size in enumerate(windows.sizes)
    ]
    for begin, stop in spans:
        for row in range(int((stop - begin).max())):
            first = np.minimum(first, time[begin + row])
    return first
