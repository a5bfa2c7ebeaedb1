"""Runs of several folds: what is kept, and what a backtest makes of it."""

import sys
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from folded import DATES, GROUPS, MARKET, OPEN, ROLLING
from helpers import random_bars, random_market

from maml_jax.errors import ConfigError, DataError, RunError, TrainingError
from maml_jax.experiment import backtest, load, run, train
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.evaluation.forecasts import predict_all
from maml_jax.experiment.folds.evaluate import join_forecasts
from maml_jax.experiment.folds.prepare import prepare_again, prepare_folds
from maml_jax.experiment.result import add_fold
from maml_jax.experiment.training import CUT_OFF

pytestmark = pytest.mark.long

MODULE = sys.modules["maml_jax.experiment.training"]
FOLDED = {**OPEN, "folds": ROLLING}
QUICK = {"baselines": [], "bars_per_year": 365, "samples": 20}


def same_params(first, second):
    return jax.tree.all(
        jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), first, second)
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = tmp_path_factory.mktemp("folds") / "run"
    return train(FOLDED, bars=MARKET, out=path), path


def again(result, bars, **changes):
    """Prepare the folds of a result, and walk forward with what the method learned in each."""
    folds = prepare_again(load_config(result.config, changes), bars, result.folds)
    pieces = [
        predict_all(part, {"maml": result.folds[number]["maml"].params})
        for part, number in zip(folds.parts, folds.numbers, strict=True)
    ]
    return folds, join_forecasts(folds, pieces).predicted["maml"].mean


@pytest.mark.slow
def test_every_fold_is_kept_and_the_last_one_lies_at_the_usual_place(kept):
    result, path = kept
    loaded = load(path)
    assert len(result.folds) == len(loaded.folds) == 3
    for own, other in zip(result.folds, loaded.folds, strict=True):
        assert same_params(own["maml"].params, other["maml"].params)
        assert own["maml"].config == other["maml"].config
        assert own["maml"].spans == other["maml"].spans is not None
        np.testing.assert_array_equal(own["maml"].scaler.mean, other["maml"].scaler.mean)
    assert same_params(loaded.checkpoints["maml"].params, result.folds[2]["maml"].params)
    about = [p.relative_to(path).as_posix() for p in sorted(path.rglob("about.json"))]
    assert about == [
        "about.json",
        "checkpoints/maml/about.json",
        *(f"folds/{number:02d}/checkpoints/maml/about.json" for number in range(3)),
    ]
    assert not [p for p in path.rglob(".*")]
    assert loaded.config == result.config and loaded.notes == result.notes == ()
    assert loaded.history.groupby("fold").size().to_dict() == {0: 2, 1: 2, 2: 2}
    adapted = loaded.adapt(MARKET["A2"])
    assert adapted.checkpoint.config.seed == result.folds[2]["maml"].config.seed


def test_a_saved_result_is_the_directory_that_training_wrote(kept, tmp_path):
    result, path = kept
    result.save(tmp_path / "copy")
    names = [
        sorted(p.relative_to(base).as_posix() for p in base.rglob("about.json"))
        for base in (path, tmp_path / "copy")
    ]
    assert names[0] == names[1]
    assert len(load(tmp_path / "copy").folds) == 3


@pytest.mark.long
def test_what_is_loaded_predicts_what_was_trained(kept):
    result, path = kept
    folds = prepare_folds(load_config(FOLDED), MARKET)
    _, first = again(result, MARKET)
    later, second = again(load(path), MARKET)
    pd.testing.assert_frame_equal(first, second)
    assert [part.spans for part in later.parts] == [part.spans for part in folds.parts]
    np.testing.assert_array_equal(later.joined.panel.targets, folds.joined.panel.targets)
    assert first.index.equals(DATES[90:])


def test_the_last_fold_serves_until_the_end_and_dates_cut_off_what_is_tested(kept):
    result, _ = kept
    _, whole = again(result, MARKET)
    longer = random_market(count=230, assets=3)
    # A longer market of the same seed has other volumes and gaps; closes go on.
    longer = {n: pd.concat([MARKET[n], bars.iloc[200:]]) for n, bars in longer.items()}
    folds, mean = again(result, longer)
    assert folds.numbers == [0, 1, 2] and folds.parts[2].spans.test_last == longer["A0"].index[-1]
    pd.testing.assert_frame_equal(mean.loc[whole.index], whole, check_freq=False)
    assert mean.notna().all(axis=None) and len(mean) == 140
    dates = {"data.test_start": DATES[140].isoformat(), "data.test_end": DATES[180].isoformat()}
    folds, mean = again(result, MARKET, **dates)
    assert folds.numbers == [1, 2]
    pd.testing.assert_frame_equal(mean, whole.iloc[50:91], check_freq=False)
    fresh = {"NEW": random_bars(seed=4, count=120, start="2021-01-01")}
    changes = {"data.test_assets": None, "data.test_start": "2021-02-01"}
    folds, mean = again(result, fresh, **changes)
    assert folds.numbers == [2] and mean.index[0] == pd.Timestamp("2021-02-01", tz="UTC")
    with pytest.raises(ConfigError, match="the first fold's meta-training span ends at 2020-03-30"):
        again(result, MARKET, **{"data.test_start": "2020-03-01"})
    with pytest.raises(ConfigError, match="folds are tested from 2020-03-31 .* bars run from 2019"):
        again(result, {"A0": random_bars(count=120, start="2019-01-01")},
              **{"data.test_assets": None})  # fmt: skip


def test_folds_without_room_are_told_of(kept):
    """Bars that begin in the second fold's test span, too late for it."""
    late = {"A0": MARKET["A0"].iloc[155:]}
    folds, mean = again(kept[0], late, **{"data.test_assets": None})
    assert folds.numbers == [2] and mean.notna().any(axis=None)
    assert any("Fold 1 skipped: A0: walk-" in note.text for note in folds.notes)
    with pytest.raises(DataError, match="walk-forward needs at least"):
        again(kept[0], {"A0": MARKET["A0"].iloc[190:]}, **{"data.test_assets": None})


def test_what_belongs_to_training_cannot_be_changed(kept):
    several: list[Any] = [{"folds.test_size": 20}, {"folds.kind": "anchored"}, {"seed": 3}]
    for changes in several:
        with pytest.raises(ConfigError, match="is fixed at training time"):
            backtest(kept[0], bars=MARKET, **changes)
    with pytest.raises(ConfigError, match="data.train_end"):
        backtest(kept[0], bars=MARKET, **{"data.train_end": "2020-05-01"})


@pytest.mark.parametrize("error", [TrainingError("no", step=1, tasks=[]), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_what_was_trained(kept, tmp_path, monkeypatch, error):
    original, calls = MODULE.train_method, []

    def failing(part, method, folder):
        calls.append(part)
        if len(calls) == 3:
            raise error
        return original(part, method, folder)

    monkeypatch.setattr(MODULE, "train_method", failing)
    path = tmp_path / "run"
    with pytest.raises(type(error)) as raised:
        train(FOLDED, bars=MARKET, out=path)
    if isinstance(error, TrainingError):
        assert str(raised.value) == f"fold 2 of 3: no; the folds before are in {path}"
    loaded = load(path)
    assert len(loaded.folds) == 2
    (note,) = loaded.notes
    assert note.kind == CUT_OFF and "after 2 of 3 folds" in note.text
    for own, other in zip(kept[0].folds, loaded.folds, strict=False):
        assert same_params(own["maml"].params, other["maml"].params)
    assert same_params(loaded.checkpoints["maml"].params, kept[0].folds[1]["maml"].params)
    _, whole = again(kept[0], MARKET)
    folds, mean = again(loaded, MARKET)
    assert folds.numbers == [0, 1] and folds.parts[1].spans.test_last == DATES[-1]
    pd.testing.assert_frame_equal(mean.iloc[:80], whole.iloc[:80])
    assert mean.iloc[80:].notna().all(axis=None) and not np.allclose(mean[80:], whole[80:])


@pytest.mark.slow
@pytest.mark.long
def test_a_fold_cut_off_while_it_is_written_is_as_if_it_was_not(kept, tmp_path):
    result, path = kept
    part = train(FOLDED, bars=MARKET, training={"steps": 1, "meta_batch": 4}, out=tmp_path / "a")
    first = replace(part, checkpoints=part.folds[0], folds=part.folds[:1])
    first.save(tmp_path / "run")
    # What a killed process leaves: a folder of the next fold that never got its name.
    (tmp_path / "run" / "folds" / ".01.partial-1" / "checkpoints").mkdir(parents=True)
    assert len(load(tmp_path / "run").folds) == 1
    second = replace(part, checkpoints=part.folds[1], folds=part.folds[:2])
    add_fold(second, tmp_path / "run")
    loaded = load(tmp_path / "run")
    assert len(loaded.folds) == 2
    assert same_params(loaded.checkpoints["maml"].params, part.folds[1]["maml"].params)
    (tmp_path / "run" / "folds" / "00").rename(tmp_path / "gone")
    with pytest.raises(RunError, match=r"folds/00: the checkpoints of this fold are missing"):
        load(tmp_path / "run")


@pytest.mark.long
def test_combinatorial_folds_need_all_of_them():
    settings = {**OPEN, "folds": {"kind": "combinatorial", "groups": 3, "test_groups": 1}}
    result = train(settings, bars=MARKET, training={"steps": 1, "meta_batch": 4})
    folds, mean = again(result, MARKET)
    assert folds.paths is not None and mean.index.equals(DATES)
    part = replace(result, folds=result.folds[:2])
    with pytest.raises(RunError, match="2 of 3 combinatorial folds were trained"):
        backtest(part, bars=MARKET)
    with pytest.raises(ConfigError, match="combinatorial folds are tested on the groups"):
        backtest(result, bars=MARKET, **{"data.test_end": "2020-05-01"})


@pytest.mark.slow
def test_positions_are_held_over_the_borders_of_folds(tmp_path):
    """One account over all folds: costs at a border are those of changed positions alone."""
    result = run(FOLDED, bars=MARKET, out=tmp_path / "run", backtest={**QUICK, "fee": 0.01})
    assert result.returns.index.equals(DATES[90:]) and result.returns.notna().all(axis=None)
    held = result.returns["buy and hold"]
    closes = pd.DataFrame({n: MARKET[n]["close"] for n in ("A0", "A2")})
    for border in (DATES[130], DATES[170]):
        assert _evaluation(result).turnover["buy and hold"][border] == 0
        assert held[border] == pytest.approx(
            (closes.pct_change().loc[border] * _weights(result, border)).sum(), abs=1e-9
        )
    loaded = load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.returns, result.returns, check_freq=False)
    tested = backtest(load(tmp_path / "run"), bars=MARKET)
    pd.testing.assert_frame_equal(tested.returns, result.returns)
    pd.testing.assert_frame_equal(tested.predictions, result.predictions)


def _evaluation(result: Any) -> Any:
    return result.evaluation


def _weights(result, border):
    """Weights of buy and hold at the close before a bar."""
    before = result.returns.index[result.returns.index.get_loc(border) - 1]
    table = _evaluation(result).weights
    own = table[(table["strategy"] == "buy and hold") & (table["timestamp"] == before)]
    return own.set_index("asset")["weight"]


@pytest.mark.slow
def test_combinatorial_runs_tell_how_results_differ_from_path_to_path(tmp_path):
    result = run({**OPEN, "folds": GROUPS}, bars=MARKET, out=tmp_path / "run", backtest=QUICK)
    paths = _evaluation(result).overfitting["paths"]
    assert len(paths["maml"]) == 3 and len({*paths["maml"]}) > 1
    assert paths["maml"][0] == pytest.approx(result.stats.loc["Sharpe Ratio", "maml"])
    assert len({*paths["buy and hold"]}) == 1  # it is not trained: the same on every path
    assert any("no walk-forward" in note.text for note in result.notes)
    assert _evaluation(load(tmp_path / "run")).overfitting["paths"] == paths
