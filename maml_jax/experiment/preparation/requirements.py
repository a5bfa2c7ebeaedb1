"""What settings need: features, a target, bars enough for them, and prices to trade at."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.baselines.simple import require_trees
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.preparation.series import rules_warm_up
from maml_jax.features import Feature, Target, label_delay, longest_warm_up
from maml_jax.features.feature import MEASURE
from maml_jax.listing import FEW, join_names
from maml_jax.notes import Note
from maml_jax.tasks import bars_needed

TRAINING, TESTING = "meta-training", "walk-forward"
"""What assets are needed for."""


def choose_features(config: Config, bars: Mapping[str, pd.DataFrame]) -> list[Feature]:
    """Return the features that the settings name, or those by default that all columns allow."""
    features = config.features.named()
    if config.features.names is not None:
        return features
    common = set.intersection(*(set(frame.columns) for frame in bars.values()))
    return [feature for feature in features if common >= set(feature.columns)]


def target_of(config: Config) -> Target:
    """Return the target that the settings describe."""
    return Target(**config.target.model_dump())


class Needs(NamedTuple):
    """How many bars something needs.

    Attributes:
        role: what needs them.
        bars: how many.
        where: in which span.
        terms: how they come about.
    """

    role: str
    bars: int
    where: str
    terms: str


class Before(NamedTuple):
    """What must stand before the first row that a model can read.

    Attributes:
        bars: how many bars.
        terms: how they come about, for messages.
    """

    bars: int
    terms: str


def before_first_row(config: Config, features: Sequence[Feature]) -> Before:
    """Count the warm-up of features and rules, and the bars that a sequence model reads back."""
    warm_up = max(longest_warm_up(features), config.target.volatility_window, rules_warm_up(config))
    if config.model.length is None:
        return Before(warm_up, f"warm-up {warm_up}")
    read = config.model.length - 1
    return Before(warm_up + read, f"warm-up {warm_up} + earlier bars of a sequence {read}")


def train_needs(config: Config, features: Sequence[Feature], last: pd.Timestamp) -> Needs:
    """Return what one window of meta-training needs up to the end of its span."""
    task, delay = config.task, target_of(config).label_delay
    before, support, query = before_first_row(config, features), *own_rows(config)
    embargo = 0 if task.support_from == "cross_section" else task.embargo
    sizes = {"support": support, "query": query, "embargo": embargo}
    needed = bars_needed(warm_up=before.bars, label_delay=delay, **sizes)
    terms = (
        f"{before.terms} + support {support} + gap {delay + embargo - 1} + query {query} + "
        f"label delay {delay}"
    )
    return Needs(TRAINING, needed, f"up to {last}", terms)


def test_needs(config: Config, features: Sequence[Feature], last: pd.Timestamp) -> Needs:
    """Return what one prediction needs up to the end of the test span."""
    (support, _), delay = own_rows(config), target_of(config).label_delay
    before, fewest = before_first_row(config, features), config.task.min_support
    support = support if fewest is None else min(support, fewest)
    if not support:
        return Needs(TESTING, before.bars + 1, f"up to {last}", f"{before.terms} + a row")
    terms = f"{before.terms} + support {support} + label delay {delay}"
    return Needs(TESTING, before.bars + support + delay, f"up to {last}", terms)


def span_needs(config: Config, last: pd.Timestamp, fold: bool = False) -> Needs:
    """Return what one decision needs within the test span; of a fold, the next one may fill it."""
    if fold:
        return Needs(TESTING, 1, f"in the test span, to {last}", "a decision")
    delay = label_delay(config.target.fill, 1)
    terms = f"a decision + {delay} to its first return"
    return Needs(TESTING, delay + 1, f"in the test span, to {last}", terms)


def own_rows(config: Config) -> tuple[int, int]:
    """Return how many rows of a support and of a query set each asset must have."""
    task = config.task
    if task.support_from == "cross_section":
        return 1, 1
    return task.support - (task.support // 2 if task.support_from == "mixed" else 0), task.query


def require_rows(asset: str, table: pd.DataFrame, bars: pd.DataFrame, config: Config) -> None:
    """Refuse an asset whose prices give too few rows of features or targets, or are implausible."""
    closes = bars["close"].dropna()
    plausible = int((np.abs(np.log(closes / closes.median())) < np.log(MEASURE)).sum())
    if plausible < len(closes):
        raise DataError(
            f"{asset}: only {plausible} of its {len(bars)} bars from {bars.index[0]} to "
            f"{bars.index[-1]} have a plausible close (within a factor of {MEASURE:g} of the "
            f"median); its closes run from {closes.min():g} to {closes.max():g}"
        )
    moves = bars["close"].pct_change().rolling(config.target.volatility_window).std() > 0
    rows = int((table.notna().all(axis="columns") & moves).sum())
    needed = sum(own_rows(config))
    if rows < needed:
        raise DataError(
            f"{asset}: only {rows} of its {len(bars)} bars from {bars.index[0]} to "
            f"{bars.index[-1]} give features and a target, and a task needs {needed}; its closes "
            f"run from {bars['close'].min():g} to {bars['close'].max():g}: prices are mostly "
            "unchanged, or one of them is absurd; check the file"
        )


def bars_in(
    bars: Mapping[str, pd.DataFrame],
    config: Config,
    features: Sequence[Feature],
    first: pd.Timestamp,
    last: pd.Timestamp,
) -> dict[str, int]:
    """Count the bars that can be used in a span; its first row may read the bars before it."""
    before = before_first_row(config, features).bars
    return {
        asset: min(len(frame.loc[:last]), len(frame.loc[first:last]) + before)
        for asset, frame in bars.items()
    }


def with_room(
    assets: list[str], named: bool, have: Mapping[str, int], needs: Needs, notes: list[Note]
) -> list[str]:
    """Keep the assets with enough bars; refuse if one that was asked for by name has too few."""
    short = [asset for asset in assets if have[asset] < needs.bars]
    if short and (named or len(short) == len(assets)):
        worst = short[0] if named else max(short, key=have.__getitem__)
        raise DataError(
            f"{worst}: {needs.role} needs at least {needs.bars} bars {needs.where} "
            f"({needs.terms}), and there are {have[worst]}"
        )
    if short:
        names = join_names((f"{asset} ({have[asset]})" for asset in short), kind="assets")
        more = "; config.toml of the run names those in use" if len(short) > FEW else ""
        text = (
            f"Left out of {needs.role}, which needs {needs.bars} bars {needs.where}: {names}{more}."
        )
        notes.append(Note(left_out(needs.role), text))
    return [asset for asset in assets if asset not in short]


def left_out(role: str) -> str:
    """Return the kind of notes on assets that are left out of something."""
    return f"left out of {role}"


def require_tradable(
    config: Config, bars: Mapping[str, pd.DataFrame], assets: Sequence[str]
) -> None:
    """Refuse backtests that these bars or this installation cannot run.

    Args:
        config: the settings.
        bars: in normal form.
        assets: names of the assets that are walked forward on.

    Raises:
        ConfigError: if one asset alone is to be neutral; if stops, or slippage by the range of a
            bar, are asked of bars without high and low; if trees are asked for and scikit-learn is
            not installed.
    """
    settings = config.backtest
    if settings.sides == "market_neutral" and len(assets) < 2:
        raise ConfigError(
            f"key 'backtest.sides': \"market_neutral\" takes at least 2 assets, and "
            f'{", ".join(assets)} is tested alone; use "long_short" or "long_only"'
        )
    for asset in assets if settings.stops() else ():
        missing = [
            name
            for name in ("high", "low")
            if name not in bars[asset] or bars[asset][name].isna().all()
        ]
        if missing:
            raise ConfigError(
                f"key 'backtest.{settings.stops()[0]}': needs the columns high and low, and "
                f"{asset} has only {list(bars[asset].columns)}, without {' and '.join(missing)}; "
                'add them, or set the key to "none" (range_slippage: 0)'
            )
    if "trees" in settings.baselines:
        require_trees()
