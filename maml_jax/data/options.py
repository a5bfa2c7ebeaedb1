"""How tables of bars are read: the options of the readers, and what they have to say."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypedDict

import pandas as pd

from maml_jax.errors import DataError
from maml_jax.listing import quote_names

Missing = Literal["error", "drop"]
Decimal = Literal[".", ","]


class TableOptions(TypedDict, total=False):
    """How a table is read; see `maml_jax.data.to_bars`."""

    timezone: str | None
    date_format: str | None
    adjust: bool
    missing: Missing
    columns: Mapping[str, str] | None
    decimal: Decimal | None


class Reading(NamedTuple):
    """A table that is being read: where it comes from, and the options.

    Attributes:
        source: how error messages call the table.
        place: names the place of row `i` in the source ("line 7").
        timezone: of times without one. This and the rest are the options of `to_bars`.
        zone_doubt: why it is not clear in which time zone times without one are.
    """

    source: str
    place: Callable[[int], str]
    timezone: str | None = None
    date_format: str | None = None
    adjust: bool = True
    missing: Missing = "error"
    columns: Mapping[str, str] | None = None
    decimal: Decimal | None = None
    zone_doubt: str | None = None


def make_reading(source: str, place: Callable[[int], str] | None, options: TableOptions) -> Reading:
    """Return how a table is read.

    Raises:
        DataError: naming an option that has an impossible value.
    """
    reading = Reading(source, place or (lambda row: f"row {row}"), **options)
    for name, value, possible in (
        ("missing", reading.missing, ("error", "drop")),
        ("decimal", reading.decimal, (None, ".", ",")),
    ):
        if value not in possible:
            raise DataError(f"{name}={value!r}: expected one of {[p for p in possible if p]}")
    columns = reading.columns
    if columns is not None and not isinstance(columns, Mapping):
        raise DataError(
            f'columns={columns!r}: expected names by what they hold, as {{"close": "x"}}'
        )
    return reading


def reading_notes(bars: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """Return what the reader did to bars beyond what their table says, one sentence of a kind."""
    said: dict[str, list[str]] = {}
    for name, frame in bars.items():
        for text in frame.attrs.get("notes", ()):
            said.setdefault(text, []).append(name)
    return tuple(f"Bars of {quote_names(names)}: {text}." for text, names in said.items())
