"""Tables without a header: what the columns of known exports are."""

import re
from collections.abc import Mapping, Sequence

from maml_jax.errors import DataError

_PRICES = ("open", "high", "low", "close")
_OHLCV = (*_PRICES, "volume")


def _widths(columns: tuple[str, ...], *widths: int) -> dict[int, tuple[str, ...]]:
    return {n: (*columns, *[""] * (n - len(columns)))[:n] for n in widths}


LAYOUTS: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    # open time, prices, volume, close time, quote volume, trades, taker volumes, ignore
    "binance": _widths(("timestamp", *_OHLCV), 6, 7, 8, 9, 10, 11, 12),
    # its archive ends with trades; the API has a mean price before the volume
    "kraken": {
        7: ("timestamp", *_OHLCV, ""),
        8: ("timestamp", *_PRICES, "", "volume", ""),
    },
    "histdata": _widths(("timestamp", *_OHLCV), 5, 6),
    # MetaTrader 5 without its header has volume and spread after the ticks
    "mt4": _widths(("date", "time", *_OHLCV), 6, 7, 8, 9),
}
"""Names of the columns by their number, by layout; a column without a name is left out."""


_BEGINNINGS = {
    "binance": r"\d{12,16}\|",
    "kraken": r"\d{9,10}\|",
    "histdata": r"\d{8} \d{6}\|",
    "mt4": r"\d{4}[-./]\d\d[-./]\d\d\|\d\d:\d\d(:\d\d)?\|",
}
"""How a row begins, with a bar after each cell."""
_DESCRIBED = {
    "binance": "milliseconds or microseconds since 1970",
    "kraken": "seconds since 1970",
    "histdata": "times such as '20240131 093000'",
    "mt4": "a date such as '2024.01.31' and a time such as '09:30'",
}


def layout_columns(layout: str, row: Sequence[object], source: str) -> tuple[str, ...]:
    """Return the names of the columns; empty for one to leave out.

    Args:
        layout: one of `LAYOUTS`, or the names themselves, separated by commas.
        row: the cells of the first row.
        source: how errors call the table.

    Raises:
        DataError: if there is no such layout, or the row is not of it.
    """
    width = len(row)
    if "," in layout:
        names = tuple(name.strip() for name in layout.split(","))
        names = tuple("" if name in ("-", "_") else name for name in names)
        if len(names) != width:
            raise DataError(
                f"{source}: layout={layout!r} names {len(names)} columns, but there are {width} "
                "(write - for a column to leave out)"
            )
        return names
    if layout not in LAYOUTS:
        raise DataError(
            f"{source}: layout={layout!r}: expected {', '.join(LAYOUTS)}, or names of columns such "
            "as 'date,open,high,low,close,volume'"
        )
    widths = LAYOUTS[layout]
    if width not in widths:
        raise DataError(
            f"{source}: layout={layout!r} has {_list(widths)} columns, but there are {width}; is "
            "it another layout, or are there lines above the table (skip_lines)?"
        )
    if not _is_of(layout, row):
        raise DataError(
            f"{source}: layout={layout!r} begins with {_DESCRIBED[layout]}, not with "
            f"{str(row[0])!r}, {str(row[1])!r}"
        )
    return widths[width]


def describe_layouts(row: Sequence[str]) -> str:
    """Say how to name the layout of a table without a header, the likeliest first.

    Args:
        row: the cells of its first row.
    """
    guess = next((name for name in LAYOUTS if _is_of(name, row)), None)
    if guess == "binance" and len(row) < 12:  # other tables begin in the same way
        guess = None
    if guess is None:
        return (
            f"name the layout, as in layout='binance' ({', '.join(LAYOUTS)}), or its "
            f"{len(row)} columns, as in layout='date,open,high,low,close,volume'"
        )
    others = ", ".join(name for name in LAYOUTS if name != guess)
    return (
        f"name the layout: it looks like layout='{guess}' (others: {others}; or names of columns, "
        "as in layout='date,open,high,low,close,volume')"
    )


def _is_of(layout: str, row: Sequence[object]) -> bool:
    text = "".join(f"{str(cell).strip()}|" for cell in row[:2])
    return len(row) in LAYOUTS[layout] and re.match(_BEGINNINGS[layout], text) is not None


def _list(widths: Mapping[int, object]) -> str:
    *some, last = sorted(widths)
    return f"{', '.join(map(str, some))} or {last}"
