"""From settings and bars to a Panel, checked as far as that goes before training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from maml_jax.data import as_bars, builtin_bars, read_bars, require_same_interval
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config import Config, DataConfig
from maml_jax.features import (
    Feature,
    Scaler,
    Target,
    compute_features,
    fit_scaler,
    longest_warm_up,
)
from maml_jax.tasks import Panel, bars_needed, make_panel
from maml_jax.tasks.panel import assets_timeline

MEMORY = "memory"
"""What the settings name as the path of bars that were handed over in memory."""

TRAIN_SHARE = 0.6
"""Share of the bars that is for meta-training where the settings name no date."""


class Prepared(NamedTuple):
    """Everything that training and walk-forward need.

    Attributes:
        config: the settings, with what was left open filled in.
        bars: in normal form, of the assets in use.
        panel: the same as arrays, features standardised.
        scaler: fitted on the meta-training span.
        train_first: place on the time axis of the first bar of the meta-training span.
        train_last: place of its last bar.
        test_first: place of the first bar of the test span.
        test_last: place of its last bar.
        train_assets: assets that are meta-trained on.
        test_assets: assets that are walked forward on.
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
    notes: tuple[str, ...]


def load_bars(
    config: Config, bars: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    """Return the bars that the settings name, or those given, in normal form.

    Raises:
        DataError: as the readers; also if an asset is named that is not there.
    """
    data = config.data
    options = {
        "timezone": data.timezone,
        "date_format": data.date_format,
        "adjust": data.adjust,
        "missing": data.missing,
    }
    if bars is not None:
        frames = as_bars(bars, **options)
    elif data.path == "builtin":
        frames = builtin_bars()
    elif data.path == MEMORY:
        raise ConfigError(
            "key 'data.path': the bars of this run were handed over in memory; hand them over "
            "again, or name a file that holds them"
        )
    else:
        frames = read_bars(data.path, **options)
    if data.assets is None:
        return frames
    _require_known("data.assets", data.assets, frames)
    return {name: frames[name] for name in data.assets}


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
    data = config.data
    train_assets = _chosen("data.train_assets", data.train_assets, bars)
    test_assets = _chosen("data.test_assets", data.test_assets, bars)
    bars = {a: b for a, b in bars.items() if a in {*train_assets, *test_assets}}
    require_same_interval(bars)
    timeline = assets_timeline(bars)
    spans = _find_spans(data, timeline)
    features = choose_features(config, bars)
    tables = {a: compute_features(b, features, asset=a) for a, b in bars.items()}
    warm_up = max(longest_warm_up(features), config.target.volatility_window)
    notes: list[str] = []
    train_assets = _with_room(
        train_assets,
        data.train_assets is not None,
        _bars_in(bars, warm_up, timeline[spans[0]], timeline[spans[1]]),
        _train_needs(config, warm_up)._replace(until=timeline[spans[1]]),
        notes,
    )
    test_assets = _with_room(
        test_assets,
        data.test_assets is not None,
        _bars_in(bars, warm_up, timeline[0], timeline[spans[3]]),
        _test_needs(config, warm_up)._replace(until=timeline[spans[3]]),
        notes,
    )
    bars = {a: b for a, b in bars.items() if a in {*train_assets, *test_assets}}
    if scaler is None:
        first, last = timeline[spans[0]], timeline[spans[1]]
        scaler = fit_scaler(
            [tables[a].loc[first:last] for a in train_assets], clip=config.features.clip
        )
    scaled = {a: scaler.transform(tables[a]) for a in bars}
    panel = make_panel(bars, scaled, target_of(config))
    resolved = config.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "train_assets": tuple(train_assets),
                    "test_assets": tuple(test_assets),
                    "train_end": data.train_end or timeline[spans[1]].isoformat(),
                    "test_start": data.test_start or timeline[spans[2]].isoformat(),
                }
            ),
            "features": config.features.model_copy(
                update={"names": tuple(f.name for f in features)}
            ),
        }
    )
    return Prepared(
        config=resolved,
        bars=bars,
        panel=panel,
        scaler=scaler,
        train_first=int(panel.timestamps.searchsorted(timeline[spans[0]])),
        train_last=int(panel.timestamps.searchsorted(timeline[spans[1]], side="right")) - 1,
        test_first=int(panel.timestamps.searchsorted(timeline[spans[2]])),
        test_last=int(panel.timestamps.searchsorted(timeline[spans[3]], side="right")) - 1,
        train_assets=train_assets,
        test_assets=test_assets,
        notes=tuple(notes),
    )


def choose_features(config: Config, bars: Mapping[str, pd.DataFrame]) -> list[Feature]:
    """Return the features that the settings name, or all that every asset's columns allow."""
    catalogue = config.features.catalogue()
    if config.features.names is not None:
        return [catalogue[name] for name in config.features.names]
    common = set.intersection(*(set(frame.columns) for frame in bars.values()))
    return [feature for feature in catalogue.values() if common >= set(feature.columns)]


def target_of(config: Config) -> Target:
    """Return the target that the settings describe."""
    return Target(**config.target.model_dump())


def _chosen(key: str, names: Sequence[str] | None, bars: Mapping) -> list[str]:
    if names is None:
        return list(bars)
    if not names:
        raise ConfigError(f"key {key!r}: must name at least one asset")
    _require_known(key, names, bars)
    return list(dict.fromkeys(names))


def _require_known(key: str, names: Sequence[str], bars: Mapping) -> None:
    unknown = [name for name in names if name not in bars]
    if unknown:
        raise ConfigError(f"key {key!r}: no bars of {unknown}; there are {list(bars)}")


def _moment(text: str, timezone: str, end: bool) -> pd.Timestamp:
    """Return a moment in UTC; a plain day means its beginning, or its end."""
    moment = pd.Timestamp(text)
    is_day = "T" not in text and ":" not in text
    moment = moment.tz_localize(timezone) if moment.tz is None else moment
    if end and is_day:
        moment += pd.Timedelta(days=1) - pd.Timedelta(microseconds=1)
    return moment.tz_convert("UTC")


def _find_spans(data: DataConfig, timeline: pd.DatetimeIndex) -> tuple[int, int, int, int]:
    """Return the places of the first and last bar of the meta-training and of the test span."""

    def first_from(key: str, text: str) -> int:
        place = int(timeline.searchsorted(_moment(text, data.timezone, end=False)))
        if place == len(timeline):
            raise ConfigError(f"key {key!r}: {text} is after the last bar, {timeline[-1]}")
        return place

    def last_to(key: str, text: str) -> int:
        moment = _moment(text, data.timezone, end=True)
        place = int(timeline.searchsorted(moment, side="right")) - 1
        if place < 0:
            raise ConfigError(f"key {key!r}: {text} is before the first bar, {timeline[0]}")
        return place

    train_first = first_from("data.train_start", data.train_start) if data.train_start else 0
    test_last = last_to("data.test_end", data.test_end) if data.test_end else len(timeline) - 1
    if data.train_end:
        train_last = last_to("data.train_end", data.train_end)
    elif data.test_start:
        train_last = first_from("data.test_start", data.test_start) - 1
    else:
        train_last = int(TRAIN_SHARE * len(timeline)) - 1
    if data.test_start:
        test_first = first_from("data.test_start", data.test_start)
    else:
        test_first = train_last + 1
    if test_first <= train_last:
        raise ConfigError(
            "keys 'data.train_end' and 'data.test_start': the meta-training span ends at "
            f"{timeline[train_last]} and overlaps the test span, which begins at "
            f"{timeline[test_first]}; a test on bars that were trained on shows nothing"
        )
    if train_first > train_last:
        raise ConfigError("keys 'data.train_start' and 'data.train_end': the span holds no bar")
    if test_first > test_last:
        raise ConfigError(
            f"keys 'data.test_start' and 'data.test_end': the test span holds no bar; bars run "
            f"from {timeline[0]} to {timeline[-1]}, and the meta-training span ends at "
            f"{timeline[train_last]}"
        )
    return train_first, train_last, test_first, test_last


class _Needs(NamedTuple):
    role: str
    bars: int
    terms: str
    until: pd.Timestamp | None = None


def _train_needs(config: Config, warm_up: int) -> _Needs:
    task, delay = config.task, target_of(config).label_delay
    sizes = {"support": task.support, "query": task.query, "embargo": task.embargo}
    needed = bars_needed(warm_up=warm_up, label_delay=delay, **sizes)
    terms = (
        f"warm-up {warm_up} + support {task.support} + gap {delay + task.embargo - 1} + query "
        f"{task.query} + label delay {delay}"
    )
    return _Needs("meta-training", needed, terms)


def _test_needs(config: Config, warm_up: int) -> _Needs:
    support, delay = config.task.support, target_of(config).label_delay
    terms = f"warm-up {warm_up} + support {support} + label delay {delay}"
    return _Needs("walk-forward", warm_up + support + delay, terms)


def _bars_in(bars, warm_up: int, first: pd.Timestamp, last: pd.Timestamp) -> dict[str, int]:
    """Count the bars that can be used in a span; features may warm up on the bars before it."""
    return {
        asset: min(len(frame.loc[:last]), len(frame.loc[first:last]) + warm_up)
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
            f"{worst}: {needs.role} needs at least {needs.bars} bars up to {needs.until} "
            f"({needs.terms}), and there are {have[worst]}"
        )
    if short:
        listed = ", ".join(f"{asset} ({have[asset]})" for asset in short)
        notes.append(
            f"Left out of {needs.role}, which needs {needs.bars} bars "
            f"up to {needs.until}: {listed}."
        )
    return [asset for asset in assets if asset not in short]
