"""From predictions to positions, and from decisions to what is held."""

import pandas as pd

PATIENCE = pd.Timedelta(days=30)
"""An asset that has had no bar for longer is taken to have ended; at least 6 bars."""


def threshold_positions(predictions: pd.DataFrame, threshold: float = 0.0) -> pd.DataFrame:
    """Long above the threshold, short below its negative, flat between.

    Args:
        predictions: one column per asset, in the units of the target (volatilities over the
            horizon); NaN where there is none.
        threshold: in the same units, >= 0.

    Returns:
        +1, -1 or 0, where the prediction was made; 0 where there is none.

    Raises:
        ValueError: if the threshold is negative.
    """
    if threshold < 0:
        raise ValueError(f"the threshold must not be negative, got {threshold}")
    return (predictions > threshold).astype(float) - (predictions < -threshold).astype(float)


def held_weights(decisions: pd.DataFrame, returns: pd.DataFrame, delay: int) -> pd.DataFrame:
    """Return the weight held over the interval that ends at each bar.

    A decision taken at the close of an asset's bar k is filled later and first earns the return
    that is complete at its bar `k + delay`, `delay = label_delay(fill, 1)`. Bars are the asset's
    own; where it has none the weight stays as it was, unless it has had none for 30 days (or 6 bars
    if that is longer): then the asset is taken to have ended and the weight is 0.

    Args:
        decisions: wanted weights at the bars where they were decided, `[time, asset]`.
        returns: from fill to fill, `[time, asset]`, NaN where an asset has no bar.
        delay: bars from a decision to the first return that it earns, >= 1.
    """
    index = pd.DatetimeIndex(returns.index)
    patience = max(PATIENCE, 6 * index.to_series().diff().median()) if len(index) > 1 else PATIENCE
    columns = {}
    for asset in returns.columns:
        own = returns[asset].notna()
        held = decisions[asset].reindex(index[own]).fillna(0.0).shift(delay, fill_value=0.0)
        held = held.reindex(index).ffill().fillna(0.0)
        latest = index.to_series().where(own).ffill()
        columns[asset] = held.mask(index - latest > patience, 0.0)
    return pd.DataFrame(columns, index=returns.index)
