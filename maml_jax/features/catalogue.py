"""The built-in features, by name and in groups."""

import re

from maml_jax.features.calendar import calendar_features
from maml_jax.features.cross_section import cross_section_features
from maml_jax.features.feature import Feature
from maml_jax.features.ohlc import ohlc_features
from maml_jax.features.technical import technical_features
from maml_jax.features.volatility import (
    hourly_volatility_features,
    market_volatility_features,
    own_volatility_features,
)
from maml_jax.features.volume import volume_features
from maml_jax.features.young import (
    young_features,
    young_market_features,
    young_range_features,
)

DEFAULT_GROUP = "technical"
"""The default features."""

ALIASES = {"rocp": "momentum"}
"""TA-Lib's names for features that have another name here."""


def feature_groups(
    *,
    window: int = 20,
    returns: tuple[int, ...] = (1, 5, 10),
    fast: int = 12,
    slow: int = 26,
) -> dict[str, dict[str, Feature]]:
    """Return the built-in features, by group and name.

    Args:
        window: bars of averages, deviations, ranges and the like.
        returns: the lags, in bars, of the plain returns.
        fast: span of the faster average of the MACD, in bars.
        slow: span of the slower one.

    Raises:
        ValueError: if a window is too short, or `fast` is not below `slow`.

    >>> counts = {group: len(features) for group, features in feature_groups().items()}
    >>> counts  # doctest: +NORMALIZE_WHITESPACE
    {'technical': 11, 'ohlc': 7, 'volume': 2, 'calendar': 6, 'cross_section': 3, 'har': 5,
     'market_volatility': 2, 'har_hourly': 3, 'young': 9, 'young_range': 2, 'young_market': 3}
    """
    return {
        DEFAULT_GROUP: technical_features(window=window, returns=returns, fast=fast, slow=slow),
        "ohlc": ohlc_features(window=window),
        "volume": volume_features(window=window),
        "calendar": calendar_features(),
        "cross_section": cross_section_features(window=window),
        "har": own_volatility_features(),
        "market_volatility": market_volatility_features(),
        "har_hourly": hourly_volatility_features(),
        "young": young_features(),
        "young_range": young_range_features(),
        "young_market": young_market_features(),
    }


def is_built_in(name: str) -> bool:
    """Say whether a built-in feature, group or alias has this name, whatever its windows."""
    groups = feature_groups()
    names = {*groups, *ALIASES, *(name for group in groups.values() for name in group)}
    return name in names or re.fullmatch(r"return_[0-9]+", name) is not None
