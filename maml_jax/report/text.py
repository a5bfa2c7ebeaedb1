"""Numbers, intervals and notes formatted for reading."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from maml_jax.listing import FEW, MOST
from maml_jax.notes import Note
from maml_jax.report.plots import style

_WHOLE = "notes.json of the run directory"


def format_intervals(intervals: pd.DataFrame, rows: str = "strategy") -> pd.DataFrame:
    """Format intervals: one row each, one column per figure, "0.42 [-0.10, 0.95]".

    Args:
        intervals: one row per strategy and figure: `figure`, `value`, `low`, `high`.
        rows: the column that names the rows.
    """
    cells = [
        f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"
        if value == value
        else "–"
        for value, low, high in intervals[["value", "low", "high"]].to_numpy(float)
    ]
    table = (
        style.drop_categories(intervals)
        .assign(cell=cells)
        .pivot_table("cell", rows, "figure", aggfunc="first", sort=False)
    )
    return table.rename_axis(columns=None)


def format_number(value: float) -> str:
    """Format a figure in as few digits as it needs.

    >>> [format_number(v) for v in (0.4213, -12.345, 1234.5, float("nan"))]
    ['0.42', '-12.3', '1,234', '–']
    """
    if value != value:
        return "–"
    size = abs(value)
    if size >= 1e7:
        return f"{value:.3g}"
    text = f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
    return text.lstrip("-") if not text.strip("-0.") else text


def format_probability(value: float) -> str:
    """Format a probability with the digits that matter.

    >>> [format_probability(v) for v in (0.76, 0.0341, 0.0999, 0.0001, float("nan"))]
    ['0.76', '0.034', '0.100', '< 0.001', '–']
    """
    if value != value:
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def format_chance(value: float) -> str:
    """Format a probability in per cent.

    >>> [format_chance(v) for v in (1.0, 0.76, 0.0341, 0.0001, float("nan"))]
    ['100 %', '76 %', '3.4 %', '< 0.1 %', '–']
    """
    if value != value:
        return "–"
    if value < 0.001:
        return "< 0.1 %"
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def shorten_notes(notes: Sequence[Note]) -> tuple[str, ...]:
    """Shorten notes for a page: all of a few, of many the first of each kind.

    A note that lists too many names is cut.

    Args:
        notes: in full, as notes.json holds them.

    Returns:
        At most `MOST` notes, and one that counts the rest.
    """
    kept = list(notes)
    for most in (FEW, 1):
        if len(kept) > MOST:
            kept = _first_of_each(notes, most)
    kept = kept[:MOST]
    left = len(notes) - len(kept)
    more = [f"{left:,} more notes like these: see {_WHOLE}."] if left else []
    return (*(_cut(note.text) for note in kept), *more)


def _first_of_each(notes: Sequence[Note], most: int) -> list[Note]:
    """Return the first notes of each kind, in their order."""
    seen: Counter[str] = Counter()
    kept = []
    for note in notes:
        seen[note.kind] += 1
        if seen[note.kind] <= most:
            kept.append(note)
    return kept


def _cut(note: str) -> str:
    pieces = note.split(", ")
    if len(pieces) <= MOST + FEW:
        return note
    return f"{', '.join(pieces[:MOST])} … (in full in {_WHOLE})"
