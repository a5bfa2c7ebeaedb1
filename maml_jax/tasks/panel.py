"""The Panel: many assets as dense arrays, and the one place where tables become arrays."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Int

from maml_jax.errors import DataError
from maml_jax.features.scaling import Scaler
from maml_jax.features.targets import Target, compute_scaled_target


class Panel(NamedTuple):
    """Bars of many assets as float32 arrays on the device, free of NaN.

    Assets may begin, end and miss bars where they like: the time axis is the union of their bars,
    and everything that looks back or ahead was counted in an asset's own bars.

    Attributes:
        features: standardised, `[asset, time, feature]`; 0 where not `valid`.
        targets: of order one, `[asset, time]`: returns in volatilities, directions, or standardised
            log volatilities; 0 where not known.
        valid: whether a whole row of features stands here and a target can be formed from it,
            `[asset, time]`.
        label_end: index on the time axis of the bar that completes the label, `[asset, time]`;
            the length of the axis where there is no label.
        timestamps: opening times of the bars, `[time]`.
        assets: names, `[asset]`.
        feature_names: `[feature]`.
        regimes: number of the regime in force at each bar, known at that bar, `[asset, time]`; -1
            where there is none yet. None where regimes are not used.
    """

    features: Float[Array, "asset time feature"]
    targets: Float[Array, "asset time"]
    valid: Bool[Array, "asset time"]
    label_end: Int[Array, "asset time"]
    timestamps: pd.DatetimeIndex
    assets: tuple[str, ...]
    feature_names: tuple[str, ...]
    regimes: Int[np.ndarray, "asset time"] | None = None


def make_panel(
    bars: Mapping[str, pd.DataFrame],
    features: Mapping[str, pd.DataFrame],
    target: Target,
    scaler: Scaler | None = None,
) -> Panel:
    """Make a Panel.

    Args:
        bars: in normal form, by asset.
        features: standardised features on the index of each asset's bars, NaN rows in the warm-up.
        target: what is predicted.
        scaler: standardises targets of kind `volatility`; `scaler.restore_target` turns predictions
            back. None leaves them as they are.

    Raises:
        DataError: if there is no asset, or a price is constant, or columns are needed and missing.
    """
    if not bars:
        raise DataError("a panel needs the bars of at least one asset")
    assets = tuple(bars)
    names = tuple(features[assets[0]].columns)
    timestamps, delay = assets_timeline(bars), target.label_delay
    shape = (len(assets), len(timestamps))
    x = np.zeros((*shape, len(names)), np.float32)
    y = np.zeros(shape, np.float32)
    valid, label_end = np.zeros(shape, bool), np.full(shape, shape[1], np.int32)
    for i, asset in enumerate(assets):
        values, scale = compute_scaled_target(bars[asset], target, scaler, asset=asset)
        table = features[asset].to_numpy()
        index = timestamps.get_indexer(bars[asset].index)
        whole = np.isfinite(table).all(axis=1) & np.isfinite(scale.to_numpy())
        known = whole & np.isfinite(values.to_numpy())
        ends = np.full(len(index), shape[1])
        ends[:-delay] = index[delay:]
        x[i, index[whole]] = table[whole]
        y[i, index[known]] = values.to_numpy()[known]
        valid[i, index] = whole
        label_end[i, index[known]] = ends[known]
    return Panel(
        features=jnp.asarray(x),
        targets=jnp.asarray(y),
        valid=jnp.asarray(valid),
        label_end=jnp.asarray(label_end),
        timestamps=timestamps,
        assets=assets,
        feature_names=names,
    )


def assets_timeline(bars: Mapping[str, pd.DataFrame]) -> pd.DatetimeIndex:
    """Return the union of the assets' timestamps, ascending."""
    timeline = pd.Index([])
    for i, frame in enumerate(bars.values()):
        timeline = timeline.union(frame.index) if i else frame.index
    return pd.DatetimeIndex(timeline)
