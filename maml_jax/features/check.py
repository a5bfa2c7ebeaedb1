"""Checks of a feature on bars: that it does not look ahead, forgets its beginning and is finite."""

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features.feature import Feature, feature_values, require_columns

_PLACES = 12
"""At how many places the bars are cut."""


def check_feature(
    feature: Feature, bars: pd.DataFrame, *, asset: str = "the asset", tolerance: float = 1e-6
) -> None:
    """Refuse a feature that breaks its promises on the bars of an asset.

    The bars are cut at several places, and altered after them: up to there, no value may change.
    They are begun at several places: from the declared warm-up on, no value may differ. And each
    value after the warm-up must be a finite number.

    Args:
        feature: built in, or a user's own as `register_feature` returns it.
        bars: in normal form, without missing values; more of them than the warm-up.
        asset: how error messages call the bars.
        tolerance: the difference that counts as rounding, as a share of a value or of their usual
            size.

    Raises:
        DataError: naming the feature, the promise and the bar; as `compute_features`; or if there
            are too few bars to tell.
    """
    require_columns(bars, [feature], asset=asset)
    warm_up, count = feature.warm_up, len(bars)
    if count < warm_up + 3:
        raise DataError(
            f"{asset}: checking feature {feature.name!r} needs at least {warm_up + 3} bars "
            f"(warm-up {warm_up} + 3), and there are {count}"
        )
    values = feature_values(bars, feature, asset=asset)
    about = f"{asset}: feature {feature.name!r}"
    wrong = np.flatnonzero(~np.isfinite(values[warm_up:]))
    if len(wrong):
        place = warm_up + wrong[0]
        raise DataError(
            f"{about} is {values[place]} at {bars.index[place]}, bar {place}, after its warm-up of "
            f"{warm_up} bars"
        )
    usual = float(np.abs(values[warm_up:]).mean())

    def differs(others: np.ndarray, first: int, last: int) -> int | None:
        ours = values[first:last]
        same = np.abs(others - ours) <= 1e-12 + tolerance * np.maximum(np.abs(ours), usual)
        places = np.flatnonzero(~(same | (np.isnan(others) & np.isnan(ours))))
        return first + int(places[0]) if len(places) else None

    for end in np.unique(np.linspace(warm_up + 1, count - 1, _PLACES, dtype=int)):
        for later in (bars.iloc[:end], _altered(bars, end)):
            place = differs(feature_values(later, feature, asset=asset)[:end], 0, end)
            if place is not None:
                raise DataError(
                    f"{about} looks ahead: its value at {bars.index[place]} changes with the bars "
                    f"from {bars.index[end]} on"
                )
    for start in np.unique(np.linspace(1, count - warm_up - 1, _PLACES, dtype=int)):
        late = feature_values(bars.iloc[start:], feature, asset=asset)[warm_up:]
        place = differs(late, start + warm_up, count)
        if place is not None:
            raise DataError(
                f"{about} depends on where the bars begin: its value at {bars.index[place]} is "
                f"another where they begin at {bars.index[start]}, more than its warm-up of "
                f"{warm_up} bars before"
            )


def _altered(bars: pd.DataFrame, first: int) -> pd.DataFrame:
    """Return other bars from a place on, the same up to it."""
    values = bars.to_numpy(float, copy=True)
    values[first:] *= np.linspace(1.5, 3.0, len(bars) - first)[:, None]
    return pd.DataFrame(values, bars.index, bars.columns)
