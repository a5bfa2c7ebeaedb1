"""The table of a file as it stands there, and the options of reading it."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from maml_jax.errors import DataError


class Raw(NamedTuple):
    """A table for `to_bars`.

    Attributes:
        table: text, or values with types; its columns are named as in the file.
        symbol: the asset, where the file says so outside of the table.
        place: names the place of row `i` in the file; None for "row i".
        part: of the file, such as a sheet; added to its name in errors.
        zone: the time zone that the file states for times without one.
    """

    table: pd.DataFrame
    symbol: str | None = None
    place: Callable[[int], str] | None = None
    part: str = ""
    zone: str | None = None


class Options(NamedTuple):
    """How a file is read; see `read_bars`."""

    layout: str | None = None
    encoding: str | None = None
    skip_lines: int | None = None

    def check(self) -> None:
        """Refuse a number of lines that is none.

        Raises:
            DataError: naming the option.
        """
        lines = self.skip_lines
        if lines is not None and (
            isinstance(lines, bool) or not isinstance(lines, int) or lines < 0
        ):
            raise DataError(
                f"skip_lines={lines!r}: must be the number of lines above the header, 0 or more"
            )
