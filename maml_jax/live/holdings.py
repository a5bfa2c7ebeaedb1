"""What a trader holds, from a file."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.listing import quote_names

_ASSET = ("asset", "symbol", "ticker", "instrument", "name")
_UNITS = ("units", "quantity", "qty", "shares", "size", "position", "amount")
_ENTRY = ("entry", "entry_price", "average_price", "avg_price", "cost_basis", "price")


class Holdings(NamedTuple):
    """What is held.

    Attributes:
        units: of each asset, negative for shorts.
        entry: average price at which they were bought; NaN where unknown.
    """

    units: dict[str, float]
    entry: dict[str, float]


def read_holdings(path: str | Path) -> Holdings:
    """Read what is held: a CSV file of `asset` and `units`, also `entry`, or JSON of asset: units.

    Raises:
        DataError: naming the file and the column or row that will not do.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict):
                content = [{"asset": key, "units": value} for key, value in content.items()]
            table = pd.DataFrame(content)
        else:
            table = pd.read_csv(path, sep=None, engine="python")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: no table of holdings: {error}") from error
    names = {str(column).strip().lower().replace(" ", "_"): column for column in table.columns}
    asset, units = (_column(path, names, each) for each in (_ASSET, _UNITS))
    entry = next((names[name] for name in _ENTRY if name in names), None)
    labels = table[asset].astype(str).str.strip()
    if labels.duplicated().any():
        twice = labels[labels.duplicated()].iloc[0]
        raise DataError(f"{path}: {twice} stands in two rows; add them up")
    numbers = pd.to_numeric(table[units], errors="coerce")
    if not np.isfinite(numbers).all():
        row = int(np.flatnonzero(~np.isfinite(numbers))[0])
        value = table[units].iloc[row]
        raise DataError(f"{path}: row {row + 1}, column {units!r}: {value!r} is no number of units")
    prices = pd.Series(np.nan, table.index)
    if entry is not None:
        prices = pd.to_numeric(table[entry], errors="coerce")
    return Holdings(
        dict(zip(labels, numbers.astype(float), strict=True)),
        dict(zip(labels, prices.astype(float), strict=True)),
    )


def _column(path: Path, names: dict, wanted: tuple[str, ...]) -> str:
    found = [names[name] for name in wanted if name in names]
    if not found:
        raise DataError(
            f"{path}: has no column {wanted[0]!r} (or {', '.join(wanted[1:4])}); there are "
            f"{quote_names([str(column) for column in names.values()])}"
        )
    return found[0]
