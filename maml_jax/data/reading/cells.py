"""What looks like a time."""

import re

_TIME = re.compile(
    r"""
      \d{4}([-./])\d{1,2}\1\d{1,2}([ T].*)?             # 2024-01-31 09:30
    | \d{1,2}([-./])\d{1,2}\3\d{2,4}([ ,T].*)?          # 31.01.24
    | (19|20)\d{6}(([ ]|T)\d.*)?                        # 20240131 093000
    | \d{9,19}(\.\d+)?                                  # since 1970
    | \d{4}-\d{2}                                       # 2024-01
    | \d{1,2}[- ./]?[^\W\d_]{3,9}\.?[- ./,]{0,2}\d{2,4}(\D.*)?     # 31-Jan-2024
    | ([^\W\d_]{3}\ )?[^\W\d_]{3,9}\.?\ \d{1,2},?\ \d{4}(\D.*)?   # Jan 31, 2024
    """,
    re.VERBOSE,
)


def looks_like_time(cell: str) -> bool:
    """Say whether a cell is a date, a date and time, or a number since 1970.

    >>> [looks_like_time(cell) for cell in ("2024-01-31", "1546387200000", "From 2024-01-31")]
    [True, True, False]
    """
    return _TIME.fullmatch(cell.strip()) is not None
