"""Pools: labelled rows in the orders in which support sets are taken from them."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from jaxtyping import Int

from maml_jax.tasks.panel import Panel
from maml_jax.tasks.rows import LabelledRows

Origin: TypeAlias = Literal["asset", "cross_section", "mixed"]
"""Whose rows a support set holds: the asset's own, those of all assets, or half of each."""


class SupportRows(NamedTuple):
    """How many rows a support set holds, and whose.

    Attributes:
        count: rows of a whole support set.
        origin: `asset`: the last rows of the asset itself. `cross_section`: the last rows of all
            assets, an equal number of the latest bars. `mixed`: first half of them (rounded down)
            of the cross-section, then the others of the asset itself.
        classes: number of the class of each asset of the panel, `[asset]`; a cross-section is of
            one class. None: all assets are of one.
    """

    count: int
    origin: Origin = "asset"
    classes: Int[np.ndarray, " asset"] | None = None


class Part(NamedTuple):
    """One part of every support set: so many rows, taken from one lane.

    Attributes:
        lanes: the lane that each bar of an asset belongs to, `[asset, time]`; -1 for none.
        rows: how many rows are taken.
    """

    lanes: Int[np.ndarray, "asset time"]
    rows: int


class Pool(NamedTuple):
    """Labelled rows lane by lane, each lane in the order in which labels become complete.

    What a lane offers at a bar is therefore one stretch of it, from its begin to the last label
    that is complete, and a support set is the end of that stretch.

    Attributes:
        row: number of each entry among the labelled rows of all assets, `[entry]`.
        asset: `[entry]`.
        time: place on the time axis, `[entry]`.
        label_end: place at which the label is complete, `[entry]`; ascending within a lane.
        lane: `[entry]`, ascending.
        bars: length of the time axis.
    """

    row: Int[np.ndarray, " entry"]
    asset: Int[np.ndarray, " entry"]
    time: Int[np.ndarray, " entry"]
    label_end: Int[np.ndarray, " entry"]
    lane: Int[np.ndarray, " entry"]
    bars: int

    def begin(self, lane: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Return the place of a lane's first entry."""
        return np.searchsorted(self.lane, lane)

    def end(self, lane: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Return the place past a lane's last entry."""
        return np.searchsorted(self.lane, lane, side="right")

    def complete(
        self, lane: Int[np.ndarray, "*n"], time: Int[np.ndarray, "*n"]
    ) -> Int[np.ndarray, "*n"]:
        """Return the place past a lane's last entry whose label is complete at a bar."""
        return np.searchsorted(self._keys(self.label_end), self._key(lane, time), side="right")

    def unseen(
        self, lane: Int[np.ndarray, "*n"], time: Int[np.ndarray, "*n"]
    ) -> Int[np.ndarray, "*n"]:
        """Return the place from which on all entries of a lane stand at a bar or later."""
        earliest = np.minimum.accumulate(self._keys(self.time)[::-1])[::-1]
        return np.searchsorted(earliest, self._key(lane, time))

    def _keys(self, place):
        return self._key(self.lane, place)

    def _key(self, lane, place):
        return np.asarray(lane, np.int64) * (self.bars + 1) + place


def make_pool(
    rows: LabelledRows,
    lanes: Int[np.ndarray, "asset time"],
    *,
    assets: Sequence[int] | None = None,
    first: int = 0,
    last: int | None = None,
) -> Pool:
    """List rows lane by lane.

    Args:
        rows: the labelled rows of a Panel.
        lanes: the lane of each bar of an asset; rows of lane -1 are left out.
        assets: places of the assets whose rows are listed; default all.
        first: rows of earlier bars are left out.
        last: so are rows whose labels are complete later; default none.
    """
    count, bars = len(rows.count), lanes.shape[1]
    asset = np.repeat(np.arange(count), rows.count)
    there = np.arange(rows.time.shape[1]) < rows.count[:, None]
    time, label_end = rows.time[there], rows.label_end[there]
    lane = lanes[asset, time]
    kept = (lane >= 0) & (time >= first) & (label_end <= (bars if last is None else last))
    kept &= np.isin(asset, np.arange(count) if assets is None else assets)
    number = np.flatnonzero(kept)
    order = number[np.lexsort((asset[kept], time[kept], label_end[kept], lane[kept]))]
    return Pool(order, asset[order], time[order], label_end[order], lane[order], bars)


def support_parts(
    panel: Panel,
    support: int | SupportRows,
    labels: Int[np.ndarray, "asset time"] | None = None,
) -> tuple[Part, ...]:
    """Say which lanes a support set is taken from, coarse to fine.

    Args:
        panel: the bars.
        support: rows of a support set: how many, and whose; a number: the asset's own.
        labels: rows are taken from bars of one label, such as a regime; -1 is no label.

    Raises:
        ValueError: if the origin is unknown, or the rows are fewer than it needs.
    """
    support = support if isinstance(support, SupportRows) else SupportRows(support)
    rows, origin, classes = support
    if origin not in get_args(Origin):
        raise ValueError(f"the origin of support rows is one of {get_args(Origin)}, not {origin!r}")
    if rows < (2 if origin == "mixed" else 1):
        raise ValueError(f"a {origin} support set needs more than {rows} rows")
    assets, bars = panel.valid.shape

    def part(number: Int[np.ndarray, " asset"], rows: int) -> Part:
        lanes = np.broadcast_to(number[:, None], (assets, bars))
        if labels is not None:
            kinds = int(labels.max(initial=0)) + 1
            lanes = np.where(labels < 0, -1, lanes * kinds + labels)
        return Part(lanes, rows)

    own = np.arange(assets)
    one_class = np.zeros(assets, int) if classes is None else classes
    if origin == "asset":
        return (part(own, rows),)
    if origin == "cross_section":
        return (part(one_class, rows),)
    return part(one_class, rows // 2), part(own, rows - rows // 2)
