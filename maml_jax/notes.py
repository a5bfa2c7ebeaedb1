"""What a reader of results must know: values that say of which kind they are."""

from typing import NamedTuple


class Note(NamedTuple):
    """What a reader must know.

    Attributes:
        kind: of what it is, in a word; notes on other assets or folds are of the same kind.
        text: in a sentence.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text
