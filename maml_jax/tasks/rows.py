"""The labelled rows of a Panel, listed for reading and as flat arrays for the device."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from maml_jax.tasks.panel import Panel

_SMALL = 2**20
"""Rows up to which a table is given room for four times as many."""


class LabelledRows(NamedTuple):
    """The rows of each asset that have features and a label, in order, without holes.

    Attributes:
        time: place of each row on the time axis, `[asset, row]`; the axis' length past the end.
        label_end: place at which its label is complete, `[asset, row]`, ascending; likewise.
        count: how many rows an asset has, `[asset]`.
    """

    time: Int[np.ndarray, "asset row"]
    label_end: Int[np.ndarray, "asset row"]
    count: Int[np.ndarray, " asset"]

    @property
    def first(self) -> Int[np.ndarray, " asset"]:
        """Number of each asset's first row where all assets' rows are counted through."""
        return np.cumsum(self.count) - self.count


class RowTable(NamedTuple):
    """A Panel as compiled programs read it: flat, and with room to spare.

    Rows are counted through all assets, so that neither a new asset nor a longer history changes a
    shape until the room is used up.

    Attributes:
        features: `[place, feature]`, where place = asset x length of the time axis + time.
        targets: `[place]`.
        place: place of each labelled row, asset by asset, `[row]`.
    """

    features: Float[Array, "place feature"]
    targets: Float[Array, " place"]
    place: Int[Array, " row"]


def labelled_rows(panel: Panel) -> LabelledRows:
    """List the rows of each asset that can stand in a support or query set."""
    ends = np.asarray(panel.label_end)
    length = ends.shape[1]
    labelled = np.asarray(panel.valid) & (ends < length)
    count = labelled.sum(axis=1)
    time = np.full((len(count), max(1, int(count.max()))), length, np.int32)
    label_end = time.copy()
    for asset, row in enumerate(labelled):
        places = np.flatnonzero(row)
        time[asset, : len(places)] = places
        label_end[asset, : len(places)] = ends[asset, places]
    return LabelledRows(time, label_end, count)


def row_table(panel: Panel, rows: LabelledRows) -> RowTable:
    """Lay out a Panel and its labelled rows for the device."""
    length = len(panel.timestamps)
    place = [
        asset * length + time[:count]
        for asset, (time, count) in enumerate(zip(rows.time, rows.count, strict=True))
    ]
    features = np.asarray(panel.features)
    return RowTable(
        jnp.asarray(with_room(features.reshape(-1, features.shape[2]))),
        jnp.asarray(with_room(np.asarray(panel.targets).reshape(-1))),
        jnp.asarray(with_room(np.concatenate(place).astype(np.int32))),
    )


def with_room(values: np.ndarray) -> np.ndarray:
    """Lengthen the first axis with zeros, so that tables of many lengths have one shape.

    To a power of four up to a million rows, from there on to the next quarter of a power of two.

    >>> [len(with_room(np.zeros(n))) for n in (5, 300, 5000, 1_100_000)]
    [64, 1024, 16384, 1310720]
    """
    count = len(values)
    if count > _SMALL:
        step = 2 ** ((count - 1).bit_length() - 3)
        room = -(-count // step) * step
    else:
        room = 64
        while room < count:
            room *= 4
    lengthened = np.zeros((room, *values.shape[1:]), values.dtype)
    lengthened[:count] = values
    return lengthened
