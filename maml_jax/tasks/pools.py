"""Pools: labelled rows in the orders in which support sets are taken from them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

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
        fewest: rows with which a support set is used although it is not whole; those that it lacks
            have weight 0. None: only whole ones are used.
        forget: weight of a row in units of that of the next newer one, in (0, 1]; below 1 older
            rows count less.
    """

    count: int
    origin: Origin = "asset"
    classes: Int[np.ndarray, " asset"] | None = None
    fewest: int | None = None
    forget: float = 1.0

    def layout(self) -> "Layout":
        """Return how support sets are laid out.

        Raises:
            ValueError: if `fewest` or `forget` are out of bounds.
        """
        if self.fewest is not None and not 0 <= self.fewest <= self.count:
            raise ValueError(
                f"support sets of {self.count} rows are used from 0 to {self.count} rows on, not "
                f"from {self.fewest}"
            )
        if not 0 < self.forget <= 1:
            raise ValueError(f"forget must be above 0 and at most 1, got {self.forget}")
        return Layout(part_sizes(self), self.fewest is not None, self.forget)


class Layout(NamedTuple):
    """How the rows of a support set follow one another, and what they weigh.

    Attributes:
        sizes: rows of each part, coarse to fine; within a part the newest is last.
        ragged: whether parts may lack rows, the oldest ones.
        forget: weight of a row in units of that of the next newer one.
    """

    sizes: tuple[int, ...]
    ragged: bool = False
    forget: float = 1.0

    def weights(self, counts: Any) -> Float[Array, " row"] | None:
        """Return the weight of each row; None where all count alike.

        Args:
            counts: how many rows each part has, `[part]`; looked at where they may lack some.
        """
        if not self.ragged and self.forget == 1:
            return None
        parts = []
        for part, size in enumerate(self.sizes):
            age = jnp.arange(size - 1, -1, -1)
            weight = jnp.float32(self.forget) ** age
            parts.append(jnp.where(age < counts[part], weight, 0) if self.ragged else weight)
        return jnp.concatenate(parts)


class Part(NamedTuple):
    """One part of every support set: so many rows, taken from one source.

    Attributes:
        sources: the source that each bar of an asset draws from, `[asset, time]`; -1 for none.
        rows: how many rows are taken.
    """

    sources: Int[np.ndarray, "asset time"]
    rows: int


class Pool(NamedTuple):
    """Labelled rows source by source, each in the order in which labels become complete.

    What a source offers at a bar is therefore one stretch of it, from its start to the last label
    that is complete, and a support set is the end of that stretch.

    Attributes:
        row: number of each entry among the labelled rows of all assets, `[entry]`.
        asset: `[entry]`.
        time: index on the time axis, `[entry]`.
        label_end: index of the bar that completes the label, `[entry]`; ascending within a source.
        source: `[entry]`, ascending.
        bars: length of the time axis.
    """

    row: Int[np.ndarray, " entry"]
    asset: Int[np.ndarray, " entry"]
    time: Int[np.ndarray, " entry"]
    label_end: Int[np.ndarray, " entry"]
    source: Int[np.ndarray, " entry"]
    bars: int

    def begin(self, source: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Return the index of a source's first entry."""
        return np.searchsorted(self.source, source)

    def end(self, source: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Return the index past a source's last entry."""
        return np.searchsorted(self.source, source, side="right")

    def complete(
        self, source: Int[np.ndarray, "*n"], time: Int[np.ndarray, "*n"]
    ) -> Int[np.ndarray, "*n"]:
        """Return the index past a source's last entry whose label is complete at a bar."""
        return np.searchsorted(self._keys(self.label_end), self._key(source, time), side="right")

    def unseen(
        self, source: Int[np.ndarray, "*n"], time: Int[np.ndarray, "*n"]
    ) -> Int[np.ndarray, "*n"]:
        """Return the index from which on all entries of a source are of a bar or later."""
        earliest = np.minimum.accumulate(self._keys(self.time)[::-1])[::-1]
        return np.searchsorted(earliest, self._key(source, time))

    def _keys(self, time):
        return self._key(self.source, time)

    def _key(self, source, time):
        return np.asarray(source, np.int64) * (self.bars + 1) + time


def make_pool(
    rows: LabelledRows,
    sources: Int[np.ndarray, "asset time"],
    *,
    assets: Sequence[int] | None = None,
    first: int = 0,
    last: int | None = None,
) -> Pool:
    """List rows source by source.

    Args:
        rows: the labelled rows of a Panel.
        sources: the source of each bar of an asset; rows of source -1 are left out.
        assets: indices of the assets whose rows are listed; default all.
        first: rows of earlier bars are left out.
        last: so are rows whose labels are complete later; default none.
    """
    count, bars = len(rows.count), sources.shape[1]
    asset = np.repeat(np.arange(count), rows.count)
    there = np.arange(rows.time.shape[1]) < rows.count[:, None]
    time, label_end = rows.time[there], rows.label_end[there]
    source = sources[asset, time]
    kept = (source >= 0) & (time >= first) & (label_end <= (bars if last is None else last))
    kept &= np.isin(asset, np.arange(count) if assets is None else assets)
    number = np.flatnonzero(kept)
    order = number[np.lexsort((asset[kept], time[kept], label_end[kept], source[kept]))]
    return Pool(order, asset[order], time[order], label_end[order], source[order], bars)


def part_sizes(support: SupportRows) -> tuple[int, ...]:
    """Return how many rows each part of a support set has."""
    if support.origin == "mixed":
        return support.count // 2, support.count - support.count // 2
    return (support.count,)


def support_parts(
    panel: Panel,
    support: int | SupportRows,
    labels: Int[np.ndarray, "asset time"] | None = None,
) -> tuple[Part, ...]:
    """Find the sources that a support set is taken from, coarse to fine.

    Args:
        panel: the bars.
        support: rows of a support set: how many, and whose; a number: the asset's own.
        labels: rows are taken from bars of one label, such as a regime; -1 is not a label.

    Raises:
        ValueError: if the origin is unknown, or the rows are fewer than it needs.
    """
    support = support if isinstance(support, SupportRows) else SupportRows(support)
    rows, origin = support.count, support.origin
    if origin not in get_args(Origin):
        raise ValueError(f"the origin of support rows is one of {get_args(Origin)}, not {origin!r}")
    least = 2 if origin == "mixed" else 1
    if rows < least:
        raise ValueError(f'support rows of origin "{origin}" must be at least {least}, got {rows}')
    assets, bars = panel.valid.shape

    def part(number: Int[np.ndarray, " asset"], rows: int) -> Part:
        sources = np.broadcast_to(number[:, None], (assets, bars))
        if labels is not None:
            kinds = int(labels.max(initial=0)) + 1
            sources = np.where(labels < 0, -1, sources * kinds + labels)
        return Part(sources, rows)

    own = np.arange(assets)
    one_class = np.zeros(assets, int) if support.classes is None else support.classes
    numbers = {"asset": (own,), "cross_section": (one_class,), "mixed": (one_class, own)}[origin]
    return tuple(map(part, numbers, part_sizes(support)))
