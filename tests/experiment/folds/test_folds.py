"""Folds of meta-training: what each may know, and that together they test every bar once."""

import numpy as np
import pandas as pd
import pytest
from folded import COUNT, DATES, GROUPS, MARKET, OPEN, ROLLING
from helpers import random_bars

from maml_jax.backtest.baselines.volatility import HAR
from maml_jax.data.quality import checks, cleaning
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import load_config
from maml_jax.experiment.evaluation.baselines import volatility_baselines
from maml_jax.experiment.evaluation.forecasts import Forecasts, predict_all
from maml_jax.experiment.evaluation.predicted import Predicted
from maml_jax.experiment.folds.evaluate import join_forecasts
from maml_jax.experiment.folds.plan import fold_seed, plan_folds
from maml_jax.experiment.folds.prepare import prepare_folds
from maml_jax.experiment.learning.tasks import training_windows
from maml_jax.experiment.learning.train import meta_train
from maml_jax.experiment.preparation import feature_tables
from maml_jax.experiment.preparation.prepare import prepare, training_rows
from maml_jax.features import compute_features
from maml_jax.notes import Note
from maml_jax.tasks.stretches import keep_within_stretches

pytestmark = pytest.mark.long


def config_of(folds, **changes):
    return load_config({**OPEN, "folds": folds}, changes)


def trained(folds):
    return [meta_train(part, "maml")[0] for part in folds.parts]


def forecasts(folds, params=None):
    params = trained(folds) if params is None else params
    pieces = [predict_all(p, {"maml": own}) for p, own in zip(folds.parts, params, strict=True)]
    return join_forecasts(folds, pieces)


@pytest.fixture(scope="module")
def rolling():
    folds = prepare_folds(config_of(ROLLING), MARKET)
    params = trained(folds)
    return folds, params, forecasts(folds, params)


def notes(*texts):
    return tuple(Note("some", text) for text in texts)


def dates(spans):
    return [tuple(int(DATES.searchsorted(each)) for each in own[:4]) for own in spans]


def test_the_kind_alone_makes_folds_that_begin_where_one_fold_would():
    settings, spans = plan_folds(config_of({"kind": "rolling"}), DATES)
    assert (settings.train_size, settings.test_size) == (120, 20)
    assert dates(spans) == [(20 * k, 119 + 20 * k, 120 + 20 * k, 139 + 20 * k) for k in range(4)]
    assert prepare(config_of({}), MARKET).test_first == 120
    _, spans = plan_folds(config_of({"kind": "anchored", "purge": 3, "embargo": 2}), DATES)
    assert dates(spans) == [(0, 114 + 20 * k, 120 + 20 * k, 139 + 20 * k) for k in range(4)]


def test_bars_are_checked_and_featured_once_however_many_folds_there_are(monkeypatch):
    checked, featured = [], []

    def check_bars(bars, *args):
        checked.extend(bars)
        return checks.check_bars(bars, *args)

    def compute(bars, features, *, asset):
        featured.append(asset)
        return compute_features(bars, features, asset=asset)

    monkeypatch.setattr(cleaning, "check_bars", check_bars)
    monkeypatch.setattr(feature_tables, "compute_features", compute)
    folds = prepare_folds(
        config_of({"kind": "anchored", "train_size": 80, "test_size": 20}), MARKET
    )
    assert len(folds.parts) == 6
    assert sorted(checked) == sorted(featured) == sorted(MARKET)


def test_folds_begin_and_end_where_dates_say():
    days = {"data.train_start": "2020-01-11", "data.test_end": "2020-06-28"}  # bars 10 to 179
    folds = {"kind": "rolling", "train_size": "60D", "test_size": "45D"}
    _, spans = plan_folds(config_of(folds, **days), DATES)
    assert dates(spans) == [(10, 69, 70, 114), (55, 114, 115, 159), (100, 159, 160, 179)]
    named = {**days, "data.test_start": DATES[100].isoformat()}
    settings, spans = plan_folds(config_of({"kind": "rolling", "test_size": 50}, **named), DATES)
    assert settings.train_size == 90
    assert dates(spans) == [(10, 99, 100, 149), (60, 149, 150, 179)]
    whole = {**folds, "reduce_test": False}
    _, spans = plan_folds(config_of(whole, **days), DATES)
    assert dates(spans) == [(10, 69, 70, 114), (55, 114, 115, 159)]


def test_the_settings_that_were_left_open_are_filled_in():
    """So that the same settings make the same folds of bars that end earlier."""
    folds = prepare_folds(config_of({"kind": "anchored"}), MARKET)
    assert (folds.config.folds.train_size, folds.config.folds.test_size) == (120, 20)
    shorter = {name: bars.iloc[:170] for name, bars in MARKET.items()}
    again = prepare_folds(folds.config, shorter)
    assert [part.spans[:3] for part in again.parts] == [p.spans[:3] for p in folds.parts[:3]]
    assert again.parts[-1].spans.test_last == DATES[169]


def test_a_history_too_short_for_one_fold_is_refused_with_numbers():
    with pytest.raises(
        ConfigError, match=r"'folds': one fold needs train_size 190 \+ purge 5 \+ embargo 7 .* 200 "
    ):
        prepare_folds(config_of({**ROLLING, "train_size": 190, "purge": 5, "embargo": 7}), MARKET)
    with pytest.raises(DataError, match=r"fold 0 of 9, trained on .*: A\d: meta-training needs"):
        prepare_folds(config_of({**ROLLING, "train_size": 20, "test_size": 20}), MARKET)
    with pytest.raises(ConfigError, match=r"200 bars in 20 groups has 10 bars, and purge 8"):
        prepare_folds(config_of({**GROUPS, "groups": 20, "purge": 8, "embargo": 4}), MARKET)
    alone = {**GROUPS, "groups": 6, "test_groups": 5, "embargo": 9}
    with pytest.raises(DataError, match=r"fold 1 of 6, trained on .*: A\d: meta-training needs"):
        prepare_folds(config_of(alone), MARKET)


@pytest.mark.slow
def test_windows_that_fit_no_stretch_are_refused_with_numbers(rolling):
    windows = training_windows(rolling[0].parts[0])
    allowed = np.arange(COUNT) % 30 > 0
    kept = keep_within_stretches(windows, allowed)
    assert 0 < len(kept.asset) < len(windows.asset)
    with pytest.raises(DataError, match="longest has 19 bars, and the shortest window takes 22 of"):
        keep_within_stretches(windows, np.arange(COUNT) % 20 > 0)


def test_what_does_not_go_together_is_refused_by_name():
    for changes, told in (
        ({"data.train_end": "2020-05-01"}, "key 'data.train_end': folds of kind \"rolling\""),
        ({"folds.groups": 5}, 'groups does not go with kind "rolling"'),
        ({"folds.train_size": 0}, "key 'folds.train_size': expected a positive number of bars"),
        ({"folds.test_size": "soon"}, 'or a time such as "365D"'),
        ({"folds.purge": -1}, "folds.purge"),
        ({"folds.kind": "single"}, 'test_size does not go with kind "single"'),
    ):
        with pytest.raises(ConfigError) as error:
            config_of({**ROLLING, "test_size": 40}, **changes)
        assert told in str(error.value)
    for changes, told in (
        ({"data.test_start": "2020-05-01"}, "key 'data.test_start': every group"),
        ({"online.variants": ["online"]}, "key 'online.variants': they learn in the order of time"),
        ({"regimes.kind": "markov", "backtest.same_regime": True}, "key 'regimes.kind'"),
        ({"task.family": "strategy"}, "key 'task.pairs': name the pairs"),
        ({"folds.test_groups": 4}, "test_groups (4) must be fewer than groups (4)"),
        ({"folds.train_size": 50}, 'train_size does not go with kind "combinatorial"'),
    ):
        with pytest.raises(ConfigError) as error:
            config_of(GROUPS, **changes)
        assert told in str(error.value)


def test_the_built_in_example_takes_a_kind_of_folds():
    for kind in ("rolling", "anchored", "combinatorial"):
        config = load_config(None, {"folds.kind": kind})
        assert config.data.train_end is None
        assert (config.data.test_start is None) == (kind == "combinatorial")
    assert load_config(None).data.train_end is not None


def test_one_fold_is_the_run_with_its_dates():
    plain = prepare(
        load_config(
            OPEN,
            {"data.train_end": DATES[119].isoformat(), "data.test_start": DATES[122].isoformat()},
        ),
        MARKET,
    )
    one = {"kind": "rolling", "train_size": 120, "test_size": 500, "purge": 2}
    folds = prepare_folds(config_of(one), MARKET)
    assert len(folds.parts) == 1
    params, history = meta_train(plain, "maml")
    (own,) = trained(folds)
    np.testing.assert_array_equal(params["layers"][0]["kernel"], own["layers"][0]["kernel"])
    joined, alone = forecasts(folds, [own]), predict_all(plain, {"maml": params})
    assert list(joined.predicted) == list(alone.predicted)
    for name, each in alone.predicted.items():
        pd.testing.assert_frame_equal(joined.predicted[name].mean, each.mean, check_freq=False)
    for field in ("test_first", "test_last", "test_assets", "bars_per_year", "notes"):
        assert getattr(folds.joined, field) == getattr(plain, field), field
    own, others = (each.panel for each in (folds.joined, plain))
    rows = [others.assets.index(name) for name in own.assets]
    for field in ("targets", "valid", "label_end"):
        np.testing.assert_array_equal(getattr(own, field), getattr(others, field)[np.array(rows)])


def test_each_fold_predicts_its_own_bars_and_together_every_bar_once(rolling):
    folds, params, joined = rolling
    mean = joined.predicted["maml"].mean
    assert mean.index.equals(DATES[90:])
    assert mean.notna().all(axis=None)
    assert len(folds.parts) == 3
    for part, own in zip(folds.parts, params, strict=True):
        # The settings of a fold are those of a run of its own, wherever they are used again.
        alone = prepare(part.config, MARKET)
        assert alone.spans[:4] == part.spans[:4]
        again = predict_all(alone, {"maml": own}).predicted["maml"].mean
        pd.testing.assert_frame_equal(mean.loc[again.index], again)
    kernels = [np.asarray(each["layers"][0]["kernel"]) for each in params]
    assert not np.allclose(kernels[0], kernels[1]) and not np.allclose(kernels[1], kernels[2])
    seeds = [part.config.seed for part in folds.parts]
    assert seeds[0] == 0 and len({*seeds, fold_seed(1, 1)}) == 4


def test_bars_tested_twice_are_refused(rolling):
    folds, _, joined = rolling
    with pytest.raises(ValueError, match="tested twice: 2020-03-31"):
        join_forecasts(folds, [joined, joined])


def test_what_a_fold_lacks_is_left_open(rolling):
    folds, _, joined = rolling
    mean = joined.predicted["maml"].mean
    early = Predicted(mean.iloc[:40][["A0"]])
    late = Predicted(mean.iloc[40:], mean.iloc[40:] ** 2)
    both = join_forecasts(
        folds,
        [
            Forecasts({"a": early}, notes("all", "x")),
            Forecasts({"a": late, "b": late}, notes("all", "y")),
            Forecasts({}, notes("all")),
        ],
    )
    a, b = both.predicted["a"], both.predicted["b"]
    assert a.mean["A2"].iloc[:40].isna().all() and a.mean["A0"].notna().all()
    assert b.mean.iloc[:40].isna().all(axis=None)
    assert a.std is not None and a.std.iloc[:40].isna().all(axis=None)
    assert both.notes == notes("all", "Fold 0: x", "Fold 1: y")


def altered_after(last):
    rng = np.random.default_rng(last)
    changed = {}
    for name, bars in MARKET.items():
        factors = np.exp(0.3 * rng.standard_normal((COUNT - last - 1, 1)))
        changed[name] = bars.copy()
        changed[name].iloc[last + 1 :] *= factors
    return changed


def test_what_a_fold_learns_depends_on_no_bar_after_its_training(rolling):
    folds, params, _ = rolling
    last = folds.parts[1].train_last
    assert last == 129
    other = trained(prepare_folds(config_of(ROLLING), altered_after(last)))
    same = [
        np.array_equal(a["layers"][0]["kernel"], b["layers"][0]["kernel"])
        for a, b in zip(params, other, strict=True)
    ]
    assert same == [True, True, False]


@pytest.mark.parametrize("t", [100, 133, 175])
@pytest.mark.parametrize("cut", [False, True])
def test_bars_after_t_change_nothing_up_to_t(rolling, t, cut):
    folds, _, joined = rolling
    bars = {n: b.iloc[: t + 1] for n, b in MARKET.items()} if cut else altered_after(t)
    other = prepare_folds(folds.config, bars)
    predicted = forecasts(other).predicted
    for name, each in joined.predicted.items():
        a, b = each.mean.loc[: DATES[t]], predicted[name].mean.loc[: DATES[t]]
        pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-6, check_freq=False)
    if not cut:
        later = predicted["maml"].mean.loc[DATES[t + 1] :]
        assert not np.allclose(later, joined.predicted["maml"].mean.loc[later.index], atol=1e-3)


@pytest.mark.long
def test_assets_that_begin_late_or_end_early_are_in_the_folds_that_have_room_for_them():
    bars = {
        **MARKET,
        "NEW": random_bars(seed=7, count=COUNT).iloc[120:],
        "OLD": random_bars(seed=8, count=COUNT).iloc[:120],
    }
    data = {"train_assets": ["A0", "NEW"], "test_assets": ["OLD", "NEW", "A0"]}
    folds = prepare_folds(config_of(ROLLING, data=data), bars)
    assert [part.train_assets for part in folds.parts] == [["A0"], ["A0"], ["A0", "NEW"]]
    assert [part.test_assets for part in folds.parts] == [
        ["OLD", "A0"],
        ["NEW", "A0"],
        ["NEW", "A0"],
    ]
    assert folds.joined.test_assets == ["OLD", "NEW", "A0"]
    assert folds.config.data.train_assets == ("A0", "NEW")
    mean = forecasts(folds).predicted["maml"].mean
    assert list(mean) == ["OLD", "NEW", "A0"] and mean.index.equals(DATES[90:])
    assert mean["OLD"].dropna().index.equals(DATES[90:120])
    # 14 bars of warm-up, then 10 rows with labels, the last of them complete 4 bars later.
    assert mean["NEW"].dropna().index.equals(DATES[120 + 14 + 9 + 4 :])
    assert mean["A0"].notna().all()
    assert any(note.text.startswith("Fold 0: Left out of meta-training") for note in folds.notes)
    with pytest.raises(DataError, match="NEW: has too few bars for meta-training in every fold"):
        short = {**bars, "NEW": bars["NEW"].iloc[40:]}
        prepare_folds(config_of(ROLLING, data=data), short)


def test_combinatorial_folds_learn_from_nothing_that_touches_what_they_test():
    folds = prepare_folds(config_of({**GROUPS, "embargo": 5}), MARKET)
    assert folds.config.folds.purge == 4  # of a label: horizon 3, filled at the next close
    assert len(folds.parts) == 6
    assert folds.paths is not None and folds.paths.shape == (3, 4)
    for part in folds.parts:
        windows, panel = training_windows(part), part.panel
        rows = windows.rows
        tested = np.zeros(COUNT, bool)
        for first, last in part.spans.tested:
            tested[DATES.searchsorted(first) : DATES.searchsorted(last, side="right")] = True
        ends = np.asarray(panel.label_end)
        # What labels of tested bars are made of, and the embargo after it.
        told = np.convolve(tested, np.ones(1 + 4 + 5), "full")[:COUNT] > 0
        for number in range(len(windows.asset)):
            counted = np.append(windows.support_rows(number), windows.query_rows(number))
            asset = np.searchsorted(rows.first, counted, side="right") - 1
            time = rows.time[asset, counted - rows.first[asset]]
            span = np.arange(time.min(), ends[asset, time].max() + 1)
            assert not tested[span].any() and not told[time].any()
            assert part.panel.assets[asset[0]] in ("A0", "A1")
        allowed = training_rows(part)
        assert not allowed[:, told].any() and allowed.any()
        for asset, time in np.argwhere(allowed):
            assert not tested[time : ends[asset, time] + 1].any()


@pytest.mark.parametrize(
    ("kind", "embargo", "same"),
    [("return", 30, True), ("volatility", 30, True), ("return", 0, False)],
)
def test_what_a_combinatorial_fold_learns_depends_on_no_bar_that_it_tests(kind, embargo, same):
    """Features look back into the bars before, as far as the embargo reaches."""
    config = config_of({**GROUPS, "test_groups": 1, "embargo": embargo}, **{"target.kind": kind})
    factors = np.exp(0.3 * np.random.default_rng(3).standard_normal((50, 1)))
    changed = {name: bars.copy() for name, bars in MARKET.items()}
    for bars in changed.values():
        bars.iloc[50:100] *= factors
    first, second = (prepare_folds(config, bars).parts[1] for bars in (MARKET, changed))
    assert (first.scaler.mean == second.scaler.mean).all() == same
    assert first.scaler[3:] == second.scaler[3:]
    a, b = (meta_train(part, "maml")[0]["layers"][0]["kernel"] for part in (first, second))
    assert np.array_equal(a, b) == same


def test_baselines_of_combinatorial_folds_are_fitted_on_nothing_that_they_test():
    """What they predict at bars before the tested group depends on no bar of it."""
    changes = {"target.kind": "volatility", "features.names": [*HAR]}
    config = config_of({**GROUPS, "test_groups": 1, "embargo": 30}, **changes)
    factors = np.exp(0.3 * np.random.default_rng(3).standard_normal((50, 1)))
    changed = {name: bars.copy() for name, bars in MARKET.items()}
    for bars in changed.values():
        bars.iloc[50:100] *= factors

    def predicted(bars, holes=True):
        part = prepare_folds(config, bars).parts[1]
        assert part.spans.test_first == DATES[50]
        part = part._replace(test_first=0, test_last=49)
        if not holes:
            part = part._replace(spans=part.spans._replace(trained=()))
        return {name: each.mean for name, each in volatility_baselines(part).items()}

    first, second, blind = predicted(MARKET), predicted(changed), predicted(changed, holes=False)
    assert {"har", "ewma", "trailing volatility"} == {*first}
    for name in ("har", "trailing volatility"):  # an EWMA looks back further than the embargo
        mean = first[name]
        assert mean.notna().any(axis=None)
        pd.testing.assert_frame_equal(mean, second[name])
        assert not np.allclose(mean.to_numpy(), blind[name].to_numpy(), equal_nan=True)


@pytest.mark.slow
def test_groups_that_lie_within_the_warm_up_are_tested_without_predictions():
    """The first of four groups has 50 bars, and a prediction needs 14 + 40 + 4 before it."""
    config = config_of({**GROUPS, "test_groups": 1}, **{"task.support": 40, "task.query": 5})
    folds = prepare_folds(config, MARKET)
    joined = join_forecasts(
        folds, [predict_all(part, {"maml": meta_train(part, "maml")[0]}) for part in folds.parts]
    )
    mean = joined.predicted["maml"].mean
    assert mean.index.equals(DATES)
    assert mean.iloc[: 14 + 39 + 4].isna().all(axis=None)
    assert mean.iloc[14 + 39 + 4 :].notna().all(axis=None)
