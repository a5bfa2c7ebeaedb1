"""What is modelled: assets, or series that each follow a rule in an asset or a pair."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config.config import Config
from maml_jax.features import STRATEGIES, choose_pairs, reads_cross_section
from maml_jax.features.signals.strategies import spread_market
from maml_jax.listing import join_names
from maml_jax.notes import Note

PAIRS = "arbitrage"
"""The rule that trades pairs; all others trade assets."""

_BETWEEN = ":"


class Series(NamedTuple):
    """What is modelled: assets, or series of rules in their place.

    Attributes:
        bars: of each series, in normal form.
        train: names of the series to meta-train on.
        test: names of the series to walk forward on.
        sides: the side that the rule of each series takes at each of its bars; none where series
            are assets.
        pairs: which assets make pairs.
    """

    bars: dict[str, pd.DataFrame]
    train: list[str]
    test: list[str]
    sides: dict[str, pd.Series]
    pairs: tuple[tuple[str, str], ...] = ()


def make_series(
    config: Config,
    bars: Mapping[str, pd.DataFrame],
    train: list[str],
    test: list[str],
    fitted_on: slice,
    notes: list[Note],
) -> Series:
    """Return the assets themselves, or the series of the rules that the settings name.

    Args:
        config: the settings.
        bars: of assets, in normal form.
        train: assets to meta-train on.
        test: assets to walk forward on.
        fitted_on: the span whose bars choose pairs: of meta-training.
        notes: receives what could not be made.

    Raises:
        ConfigError: if features compare assets, which series of rules are not, or need more than
            the closes that pairs have; or no rule is left.
    """
    if not follows_rules(config):
        return Series(dict(bars), train, test, {})
    comparing = reads_cross_section(config.features.named())
    if comparing:
        raise ConfigError(
            f"key 'features.names': {comparing} compare several assets, and the series of the "
            'family "strategy" are rules, not assets'
        )
    _require_closes(config)
    pairs: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    if PAIRS in config.task.strategies:
        pairs["test"] = _pairs(config, bars, test, fitted_on, notes)
        pairs["train"] = _pairs(config, bars, train, fitted_on, notes) if train else []
    every = list(dict.fromkeys([*pairs["train"], *pairs["test"]]))
    markets = {**bars, **spread_market(bars, every)}

    def names(assets: Sequence[str], of: str) -> list[str]:
        return [
            f"{rule}{_BETWEEN}{market}"
            for rule in config.task.strategies
            for market in ([f"{a}-{b}" for a, b in pairs[of]] if rule == PAIRS else assets)
        ]

    wanted = {"train": names(train, "train"), "test": names(test, "test")}
    for part, assets in (("train", train), ("test", test)):
        if assets and not wanted[part]:
            raise ConfigError(
                f"key 'task.strategies': no rule has anything to trade among the {part} assets, "
                f"{join_names(assets)}; a pair must lie within them"
            )
    found = {
        name: markets[market_of(name)]
        for name in dict.fromkeys([*wanted["train"], *wanted["test"]])
    }
    sides = {name: STRATEGIES[rule_of(name)].side(frame) for name, frame in found.items()}
    return Series(found, wanted["train"], wanted["test"], sides, tuple(every))


def _require_closes(config: Config) -> None:
    """Refuse what needs more of a pair than its closes.

    Raises:
        ConfigError: naming the settings.
    """
    if PAIRS not in config.task.strategies:
        return
    names = config.features.names
    asking = [f.name for f in config.features.named() if names and {*f.columns} - {"close"}]
    if config.target.fill == "next_open":
        asking = ['target.fill "next_open"', *asking]
    if asking:
        raise ConfigError(
            f"key 'task.strategies': pairs of {PAIRS!r} have closes alone, and {', '.join(asking)} "
            f"need more; leave {PAIRS!r} out"
        )


def follows_rules(config: Config) -> bool:
    """Say whether series follow rules."""
    return "strategy" in config.task.families()


def rule_of(series: str) -> str:
    """Return the rule that a series follows."""
    return series.partition(_BETWEEN)[0]


def market_of(series: str) -> str:
    """Return the asset or pair that a series trades."""
    return series.partition(_BETWEEN)[2]


def rules_warm_up(config: Config) -> int:
    """Return how many bars at the start of a series have no side; 0 where none follows a rule."""
    if not follows_rules(config):
        return 0
    return max(STRATEGIES[name].warm_up for name in config.task.strategies)


def _pairs(
    config: Config,
    bars: Mapping[str, pd.DataFrame],
    assets: list[str],
    fitted_on: slice,
    notes: list[Note],
) -> list[tuple[str, str]]:
    chosen = config.task.pairs
    if not isinstance(chosen, int):
        unknown = sorted({name for pair in chosen for name in pair} - {*bars})
        note = Note("pairs", f"No pairs with {join_names(unknown)}: there are no such bars.")
        if unknown and note not in notes:
            notes.append(note)
        return [pair for pair in chosen if {*pair} <= {*assets}]
    if not chosen:
        return []
    by: Literal["correlation"] = "correlation"
    seen = {asset: bars[asset].loc[fitted_on] for asset in assets}
    reason = ""
    for count in range(chosen, 0, -1):
        try:
            return choose_pairs(seen, count, by=by)
        except DataError as error:
            reason = reason or str(error)
    note = Note("pairs", f"No pairs of {join_names(assets)}: {reason}.")
    if note not in notes:
        notes.append(note)
    return []
