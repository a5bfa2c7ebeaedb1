"""Tables whose columns are separated by spaces, as people and `DataFrame.to_string` write them."""

import re

from maml_jax.data.reading.headers import SEPARATORS
from maml_jax.errors import DataError

_HALF = r"(?![ \t]|[AaPp]\.?[Mm]\b)"
_GAPS = (rf"[ \t]+(?!\d{{1,2}}:\d\d){_HALF}", rf"[ \t]+{_HALF}", r"[ \t]{2,}")
"""What separates cells: spaces other than before the time of a day or its half, other than before
the half, or two at least."""
_SAMPLE = 200


def split_spaces(data: bytes, source: str) -> bytes:
    """Return a table of text with tabs in the place of spaces, if these separate its columns.

    They do where no other separator is in its first lines, and each of them has as many cells as
    the last. A first line that begins with spaces before one cell less lacks the name of an
    index, which may be the next line. Lines keep their numbers.

    Args:
        data: in UTF-8.
        source: how errors call the file.

    Raises:
        DataError: naming a later line that has fewer or more cells.
    """
    head = data[: 2**16].decode(errors="replace").splitlines()[:_SAMPLE]
    filled = [line for line in head[: -1 if len(data) > 2**16 else None] if line.strip()]
    separators = set(SEPARATORS) | {'"'}
    if len(filled) < 2 or any(mark in line for line in filled for mark in separators):
        return data
    for gap in _GAPS:
        widths = [len(re.split(gap, line.strip())) for line in filled]
        width = widths[-1]
        lacks = [i for i, each in enumerate(widths) if each != width]
        indexed = widths[0] == width - 1 and filled[0][0] == " "
        named = indexed and lacks == [0, 1] and widths[1] == 1  # the index has a line of its own
        if width > 1 and (not lacks or named or (indexed and lacks == [0])):
            lines = [re.sub(gap, "\t", line.strip()) for line in data.decode().splitlines()]
            _refuse_widths(lines, width, len(lacks), source)
            if indexed:
                first, second = [i for i, line in enumerate(lines) if line][:2]
                lines[first] = (lines[second] if named else "") + "\t" + lines[first]
                lines[second] = "" if named else lines[second]
            return "\n".join(lines).encode() + b"\n"
    return data


def _refuse_widths(lines: list[str], width: int, names: int, source: str) -> None:
    """Refuse a line below those of names, in which a cell is missing: the others would move."""
    filled = [i for i, line in enumerate(lines) if line]
    for i in filled[names:]:
        if lines[i].count("\t") + 1 != width:
            raise DataError(
                f"{source}, line {i + 1}: has {lines[i].count(chr(9)) + 1} cells that spaces "
                f"separate, where the lines before have {width}; write an empty one as NaN, and "
                "remove a footer"
            )
