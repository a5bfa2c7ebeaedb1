"""What looks like a time: cells of text, and indices of tables that do not say so."""

import re

import pandas as pd

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


def read_time_index(table: pd.DataFrame) -> pd.DataFrame:
    """Turn periods into the times at which they begin, and name an index of times that has no name.

    Args:
        table: with any index; periods may also stand in columns.

    Returns:
        The table, the index named `index` if it is text or numbers, has no name, and begins with
        what looks like a time.
    """
    for column, kind in zip(table.columns, table.dtypes, strict=True):
        if isinstance(kind, pd.PeriodDtype):
            table = table.assign(**{column: table[column].dt.to_timestamp()})
    index = table.index
    if isinstance(index, pd.PeriodIndex):
        return table.set_axis(index.to_timestamp(), axis="index")
    known = isinstance(index, pd.RangeIndex | pd.MultiIndex | pd.DatetimeIndex)
    if known or index.name is not None or not len(index):
        return table
    if hasattr(index[0], "year") or looks_like_time(str(index[0])):
        return table.rename_axis("index")
    return table
