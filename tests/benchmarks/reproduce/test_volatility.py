"""Volatility of unseen assets: the table's figures, from files of forecasts to tests."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import random_market

from benchmarks.reproduce import VOLATILITY, reproduce
from benchmarks.reproduce.volatility_rows import (
    BASELINES,
    MARKETS,
    WINDOWS,
    VolatilityRow,
    forecast_baselines,
)
from benchmarks.reproduce.volatility_target import hold_at_target, make_target_table
from maml_jax.backtest.inference.forecast_tests import r_squared
from maml_jax.errors import ConfigError
from maml_jax.experiment import load_config
from maml_jax.experiment.preparation.prepare import prepare

pytestmark = pytest.mark.slow

COUNT, TRAIN_LAST = 560, 399
BARS = {name: frame.assign(symbol=name) for name, frame in random_market(COUNT, 4).items()}
DATES = BARS["A0"].index
SMALL = replace(
    MARKETS["stocks"],
    key="small",
    dates={"train_end": f"{DATES[TRAIN_LAST]:%Y-%m-%d}"},
    garch={"window": 250, "refit": 200},
    block=10,
)
LEARNED = {"model": {"hidden": [4]}, "learner": {"features": 2}, "steps": 2, "meta_batch": 2}
ROWS = (
    VolatilityRow("alpaca", "head", "alpaca", support=12, query=4, seeds=2, **LEARNED),
    VolatilityRow("matched", "matched head", "ridge", support=None, query=4, seeds=1, **LEARNED),
    VolatilityRow("network", "network", "joint_training", adapts=False, seeds=1, **LEARNED),
)
STUDY = replace(VOLATILITY, rows=ROWS)
SEEN, UNSEEN = ["A0", "A1", "A2"], ["A3"]


@pytest.fixture(scope="module", autouse=True)
def small_market():
    MARKETS["small"] = SMALL
    yield
    del MARKETS["small"]


@pytest.fixture(scope="module")
def bars_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bars") / "bars.csv"
    pd.concat(BARS.values()).reset_index().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def made(bars_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    options = {"study": STUDY, "bars": bars_file, "market": "small", "out": out}
    return reproduce(**options), out, options


def prepared():
    settings = ROWS[0].settings(SMALL, 12)
    settings["data"] |= {"train_assets": SEEN, "test_assets": UNSEEN}
    return prepare(load_config(settings), random_market(COUNT, 4))


def outcomes():
    """Log volatility of the unseen asset over the 5 bars after each of the test span."""
    closes = BARS["A3"]["close"].to_numpy()
    squares = np.r_[np.nan, np.diff(np.log(closes)) ** 2]
    ahead = [squares[t + 1 : t + 6].mean() for t in range(COUNT - 5)]
    return np.r_[0.5 * np.log(ahead), np.full(5, np.nan)][None, TRAIN_LAST + 1 :]


def test_tables_name_all_forecasts(made):
    tables, out, _ = made
    names = ["head", "matched head", "network", *BASELINES.values()]
    for table in tables[:2]:
        assert [row[0] for row in table.rows if "averaged" not in row[0]] == names
        assert table.rows[1][0] == "head, forecasts of all seeds averaged"
        assert all("diverged" not in cell for row in table.rows for cell in row)
    assert [row[0] for row in tables[2].rows] == names[1:]
    assert "±" in tables[0].rows[0][1]
    assert (out / "volatility-small.md").read_text().count("## ") == 4


def test_r_squared_is_that_of_the_forecasts_in_the_files(made):
    _, out, _ = made
    record = json.loads((out / "volatility-small.json").read_text())
    scaler, outcome = prepared().scaler, outcomes()
    for seed in range(2):
        (path,) = (out / "results").glob(f"small-alpaca-seed{seed}.*.json")
        kept = json.loads(path.read_text())["result"]["forecasts"]
        for window in WINDOWS:
            values = np.array(kept[str(window)], float)[:, -(COUNT - TRAIN_LAST - 1) :]
            expected = r_squared(scaler.restore_target(values), outcome)
            found = record["r2"]["alpaca"][str(window)][seed]
            assert found == pytest.approx(expected, abs=1e-3)
            # Squares are convex: the mean of forecasts is no worse than they are on average.
            together = record["r2"]["together"][str(window)][0]
            assert together >= np.mean(record["r2"]["alpaca"][str(window)])
    assert set(record["gains"]["over"]) == {"matched", "network", *BASELINES}
    trained = [run["task"]["support"] for run in record["rows"]["matched"]]
    assert trained == list(WINDOWS)
    gain = record["gains"]["over"]["network"]["60"]
    both = np.mean(record["r2"]["alpaca"]["60"]) - record["r2"]["network"]["60"][0]
    assert gain["value"] == pytest.approx(both)
    assert gain["low"] < gain["value"] < gain["high"]


def test_what_is_there_is_not_made_again(made, monkeypatch):
    tables, _, options = made
    monkeypatch.setattr("benchmarks.reproduce.volatility.meta_train", None)
    monkeypatch.setattr("benchmarks.reproduce.volatility.forecast_baselines", None)
    assert reproduce(**options)[0].rows == tables[0].rows
    alone = reproduce(**options, methods=["network"])
    assert alone[0].rows[0] == tables[0].rows[3]


def test_later_bars_change_no_baseline():
    ready = prepared()
    time = TRAIN_LAST + 90
    changed = random_market(COUNT, 4)
    for bars in changed.values():
        bars.iloc[time + 1 :] *= 1.4
    settings = ROWS[0].settings(SMALL, 12)
    settings["data"] |= {"train_assets": SEEN, "test_assets": UNSEEN}
    other = prepare(load_config(settings), changed)
    full, altered = (forecast_baselines(each, SMALL, 380) for each in (ready, other))
    assert set(full) == set(BASELINES)
    for key, forecasts in full.items():
        for window, values in forecasts.items():
            before, after = (v[3, 380 : time + 1] for v in (values, altered[key][window]))
            assert np.isfinite(before).all(), key
            np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3, err_msg=key)


def test_trailing_forecasts_are_in_the_units_of_the_target():
    ready = prepared()
    made = forecast_baselines(ready, SMALL, 380)
    logs = ready.scaler.restore_target(made["trailing"]["all"][3, 380:])
    closes = np.log(random_market(COUNT, 4)["A3"]["close"].to_numpy())
    expected = [
        np.log(np.sqrt(np.mean(np.diff(closes[t - 22 : t + 1]) ** 2))) for t in range(380, COUNT)
    ]
    np.testing.assert_allclose(logs, expected, rtol=1e-6)


def test_a_better_forecast_holds_nearer_to_the_target():
    """Bars of two volatilities in turn, which one forecast knows and the other does not."""
    ready = prepared()
    rng = np.random.default_rng(0)
    level = np.where(np.arange(COUNT) // 40 % 2 == 0, 0.004, 0.02)
    frame = ready.bars["A3"].copy()
    frame["close"] = 100 * np.exp(np.cumsum(level * rng.normal(size=COUNT)))
    ready = ready._replace(bars={**ready.bars, "A3": frame}, bars_per_year=252.0)
    ahead = np.log(np.r_[level[2:], level[-2:]])[None, None, TRAIN_LAST + 1 :]
    blind = np.full_like(ahead, np.log(np.sqrt(np.mean(level**2))))
    found = {
        "knows": hold_at_target(ready, SMALL, ahead),
        "trailing": hold_at_target(ready, SMALL, blind),
    }
    assert found["knows"].realised.shape == (1, 1, 15)
    assert found["knows"].realised.mean() == pytest.approx(SMALL.target, rel=0.15)
    names = {"knows": "knows", "trailing": "trailing"}
    record, table = make_target_table(found, names, SMALL, "knows")
    assert record["knows"]["deviation"] < 0.5 * record["trailing"]["deviation"]
    assert 0 < record["knows"]["gain"]["low"] < record["knows"]["gain"]["value"]
    assert record["trailing"]["turnover"] == pytest.approx(0, abs=1e-9)
    assert [row[0] for row in table.rows] == ["knows", "trailing"]


def test_weights_are_those_of_the_forecast_two_bars_before():
    ready = prepared()._replace(bars_per_year=252.0)
    logs = np.log(np.linspace(0.005, 0.03, COUNT - TRAIN_LAST - 1))[None, None]
    found = hold_at_target(ready, SMALL, logs)
    closes = ready.bars["A3"]["close"].to_numpy()
    returns = np.r_[0, closes[1:] / closes[:-1] - 1][TRAIN_LAST + 1 :]
    weights = np.minimum(SMALL.target / 252**0.5 / np.exp(logs[0, 0]), 4.0)
    earned = weights[:-2] * returns[2:]
    expected = np.sqrt(np.mean(earned[:10] ** 2) * 252)
    assert found.realised[0, 0, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"market": "bonds"}, r"--market bonds: no such market; .*'stocks', 'crypto'"),
        ({"bars": "nothing.csv"}, "--bars nothing.csv: no such file"),
        ({"methods": ["zzz"]}, "no such row"),
        ({"seeds": 0}, "--seeds: must be at least 1"),
    ],
)
def test_impossible_options_are_refused(bars_file, tmp_path, options, message):
    given = {"bars": bars_file, "out": tmp_path, "market": "small", **options}
    with pytest.raises(ConfigError, match=message):
        reproduce(STUDY, **given)
