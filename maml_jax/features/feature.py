"""What a feature is, and how a list of them becomes a table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError, MamlJaxError

MARKET_RETURN, RETURN_RANK, MARKET_MOVE = "market_return", "return_rank", "market_move"
MARKET_COLUMNS = (MARKET_RETURN, RETURN_RANK, MARKET_MOVE)
"""Columns that `add_cross_section` adds to the bars of several assets."""

MEASURE = 1e30
"""Larger numbers are not values: single precision, in which models compute, ends soon after."""


class Feature(NamedTuple):
    """A function of the past of one asset's bars.

    Attributes:
        name: the column's name.
        compute: `bars -> Series` on the index of `bars`, or an array `[bar]`. The value at bar t
            must depend on bars up to and including t only, and from bar `warm_up` on (counting from
            0) must be finite and, unless it says otherwise, not depend on where the series begins.
        warm_up: how many bars at the start of a series have no value.
        columns: the columns of the bars that it reads.
        start_invariant: whether values after the warm-up are the same wherever the series begins.
            Those of a young asset, which are told its age, are not.
    """

    name: str
    compute: Callable[[pd.DataFrame], pd.Series | np.ndarray]
    warm_up: int
    columns: tuple[str, ...] = ("close",)
    start_invariant: bool = True


def compute_features(
    bars: pd.DataFrame, features: Sequence[Feature], *, asset: str = "the asset"
) -> pd.DataFrame:
    """Compute features of one asset.

    Args:
        bars: in normal form.
        features: what to compute.
        asset: how error messages call the bars.

    Returns:
        One column per feature on the index of `bars`. Rows in the warm-up of any feature, and those
        in which one is not a number or beyond `MEASURE`, are NaN throughout, so that a row is
        either whole or absent.

    Raises:
        DataError: if the bars lack a column that a feature needs, or a feature fails or gives
            anything but one number per bar; naming asset and feature.
    """
    require_columns(bars, features, asset=asset)
    columns = {feature.name: feature_values(bars, feature, asset=asset) for feature in features}
    table = pd.DataFrame(columns, index=bars.index, dtype="float64")
    whole = (np.abs(table.to_numpy()) <= MEASURE).all(axis=1, keepdims=True)
    table = table.where(np.broadcast_to(whole, table.shape))
    table.iloc[: longest_warm_up(features)] = np.nan
    return table


def feature_values(bars: pd.DataFrame, feature: Feature, *, asset: str = "the asset") -> np.ndarray:
    """Compute one feature as it is, warm-up and all.

    Returns:
        `[bar]`.

    Raises:
        DataError: if the feature fails or gives anything but one number per bar.
    """
    try:
        # A shallow copy: what a feature does to the table of bars, the next one does not see.
        values = feature.compute(bars.copy(deep=False))
        array = np.asarray(values, float)
    except MamlJaxError:
        raise
    except Exception as error:  # a user's own function may raise anything
        raise DataError(
            f"{asset}: feature {feature.name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if array.shape != (len(bars),):
        raise DataError(
            f"{asset}: feature {feature.name!r} must give one number for each of the {len(bars)} "
            f"bars, and gave {type(values).__name__} of shape {array.shape}"
        )
    if isinstance(values, pd.Series) and not values.index.equals(bars.index):
        raise DataError(
            f"{asset}: feature {feature.name!r} must give a Series on the index of the bars, and "
            "gave one on another"
        )
    return array


def lag_feature(feature: Feature, lag: int) -> Feature:
    """Return the feature `lag` bars ago, named `<name>_lag_<lag>`.

    Args:
        feature: any feature.
        lag: how long ago, in bars of the asset; at least 1.

    Raises:
        ValueError: if `lag` is less than 1 bar.
    """
    if lag < 1:
        raise ValueError(f"a lag must be at least 1 bar, not {lag}: features look back")

    def compute(bars: pd.DataFrame) -> pd.Series:
        values = feature.compute(bars)
        if not isinstance(values, pd.Series):
            values = pd.Series(np.atleast_1d(np.asarray(values, float)), index=bars.index)
        return values.shift(lag)

    return feature._replace(
        name=f"{feature.name}_lag_{lag}", compute=compute, warm_up=feature.warm_up + lag
    )


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
            if column in bars.columns:
                continue
            if column in MARKET_COLUMNS:
                raise DataError(
                    f"{asset}: feature {feature.name!r} compares several assets: it needs column "
                    f"{column!r}, which `add_cross_section` makes of the bars of all of them "
                    "together"
                )
            raise DataError(
                f"{asset}: feature {feature.name!r} needs column {column!r}, and the bars have "
                f"only {list(bars.columns)}"
            )
