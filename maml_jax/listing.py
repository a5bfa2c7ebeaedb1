"""Names in a sentence: all of a few, the first of many and how many more there are."""

from collections.abc import Iterable, Sequence

FEW = 5
"""Names that a sentence lists at most."""

MOST = 30
"""Names, or assets, that are shown one by one at most, where they are the matter itself."""


def listed(names: Iterable[object], most: int = FEW, kind: str = "") -> str:
    """Write names one after the other; of more than `most`, the first, and how many more.

    >>> listed(["A", "B"]), listed("ABCDEFG"), listed("ABC", 1, "assets")
    ('A, B', 'A, B, C, D, E and 2 more', 'A and 2 more assets')
    """
    every = [str(name) for name in names]
    first = ", ".join(every[:most])
    more = len(every) - most
    return first if more <= 0 else f"{first} and {more:,} more {kind}".rstrip()


def listed_or_counted(names: Sequence[str], kind: str, most: int = 8) -> str:
    """Write names one after the other, or how many there are where they are more than `most`.

    >>> listed_or_counted(["A", "B"], "assets"), listed_or_counted(["A"] * 9, "assets")
    ('A, B', '9 assets')
    """
    return ", ".join(names) if len(names) <= most else f"{len(names):,} {kind}"


def quoted(names: Iterable[str]) -> str:
    """Write names as a list in code; of more than `MOST`, the first, and how many more.

    >>> quoted(["A", "B"])
    "['A', 'B']"
    """
    return f"[{listed(map(repr, names), MOST)}]"
