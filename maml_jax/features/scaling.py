"""Standardisation, fitted on the meta-training span alone."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError


class Scaler(NamedTuple):
    """Mean and standard deviation of each feature and, where needed, of the target.

    Attributes:
        mean: indexed by feature.
        std: indexed by feature, positive.
        clip: bound on the size of a standardised feature; None for no bound.
        target_mean: of a target with units, such as a log volatility; 0 for targets that are of
            order one anyway.
        target_std: likewise, positive.
    """

    mean: pd.Series
    std: pd.Series
    clip: float | None = 5.0
    target_mean: float = 0.0
    target_std: float = 1.0

    def transform(self, features: pd.DataFrame) -> pd.DataFrame:
        """Standardise: `(features - mean) / std`, clipped.

        Raises:
            DataError: if the columns are not those that the scaler was fitted on, in their order.
        """
        if list(features.columns) != list(self.mean.index):
            raise DataError(
                f"the scaler was fitted on features {list(self.mean.index)}, "
                f"got {list(features.columns)}"
            )
        scaled = (features - self.mean) / self.std
        return scaled if self.clip is None else scaled.clip(-self.clip, self.clip)

    def transform_target(self, values: Any) -> Any:
        """Standardise targets, as learners see them."""
        return (values - self.target_mean) / self.target_std

    def restore_target(self, values: Any) -> Any:
        """Convert predictions of a standardised target to its own units.

        Multiply a predicted deviation by `target_std` alone.
        """
        return values * self.target_std + self.target_mean


def fit_scaler(tables: Iterable[pd.DataFrame], *, clip: float | None = 5.0) -> Scaler:
    """Fit a scaler on all rows of several assets together.

    Args:
        tables: one table of features per asset, cut to the meta-training span; NaN rows are
            skipped.
        clip: bound on the size of a standardised value.

    Raises:
        DataError: if no row holds a value.
    """
    rows = pd.concat(list(tables)).dropna()
    if rows.empty:
        raise DataError("no row of features in the meta-training span to fit the scaling on")
    std = rows.std(ddof=0)
    # A feature that never varies becomes 0 instead of being divided by 0.
    return Scaler(rows.mean(), std.where(std > 1e-12 * (1 + rows.mean().abs()), 1.0), clip)


def scaler_to_dict(scaler: Scaler) -> dict:
    """Return a scaler as plain lists and numbers."""
    return {
        "features": list(scaler.mean.index),
        "mean": scaler.mean.to_list(),
        "std": scaler.std.to_list(),
        "clip": scaler.clip,
        "target_mean": scaler.target_mean,
        "target_std": scaler.target_std,
    }


def scaler_from_dict(record: dict) -> Scaler:
    """Return the scaler that `scaler_to_dict` wrote; the target's scaling may be missing.

    Raises:
        DataError: if an entry is missing, or cannot be that of a scaler.
    """
    try:
        names, clip = record["features"], record["clip"]
        target = (record.get("target_mean", 0.0), record.get("target_std", 1.0))
        columns = (record["mean"], record["std"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"not a scaler: {error!r}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"not a scaler: 'features' are {names!r}, not names")
    for key, values in zip(("mean", "std"), columns, strict=True):
        if not isinstance(values, list) or len(values) != len(names):
            raise DataError(f"not a scaler: {key!r} has not one number for each feature")
    for value in (*columns[0], *columns[1], *target, *([] if clip is None else [clip])):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not np.isfinite(value):
            raise DataError(f"not a scaler: {value!r} is not a number")
    if not all(value > 0 for value in (*columns[1], target[1], *([] if clip is None else [clip]))):
        raise DataError("not a scaler: deviations and the bound must be positive")
    index = pd.Index(names)
    mean, std = (pd.Series(np.asarray(values, float), index) for values in columns)
    return Scaler(mean, std, clip, *target)
