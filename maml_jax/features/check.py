"""Check a feature on bars: no look-ahead, independent of the first bar, finite."""

import numpy as np
import pandas as pd

from maml_jax.errors import DataError, LookAheadError
from maml_jax.features.feature import Feature, feature_values, require_columns

_PLACES = 12
"""Number of cuts."""


def check_feature(
    feature: Feature, bars: pd.DataFrame, *, asset: str = "the asset", tolerance: float = 1e-6
) -> None:
    """Refuse a feature that breaks its promises on the bars of an asset.

    The bars are cut, and altered, at several places: up to there, no value may change. They start
    at several places: from the declared warm-up on, no value may differ, unless the feature says
    that it depends on the start. Each value after the warm-up must be finite.

    Args:
        feature: built in, or registered by the user.
        bars: in normal form, without missing values; more of them than the warm-up.
        asset: how error messages call the bars.
        tolerance: difference that counts as rounding, relative to a value or to their mean size.

    Raises:
        DataError: naming the feature, the promise and the bar; as `compute_features`; or if there
            are too few bars.
    """
    values = _values(feature, bars, asset)
    warm_up = feature.warm_up
    wrong = np.flatnonzero(~np.isfinite(values[warm_up:]))
    if len(wrong):
        place = warm_up + wrong[0]
        raise DataError(
            f"{asset}: feature {feature.name!r} is {values[place]} at {bars.index[place]}, bar "
            f"{place}, after its warm-up of {warm_up} bars"
        )
    refuse_look_ahead(feature, bars, asset=asset, tolerance=tolerance)
    if not feature.start_invariant:
        return
    count = len(bars)
    for start in np.unique(np.linspace(1, count - warm_up - 1, _PLACES, dtype=int)):
        late = feature_values(bars.iloc[start:], feature, asset=asset)[warm_up:]
        place = _first_difference(late, values[start + warm_up :], _usual(values), tolerance)
        if place is not None:
            raise DataError(
                f"{asset}: feature {feature.name!r} depends on where the bars begin: its value at "
                f"{bars.index[start + warm_up + place]} changes if they begin at "
                f"{bars.index[start]}, more than its warm-up of {warm_up} bars before"
            )


def refuse_look_ahead(
    feature: Feature, bars: pd.DataFrame, *, asset: str = "the asset", tolerance: float = 1e-6
) -> None:
    """Refuse a feature whose values change with later bars.

    Args:
        feature: as for `check_feature`.
        bars: in normal form; more of them than the warm-up.
        asset: how error messages call the bars.
        tolerance: as for `check_feature`.

    Raises:
        LookAheadError: naming the feature and the bar.
        DataError: if there are too few bars.
    """
    values = _values(feature, bars, asset)
    for end in np.unique(np.linspace(feature.warm_up + 1, len(bars) - 1, _PLACES, dtype=int)):
        for later in (bars.iloc[:end], _alter(bars, end)):
            seen = feature_values(later, feature, asset=asset)[:end]
            place = _first_difference(seen, values[:end], _usual(values), tolerance)
            if place is not None:
                raise LookAheadError(
                    f"{asset}: feature {feature.name!r} looks ahead: its value at "
                    f"{bars.index[place]} changes with the bars from {bars.index[end]} on",
                    feature=feature.name,
                    asset=asset,
                    bar=bars.index[place],
                    cut=bars.index[end],
                )


def _values(feature: Feature, bars: pd.DataFrame, asset: str) -> np.ndarray:
    require_columns(bars, [feature], asset=asset)
    if len(bars) < feature.warm_up + 3:
        raise DataError(
            f"{asset}: checking feature {feature.name!r} needs at least {feature.warm_up + 3} bars "
            f"(warm-up {feature.warm_up} + 3), and there are {len(bars)}"
        )
    return feature_values(bars, feature, asset=asset)


def _usual(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.abs(known).mean()) if len(known) else 0.0


def _first_difference(
    found: np.ndarray, expected: np.ndarray, usual: float, tolerance: float
) -> int | None:
    with np.errstate(invalid="ignore"):
        near = np.abs(found - expected)
        same = near <= 1e-12 + tolerance * np.maximum(np.abs(expected), usual)
    places = np.flatnonzero(~(same | (found == expected) | (np.isnan(found) & np.isnan(expected))))
    return int(places[0]) if len(places) else None


def _alter(bars: pd.DataFrame, first: int) -> pd.DataFrame:
    """Return the bars, altered from a place on."""
    values = bars.to_numpy(float, copy=True)
    values[first:] *= np.linspace(1.5, 3.0, len(bars) - first)[:, None]
    return pd.DataFrame(values, bars.index, bars.columns)
