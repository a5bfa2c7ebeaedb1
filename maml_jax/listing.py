"""Join names in a sentence: all of a few, or the first of many and the number of the rest."""

from collections.abc import Iterable, Sequence

FEW = 5
"""Most names in a sentence."""

MOST = 30
"""Most names, or assets, shown one by one where they are the subject."""


def join_names(names: Iterable[object], most: int = FEW, kind: str = "") -> str:
    """Join names; of more than `most`, the first and the number of the rest.

    >>> join_names(["A", "B"]), join_names("ABCDEFG"), join_names("ABC", 1, "assets")
    ('A, B', 'A, B, C, D, E and 2 more', 'A and 2 more assets')
    """
    every = [str(name) for name in names]
    first = ", ".join(every[:most])
    more = len(every) - most
    return first if more <= 0 else f"{first} and {more:,} more {kind}".rstrip()


def join_or_count(names: Sequence[str], kind: str, most: int = 8) -> str:
    """Write names one after the other, or how many there are where they are more than `most`.

    >>> join_or_count(["A", "B"], "assets"), join_or_count(["A"] * 9, "assets")
    ('A, B', '9 assets')
    """
    return ", ".join(names) if len(names) <= most else f"{len(names):,} {kind}"


def quote_names(names: Iterable[str]) -> str:
    """Join names as a list in code; of more than `MOST`, the first and the number of the rest.

    >>> quote_names(["A", "B"])
    "['A', 'B']"
    """
    return f"[{join_names(map(repr, names), MOST)}]"
