"""The main job from the library: results, run directories, errors, nothing half-written."""

import json
import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.errors import ConfigError, DataError, MamlJaxError, RunError, TrainingError
from maml_jax.experiment import backtest, load, run, train

MARKET = random_market(count=260, assets=4)
SMALL = {
    "data": {
        "train_assets": ["A0", "A1", "A2"],
        "test_assets": ["A2", "A3"],
        "train_end": "2020-06-08",
        "test_start": "2020-06-09",
    },
    "features": {"window": 5, "fast": 3, "slow": 5},
    "target": {"horizon": 3, "volatility_window": 5},
    "task": {"support": 10, "query": 5},
    "model": {"hidden": [8]},
    "learner": {"inner_steps": 2},
    "training": {"steps": 4, "meta_batch": 4},
}
STRATEGIES = ["maml", "fomaml", "no adaptation", "from scratch", "buy and hold"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "first"
    return run(SMALL, bars=MARKET, out=path), path


def test_the_result_holds_all_strategies_on_the_same_bars(saved):
    result, _ = saved
    assert list(result.stats) == list(result.returns) == STRATEGIES
    assert len(result.returns) == len(MARKET["A0"].loc["2020-06-09":])
    assert result.returns.notna().all(axis=None)
    assert (result.stats.loc["Start"] == pd.Timestamp("2020-06-09", tz="UTC")).all()
    assert set(result.predictions["asset"]) == {"A2", "A3"}
    assert set(result.predictions["strategy"]) == set(STRATEGIES[:4])
    assert result.predictions["timestamp"].min() == pd.Timestamp("2020-06-09", tz="UTC")
    assert list(result.history["method"].unique()) == ["maml", "fomaml"]
    assert len(result.history) == 8


def test_strategies_differ_where_they_should(saved):
    table = saved[0].predictions.pivot_table("prediction", ["timestamp", "asset"], "strategy")
    for a, b in (("maml", "fomaml"), ("maml", "no adaptation"), ("maml", "from scratch")):
        assert not np.allclose(table[a], table[b])


def test_net_returns_are_gross_less_costs(saved):
    result, _ = saved
    own = result.predictions.query("strategy == 'maml'")
    positions = own.pivot_table("position", "timestamp", "asset")
    held = positions.reindex(result.returns.index).shift(2).fillna(0.0) / 2
    turnover = held.diff().fillna(held).abs().sum(axis=1)
    np.testing.assert_allclose(
        result.gross["maml"] - result.returns["maml"], 0.0015 * turnover, atol=1e-12
    )
    closes = pd.DataFrame({a: MARKET[a]["close"].pct_change() for a in held}).loc[held.index]
    np.testing.assert_allclose(result.gross["maml"], (held * closes).sum(axis=1), atol=1e-12)


def test_the_run_directory_holds_what_it_should(saved):
    result, path = saved
    names = {p.name for p in path.iterdir()}
    assert names >= {
        "config.toml", "checkpoints", "predictions.parquet", "returns.parquet", "trades.parquet",
        "metrics.json", "report.html",
    }  # fmt: skip
    assert [p.name for p in path.parent.iterdir()] == ["first"]
    metrics = json.loads((path / "metrics.json").read_text())
    assert metrics["maml"]["Sharpe Ratio"] == pytest.approx(
        result.stats.loc["Sharpe Ratio", "maml"]
    )
    pd.testing.assert_frame_equal(
        pd.read_parquet(path / "returns.parquet"), result.returns, check_freq=False
    )
    page = (path / "report.html").read_text()
    for text in (*STRATEGIES, "Sharpe Ratio", "data:image/png;base64,", "inner_learning_rate"):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_loads_as_it_was_saved(saved):
    result, path = saved
    loaded = load(path)
    assert loaded.config == result.config
    assert loaded.notes == result.notes
    pd.testing.assert_frame_equal(loaded.stats, result.stats, check_dtype=False)
    pd.testing.assert_frame_equal(loaded.predictions, result.predictions, check_dtype=False)
    pd.testing.assert_frame_equal(loaded.trades, result.trades, check_dtype=False)
    for name, checkpoint in result.checkpoints.items():
        other = loaded.checkpoints[name]
        assert jax.tree.all(
            jax.tree.map(lambda a, b: bool((a == b).all()), checkpoint.params, other.params)
        )
        np.testing.assert_array_equal(checkpoint.scaler.mean, other.scaler.mean)


def test_the_same_settings_and_seed_give_the_same_numbers(saved):
    again = run(SMALL, bars=MARKET)
    pd.testing.assert_frame_equal(again.predictions, saved[0].predictions)
    pd.testing.assert_frame_equal(again.returns, saved[0].returns)
    other = run(SMALL, bars=MARKET, seed=1)
    assert not np.allclose(other.returns["maml"], again.returns["maml"])


def test_training_then_backtesting_is_running(saved, tmp_path):
    path = tmp_path / "two steps"
    trained = train(SMALL, bars=MARKET, out=path)
    assert trained.evaluation is None
    with pytest.raises(RunError, match="not backtested"):
        trained.stats  # noqa: B018
    result = backtest(path, bars=MARKET)
    pd.testing.assert_frame_equal(result.predictions, saved[0].predictions)
    pd.testing.assert_frame_equal(load(path).returns, saved[0].returns, check_freq=False)
    assert not [p for p in path.iterdir() if p.name.startswith(".")]
    with pytest.raises(RunError, match="holds a backtest already"):
        backtest(path, bars=MARKET)


def test_a_backtest_may_change_costs_and_span_but_not_what_was_trained(saved, tmp_path):
    _, path = saved
    cheap = backtest(path, bars=MARKET, out=tmp_path / "cheap", backtest={"fee": 0, "slippage": 0})
    pd.testing.assert_series_equal(cheap.returns["maml"], saved[0].gross["maml"], check_names=False)
    later = backtest(
        load(path), bars=MARKET, data={"test_start": "2020-08-01", "test_assets": ["A3"]}
    )
    assert later.returns.index[0] == pd.Timestamp("2020-08-01", tz="UTC")
    for overrides in (
        {"task": {"support": 20}},
        {"seed": 5},
        {"data": {"train_end": "2020-05-01"}},
    ):
        with pytest.raises(ConfigError, match="belongs to what was trained"):
            backtest(load(path), bars=MARKET, **overrides)
    with pytest.raises(ConfigError, match="overlaps the test span"):
        backtest(load(path), bars=MARKET, data={"test_start": "2020-05-01"})


def test_a_backtest_may_use_bars_that_training_never_saw(saved, tmp_path):
    fresh = random_bars(seed=21, count=300, start="2021-01-01")
    result = backtest(
        saved[1], bars={"NEW": fresh}, out=tmp_path / "new", data={"test_start": "2021-03-01"}
    )
    assert set(result.predictions["asset"]) == {"NEW"}
    assert result.returns.index[0] == pd.Timestamp("2021-03-01", tz="UTC")
    early = {"NEW": random_bars(seed=21, count=100, start="2019-01-01")}
    with pytest.raises(ConfigError, match="after the last bar"):
        backtest(load(saved[1]), bars=early)
    hourly = {"NEW": random_bars(seed=21, count=300, start="2021-01-01", step="h")}
    with pytest.raises(DataError, match=r"different bar intervals: NEW .* the bars trained on"):
        backtest(load(saved[1]), bars=hourly, data={"test_start": "2021-01-10"})


def test_the_settings_of_a_backtest_are_kept(saved, tmp_path):
    changed = {"threshold": 0.7, "inner_steps": 0}
    backtest(saved[1], bars=MARKET, out=tmp_path / "other", backtest=changed)
    loaded = load(tmp_path / "other")
    assert loaded.config.backtest.threshold == 0.7
    seen = MARKET["A3"].loc[:"2020-07-01"]
    own = loaded.predictions.query("strategy == 'maml' and asset == 'A3'").set_index("timestamp")
    prediction = loaded.adapt(seen).predict(seen)
    assert prediction.iloc[-1] == pytest.approx(own["prediction"][seen.index[-1]], abs=1e-5)


def test_adapting_reads_bars_as_the_run_did():
    bars = {}
    for asset, frame in MARKET.items():
        bars[asset] = frame.assign(
            **{"Adj Close": frame["close"] * np.linspace(0.5, 1, len(frame))}
        )
        bars[asset].iloc[40, 3] = np.nan
    result = run(SMALL, bars=bars, **{"data.missing": "drop", "data.adjust": False})
    seen = bars["A3"].loc[:"2020-08-20"]
    own = result.predictions.query("strategy == 'maml' and asset == 'A3'").set_index("timestamp")
    prediction = result.adapt(seen).predict(seen)
    assert prediction.iloc[-1] == pytest.approx(own["prediction"][seen.index[-1]], abs=1e-5)


def test_diverged_adaptation_is_told_and_takes_no_position():
    result = run(
        SMALL,
        bars=MARKET,
        **{"learner.inner_learning_rate": 3.0, "learner.inner_steps": 1},
        backtest={"inner_steps": 3000},
    )
    assert any("maml: " in note and "are not finite" in note for note in result.notes)
    assert result.predictions.query("strategy == 'no adaptation'")["prediction"].notna().all()


def test_losing_everything_is_told_and_stays_lost():
    bars = {a: b.copy() for a, b in MARKET.items()}
    for asset in ("A2", "A3"):
        for place in range(170, 250, 8):
            bars[asset].iloc[place:, :4] *= 4
    result = run(SMALL, bars=bars, target={**SMALL["target"], "fill": "close"})
    ruined = result.returns.columns[(result.returns <= -1).any()]
    assert len(ruined) > 0
    for name in ruined:
        assert result.stats.loc["Equity Final [$]", name] == 0
        assert result.stats.loc["Return [%]", name] == -100
        assert any(note.startswith(f"{name}: lost the whole capital") for note in result.notes)


def test_bars_per_year_of_interleaved_calendars():
    index = pd.bdate_range("2020-01-01", periods=186, tz="UTC") + pd.Timedelta(hours=5)
    stock = random_bars(seed=5, count=186).set_index(index.as_unit("us").rename("timestamp"))
    data = {"train_assets": ["A0"], "test_assets": ["A1", "S"], "train_end": "2020-06-08"}
    result = run({**SMALL, "data": data}, bars={**MARKET, "S": stock})
    assert result.stats.loc["Bars per Year", "maml"] == pytest.approx(365 + 261, rel=0.02)


def test_without_a_config_bars_are_trained_on_by_default():
    result = run(bars=MARKET, training={"steps": 2, "meta_batch": 2}, learner={"methods": ["maml"]})
    assert result.config.data.train_assets == tuple(MARKET)


def test_results_are_short_to_print(saved):
    assert repr(saved[0]) == "Result(maml, fomaml; walked forward; A2, A3)"
    assert repr(saved[0].adapt(MARKET["A3"])) == "Adapted(maml to asset, 10 rows)"


def test_bars_that_were_in_memory_must_be_given_again(saved):
    with pytest.raises(ConfigError, match="handed over in memory"):
        backtest(saved[1], out=saved[1].parent / "other")


def test_adapting_to_new_bars_predicts_what_the_walk_forward_predicted(saved):
    result, path = saved
    for when in ("2020-07-01", "2020-08-20"):
        seen = MARKET["A3"].loc[:when]
        adapted = load(path).adapt(seen)
        assert len(adapted.support) == 10
        prediction = adapted.predict(seen)
        assert isinstance(prediction, pd.Series)
        walked = result.predictions.query(
            "strategy == 'maml' and asset == 'A3' and timestamp == @seen.index[-1]"
        )
        assert prediction.iloc[-1] == pytest.approx(walked["prediction"].item(), abs=1e-5)


def test_adapting_to_a_handful_of_bars(saved):
    result, _ = saved
    few = random_bars(seed=9, count=25)
    adapted = result.adapt(few, method="fomaml", steps=3)
    assert 0 < len(adapted.support) < 10
    assert adapted.predict(few).notna().all()
    with pytest.raises(DataError, match=r"adapting needs at least 19 bars .*and there are 12"):
        result.adapt(few.iloc[:12])
    with pytest.raises(DataError, match=r"prediction needs at least 15 bars .*there are 9"):
        adapted.predict(few.iloc[:9])
    with pytest.raises(ConfigError, match="no method 'zzz'"):
        result.adapt(few, method="zzz")
    with pytest.raises(ConfigError, match="bars of one asset, not of 4"):
        result.adapt(MARKET)


def test_bars_may_be_one_table_in_any_layout():
    wide = pd.DataFrame({a: b["close"] for a, b in MARKET.items()})
    result = run(SMALL, bars=wide)
    assert "volume_ratio" not in result.config.features.names
    long = pd.concat(MARKET, names=["symbol"]).reset_index()
    pd.testing.assert_frame_equal(run(SMALL, bars=long).returns, run(SMALL, bars=MARKET).returns)


def test_assets_with_too_few_bars_are_left_out_unless_asked_for_by_name():
    bars = MARKET | {"NEW": random_bars(seed=7, count=10, start="2020-01-01")}
    settings = {**SMALL, "data": {"train_end": "2020-06-08", "test_start": "2020-06-09"}}
    result = run(settings, bars=bars)
    assert "NEW" not in set(result.predictions["asset"])
    assert any("NEW (10)" in note for note in result.notes)
    settings["data"]["test_assets"] = ["NEW"]
    with pytest.raises(
        DataError, match=r"NEW: walk-forward needs at least 28 bars .*and there are 10"
    ):
        run(settings, bars=bars)


def test_figures_and_report_are_made_on_request(saved, tmp_path):
    result, _ = saved
    assert result.plot().axes[0].get_title(loc="left") == "Equity, net of costs"
    path = result.report(tmp_path / "again.html")
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]
    with pytest.raises(RunError, match="cannot be written"):
        result.report(tmp_path / "missing" / "x.html")


BAD = {
    "too few bars": (
        {"data": {"train_end": "2020-01-20", "test_start": "2020-02-01"}},
        MARKET,
        DataError,
        r"A0: meta-training needs at least 36 bars up to 2020-01-20.*\(warm-up 14 \+ support 10 \+ "
        r"gap 3 \+ query 5 \+ label delay 4\), and there are 20",
    ),
    "constant price": (
        {},
        MARKET | {"A1": MARKET["A1"].assign(close=3.0)},
        DataError,
        r"A1: the close is 3 at every one",
    ),
    "different intervals": (
        {},
        MARKET | {"A1": random_bars(count=5000, step="h")},
        DataError,
        r"different bar intervals: A1 .* A0",
    ),
    "overlapping spans": (
        {"data": {"test_start": "2020-06-01"}},
        MARKET,
        ConfigError,
        r"'data.train_end' and 'data.test_start'.*overlaps",
    ),
    "no opens": (
        {"target": {"fill": "next_open"}},
        {a: b[["close"]] for a, b in MARKET.items()},
        DataError,
        r"A0: fill 'next_open' needs column 'open'",
    ),
    "unknown asset": (
        {"data": {"test_assets": ["ZZ"]}},
        MARKET,
        ConfigError,
        r"'data.test_assets': no bars of \['ZZ'\]",
    ),
    "a feature that the bars do not allow": (
        {"features": {"names": ["volume_ratio"]}},
        {a: b[["close"]] for a, b in MARKET.items()},
        DataError,
        r"needs column 'volume'",
    ),
    "a test span after the last bar": (
        {"data": {"test_start": "2031-01-01"}},
        MARKET,
        ConfigError,
        r"'data.test_start': 2031-01-01 is after the last bar",
    ),
    "a training span before the first bar": (
        {"data": {"train_end": "1999-01-01"}},
        MARKET,
        ConfigError,
        r"'data.train_end': 1999-01-01 is before the first bar",
    ),
    "a price that rests throughout training": (
        {},
        MARKET | {"A1": MARKET["A1"].assign(close=np.r_[np.full(200, 9.0), np.arange(60) + 9.0])},
        DataError,
        r"A1: only 0 of its 160 bars .* its closes run from 9 to 9",
    ),
    "a price out of all measure": (
        {},
        MARKET | {"A1": MARKET["A1"].assign(close=np.r_[1e300, MARKET["A1"]["close"].iloc[1:]])},
        DataError,
        r"A1: only \d+ of its 160 bars .* to 1e\+300",
    ),
    "no assets": ({"data": {"assets": []}}, MARKET, ConfigError, r"'data.assets': must name"),
    "a loss that is not finite": (
        {"learner": {"inner_learning_rate": 1e30}},
        MARKET,
        TrainingError,
        r"maml: meta-training stopped at step 0: the loss of task 0.*Try a smaller inner learning "
        r"rate.*\[task: A\d 2020-.* to 2020-",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing_behind(tmp_path, fault):
    changes, bars, kind, message = BAD[fault]
    settings = {k: {**v, **changes.get(k, {})} for k, v in SMALL.items()}
    with pytest.raises(kind, match=message) as caught:
        run(settings, bars=bars, out=tmp_path / "out")
    assert isinstance(caught.value, MamlJaxError)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_directory_that_exists_is_refused_before_any_work(tmp_path):
    with pytest.raises(RunError, match="exists already"):
        run(SMALL, bars=MARKET, out=tmp_path)


def test_a_failure_while_writing_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(RunError, match="No space left"):
        saved[0].save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_directory_is_named(tmp_path, saved):
    with pytest.raises(RunError, match="no run directory"):
        load(tmp_path)
    (tmp_path / "checkpoints" / "maml").mkdir(parents=True)
    with pytest.raises(RunError, match="holds no checkpoint"):
        load(tmp_path)
    (tmp_path / "checkpoints" / "maml" / "about.json").write_text("{")
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["metrics.json", "returns.parquet", "config.toml", "params"])
def test_a_damaged_run_directory_is_named(saved, tmp_path, damage):
    copy = shutil.copytree(saved[1], tmp_path / "copy")
    if damage == "params":
        for file in (copy / "checkpoints" / "maml" / "params").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:10])
    else:
        (copy / damage).write_text("{}" if damage.endswith("json") else "= junk")
    with pytest.raises(MamlJaxError, match=str(tmp_path)):
        load(copy)


def test_a_backtest_that_was_cut_off_can_be_repeated(tmp_path):
    train(SMALL, bars=MARKET, out=tmp_path / "run")
    (tmp_path / "run" / ".backtest").mkdir()
    (tmp_path / "run" / ".backtest" / "junk").write_text("x")
    backtest(tmp_path / "run", bars=MARKET)
    assert load(tmp_path / "run").evaluation is not None


def test_nothing_is_left_of_a_report_that_could_not_be_written(saved, tmp_path):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        saved[0].report(tmp_path / "folder.html")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.html"]
