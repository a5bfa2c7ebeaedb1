"""Names and values in a sentence: all of a few, or the first of many; never more than fits."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from reprlib import Repr

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


def suggest(name: str, names: Iterable[str]) -> str:
    """Return the name that was most likely meant; nothing where none is like it.

    >>> suggest("Lerning-rate", ["steps", "learning_rate"]), suggest("fee", ["steps"])
    ('learning_rate', '')
    """
    plain = {each.lower().replace("-", "_"): each for each in names}
    found = get_close_matches(name[:100].lower().replace("-", "_"), plain, n=1)
    return plain[found[0]] if found else ""


class _Short(Repr):
    """A repr of bounded length, of whatever there is."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 200, 200, 60
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 12

    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() > 200:  # Python refuses to write the longest
            return f"a whole number of about {int(x.bit_length() * 0.30103) + 1:,} digits"
        return super().repr_int(x, level)


def show_value(value: object) -> str:
    """Write a value as in code, cut where it is long or deep.

    >>> show_value({"a": [1, "b"]}), show_value(10**5000)
    ("{'a': [1, 'b']}", 'a whole number of about 5,001 digits')
    """
    return _Short().repr(value)
