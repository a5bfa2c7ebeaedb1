"""What a feature is, and how a list of them becomes a table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError


class Feature(NamedTuple):
    """A function of the past of one asset's bars.

    Attributes:
        name: the column's name.
        compute: `bars -> Series` on the index of `bars`. The value at bar t must depend on bars up
            to and including t only, and from bar `warm_up` on (counting from 0) must be finite and
            must not depend on where the series begins.
        warm_up: how many bars at the start of a series have no value.
        columns: the columns of the bars that it reads.
    """

    name: str
    compute: Callable[[pd.DataFrame], pd.Series]
    warm_up: int
    columns: tuple[str, ...] = ("close",)


def compute_features(
    bars: pd.DataFrame, features: Sequence[Feature], *, asset: str = "the asset"
) -> pd.DataFrame:
    """Compute features of one asset.

    Args:
        bars: in normal form.
        features: what to compute.
        asset: how error messages call the bars.

    Returns:
        One column per feature on the index of `bars`. Rows in the warm-up of any feature are NaN
        throughout, so that a row is either whole or absent.

    Raises:
        DataError: if the bars lack a column that a feature needs.
    """
    require_columns(bars, features, asset=asset)
    columns = {feature.name: feature.compute(bars) for feature in features}
    table = pd.DataFrame(columns, index=bars.index, dtype="float64")
    whole = np.isfinite(table.to_numpy()).all(axis=1, keepdims=True)
    table = table.where(np.broadcast_to(whole, table.shape))
    table.iloc[: longest_warm_up(features)] = np.nan
    return table


def longest_warm_up(features: Sequence[Feature]) -> int:
    """Return how many bars at the start of a series have no row of features."""
    return max((feature.warm_up for feature in features), default=0)


def require_columns(
    bars: pd.DataFrame, features: Sequence[Feature], *, asset: str = "the asset"
) -> None:
    """Refuse bars that lack a column that a feature needs.

    Raises:
        DataError: naming asset, feature and column.
    """
    for feature in features:
        for column in feature.columns:
            if column not in bars.columns:
                raise DataError(
                    f"{asset}: feature {feature.name!r} needs column {column!r}, and the bars have "
                    f"only {list(bars.columns)}"
                )
