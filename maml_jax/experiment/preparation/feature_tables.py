"""Features of the series of a run, each computed once however many folds ask for it."""

from collections.abc import Mapping, Sequence

import pandas as pd

from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import FeaturesConfig
from maml_jax.features import (
    Feature,
    add_cross_section,
    compute_features,
    is_registered,
    reads_cross_section,
    refuse_look_ahead,
)

_TRIED = 300
"""Bars beyond its warm-up that a feature of the user's own is tried on."""


class FeatureTables:
    """Computes features of series and keeps them, for bars that stay as they are."""

    def __init__(self):
        self._tables: dict[tuple, pd.DataFrame] = {}
        self._tried: set[tuple] = set()

    def compute(
        self,
        settings: FeaturesConfig,
        features: Sequence[Feature],
        bars: Mapping[str, pd.DataFrame],
        compared: Mapping[str, pd.DataFrame],
    ) -> dict[str, pd.DataFrame]:
        """Return the features of each series, `[bar, feature]`.

        Args:
            settings: that name the features and their windows.
            features: those of them to compute.
            bars: of each series; those of one name are always the same.
            compared: of further assets that a cross-section is made of.

        Raises:
            ConfigError: if features compare assets and there is but one.
            DataError: if a feature cannot be computed.
            LookAheadError: if a feature of the user's own looks ahead, as far as some bars show.
        """
        names = tuple(feature.name for feature in features)
        key = (names, settings.window, settings.returns, settings.fast, settings.slow)
        comparing = reads_cross_section(features)
        if comparing and len(bars) + len(compared) < 2:
            raise ConfigError(
                f"key 'features.names': {comparing} compare several assets, and there is only "
                f"{', '.join(bars)}"
            )
        seen = {**bars, **compared} if comparing else bars
        if comparing:
            key = (*key, *seen)
        longest = max(seen, key=lambda name: len(seen[name]))
        tried = (longest, *key) in self._tried or not any(map(is_registered, features))
        missing = [name for name in bars if (name, *key) not in self._tables]
        if missing or not tried:
            seen = add_cross_section(seen) if comparing else seen
            if not tried:
                _refuse_peeking(features, seen[longest], longest)
                self._tried.add((longest, *key))
            for name in missing:
                self._tables[name, *key] = compute_features(seen[name], features, asset=name)
        return {name: self._tables[name, *key] for name in bars}


def _refuse_peeking(features: Sequence[Feature], bars: pd.DataFrame, asset: str) -> None:
    for feature in features:
        if is_registered(feature):
            refuse_look_ahead(feature, bars.iloc[: feature.warm_up + _TRIED], asset=asset)
