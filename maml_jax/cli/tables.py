"""What the commands on bars share: the option of the store, and how tables are printed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Directory of the store. Default: $MAML_JAX_STORE, or the user's data directory.",
    ),
]


class PlainTable(Table):
    """A table that shows text as it is: brackets in the name of an asset are no markup."""

    def add_row(self, *cells, **options) -> None:
        """Add a row of cells."""
        shown = (escape(cell) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)


def make_table(*columns: str) -> PlainTable:
    """Make a table with numbers on the right."""
    table = PlainTable()
    for name in columns:
        table.add_column(name, justify="right" if name in ("new", "bars", "size") else "left")
    return table


def make_console() -> Console:
    """Make a console that does not cut tables where the output is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 180)


def format_time(time: "pd.Timestamp | None") -> str:
    """Format a time, without the hour at midnight."""
    if time is None:
        return ""
    return f"{time:%Y-%m-%d}" if time == time.normalize() else f"{time:%Y-%m-%d %H:%M}"
