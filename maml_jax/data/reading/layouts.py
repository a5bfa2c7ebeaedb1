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


def layout_columns(layout: str, width: int, source: str) -> tuple[str, ...]:
    """Return the names of the columns; empty for one to leave out.

    Args:
        layout: one of `LAYOUTS`, or the names themselves, separated by commas.
        width: number of columns of the table.
        source: how errors call the table.

    Raises:
        DataError: if there is no such layout, or it has another number of columns.
    """
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
    return widths[width]


def describe_layouts(row: Sequence[str]) -> str:
    """Say how to name the layout of a table without a header, the likeliest first.

    Args:
        row: the cells of its first row.
    """
    first, second = (cell.strip() for cell in (*row, "", "")[:2])
    guess = None
    if re.fullmatch(r"\d{4}\.\d\d\.\d\d", first) and re.fullmatch(r"\d\d:\d\d(:\d\d)?", second):
        guess = "mt4"
    elif re.fullmatch(r"\d{8} \d{6}", first):
        guess = "histdata"
    elif re.fullmatch(r"\d{10}", first) and len(row) in LAYOUTS["kraken"]:
        guess = "kraken"
    elif re.fullmatch(r"\d{13}|\d{16}", first) and len(row) == 12:
        guess = "binance"
    if guess is None or len(row) not in LAYOUTS[guess]:
        return (
            f"name the layout, as in layout='binance' ({', '.join(LAYOUTS)}), or its "
            f"{len(row)} columns, as in layout='date,open,high,low,close,volume'"
        )
    others = ", ".join(name for name in LAYOUTS if name != guess)
    return (
        f"name the layout: it looks like layout='{guess}' (others: {others}; or names of columns, "
        "as in layout='date,open,high,low,close,volume')"
    )


def _list(widths: Mapping[int, object]) -> str:
    *some, last = sorted(widths)
    return f"{', '.join(map(str, some))} or {last}"
