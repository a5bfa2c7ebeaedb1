"""The bars that settings name, wherever they are."""

from collections.abc import Mapping, Sequence

import pandas as pd

from maml_jax.data import Store, as_bars, builtin_bars, read_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import STORED, Config
from maml_jax.listing import quote_names

BUILTIN = "builtin"
MEMORY = "memory"
"""What the settings name as the path of bars that were handed over in memory."""


def reading_options(config: Config) -> dict:
    """Return how tables of bars are read, as the readers take it."""
    data = config.data
    return {
        "timezone": data.timezone,
        "date_format": data.date_format,
        "adjust": data.adjust,
        "missing": data.missing,
    }


def load_bars(
    config: Config, bars: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    """Return the bars that the settings name, or those given, in normal form.

    Raises:
        DataError: as the readers; also if an asset is named that is not there.
        StoreError: if the store lacks what is named.
    """
    data = config.data
    options = reading_options(config)
    if bars is not None:
        frames = as_bars(bars, **options)
    elif data.path == BUILTIN:
        frames = builtin_bars()
    elif data.path == MEMORY:
        raise ConfigError(
            "key 'data.path': the bars of this run were handed over in memory; hand them over "
            "again, or name a file that holds them"
        )
    elif is_stored(data.path):
        frames = _from_store(config)
    else:
        frames = read_bars(data.path, **options)
    if data.assets is None:
        return frames
    return {name: frames[name] for name in chosen("data.assets", data.assets, frames)}


def is_stored(path: str | tuple[str, ...]) -> bool:
    """Say whether a path of the settings names bars of a store."""
    return isinstance(path, str) and path.startswith(STORED)


def chosen(key: str, names: Sequence[str] | None, bars: Mapping) -> list[str]:
    """Return the assets that a key of the settings names, each once; all if it names none.

    Raises:
        ConfigError: naming the key and the asset that there is not.
    """
    if names is None:
        return list(bars)
    if not names:
        raise ConfigError(f"key {key!r}: must name at least one asset")
    require_known(key, names, bars)
    return list(dict.fromkeys(names))


def require_known(key: str, names: Sequence[str], bars: Mapping) -> None:
    """Refuse assets that there are not.

    Raises:
        ConfigError: naming the key and the assets.
    """
    unknown = [name for name in names if name not in bars]
    if unknown:
        raise ConfigError(
            f"key {key!r}: no bars of {quote_names(unknown)}; there are {quote_names(bars)}"
        )


def _from_store(config: Config) -> dict[str, pd.DataFrame]:
    store = Store(config.data.store)
    wanted = str(config.data.path).removeprefix(STORED)
    frames: dict[str, pd.DataFrame] = {}
    for key in store.find(wanted):
        if key.symbol in frames:
            raise ConfigError(
                f"key 'data.path': {wanted!r} names several series of {key.symbol} in "
                f"{store.root}; write source/interval, such as {STORED}{key.source}/{key.interval}"
            )
        if config.data.assets is None or key.symbol in config.data.assets:
            frames[key.symbol] = store.read(key)
    return frames
