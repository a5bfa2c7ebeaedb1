"""Features of volume; `volume_ratio` is among the technical ones."""

import pandas as pd

from maml_jax.features.feature import Feature
from maml_jax.features.windows import rolling_mean, rolling_std


def volume_zscore(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Volume in standard deviations from its mean, $(v_t - \text{SMA}_n(v)_t) / s_n(v)_t$.

    Both over the last n bars, this one included, so that it stays within $(n - 1) / \sqrt n$. 0
    where volume does not change. Warm-up: n - 1 bars.
    """
    volume = bars["volume"]
    mean, std = rolling_mean(volume, window), rolling_std(volume, window)
    return ((volume - mean) / std).mask(std <= 0, 0.0)


def mfi(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Money flow index between 0 and 100, $100\, U / (U + D)$ (TA-Lib's MFI).

    $U$ and $D$ are the means of $q_t v_t$ over those of the last n bars whose typical price
    $q_t = (h_t + l_t + c_t) / 3$ rose or fell (Quong and Soudack, 1989). 50 where none did, or
    without volume. Warm-up: n bars.
    """
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    flow, change = typical * bars["volume"], typical.diff()
    rise = rolling_mean(flow.mask(change <= 0, 0.0).where(change.notna()), window)
    total = rolling_mean(flow.mask(change == 0, 0.0).where(change.notna()), window)
    return (100 * rise / total).mask(total <= 0, 50.0).clip(0, 100)


def volume_features(*, window: int = 20) -> dict[str, Feature]:
    """Return the features of volume, by name.

    Args:
        window: bars of the averages.
    """
    n = window
    features = [
        Feature("volume_zscore", lambda b: volume_zscore(b, n), n - 1, ("volume",)),
        Feature("mfi", lambda b: mfi(b, n), n, ("high", "low", "close", "volume")),
    ]
    return {feature.name: feature for feature in features}
