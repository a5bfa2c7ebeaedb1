"""The main job from the library: results, run directories, errors, nothing half-written."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from market import MARKET, SMALL

from maml_jax.errors import ConfigError, DataError, RunError
from maml_jax.experiment import backtest, load, run, train

pytestmark = pytest.mark.long

PREDICTING = ["maml", "fomaml", "no adaptation", "from scratch", "ridge regression", "momentum"]
STRATEGIES = [*PREDICTING, "random positions", "buy and hold"]


def test_the_result_holds_all_strategies_on_the_same_bars(saved):
    result, _ = saved
    assert list(result.stats) == list(result.returns) == STRATEGIES
    assert len(result.returns) == len(MARKET["A0"].loc["2020-06-09":])
    assert result.returns.notna().all(axis=None)
    assert (result.stats.loc["Start"] == pd.Timestamp("2020-06-09", tz="UTC")).all()
    assert set(result.predictions["asset"]) == {"A2", "A3"}
    assert set(result.predictions["strategy"]) == set(PREDICTING)
    assert result.predictions["timestamp"].min() == pd.Timestamp("2020-06-09", tz="UTC")
    assert list(result.history["method"].unique()) == ["maml", "fomaml"]
    assert len(result.history) == 8


def test_strategies_differ_where_they_should(saved):
    table = saved[0].predictions.pivot_table("prediction", ["timestamp", "asset"], "strategy")
    for a, b in (("maml", "fomaml"), ("maml", "no adaptation"), ("maml", "from scratch")):
        assert not np.allclose(table[a], table[b])


def test_net_returns_are_gross_less_costs(saved):
    result, _ = saved
    found = result.evaluation
    gross, net = found.gross["maml"], found.returns["maml"]
    # Turnover is of the equity at the prices of the fill; the fee is paid on the slipped price.
    costs = 0.0015 * found.turnover["maml"] * (1 + gross)
    np.testing.assert_allclose(gross - net, costs, rtol=1e-3, atol=1e-12)
    assert costs.sum() > 0
    own = found.weights.query("strategy == 'maml'")
    held = own.pivot_table("weight", "timestamp", "asset").shift(1).fillna(0.0)
    closes = pd.DataFrame({a: MARKET[a]["close"].pct_change() for a in held}).loc[held.index]
    np.testing.assert_allclose(gross, (held * closes).sum(axis=1), atol=1e-12)


def test_positions_are_executed_at_the_next_close(saved):
    result, _ = saved
    decided = result.predictions.query("strategy == 'maml'")
    decided = decided.pivot_table("position", "timestamp", "asset")
    orders = result.evaluation.weights.query("strategy == 'maml'")
    orders = orders.pivot_table("order", "timestamp", "asset")
    wanted = decided.reindex(orders.index).shift(1).fillna(0.0) / 2
    pd.testing.assert_frame_equal(orders, wanted, check_freq=False)


def test_the_run_directory_holds_what_it_should(saved):
    result, path = saved
    names = {p.name for p in path.iterdir()}
    assert names >= {
        "config.toml", "checkpoints", "predictions.parquet", "returns.parquet", "trades.parquet",
        "metrics.json", "report.html",
    }  # fmt: skip
    assert {p.name for p in path.parent.iterdir()} == {"first", "trials.jsonl", ".trials.lock"}
    metrics = json.loads((path / "metrics.json").read_text())
    assert metrics["maml"]["Sharpe Ratio"] == pytest.approx(
        result.stats.loc["Sharpe Ratio", "maml"]
    )
    pd.testing.assert_frame_equal(
        pd.read_parquet(path / "returns.parquet"), result.returns, check_freq=False
    )
    page = (path / "report.html").read_text()
    for text in (*STRATEGIES, "Sharpe Ratio", "data:image/svg+xml;base64,", "inner_steps"):
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


@pytest.mark.long
def test_the_same_settings_and_seed_give_the_same_numbers(saved):
    again = run(SMALL, bars=MARKET)
    pd.testing.assert_frame_equal(again.predictions, saved[0].predictions)
    pd.testing.assert_frame_equal(again.returns, saved[0].returns)
    other = run(SMALL, bars=MARKET, seed=1)
    assert not np.allclose(other.returns["maml"], again.returns["maml"])


def test_training_then_backtesting_is_running(saved, tmp_path, no_page):
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


@pytest.mark.slow
def test_a_backtest_may_change_costs_and_span_but_not_what_was_trained(saved, tmp_path, no_page):
    _, path = saved
    cheap = backtest(path, bars=MARKET, out=tmp_path / "cheap", backtest={"fee": 0, "slippage": 0})
    pd.testing.assert_frame_equal(cheap.returns, cheap.gross)
    # What costs took is missing from the equity that later orders are shares of.
    np.testing.assert_allclose(cheap.returns["maml"], saved[0].gross["maml"], atol=1e-3)
    later = backtest(
        load(path), bars=MARKET, data={"test_start": "2020-08-01", "test_assets": ["A3"]}
    )
    assert later.returns.index[0] == pd.Timestamp("2020-08-01", tz="UTC")
    for overrides in (
        {"task": {"support": 20}},
        {"seed": 5},
        {"data": {"train_end": "2020-05-01"}},
    ):
        with pytest.raises(ConfigError, match="is fixed at training time"):
            backtest(load(path), bars=MARKET, **overrides)
    with pytest.raises(ConfigError, match="overlaps the test span"):
        backtest(load(path), bars=MARKET, data={"test_start": "2020-05-01"})


@pytest.mark.slow
@pytest.mark.long
def test_a_backtest_may_use_bars_that_training_never_saw(saved, tmp_path, no_page):
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


@pytest.mark.long
def test_the_settings_of_a_backtest_are_kept(saved, tmp_path, no_page):
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


@pytest.mark.slow
def test_diverged_adaptation_is_told_and_takes_no_position():
    result = run(
        SMALL,
        bars=MARKET,
        learner={"methods": ["maml"], "inner_learning_rate": 1e4, "inner_steps": 1},
        backtest={"inner_steps": 60, "baselines": []},
    )
    assert any("maml: " in note.text and "are not finite" in note.text for note in result.notes)
    assert result.predictions.query("strategy == 'no adaptation'")["prediction"].notna().all()


@pytest.mark.long
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
        assert any(note.text.startswith(f"{name}: lost the whole capital") for note in result.notes)


@pytest.mark.slow
def test_bars_per_year_of_interleaved_calendars():
    index = pd.bdate_range("2020-01-01", periods=186, tz="UTC") + pd.Timedelta(hours=5)
    stock = random_bars(seed=5, count=186).set_index(index.as_unit("us").rename("timestamp"))
    data = {"train_assets": ["A0"], "test_assets": ["A1", "S"], "train_end": "2020-06-08"}
    result = run({**SMALL, "data": data}, bars={**MARKET, "S": stock})
    assert result.stats.loc["Bars per Year", "maml"] == pytest.approx(365 + 261, rel=0.02)


@pytest.mark.slow
def test_without_a_config_bars_are_trained_on_by_default():
    result = run(bars=MARKET, training={"steps": 2, "meta_batch": 2}, learner={"methods": ["maml"]})
    assert result.config.data.train_assets == tuple(MARKET)


def test_results_are_short_to_print(saved):
    assert repr(saved[0]) == "Result(maml, fomaml; walked forward; A2, A3)"
    assert repr(saved[0].adapt(MARKET["A3"])) == "Adapted(maml to asset, 10 rows)"


def test_bars_that_were_in_memory_must_be_given_again(saved):
    with pytest.raises(ConfigError, match="passed in memory"):
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


@pytest.mark.slow
def test_bars_may_be_one_table_in_any_layout():
    wide = pd.DataFrame({a: b["close"] for a, b in MARKET.items()})
    result = run(SMALL, bars=wide)
    assert "volume_ratio" not in result.config.features.names
    long = pd.concat(MARKET, names=["symbol"]).reset_index()
    pd.testing.assert_frame_equal(run(SMALL, bars=long).returns, run(SMALL, bars=MARKET).returns)


@pytest.mark.slow
def test_assets_with_too_few_bars_are_left_out_unless_asked_for_by_name():
    bars = MARKET | {"NEW": random_bars(seed=7, count=10, start="2020-01-01")}
    settings = {**SMALL, "data": {"train_end": "2020-06-08", "test_start": "2020-06-09"}}
    result = run(settings, bars=bars)
    assert "NEW" not in set(result.predictions["asset"])
    assert any("NEW (10)" in note.text for note in result.notes)
    settings["data"]["test_assets"] = ["NEW"]
    with pytest.raises(
        DataError, match=r"NEW: walk-forward needs at least 28 bars .*and there are 10"
    ):
        run(settings, bars=bars)


@pytest.mark.slow
def test_figures_and_report_are_made_on_request(saved, tmp_path):
    result, _ = saved
    assert result.plot().axes[0].get_title(loc="left") == "Equity"
    path = result.report(tmp_path / "again.html")
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["again.html"]
    with pytest.raises(RunError, match="cannot be written"):
        result.report(tmp_path / "missing" / "x.html")
