"""Figures and notes as a person reads them."""

import re
from collections.abc import Collection, Sequence

import pandas as pd

from maml_jax.listing import FEW, MOST
from maml_jax.report.plots import style

_WHOLE = "notes.json of the run directory"


def with_intervals(intervals: pd.DataFrame, rows: str = "strategy") -> pd.DataFrame:
    """Lay intervals out for reading: one row each, one column per figure, "0.42 [-0.10, 0.95]".

    Args:
        intervals: one row per strategy and figure: `figure`, `value`, `low`, `high`.
        rows: the column that names the rows.
    """
    told = [
        f"{number(value)} [{number(low)}, {number(high)}]" if value == value else "–"
        for value, low, high in intervals[["value", "low", "high"]].to_numpy(float)
    ]
    table = (
        style.plain(intervals)
        .assign(told=told)
        .pivot_table("told", rows, "figure", aggfunc="first", sort=False)
    )
    return table.rename_axis(columns=None)


def number(value: float) -> str:
    """Write a figure as short as it can be read.

    >>> [number(v) for v in (0.4213, -12.345, 1234.5, float("nan"))]
    ['0.42', '-12.3', '1,234', '–']
    """
    if value != value:
        return "–"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3g}"
    text = f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text.lstrip("-") if not text.strip("-0.") else text


def probability(value: float) -> str:
    """Write a probability with the figures that matter.

    >>> [probability(v) for v in (0.76, 0.0341, 0.0999, 0.0001, float("nan"))]
    ['0.76', '0.034', '0.100', '< 0.001', '–']
    """
    if value != value:
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def brief(notes: Sequence[str], assets: Collection[str] = ()) -> tuple[str, ...]:
    """Return notes as a page shows them: those of a few assets all, of many the first of each kind.

    Notes are of one kind where they differ in names of assets and in numbers alone. A note that
    lists too many names by itself is cut.

    Args:
        notes: in full, as notes.json holds them.
        assets: names that tell notes of one kind apart.

    Returns:
        At most `MOST` notes, none of which lists many more names, and one that counts the rest.
    """
    kept = list(notes)
    for most in (FEW, 1):
        if len(kept) > MOST:
            kept = _first_of_each(notes, most, {*assets})
    kept = kept[:MOST]
    left = len(notes) - len(kept)
    more = [f"{left:,} more notes like these: all of them stand in {_WHOLE}."] if left else []
    return (*map(_cut, kept), *more)


def _first_of_each(notes: Sequence[str], most: int, assets: set[str]) -> list[str]:
    """Return the first notes of each kind, in their order."""
    seen: dict[str, int] = {}
    kept = []
    for note in notes:
        words = ("·" if word.strip(",.:;()") in assets else word for word in note.split())
        kind = re.sub(r"\d+", "#", " ".join(words))
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= most:
            kept.append(note)
    return kept


def _cut(note: str) -> str:
    pieces = note.split(", ")
    if len(pieces) <= MOST + FEW:
        return note
    return f"{', '.join(pieces[:MOST])} … (all of it stands in {_WHOLE})"
