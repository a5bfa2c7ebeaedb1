"""Features by name: single ones, lags of them, and groups."""

from collections.abc import Mapping, Sequence

from maml_jax.errors import ConfigError, shorten
from maml_jax.features.catalogue import ALIASES, feature_groups
from maml_jax.features.feature import Feature, lag_feature
from maml_jax.features.registry import LAG, registered_features
from maml_jax.listing import show_value, suggest

_MOST_LAG = 1_000_000


def find_features(
    names: Sequence[str],
    *,
    window: int = 20,
    returns: tuple[int, ...] = (1, 5, 10),
    fast: int = 12,
    slow: int = 26,
) -> list[Feature]:
    """Find features by name, in the order of the names.

    Args:
        names: each a feature, built in or registered; a feature K bars ago, as in `rsi_lag_3`;
            TA-Lib's name of a feature; or a group, which means those of its features that are not
            named by themselves.
        window: this and the others as for `feature_groups`.
        returns: likewise.
        fast: likewise.
        slow: likewise.

    Raises:
        ConfigError: if a name is unknown, none is given, or one is given twice.

    >>> [feature.name for feature in find_features(["rocp", "return_1_lag_3", "volume"])]
    ['momentum', 'return_1_lag_3', 'volume_zscore', 'mfi']
    """
    groups = feature_groups(window=window, returns=returns, fast=fast, slow=slow)
    known = {name: feature for group in groups.values() for name, feature in group.items()}
    known |= registered_features()
    single: dict[str, Feature] = {}
    unknown = []
    for name in names:
        feature = _find(name, known)
        if feature is not None:
            single[name] = feature
        elif name not in groups:
            unknown.append(name)
    if unknown:
        meant = suggest(unknown[0], [*known, *groups])
        hint = f". Did you mean `{meant}`?" if meant else ""
        raise ConfigError(
            f"unknown features {show_value(unknown)}; there are {list(known)}, the groups "
            f"{list(groups)}, and each feature K bars ago as NAME_lag_K; register your own first"
            f"{hint}"
        )
    named = [single[name].name for name in names if name in single]
    if not names or len({*names}) < len(names) or len({*named}) < len(named):
        raise ConfigError("names must hold at least one feature, and none twice")
    found: dict[str, Feature] = {}
    for name in names:
        if name in single:
            found[single[name].name] = single[name]
        else:
            found |= {key: each for key, each in groups[name].items() if key not in named}
    return list(found.values())


def _find(name: str, known: Mapping[str, Feature]) -> Feature | None:
    lag = LAG.fullmatch(name)
    if lag is not None:
        if len(lag[2]) > len(str(_MOST_LAG)) or int(lag[2]) > _MOST_LAG:
            raise ConfigError(f"{shorten(name, 80)}: a lag is of at most {_MOST_LAG:,} bars")
        base = known.get(ALIASES.get(lag[1], lag[1]))
        return None if base is None else lag_feature(base, int(lag[2]))
    return known.get(ALIASES.get(name, name))
