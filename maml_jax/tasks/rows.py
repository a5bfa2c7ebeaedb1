"""The labelled rows of a Panel, listed for reading and as flat arrays for the device."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from maml_jax.tasks.panel import Panel

_SMALL = 2**20
"""Rows up to which tables are padded to powers of four."""


class LabelledRows(NamedTuple):
    """The rows of each asset that have features and a label, in order, without holes.

    Attributes:
        time: index of each row on the time axis, `[asset, row]`; the axis' length past the end.
        label_end: index of the bar that completes its label, `[asset, row]`, ascending; the axis'
            length past the end.
        count: how many rows an asset has, `[asset]`.
        length: how many bars a model reads at a row, the row itself last; None for the row's
            features alone.
    """

    time: Int[np.ndarray, "asset row"]
    label_end: Int[np.ndarray, "asset row"]
    count: Int[np.ndarray, " asset"]
    length: int | None = None

    @property
    def first(self) -> Int[np.ndarray, " asset"]:
        """Number of each asset's first row where all assets' rows are counted through."""
        return np.cumsum(self.count) - self.count


class RowTable(NamedTuple):
    """A Panel as compiled programs read it: flat, and padded.

    Rows are counted through all assets, so that neither a new asset nor a longer history changes a
    shape until the padding is used up. Only valid rows are held, one after the other: the sequence
    that ends with a row is what stands before it.

    Attributes:
        features: of all valid rows, asset by asset, `[row, feature]`.
        targets: `[row]`; 0 without a label.
        entries: row of each entry that tasks are made of, `[entry]`.
    """

    features: Float[Array, "row feature"]
    targets: Float[Array, " row"]
    entries: Int[Array, " entry"]

    def inputs(
        self, row: Int[Array, "*rows"], back: Int[Array, " bar"] | None = None
    ) -> Float[Array, "*rows_and_bars feature"]:
        """Gather what a model reads at rows.

        Args:
            row: the rows.
            back: from a row to the bars that are read with it, as `bars_back` has it.

        Returns:
            `[*rows, feature]`, or `[*rows, bar, feature]` where there is `back`.
        """
        return self.features[row if back is None else row[..., None] + back]


def bars_back(length: int | None) -> Int[Array, " bar"] | None:
    """Return the steps from a row to the bars of its sequence: `1 - length .. 0`; None for None."""
    return None if length is None else jnp.arange(1 - length, 1)


def readable_rows(panel: Panel, length: int | None = None) -> Bool[np.ndarray, "asset time"]:
    """Find where a model can read: the valid rows with `length - 1` valid ones before them.

    A sequence is made of an asset's own valid rows; bars that it misses are passed over.

    Raises:
        ValueError: if `length` is below 1.
    """
    if length is not None and length < 1:
        raise ValueError(f"a sequence needs a length of at least 1 bar, got {length}")
    valid = np.asarray(panel.valid)
    return valid if length is None else valid & (np.cumsum(valid, axis=1) >= length)


def labelled_rows(panel: Panel, length: int | None = None) -> LabelledRows:
    """List the rows of each asset that can stand in a support or query set.

    Args:
        panel: the bars.
        length: how many bars a model reads at a row; rows with fewer are left out. None for models
            that read the row's features alone.

    Raises:
        ValueError: if `length` is below 1.
    """
    ends = np.asarray(panel.label_end)
    stop = ends.shape[1]
    labelled = readable_rows(panel, length) & (ends < stop)
    count = labelled.sum(axis=1)
    time = np.full((len(count), max(1, int(count.max()))), stop, np.int32)
    label_end = time.copy()
    for asset, row in enumerate(labelled):
        bars = np.flatnonzero(row)
        time[asset, : len(bars)] = bars
        label_end[asset, : len(bars)] = ends[asset, bars]
    return LabelledRows(time, label_end, count, length)


def number_valid_rows(panel: Panel) -> Int[np.ndarray, "asset time"]:
    """Number the valid rows as a `RowTable` holds them; arbitrary where not valid."""
    valid = np.asarray(panel.valid)
    return (np.cumsum(valid) - 1).reshape(valid.shape).astype(np.int32)


def row_table(
    panel: Panel, rows: LabelledRows, entries: Int[np.ndarray, " entry"] | None = None
) -> RowTable:
    """Lay out a Panel and its labelled rows for the device.

    Args:
        panel: the bars.
        rows: its labelled rows.
        entries: numbers of labelled rows, counted through all assets, in the order in which tasks
            count them; default every row once, asset by asset.
    """
    valid, numbers = np.asarray(panel.valid), number_valid_rows(panel)
    labelled = np.concatenate(
        [
            numbers[asset, time[:count]]
            for asset, (time, count) in enumerate(zip(rows.time, rows.count, strict=True))
        ]
    )
    return RowTable(
        jnp.asarray(pad(np.asarray(panel.features)[valid])),
        jnp.asarray(pad(np.asarray(panel.targets)[valid])),
        jnp.asarray(pad(labelled if entries is None else labelled[entries])),
    )


def pad(values: np.ndarray, least: int = 64) -> np.ndarray:
    """Lengthen the first axis with zeros, so that tables of many lengths have one shape.

    To `least` times a power of four up to a million rows, from there on to the next quarter of a
    power of two.

    >>> [len(pad(np.zeros(n))) for n in (5, 300, 5000, 1_100_000)]
    [64, 1024, 16384, 1310720]
    >>> [len(pad(np.zeros(n), least=1)) for n in (1, 3, 5)]
    [1, 4, 16]
    """
    count = len(values)
    if count > _SMALL:
        step = 2 ** ((count - 1).bit_length() - 3)
        length = -(-count // step) * step
    else:
        length = least
        while length < count:
            length *= 4
    padded = np.zeros((length, *values.shape[1:]), values.dtype)
    padded[:count] = values
    return padded
