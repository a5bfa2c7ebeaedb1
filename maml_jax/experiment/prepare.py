"""From settings and bars to a Panel, checked as far as that goes before training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import bars_per_year
from maml_jax.data import clean_bars, parse_moment, require_same_interval
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config import Config, DataConfig
from maml_jax.experiment.reading import chosen
from maml_jax.features import (
    Feature,
    Scaler,
    Target,
    add_cross_section,
    compute_features,
    fit_scaler,
    is_own,
    label_delay,
    longest_warm_up,
    reads_cross_section,
    refuse_look_ahead,
)
from maml_jax.features.feature import MEASURE
from maml_jax.features.targets import fit_target, require_moving_price
from maml_jax.tasks import Panel, bars_needed, make_panel
from maml_jax.tasks.panel import assets_timeline

TRAIN_SHARE = 0.6
"""Share of the bars that is for meta-training where the settings name no date."""


_TRIED = 300
"""Bars beyond its warm-up that a feature of the user's own is tried on."""

_INTERLEAVED = 1.05
"""Calendars differ when their union has so many times the bars of the fullest; holidays do not."""


class Prepared(NamedTuple):
    """Everything that training and walk-forward need.

    Attributes:
        config: the settings, with what was left open filled in.
        bars: in normal form, of the assets in use.
        panel: the same as arrays, features standardised.
        scaler: fitted on the meta-training span; `scaler.restore_target` gives predictions of a
            volatility as its logarithm per bar.
        train_first: place on the time axis of the first bar of the meta-training span.
        train_last: place of its last bar.
        test_first: place of the first bar of the test span.
        test_last: place of its last bar.
        train_assets: assets that are meta-trained on.
        test_assets: assets that are walked forward on.
        bars_per_year: bars of the portfolio in a year, set or inferred.
        notes: what a reader of the results must know, such as assets left out.
    """

    config: Config
    bars: dict[str, pd.DataFrame]
    panel: Panel
    scaler: Scaler
    train_first: int
    train_last: int
    test_first: int
    test_last: int
    train_assets: list[str]
    test_assets: list[str]
    bars_per_year: float
    notes: tuple[str, ...]


def prepare(
    config: Config, bars: Mapping[str, pd.DataFrame], scaler: Scaler | None = None
) -> Prepared:
    """Make the Panel and check that settings and bars go together.

    Args:
        config: the settings.
        bars: in normal form.
        scaler: one fitted before, to walk forward with a trained learner; None fits one on the
            meta-training span.

    Raises:
        ConfigError: naming the key of a setting that these bars make impossible.
        DataError: naming the asset whose bars will not do.
    """
    data, trained, given = config.data, scaler is not None, bars
    train_assets = [] if trained else chosen("data.train_assets", data.train_assets, bars)
    test_assets = chosen("data.test_assets", data.test_assets, bars)
    bars = {a: b for a, b in bars.items() if a in {*train_assets, *test_assets}}
    rest = _rest_of_market(config, bars, given)
    require_same_interval({**bars, **rest})
    cleaned = clean_bars({**bars, **rest}, data.policies)
    bars, rest = ({name: cleaned.bars[name] for name in part} for part in (bars, rest))
    for asset, frame in bars.items():
        require_moving_price(frame, asset=asset)
    timeline = assets_timeline(bars)
    spans = _find_spans(data, timeline, trained)
    features = choose_features(config, bars)
    notes = [*cleaned.notes]
    if not trained:
        have = _bars_in(bars, config, features, spans.train_first, spans.train_last)
        needs = _train_needs(config, features, spans.train_last)
        train_assets = _with_room(train_assets, data.train_assets is not None, have, needs, notes)
    have = _bars_in(bars, config, features, timeline[0], spans.test_last)
    needs = _test_needs(config, features, spans.test_last)
    test_assets = _with_room(test_assets, data.test_assets is not None, have, needs, notes)
    have = {a: len(b.loc[spans.test_first : spans.test_last]) for a, b in bars.items()}
    needs = _span_needs(config, spans.test_last)
    test_assets = _with_room(test_assets, data.test_assets is not None, have, needs, notes)
    bars = {a: b for a, b in bars.items() if a in {*train_assets, *test_assets}}
    seen = _market(config, features, bars, rest)
    _refuse_peeking(features, seen)
    tables = {a: compute_features(seen[a], features, asset=a) for a in bars}
    if scaler is None:
        span = slice(spans.train_first, spans.train_last)
        for asset in train_assets:
            _require_rows(asset, tables[asset].loc[span], bars[asset].loc[span], config)
        scaler = fit_scaler([tables[a].loc[span] for a in train_assets], clip=config.features.clip)
        frames = {a: bars[a] for a in train_assets}
        scaler = fit_target(scaler, frames, target_of(config), spans.train_first, spans.train_last)
    scaled = {a: scaler.transform(tables[a]) for a in bars}
    panel = make_panel(bars, scaled, target_of(config), scaler)
    return Prepared(
        config=_resolve(config, spans, features, train_assets, test_assets, trained),
        bars=bars,
        panel=panel,
        scaler=scaler,
        train_first=int(panel.timestamps.searchsorted(spans.train_first)),
        train_last=int(panel.timestamps.searchsorted(spans.train_last, side="right")) - 1,
        test_first=int(panel.timestamps.searchsorted(spans.test_first)),
        test_last=int(panel.timestamps.searchsorted(spans.test_last, side="right")) - 1,
        train_assets=train_assets,
        test_assets=test_assets,
        bars_per_year=_bars_per_year(config, bars, test_assets, spans),
        notes=tuple(notes),
    )


def choose_features(config: Config, bars: Mapping[str, pd.DataFrame]) -> list[Feature]:
    """Return the features that the settings name, or those by default that all columns allow."""
    features = config.features.named()
    if config.features.names is not None:
        return features
    common = set.intersection(*(set(frame.columns) for frame in bars.values()))
    return [feature for feature in features if common >= set(feature.columns)]


def _rest_of_market(
    config: Config, bars: Mapping[str, pd.DataFrame], given: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return the bars of assets that are only looked at, by features of the cross-section.

    The market is made of the assets that are trained or tested on; in the backtest of a trained
    learner also of those it was trained on, where they are given, for it was their market too.
    """
    if not reads_cross_section(config.features.named()):
        return {}
    names = config.data.train_assets or ()
    return {name: given[name] for name in names if name in given and name not in bars}


def _market(
    config: Config,
    features: Sequence[Feature],
    bars: dict[str, pd.DataFrame],
    rest: dict[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Set assets beside each other where a feature compares them."""
    comparing = reads_cross_section(features)
    if not comparing:
        return bars
    if len(bars) + len(rest) < 2:
        raise ConfigError(
            f"key 'features.names': {comparing} compare several assets, and there is only "
            f"{', '.join(bars)}"
        )
    return add_cross_section({**bars, **rest})


def _refuse_peeking(features: Sequence[Feature], bars: Mapping[str, pd.DataFrame]) -> None:
    """Refuse features of the user's own that look ahead, as far as some bars show."""
    asset, frame = max(bars.items(), key=lambda item: len(item[1]))
    for feature in features:
        if is_own(feature):
            first = frame.iloc[: feature.warm_up + _TRIED]
            refuse_look_ahead(feature, first, asset=asset)


def target_of(config: Config) -> Target:
    """Return the target that the settings describe."""
    return Target(**config.target.model_dump())


class _Spans(NamedTuple):
    """First and last bar of the meta-training and of the test span."""

    train_first: pd.Timestamp
    train_last: pd.Timestamp
    test_first: pd.Timestamp
    test_last: pd.Timestamp


def _find_spans(data: DataConfig, timeline: pd.DatetimeIndex, trained: bool) -> _Spans:
    """Find the spans that the settings name among the bars, and refuse those that cannot be.

    What was trained before may be tested on bars that begin after the meta-training span.
    """

    def first_from(key: str, text: str) -> int:
        place = int(timeline.searchsorted(parse_moment(text, timezone=data.timezone, end=False)))
        if place == len(timeline):
            raise ConfigError(f"key {key!r}: {text} is after the last bar, {timeline[-1]}")
        return place

    def last_to(key: str, text: str) -> int:
        moment = parse_moment(text, timezone=data.timezone, end=True)
        place = int(timeline.searchsorted(moment, side="right")) - 1
        if place < 0 and not (trained and key == "data.train_end"):
            raise ConfigError(f"key {key!r}: {text} is before the first bar, {timeline[0]}")
        return place

    train_first, test_last = 0, len(timeline) - 1
    if data.train_start and not trained:
        train_first = first_from("data.train_start", data.train_start)
    if data.test_end:
        test_last = last_to("data.test_end", data.test_end)
    if data.train_end:
        train_last = last_to("data.train_end", data.train_end)
    elif data.test_start:
        train_last = first_from("data.test_start", data.test_start) - 1
    else:
        train_last = int(TRAIN_SHARE * len(timeline)) - 1
    test_first = train_last + 1
    if data.test_start:
        test_first = first_from("data.test_start", data.test_start)
    if test_first <= train_last:
        raise ConfigError(
            "keys 'data.train_end' and 'data.test_start': the meta-training span ends at "
            f"{timeline[train_last]} and overlaps the test span, which begins at "
            f"{timeline[test_first]}; a test on bars that were trained on shows nothing"
        )
    if train_first > train_last and not trained:
        raise ConfigError(
            f"keys 'data.train_start' and 'data.train_end': the meta-training span holds none of "
            f"the {len(timeline)} bars, which run from {timeline[0]} to {timeline[-1]}"
        )
    if test_first > test_last:
        raise ConfigError(
            f"keys 'data.test_start' and 'data.test_end': the test span holds no bar; bars run "
            f"from {timeline[0]} to {timeline[-1]}, and the meta-training span ends at "
            f"{data.train_end or timeline[train_last]}"
        )
    before = timeline[0] - pd.Timedelta(microseconds=1)
    return _Spans(
        timeline[train_first],
        timeline[train_last] if train_last >= 0 else before,
        timeline[test_first],
        timeline[test_last],
    )


def _resolve(config, spans: _Spans, features, train_assets, test_assets, trained: bool) -> Config:
    """Fill in what the settings left open."""
    data: dict = {"test_assets": tuple(test_assets)}
    data["test_start"] = config.data.test_start or spans.test_first.isoformat()
    if not trained:
        data["train_assets"] = tuple(train_assets)
        data["train_end"] = config.data.train_end or spans.train_last.isoformat()
    names = {"names": tuple(feature.name for feature in features)}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "features": config.features.model_copy(update=names),
        }
    )


def _bars_per_year(config: Config, bars, test_assets: list[str], spans: _Spans) -> float:
    """Infer the bars per year of the portfolio, whose bars are the union of its assets' bars.

    That of the asset with most bars; more where calendars interleave, as of stocks and crypto.
    """
    if config.backtest.bars_per_year is not None:
        return config.backtest.bars_per_year
    span = slice(spans.test_first, spans.test_last)
    own = {asset: bars[asset].loc[span].index for asset in test_assets}
    fullest = max(own, key=lambda asset: len(own[asset]))
    union = assets_timeline({asset: bars[asset].loc[span] for asset in test_assets})
    share = len(union) / len(own[fullest])
    return bars_per_year(bars[fullest].index) * (share if share > _INTERLEAVED else 1.0)


class _Needs(NamedTuple):
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
    """Count the warm-up of the features and, for a sequence model, the bars that it reads back."""
    warm_up = max(longest_warm_up(features), config.target.volatility_window)
    if config.model.length is None:
        return Before(warm_up, f"warm-up {warm_up}")
    read = config.model.length - 1
    return Before(warm_up + read, f"warm-up {warm_up} + earlier bars of a sequence {read}")


def _train_needs(config: Config, features: Sequence[Feature], last: pd.Timestamp) -> _Needs:
    task, delay = config.task, target_of(config).label_delay
    before = before_first_row(config, features)
    sizes = {"support": task.support, "query": task.query, "embargo": task.embargo}
    needed = bars_needed(warm_up=before.bars, label_delay=delay, **sizes)
    terms = (
        f"{before.terms} + support {task.support} + gap {delay + task.embargo - 1} + query "
        f"{task.query} + label delay {delay}"
    )
    return _Needs("meta-training", needed, f"up to {last}", terms)


def _test_needs(config: Config, features: Sequence[Feature], last: pd.Timestamp) -> _Needs:
    support, delay = config.task.support, target_of(config).label_delay
    before = before_first_row(config, features)
    terms = f"{before.terms} + support {support} + label delay {delay}"
    return _Needs("walk-forward", before.bars + support + delay, f"up to {last}", terms)


def _span_needs(config: Config, last: pd.Timestamp) -> _Needs:
    delay = label_delay(config.target.fill, 1)
    terms = f"a decision + {delay} to its first return"
    return _Needs("walk-forward", delay + 1, f"in the test span, to {last}", terms)


def _require_rows(asset: str, table: pd.DataFrame, bars: pd.DataFrame, config: Config) -> None:
    """Refuse an asset whose prices give too few rows of features or targets, or cannot be meant."""
    closes = bars["close"].dropna()
    meant = int((np.abs(np.log(closes / closes.median())) < np.log(MEASURE)).sum())
    if meant < len(closes):
        raise DataError(
            f"{asset}: only {meant} of its {len(bars)} bars from {bars.index[0]} to "
            f"{bars.index[-1]} have a close that can be meant; its closes run from "
            f"{closes.min():g} to {closes.max():g}"
        )
    moves = bars["close"].pct_change().rolling(config.target.volatility_window).std() > 0
    rows = int((table.notna().all(axis="columns") & moves).sum())
    needed = config.task.support + config.task.query
    if rows < needed:
        raise DataError(
            f"{asset}: only {rows} of its {len(bars)} bars from {bars.index[0]} to "
            f"{bars.index[-1]} give features and a target, and a task needs {needed}; its closes "
            f"run from {bars['close'].min():g} to {bars['close'].max():g}: they rest, or one of "
            "them is out of all measure"
        )


def _bars_in(bars, config: Config, features, first, last) -> dict[str, int]:
    """Count the bars that can be used in a span; its first row may read the bars before it."""
    before = before_first_row(config, features).bars
    return {
        asset: min(len(frame.loc[:last]), len(frame.loc[first:last]) + before)
        for asset, frame in bars.items()
    }


def _with_room(
    assets: list[str], named: bool, have: Mapping[str, int], needs: _Needs, notes: list[str]
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
        listed = ", ".join(f"{asset} ({have[asset]})" for asset in short)
        notes.append(
            f"Left out of {needs.role}, which needs {needs.bars} bars {needs.where}: {listed}."
        )
    return [asset for asset in assets if asset not in short]
