"""What decides at each bar: a method of a trained run, its settings, and the bars so far.

The backtest decides at all bars of a span in one call, and a live system at the latest: both call
the same functions on the same rows, so nothing is written twice.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import Supports
from maml_jax.backtest.strategy_names import online_name
from maml_jax.data import parse_moment, require_same_interval
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import Result
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.evaluation.decisions import bars_per_year_of, decide
from maml_jax.experiment.evaluation.forecasts import predict_variant
from maml_jax.experiment.evaluation.predicted import predict_test_span
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.tasks import find_test_supports
from maml_jax.experiment.learning.train import make_learner
from maml_jax.experiment.preparation.bars import prepare_market
from maml_jax.experiment.preparation.prepare import Prepared, fit_fold
from maml_jax.experiment.preparation.regimes import needs_regimes
from maml_jax.experiment.preparation.requirements import before_first_row, target_of
from maml_jax.experiment.preparation.series import follows_rules
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.features import fill_returns, reads_cross_section
from maml_jax.meta.types import Params
from maml_jax.tasks.panel import assets_timeline

Bars = Mapping[str, pd.DataFrame]

_LONGEST = 252
"""Bars that position rules look back, at most: a year of daily ones."""

_DOUBLINGS = 3
"""How often a cut is tried with twice the bars, before all are taken."""


class Strategy(NamedTuple):
    """What decides at each bar.

    Attributes:
        config: settings of the run.
        checkpoint: what its method learned.
        assets: that are traded, each with an equal part of the capital.
        since: first bar at which decisions count; what annualises volatilities is taken before it,
            and a variant that goes on learning begins there.
        yearly: bars a year of each asset, by the bars before `since`.
        variant: how the method goes on learning, of the settings' `online.variants`; None: it does
            not.
        trained: meta-parameters of each method of the run, which a variant may begin from.
    """

    config: Config
    checkpoint: Checkpoint
    assets: tuple[str, ...]
    since: pd.Timestamp
    yearly: Mapping[str, float] | None = None
    variant: str | None = None
    trained: Mapping[str, Params] = MappingProxyType({})

    @property
    def method(self) -> str:
        """What it is called in results."""
        name = self.checkpoint.method
        return name if self.variant is None else online_name(name, self.variant)

    @property
    def delay(self) -> int:
        """Bars from a decision to the one in which it is executed."""
        return 0 if self.config.target.fill == "close" else 1


class Decisions(NamedTuple):
    """What a strategy forecast and decided at each bar; tables `[time, asset]`.

    Attributes:
        mean: forecast, in the target's own units; NaN where there is none.
        std: its deviation; None where the learner has none.
        weights: wanted share of the whole capital; NaN where the asset has no bar.
    """

    mean: pd.DataFrame
    std: pd.DataFrame | None
    weights: pd.DataFrame


def strategy_of(
    result: Result,
    bars: Bars,
    *,
    method: str | None = None,
    assets: Sequence[str] | None = None,
    since: pd.Timestamp | None = None,
) -> Strategy:
    """Make the strategy of a trained run.

    Args:
        result: of the run.
        bars: in normal form; some before `since`, from which bars a year are counted.
        method: which of its methods, or variants that go on learning; default the first.
        assets: that are traded; default those that the run tests, where these bars hold one of
            them, else all.
        since: first bar of decisions; default that of the run's test span, or the first bar given
            if that is later.

    Raises:
        ConfigError: if there is no such method or asset, or the run trades series that follow
            rules, whose orders are not orders in assets.
        DataError: if the bars have another length than those of training.
    """
    headline = next(iter(result.checkpoints))
    variants = {online_name(headline, each): each for each in result.config.online.variants}
    name = method or headline
    if name not in result.checkpoints and name not in variants:
        there = [*result.checkpoints, *variants]
        raise ConfigError(f"no method {name!r} in this run; there are {there}")
    if follows_rules(result.config):
        raise ConfigError(
            "key 'task.family': this run trades series that follow rules; what it wants of them "
            'are no orders in assets. Train one with the family "asset"'
        )
    checkpoint = result.checkpoints[headline if name in variants else name]
    require_same_interval(bars, checkpoint.interval)
    if assets is None:
        tested = result.config.data.test_assets or ()
        known = [asset for asset in tested if asset in bars]
        assets = tested if known else tuple(bars)
    missing = [asset for asset in assets if asset not in bars]
    if len(missing) == len(assets):
        raise ConfigError(f"no bars of {', '.join(missing)}; there are {', '.join(bars)}")
    timeline = assets_timeline({a: bars[a] for a in assets if a in bars})
    if since is None:
        start, zone = result.config.data.test_start, result.config.data.timezone or "UTC"
        since = timeline[0]
        if start is not None:
            since = max(since, parse_moment(start, timezone=zone, end=False))
    strategy = Strategy(
        *(_settings(result, checkpoint), checkpoint, tuple(assets), since),
        variant=variants.get(name),
        trained={method: each.params for method, each in result.checkpoints.items()},
    )
    return strategy._replace(yearly=_bars_per_year(strategy, bars))


def _settings(result: Result, checkpoint: Checkpoint) -> Config:
    """Return the settings by which the run is backtested, without what only its report needs."""
    own = checkpoint.config
    return result.config.changed(
        data={
            "train_assets": own.data.train_assets,
            **dict.fromkeys(("train_end", "test_start", "test_end", "test_assets")),
        },
        features=own.features,
        task=own.task,
        backtest={"baselines": ()},
        folds={"kind": "single"},
    )


def _bars_per_year(strategy: Strategy, bars: Bars) -> dict[str, float] | None:
    rule = strategy.config.position_rule()
    if rule != "volatility_target":
        return None
    prepared = _prepare(strategy, bars, strategy.since)
    return bars_per_year_of(prepared)


def decide_span(strategy: Strategy, bars: Bars, first: pd.Timestamp) -> Decisions:
    """Forecast and decide at every bar from a time on.

    What is decided at a bar is a function of the bars up to it: of bars that end there the last row
    is what a longer history has there.

    Args:
        strategy: what decides.
        bars: in normal form, so far; assets without any are passed over.
        first: time of the first bar.

    Raises:
        DataError: if no asset has a bar from there on.
    """
    if strategy.variant is not None:
        whole = _decide(_prepare(strategy, bars, strategy.since), strategy)
        std = None if whole.std is None else whole.std.loc[first:]
        return Decisions(whole.mean.loc[first:], std, whole.weights.loc[first:])
    needed = _bars_needed(strategy)
    if needed is None:
        return _decide(_prepare(strategy, bars, first), strategy)
    for _ in range(_DOUBLINGS):
        cut = _cut(bars, first, needed)
        if sum(map(len, cut.values())) == sum(map(len, bars.values())):
            break
        prepared = _prepare(strategy, cut, first)
        supports = find_test_supports(prepared)
        if _complete(prepared, supports):
            return _decide(prepared, strategy, supports)
        needed *= 2
    return _decide(_prepare(strategy, bars, first), strategy)


def _bars_needed(strategy: Strategy) -> int | None:
    """Return how many bars before a decision it depends on; None for all that there are."""
    config = strategy.config
    features = config.features.named()
    unbounded = (
        not all(feature.start_invariant for feature in features)
        or reads_cross_section(features)
        or needs_regimes(config)
        or config.task.support_from != "asset"
        or config.backtest.window == "growing"
    )
    if unbounded:
        return None
    before = max(before_first_row(config, features).bars, _LONGEST)
    return before + config.task.support + target_of(config).label_delay + 2


def _cut(bars: Bars, first: pd.Timestamp, needed: int) -> dict[str, pd.DataFrame]:
    """Leave out what lies further back than so many bars before a time."""
    return {
        asset: frame.iloc[max(0, int(frame.index.searchsorted(first)) - needed) :]
        for asset, frame in bars.items()
    }


def _complete(prepared: Prepared, supports: Supports) -> bool:
    """Say whether every prediction that may be due has all the rows that it can adapt on."""
    rows = np.asarray(prepared.panel.valid)
    span = slice(prepared.test_first, prepared.test_last + 1)
    tested = [prepared.panel.assets.index(asset) for asset in prepared.test_assets]
    if (rows[tested, span] & ~supports.due[tested, span]).any():
        return False
    if supports.counts is None:
        return True
    return bool((supports.counts.sum(-1) >= sum(supports.layout.sizes))[supports.due].all())


def _prepare(strategy: Strategy, bars: Bars, first: pd.Timestamp) -> Prepared:
    given = {a: frame for a, frame in bars.items() if len(frame)}
    tested = tuple(asset for asset in strategy.assets if asset in given)
    if not tested:
        raise DataError(f"no bars yet of {', '.join(strategy.assets)}")
    config = strategy.config.changed(data={"test_assets": tested})
    market = prepare_market(config, given, trained=True)
    timeline = assets_timeline(market.bars)
    start = int(timeline.searchsorted(first))
    if start == len(timeline):
        raise DataError(f"no bar from {first} on; the last is at {timeline[-1]}")
    before = timeline[0] - pd.Timedelta(microseconds=1)
    trained = timeline[start - 1] if start else before
    begin = timeline[0]
    if config.data.train_start:  # from where variants learn
        wanted = parse_moment(
            config.data.train_start, timezone=config.data.timezone or "UTC", end=False
        )
        begin = timeline[min(int(timeline.searchsorted(wanted)), len(timeline) - 1)]
    spans = Spans(begin, trained, timeline[start], timeline[-1])
    prepared = fit_fold(market, config, strategy.checkpoint.fitted, spans, keep_all=True)
    return prepared._replace(yearly=strategy.yearly)


def _decide(prepared: Prepared, strategy: Strategy, supports: Supports | None = None) -> Decisions:
    config, method = prepared.config, strategy.checkpoint.method
    supports = supports or find_test_supports(prepared)
    if strategy.variant is not None:
        predicted, _ = predict_variant(
            *(prepared, supports, strategy.trained, method, strategy.variant)
        )
    else:
        takes_steps = METHODS[method].takes_steps or supports.growing
        predicted = predict_test_span(
            *(prepared, supports, method, make_learner(config, method)),
            strategy.checkpoint.params,
            steps=config.backtest.inner_steps if takes_steps else None,
        )
    frames = {asset: prepared.bars[asset] for asset in prepared.test_assets}
    returns = fill_returns(frames, config.target.fill).reindex(predicted.mean.index)
    decided = decide(prepared, {method: predicted}, returns)[method]
    there = pd.DataFrame(
        {asset: decided.index.isin(frame.index) for asset, frame in frames.items()}, decided.index
    )
    weights = (decided / len(strategy.assets)).where(there)
    wanted = list(strategy.assets)
    return Decisions(
        predicted.mean.reindex(columns=wanted),
        None if predicted.std is None else predicted.std.reindex(columns=wanted),
        weights.reindex(columns=wanted),
    )
