"""Tables of figures, for the terminal and as Markdown, and the choice of their rows."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import jax
from rich.table import Table as RichTable

from maml_jax.errors import ConfigError

QUICK_SHARE = 50
"""A quick call takes one meta-step out of so many."""

QUICK_MARK = "QUICK (a try of the machinery, not to be compared): "


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        title: above it.
        columns: names of the columns; the first holds names, the others figures.
        rows: the cells.
        note: below it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown, under a heading."""
        rule = ["---"] + ["---:"] * (len(self.columns) - 1)
        lines = (self.columns, rule, *self.rows)
        body = "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
        return f"## {self.title}\n\n{body}" + (f"\n{self.note}\n" if self.note else "")

    def rich(self) -> RichTable:
        """Return the table for a terminal."""
        table = RichTable(
            title=self.title, title_justify="left", caption=self.note, caption_justify="left"
        )
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


class Keyed(Protocol):
    """A row that can be asked for by name."""

    @property
    def key(self) -> str:
        """Its name."""
        ...


Row = TypeVar("Row", bound=Keyed)


def choose(rows: Sequence[Row], wanted: Sequence[str]) -> list[Row]:
    """Return the rows that are asked for, in the order of the table.

    Args:
        rows: all there are.
        wanted: keys, or beginnings of keys, each of which stands for all rows that it begins; none
            asks for all rows.

    Raises:
        ConfigError: naming a key that begins no row.
    """
    keys = [row.key for row in rows]
    chosen = set() if wanted else set(keys)
    for key in wanted:
        found = [key] if key in keys else [each for each in keys if each.startswith(key)]
        if not found or not key:
            raise ConfigError(f"--method {key}: no such row; there are {', '.join(keys)}")
        chosen.update(found)
    return [row for row in rows if row.key in chosen]


def require_positive(**numbers: int | None) -> None:
    """Refuse a number below 1.

    Raises:
        ConfigError: naming the option.
    """
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigError(f"--{name}: must be at least 1, got {value}")


def format_interval(mean: float, half: float, digits: int = 3) -> str:
    """Write a mean and half the width of its interval."""
    if not math.isfinite(mean):
        return "diverged"
    # A diverging task would fill the table with digits, a tiny error would show none.
    usual = 0 == mean or 10**-digits <= abs(mean) < 1000
    form = f".{digits}f" if usual else ".1e"
    return f"{mean:{form}}" + (f" ± {half:{form}}" if math.isfinite(half) else "")


def describe_machine() -> dict[str, str | int]:
    """Return where figures are computed: the version of JAX, and its devices."""
    device = jax.devices()[0]
    return {"jax": jax.__version__, "device": device.device_kind, "devices": jax.device_count()}
