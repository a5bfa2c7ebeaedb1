"""The bars that settings name, wherever they are: read, checked and cleaned."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from maml_jax.data import (
    Store,
    as_bars,
    builtin_bars,
    clean_bars,
    read_bars,
    require_same_interval,
)
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config.config import STORED, Config
from maml_jax.experiment.config.fields import YEARS
from maml_jax.experiment.preparation.feature_tables import FeatureTables
from maml_jax.experiment.preparation.regimes import needs_regimes
from maml_jax.features import reads_cross_section
from maml_jax.features.targets import require_moving_price
from maml_jax.listing import quote_names, suggest
from maml_jax.notes import Note

BUILTIN = "builtin"
MEMORY = "memory"
"""The path in the settings for bars that were passed in memory."""


def reading_options(config: Config) -> dict:
    """Return how tables of bars are read, as the readers take it."""
    data = config.data
    return {
        "timezone": data.timezone,
        "date_format": data.date_format,
        "columns": data.columns,
        "decimal": data.decimal,
        "adjust": data.adjust,
        "missing": data.missing,
    }


def file_options(config: Config) -> dict:
    """Return how files of bars are read, as `read_bars` takes it."""
    data = config.data
    return reading_options(config) | {
        "layout": data.layout,
        "encoding": data.encoding,
        "skip_lines": data.skip_lines,
        "symbol": data.symbol,
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
            "key 'data.path': the bars of this run were passed in memory; pass them "
            "again, or name a file that holds them"
        )
    elif is_stored(data.path):
        frames = _from_store(config)
    else:
        frames = read_bars(data.path, **file_options(config))
    if data.assets is None:
        return frames
    return {name: frames[name] for name in choose_assets("data.assets", data.assets, frames)}


def is_stored(path: str | tuple[str, ...]) -> bool:
    """Say whether a path of the settings names bars of a store."""
    return isinstance(path, str) and path.startswith(STORED)


def choose_assets(key: str, names: Sequence[str] | None, bars: Mapping) -> list[str]:
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
        meant = suggest(unknown[0], bars)
        hint = f". Did you mean `{meant}`?" if meant else ""
        raise ConfigError(
            f"key {key!r}: no bars of {quote_names(unknown)}; there are {quote_names(bars)}{hint}"
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


class Roles(NamedTuple):
    """What each asset is there for.

    Attributes:
        train: assets to meta-train on; none where all was fitted before.
        test: assets to walk forward on.
        context: assets of meta-training that a backtest needs besides the tested ones.
        compared: assets that only features of the cross-section look at.
    """

    train: list[str]
    test: list[str]
    context: list[str]
    compared: list[str]


class Market(NamedTuple):
    """What no fold changes: bars that are checked and cleaned, and the features computed on them.

    Attributes:
        given: names of all bars that were given, in their order.
        bars: in normal form, cleaned, of the assets in use.
        notes: what was found in them and done about it.
        tables: computes features, those of an asset once.
    """

    given: Mapping[str, None]
    bars: dict[str, pd.DataFrame]
    notes: tuple[Note, ...]
    tables: FeatureTables

    def of(self, *names: Iterable[str]) -> dict[str, pd.DataFrame]:
        """Return the bars of some assets, in the order in which bars were given."""
        wanted = {name for each in names for name in each}
        return {name: bars for name, bars in self.bars.items() if name in wanted}


def prepare_market(
    configs: Config | Sequence[Config], bars: Mapping[str, pd.DataFrame], *, trained: bool = False
) -> Market:
    """Check and clean the bars that settings name.

    Args:
        configs: the settings of a run, or of each of its folds.
        bars: in normal form.
        trained: whether all was fitted before, so that none are trained on.

    Raises:
        ConfigError: if an asset is named that there is not.
        DataError: naming the asset whose bars will not do.
    """
    configs = [configs] if isinstance(configs, Config) else configs
    given = dict.fromkeys(bars)
    roles = [roles_of(config, given, trained=trained) for config in configs]
    used = {name for each in roles for name in (*each.train, *each.test, *each.context)}
    compared = [name for each in roles for name in each.compared if name not in used]
    names = dict.fromkeys([*(name for name in bars if name in used), *compared])
    frames = {name: bars[name] for name in names}
    require_same_interval(frames)
    for asset, frame in frames.items():
        _require_years(asset, frame)
    cleaned = clean_bars(frames, configs[0].data.policies)
    for asset in frames:
        if asset in used:
            require_moving_price(cleaned.bars[asset], asset=asset)
    notes = [Note("bars", text) for text in cleaned.notes]
    trained_on = {name for each in roles for name in each.train}
    if len(trained_on) == 1:
        text = (
            f"Meta-training has one asset, {next(iter(trained_on))}: its tasks differ by time "
            "alone, and nothing can be learned from one asset for another."
        )
        notes.append(Note("one asset", text))
    return Market(given, cleaned.bars, tuple(notes), FeatureTables())


def _require_years(asset: str, bars: pd.DataFrame) -> None:
    """Refuse bars at times that nobody traded at: they come of a wrong unit or date format."""
    for time in (*bars.index[:1], *bars.index[-1:]):
        if not YEARS[0] <= time.year <= YEARS[1]:
            raise DataError(
                f"{asset}: has a bar at {time}, and bars lie between the years {YEARS[0]} and "
                f"{YEARS[1]}; check the column of times and data.date_format"
            )


def roles_of(config: Config, given: Mapping[str, object], *, trained: bool) -> Roles:
    """Choose the assets that the settings name.

    Args:
        config: the settings.
        given: names of the bars that there are.
        trained: whether all was fitted before, so that none are trained on.

    Raises:
        ConfigError: if an asset is named that there is not.
    """
    data = config.data
    train = [] if trained else choose_assets("data.train_assets", data.train_assets, given)
    test = choose_assets("data.test_assets", data.test_assets, given)
    context = _context_assets(config, given) if trained else []
    used = {*train, *test, *context}
    compared = [name for name in _compared_assets(config, given) if name not in used]
    return Roles(train, test, context, compared)


def _compared_assets(config: Config, given: Mapping[str, object]) -> list[str]:
    """List the assets that features of the cross-section need besides the tested ones.

    The market is made of the assets that are trained or tested on; in the backtest of a trained
    learner also of those it was trained on, where they are given, for it was their market too.
    """
    if not reads_cross_section(config.features.named()):
        return []
    return [name for name in config.data.train_assets or () if name in given]


def _context_assets(config: Config, given: Mapping[str, object]) -> list[str]:
    """List the assets of meta-training that a backtest needs besides the tested ones.

    Where support sets, regimes or updates are of several assets, what was there when the run was
    made must be there again, as far as its bars are given.
    """
    spanning = (
        config.task.support_from != "asset"
        or config.online.variants
        # Baselines that are fitted on them:
        or config.target.kind == "volatility"
        or "trees" in config.backtest.baselines
        or (needs_regimes(config) and config.regimes.market_wide())
    )
    return [a for a in config.data.train_assets or () if a in given] if spanning else []
