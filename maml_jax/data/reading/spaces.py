"""Tables whose columns are separated by spaces, as people and `DataFrame.to_string` write them."""

import re

from maml_jax.data.reading.headers import SEPARATORS

_GAPS = (r"[ \t]+(?![ \t]|\d{1,2}:\d\d)", r"[ \t]+", r"[ \t]{2,}")
"""What separates cells: spaces other than before the time of a day, any, or two at least."""
_SAMPLE = 200


def split_spaces(data: bytes) -> bytes:
    """Return a table of text with tabs in the place of spaces, if these separate its columns.

    They do where no other separator is in its first lines, and each of them has as many cells as
    the last. A first line that begins with spaces before one cell less lacks the name of an
    index, which may be the next line. Lines keep their numbers.

    Args:
        data: in UTF-8.
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
            if indexed:
                first, second = [i for i, line in enumerate(lines) if line][:2]
                lines[first] = (lines[second] if named else "") + "\t" + lines[first]
                lines[second] = "" if named else lines[second]
            return "\n".join(lines).encode() + b"\n"
    return data
