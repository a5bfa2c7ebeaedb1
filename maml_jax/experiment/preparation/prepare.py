"""From settings and bars to a Panel, checked as far as that goes before training.

`prepare_market` (in `bars`) does what is the same for all folds of a run, `fit_fold` what belongs
to one of them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool

from maml_jax.backtest import bars_per_year
from maml_jax.errors import DataError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.preparation.bars import Market, Roles, prepare_market, roles_of
from maml_jax.experiment.preparation.regimes import (
    fit_chain,
    market_of_chain,
    needs_regimes,
    panel_regimes,
    require_known_regimes,
    unknown_regimes,
)
from maml_jax.experiment.preparation.requirements import (
    TRAINING,
    bars_in,
    choose_features,
    left_out,
    require_rows,
    require_tradable,
    span_needs,
    target_of,
    test_needs,
    train_needs,
    with_room,
)
from maml_jax.experiment.preparation.series import Series, make_series
from maml_jax.experiment.preparation.spans import Spans, find_spans
from maml_jax.features import (
    Feature,
    MarkovParameters,
    Scaler,
    fit_scaler,
)
from maml_jax.features.targets import fit_target
from maml_jax.notes import Note
from maml_jax.tasks import Panel, make_panel
from maml_jax.tasks.panel import assets_timeline

SIDE = "side"
"""The feature that holds the side a rule takes."""

_INTERLEAVED = 1.05
"""Calendars differ when their union has so many times the bars of the fullest; holidays do not."""


class Prepared(NamedTuple):
    """Everything that training and walk-forward need.

    Where series follow rules they take the place of assets.

    Attributes:
        config: the settings, with what was left open filled in.
        bars: in normal form, of the assets in use.
        panel: the same as arrays, features standardised; with regimes where they matter.
        scaler: fitted on the meta-training span; `scaler.restore_target` gives predictions of a
            volatility as its logarithm per bar.
        chain: the Markov chain of the regimes, fitted on the meta-training span; None without one.
        sides: of each series' rule at each of its bars; none where series are assets.
        train_first: index on the time axis of the first bar of the meta-training span.
        train_last: index of its last bar.
        test_first: index of the first bar of the test span.
        test_last: index of its last bar.
        train_assets: assets that are meta-trained on.
        test_assets: assets that are walked forward on.
        market: bars of the test assets themselves, where series follow rules too.
        bars_per_year: bars of the portfolio in a year, set or inferred.
        notes: what a reader of the results must know, such as assets left out.
        spans: the same spans as times, with the stretches that they are made of.
        yearly: bars a year of each test asset, by which its volatility is annualised, where they
            are known; None takes the bars before the test span.
    """

    config: Config
    bars: dict[str, pd.DataFrame]
    panel: Panel
    scaler: Scaler
    chain: MarkovParameters | None
    sides: dict[str, pd.Series]
    train_first: int
    train_last: int
    test_first: int
    test_last: int
    train_assets: list[str]
    test_assets: list[str]
    market: dict[str, pd.DataFrame]
    bars_per_year: float
    notes: tuple[Note, ...]
    spans: Spans
    yearly: Mapping[str, float] | None = None


class Fitted(NamedTuple):
    """What was fitted on the meta-training span before.

    Attributes:
        scaler: of features and target.
        chain: of the regimes; None without one.
    """

    scaler: Scaler
    chain: MarkovParameters | None = None


def prepare(
    config: Config,
    bars: Mapping[str, pd.DataFrame],
    fitted: Fitted | None = None,
    spans: Spans | None = None,
) -> Prepared:
    """Make the Panel of one fold, and check that settings and bars go together.

    Args:
        config: the settings.
        bars: in normal form.
        fitted: as for `fit_fold`; likewise the next.
        spans: of the fold.

    Raises:
        ConfigError: naming the key of a setting that these bars make impossible.
        DataError: naming the asset whose bars will not do.
    """
    market = prepare_market(config, bars, trained=fitted is not None)
    return fit_fold(market, config, fitted, spans)


def fit_fold(
    market: Market,
    config: Config,
    fitted: Fitted | None = None,
    spans: Spans | None = None,
    *,
    keep_all: bool = False,
) -> Prepared:
    """Make the Panel of a fold on bars that are checked already.

    Args:
        market: the bars, of all assets that the settings name.
        config: the settings of the fold.
        fitted: what was fitted before, to walk forward with a trained learner; None fits it on the
            meta-training span.
        spans: of one of several folds, whatever dates the settings name. Assets without room in
            them are left out even where the settings name them; None finds the spans and refuses
            such assets.
        keep_all: keep assets that have no room yet, of which nothing is predicted then.

    Raises:
        ConfigError: naming the key of a setting that these bars make impossible.
        DataError: naming the asset whose bars will not do.
    """
    trained, notes = fitted is not None, [*market.notes]
    roles = roles_of(config, market.given, trained=trained)
    bars = market.of(roles.train, roles.test, roles.context)
    fold, spans = spans, spans or find_spans(config.data, assets_timeline(bars), trained)
    if not keep_all:
        roles = _with_room(config, bars, roles, spans, fold is not None, notes)
    bars = market.of(roles.train, roles.test, roles.context)
    span = slice(spans.train_first, spans.train_last)
    series = make_series(config, bars, roles.train or roles.context, roles.test, span, notes)
    require_tradable(config, series.bars, series.test)
    features = choose_features(config, series.bars)
    tables = _tables(market, config, features, series, roles.compared)
    if fitted is None:
        series = _with_rows(config, series, tables, spans, notes)
        fitted = _fit(config, series, tables, {a: bars[a] for a in roles.train}, spans)
    scaled = {name: fitted.scaler.transform(tables[name]) for name in series.bars}
    panel = make_panel(series.bars, scaled, target_of(config), fitted.scaler)
    panel = _apply_sides(panel, series.sides)
    if needs_regimes(config):
        whole = market_of_chain(config, bars) if fitted.chain is not None else bars
        labels = panel_regimes(config, panel, series.bars, whole, fitted.chain)
        require_known_regimes(config, panel, labels, series.train, None if trained else spans)
        notes += unknown_regimes(config, panel, labels, series.test, spans)
        panel = panel._replace(regimes=labels)
    notes += _unknown_classes(config, market.given)
    return Prepared(
        config=_resolve(config, spans, features, roles, series, trained),
        bars=series.bars,
        panel=panel,
        scaler=fitted.scaler,
        chain=fitted.chain,
        sides=series.sides,
        train_first=int(panel.timestamps.searchsorted(spans.train_first)),
        train_last=int(panel.timestamps.searchsorted(spans.train_last, side="right")) - 1,
        test_first=int(panel.timestamps.searchsorted(spans.test_first)),
        test_last=int(panel.timestamps.searchsorted(spans.test_last, side="right")) - 1,
        train_assets=series.train,
        test_assets=series.test,
        market={asset: bars[asset] for asset in roles.test},
        bars_per_year=_bars_per_year(config, series.bars, series.test, spans),
        notes=tuple(notes),
        spans=spans,
    )


def _with_room(
    config: Config,
    bars: Mapping[str, pd.DataFrame],
    roles: Roles,
    spans: Spans,
    fold: bool,
    notes: list[Note],
) -> Roles:
    """Leave out assets that have too few bars for what they are there for.

    Those that the settings name are refused instead, unless they may have room in another fold.
    """
    data, features = config.data, choose_features(config, bars)
    train, test = roles.train, roles.test
    if train:
        rooms = [bars_in(bars, config, features, *stretch) for stretch in spans.training()]
        have = {asset: max(room[asset] for room in rooms) for asset in bars}
        needs = train_needs(config, features, spans.train_last)
        train = with_room(train, data.train_assets is not None and not fold, have, needs, notes)
    named = data.test_assets is not None and not fold
    timeline = assets_timeline(bars)
    # Of a fold that tests several groups, the first may lie within the warm-up.
    last = timeline[-1] if spans.tested else spans.test_last
    have = bars_in(bars, config, features, timeline[0], last)
    test = with_room(test, named, have, test_needs(config, features, last), notes)
    have = {a: len(b.loc[spans.test_first : spans.test_last]) for a, b in bars.items()}
    test = with_room(test, named, have, span_needs(config, spans.test_last, fold), notes)
    return roles._replace(train=train, test=test)


def training_rows(prepared: Prepared) -> Bool[np.ndarray, "asset time"]:
    """Say which rows what is fitted on the meta-training span may be taught by.

    Those of its assets and bars whose labels are complete within one of its stretches.
    """
    panel, inside = prepared.panel, prepared.spans.train_bars(prepared.panel.timestamps)
    ends, times = np.asarray(panel.label_end), np.arange(len(inside))
    barred = np.append(0, np.cumsum(~inside))  # before each bar
    labelled = np.asarray(panel.valid) & (ends < len(inside))
    clear = barred[np.minimum(ends, len(inside) - 1) + 1] == barred[times]
    rows = np.zeros(ends.shape, bool)
    rows[[panel.assets.index(name) for name in prepared.train_assets]] = True
    return rows & labelled & clear


def fitting_panel(prepared: Prepared) -> Panel:
    """Return the panel with no labels that must not be trained on, where the span has holes."""
    panel = prepared.panel
    if not prepared.spans.trained:
        return panel
    stop = np.int32(len(panel.timestamps))
    ends = np.where(training_rows(prepared), np.asarray(panel.label_end), stop)
    return panel._replace(label_end=jnp.asarray(ends))


def _unknown_classes(config: Config, given: Mapping[str, object]) -> list[Note]:
    unknown = [name for name in config.data.classes or {} if name not in given]
    if not unknown:
        return []
    return [Note("classes", f"Setting data.classes names {', '.join(unknown)}: no such bars.")]


def _tables(
    market: Market,
    config: Config,
    features: Sequence[Feature],
    series: Series,
    compared: Sequence[str],
) -> dict[str, pd.DataFrame]:
    """Compute features; of series that follow a rule, only where it takes a side, and the side."""
    others = {name: market.bars[name] for name in compared}
    tables = market.tables.compute(config.features, features, series.bars, others)
    return {
        name: table
        if name not in series.sides
        else table.assign(**{SIDE: series.sides[name].astype(float)}).where(
            series.sides[name] != 0, axis="index"
        )
        for name, table in tables.items()
    }


def _with_rows(
    config: Config,
    series: Series,
    tables: Mapping[str, pd.DataFrame],
    spans: Spans,
    notes: list[Note],
) -> Series:
    """Refuse assets that give too few rows; leave out series whose rules trade too seldom."""
    kept = []
    for name in series.train:
        try:
            table, frame = tables[name], series.bars[name]
            require_rows(name, spans.of_training(table), spans.of_training(frame), config)
            kept.append(name)
        except DataError as error:
            if name not in series.sides:
                raise
            notes.append(Note(left_out(TRAINING), f"Left out of meta-training: {error}."))
    if not kept:
        raise DataError("no rule takes sides often enough in the meta-training span to learn from")
    return series._replace(train=kept)


def _fit(
    config: Config,
    series: Series,
    tables: Mapping[str, pd.DataFrame],
    market: Mapping[str, pd.DataFrame],
    spans: Spans,
) -> Fitted:
    """Fit the scaling, and the chain of regimes, on the meta-training span."""
    own = [spans.of_training(tables[name]) for name in series.train]
    scaler = fit_scaler(own, clip=config.features.clip)
    target = target_of(config)
    frames = {name: series.bars[name] for name in series.train}
    if spans.trained:  # each stretch alone: labels are complete within it, volatility looks back
        frames = {
            f"{name} from {first}": _cut_with_warm_up(frame, first, last, target.volatility_window)
            for name, frame in frames.items()
            for first, last in spans.trained
        }
    scaler = fit_target(scaler, frames, target, spans.train_first, spans.train_last)
    return Fitted(scaler, fit_chain(config, market, slice(spans.train_first, spans.train_last)))


def _cut_with_warm_up(
    bars: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp, before: int
) -> pd.DataFrame:
    """Cut bars to a stretch and so many before it."""
    begin = max(0, int(bars.index.searchsorted(first)) - before)
    return bars.iloc[begin : int(bars.index.searchsorted(last, side="right"))]


def _apply_sides(panel: Panel, sides: Mapping[str, pd.Series]) -> Panel:
    """Turn returns of prices into returns of following the rule."""
    if not sides:
        return panel
    factor = np.ones(panel.targets.shape, np.float32)
    for row, name in enumerate(panel.assets):
        factor[row] = sides[name].reindex(panel.timestamps, fill_value=0).to_numpy()
    return panel._replace(targets=panel.targets * factor)


def _resolve(
    config: Config,
    spans: Spans,
    features: Sequence[Feature],
    roles: Roles,
    series: Series,
    trained: bool,
) -> Config:
    """Fill in what the settings left open."""
    data: dict = {"test_assets": tuple(roles.test)}
    if not spans.tested:
        data["test_start"] = config.data.test_start or spans.test_first.isoformat()
    if not trained:
        data["train_assets"] = tuple(roles.train)
    if not (trained or spans.trained):
        data["train_end"] = config.data.train_end or spans.train_last.isoformat()
    return config.changed(
        data=data,
        features={"names": tuple(feature.name for feature in features)},
        backtest={
            "positions": config.position_rule(),
            "same_regime": config.adapts_within_regimes(),
        },
        regimes={"of": "market" if config.regimes.market_wide() else "asset"},
        task={"pairs": series.pairs} if series.pairs and not trained else {},
    )


def _bars_per_year(config: Config, bars, test_assets: list[str], spans: Spans) -> float:
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
