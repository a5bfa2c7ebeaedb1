"""Supports: at which bars to predict, and which rows to adapt on there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from maml_jax.tasks.families import asset_numbers
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.pools import Layout, SupportRows, make_pool, support_parts
from maml_jax.tasks.rows import (
    LabelledRows,
    RowTable,
    labelled_rows,
    number_valid_rows,
    readable_rows,
    row_table,
)


class Supports(NamedTuple):
    """At which bars to predict, and which rows to adapt on there; the same for every learner.

    A support set is one stretch of `entries`, or several (`sizes`), so no array of all windows is
    ever made.

    Attributes:
        due: where to predict, `[asset, time]`.
        query: index of the row to predict in a `RowTable`, `[asset, time]`.
        stops: index past the last support row of each part in `entries`, `[asset, time, part]`.
        layout: how many rows each part of a support set has, and what they weigh.
        entries: numbers of labelled rows, as `row_table` takes them, `[entry]`.
        rows: the labelled rows of the panel.
        first: index of the first bar that may be predicted.
        stop: index past the last one.
        growing: whether all complete rows of the asset are adapted on, not the last ones alone.
        counts: how many rows each part has, `[asset, time, part]`, where it may lack some.
        fewest: rows that a support set has at least, where it may lack some.
    """

    due: Bool[np.ndarray, "asset time"]
    query: Int[np.ndarray, "asset time"]
    stops: Int[np.ndarray, "asset time part"]
    layout: Layout
    entries: Int[np.ndarray, " entry"]
    rows: LabelledRows
    first: int
    stop: int
    growing: bool = False
    counts: Int[np.ndarray, "asset time part"] | None = None
    fewest: int | None = None

    def requests(self) -> Int[np.ndarray, "request index"]:
        """List the predictions: the row to predict, the first rows too late to adapt on.

        Where parts may lack rows, how many they have stands behind.
        """
        found = [self.query[..., None], self.stops]
        if self.counts is not None:
            found.append(self.counts)
        return np.concatenate([each[self.due] for each in found], axis=1).astype(np.int32)

    def table(self, panel: Panel) -> RowTable:
        """Lay out the panel as predictions count its rows.

        Raises:
            ValueError: if the panel has other bars or assets than that of the supports.
        """
        self.require(panel)
        return row_table(panel, self.rows, self.entries)

    def require(self, panel: Panel) -> None:
        """Refuse a panel that supports cannot have been found in.

        Raises:
            ValueError: if it has other bars or assets.
        """
        if panel.valid.shape != self.due.shape:
            raise ValueError(
                f"supports were found in a panel of {self.due.shape} assets and bars, and this one "
                f"has {panel.valid.shape}"
            )

    def lay_out(self, values: np.ndarray) -> np.ndarray:
        """Lay out predictions `[request, ...]` as `[asset, time]`, NaN where none is due."""
        full = np.full(self.due.shape, np.nan, np.float32)
        full[self.due] = values[: self.due.sum()].astype(np.float32).reshape(-1)
        return full


def find_supports(
    panel: Panel,
    support: int | SupportRows,
    *,
    labels: Int[np.ndarray, "asset time"] | None = None,
    growing: bool = False,
    first: int = 0,
    last: int | None = None,
    assets: Sequence[str] | None = None,
    length: int | None = None,
) -> Supports:
    """Find where a walk-forward predicts and what it adapts on there.

    At bar t the support set is the last rows of the same asset whose labels are complete at the
    close of t (`label_end <= t`); or of all assets, or of both, as `support` says.

    With `labels`, such as regimes, the support set is made of past bars that have the label in
    force at t, so that adaptation changes at once when the label does. Where there are not yet
    enough of them, or no label is in force, it is made of the last rows whatever their labels.

    Where `support.fewest` says with how few rows a set is used, predictions begin there: with 0, at
    the first row of features. Rows that are not there yet have weight 0.

    With `growing` the support set is all rows of the asset that are complete by then, since the
    panel begins; predictions begin where there are `support` of them.

    Args:
        panel: the bars.
        support: rows to adapt on; as `SupportRows` also whose they are.
        labels: of each bar of each asset, known at that bar; -1 for none. None: no labels.
        growing: adapt on all complete rows of an asset.
        first: index on the time axis of the first bar to predict at.
        last: index of the last one; default the end.
        assets: names of the assets to predict; default all.
        length: how many bars a sequence model reads at a row, itself last; None for models that
            read the row's features alone.

    Returns:
        Predictions are due where there is a row of features (or a whole sequence) and enough
        complete labels, within `first..last` and `assets`.

    Raises:
        DataError: if an asset is unknown.
        ValueError: if the number of rows or `length` is below 1, `first` negative, the origin of
            support rows unknown, or `labels` or classes are not of the panel's bars and assets;
            with `growing` also if supports are other than an asset's own rows.
    """
    support = support if isinstance(support, SupportRows) else SupportRows(support)
    _require_possible(panel, support, labels, growing, first)
    rows, readable = labelled_rows(panel, length), readable_rows(panel, length)
    due = np.zeros(readable.shape, bool)
    stop = readable.shape[1] if last is None else last + 1
    due[asset_numbers(panel, assets), first:stop] = True
    due &= readable
    times = np.broadcast_to(np.arange(readable.shape[1]), readable.shape)
    layout = support.layout()
    stops, counts, entries, offset = [], [], [], 0
    plain = support_parts(panel, support)
    labelled = plain if labels is None else support_parts(panel, support, labels)
    for preferred, otherwise in zip(labelled, plain, strict=True):
        found, count = np.full(readable.shape, -1), np.zeros(readable.shape, int)
        for part in (preferred,) if preferred is otherwise else (preferred, otherwise):
            pool = make_pool(rows, part.sources)
            complete = pool.complete(part.sources, times)
            available = np.minimum(complete - pool.begin(part.sources), part.rows)
            needed = 0 if layout.ragged and part is otherwise else part.rows
            taken = (found < 0) & (part.sources >= 0) & (available >= needed)
            found = np.where(taken, complete + offset, found)
            count = np.where(taken, available, count)
            entries.append(pool.row)
            offset += len(pool.row)
        stops.append(found)
        counts.append(count)
        due &= found >= 0
    if support.fewest is not None:
        due &= np.sum(counts, axis=0) >= support.fewest
    return Supports(
        due=due,
        query=number_valid_rows(panel),
        stops=np.stack(stops, axis=-1),
        layout=layout,
        entries=np.concatenate(entries),
        rows=rows,
        first=first,
        stop=stop,
        growing=growing,
        counts=np.stack(counts, axis=-1) if layout.ragged else None,
        fewest=support.fewest,
    )


def _require_possible(
    panel: Panel, support: SupportRows, labels: np.ndarray | None, growing: bool, first: int
) -> None:
    if support.count < 1:
        raise ValueError(f"walk-forward needs a window of at least 1 row, got {support.count}")
    if first < 0:
        raise ValueError(f"the first bar to predict at must not be negative, got {first}")
    if labels is not None and labels.shape != panel.valid.shape:
        raise ValueError(
            f"labels are [asset, time] as the panel, {panel.valid.shape}, got {labels.shape}"
        )
    if support.classes is not None and len(support.classes) != len(panel.assets):
        raise ValueError(
            f"the panel has {len(panel.assets)} assets, and classes are given for "
            f"{len(support.classes)}"
        )
    if growing and (support.origin != "asset" or labels is not None or support.forget < 1):
        raise ValueError("growing windows use all rows of one asset, with equal weights")
