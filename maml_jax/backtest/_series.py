"""Series and tables of returns as metrics take them."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.errors import ConfigError, ShapeError

Returns = pd.Series | pd.DataFrame | Float[np.ndarray, " bar"]

_Measure = TypeVar("_Measure", bound=Callable[..., Any])


def by_column(measure: _Measure) -> _Measure:
    """Let a metric of series measure each column of tables, those of one table beside another's."""

    @wraps(measure)
    def measure_columns(*values: Any, **options: Any) -> Any:
        named = {name: each for name, each in options.items() if isinstance(each, pd.DataFrame)}
        tables = [*(each for each in values if isinstance(each, pd.DataFrame)), *named.values()]
        if not tables:
            return measure(*values, **options)
        columns = tables[0].columns
        if not all(table.columns.equals(columns) for table in tables):
            raise ShapeError("tables of returns that are compared must have the same columns")

        def at(each: Any, place: int) -> Any:
            return each.iloc[:, place] if isinstance(each, pd.DataFrame) else each

        found = [
            measure(
                *(at(each, place) for each in values),
                **{name: at(each, place) for name, each in options.items()},
            )
            for place in range(len(columns))
        ]
        if found and isinstance(found[0], np.ndarray):
            return pd.DataFrame(np.column_stack(found), tables[0].index, columns)
        return pd.Series(found, columns, dtype=float)

    return measure_columns  # pyright: ignore[reportReturnType]


def read_series(returns: Returns) -> np.ndarray:
    """Return the values of a series, `[bar]`.

    Raises:
        ShapeError: if they are not one series.
    """
    if isinstance(returns, pd.Series):
        values = returns.to_numpy(float, na_value=np.nan)
    else:
        values = np.asarray(returns, float)
    if values.ndim != 1:
        raise ShapeError(f"expected one series, [bar], or a table; got an array of {values.shape}")
    return values


def known_values(returns: Returns) -> np.ndarray:
    """Return the values of a series that are not NaN."""
    values = read_series(returns)
    known = ~np.isnan(values)
    return values if known.all() else values[known]


def known_pairs(first: Returns, second: Returns) -> tuple[np.ndarray, np.ndarray]:
    """Return two series at the bars where both are known, joined by their index.

    Raises:
        ShapeError: if arrays differ in length.
    """
    if isinstance(first, pd.Series) and isinstance(second, pd.Series):
        if not first.index.equals(second.index):
            first, second = first.align(second, join="inner")
    one, other = read_series(first), read_series(second)
    if len(one) != len(other):
        raise ShapeError(f"two series must have the same bars; they have {len(one)}, {len(other)}")
    known = ~(np.isnan(one) | np.isnan(other))
    return (one, other) if known.all() else (one[known], other[known])


def require_share(share: float) -> None:
    """Refuse a share that is none.

    Raises:
        ConfigError: with what was meant, where it looks like per cent.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share must lie between 0 and 1, and 0.05 is 5 %; got {share}")
