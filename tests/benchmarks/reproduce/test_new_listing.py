"""New listings: forecasts that know no later bar, and tables from end to end."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from helpers import random_market

from benchmarks.reproduce import NEW_LISTING, reproduce
from benchmarks.reproduce.new_listing_market import MARKETS, Bars, Data, Weights, variance_shift
from benchmarks.reproduce.new_listing_rows import DONORS, MODEL, ROWS, forecast_members
from benchmarks.reproduce.new_listing_tails import (
    forecast_tails_of_model,
    forecast_tails_of_others,
    imagine,
)
from benchmarks.reproduce.new_listing_target import COST, hold
from maml_jax.errors import ConfigError
from maml_jax.risk.forecast import forecast_listings
from maml_jax.risk.histories import INPUTS, Scaling
from maml_jax.risk.model import CARD, RiskModel, load_model, save_model
from maml_jax.risk.residuals import measure_residuals
from maml_jax.risk.training import RiskSettings, name_parameters, risk_learner

COUNT, FIRST = 960, 600
TINY = RiskSettings(
    network=(8, 4),
    mean_network=(8,),
    horizons=(1, 5),
    members=2,
    pooled_steps=3,
    steps=3,
    meta_batch=2,
    queries=4,
)
BARS = random_market(COUNT, 8, columns="close")
DATES = BARS["A0"].index
SMALL = replace(
    MARKETS["stocks"],
    key="small",
    start=f"{DATES[FIRST]:%Y-%m-%d}",
    end=None,
    settings=TINY,
    block=10,
    ages=(0, 1, 5, 20, 60, 250),
    tail_ages=(5, 20, 250),
    donor_ages=(20,),
    held_ages=(20, 60),
    calibration=200,
)
UNSEEN = ["A6", "A7"]


@pytest.fixture(scope="module", autouse=True)
def small_market():
    MARKETS["small"] = SMALL
    yield
    del MARKETS["small"]


def write(path, bars):
    frames = [frame.assign(symbol=name) for name, frame in bars.items()]
    pd.concat(frames).reset_index().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("new_listing")


@pytest.fixture(scope="module")
def weights(folder):
    """Weights that were drawn, not trained, whose residuals are normal."""
    learner = risk_learner(TINY.network, TINY.mean_network, TINY.heteroscedastic)
    row = jnp.zeros((1, len(INPUTS)))
    members = [name_parameters(learner.init(jax.random.key(seed), row)) for seed in range(2)]
    scaling = Scaling(np.full(len(INPUTS), -4.0), np.ones(len(INPUTS)), -4.5, 0.5)
    rng = np.random.default_rng(0)
    age = rng.integers(1, 500, 20_000)
    error, z = 0.4 * rng.standard_normal((2, len(age)))
    residuals = {
        h: measure_residuals(age, 0 * error, 0.4 + 0 * error, error, 2.5 * z * h**0.5, h)
        for h in (1, 5)
    }
    day = pd.Timedelta(days=1)
    model = RiskModel(
        "drawn", day, TINY.network, TINY.mean_network, True, tuple(members), scaling,
        residuals, 0.05, {},
    )  # fmt: skip
    save_model(model, folder / "weights")
    return str(folder / "weights")


@pytest.fixture(scope="module")
def data(folder, weights):
    bars = Bars("bars", "0", BARS)
    return Data(SMALL, bars, 5, Weights(folder / "out" / "results", TINY, weights))


@pytest.fixture(scope="module")
def made(folder, weights):
    """Run all parts."""
    listed = {
        f"L{i}": frame.iloc[(0, 0, 280, 330)[i] :]
        for i, frame in enumerate(random_market(COUNT, 4, columns="close").values())
    }
    rows = pd.MultiIndex.from_product([UNSEEN, DATES[FIRST:]], names=["asset", "time"])
    path = folder / "outside.parquet"
    pd.DataFrame({"volatility": 0.012}, rows).reset_index().to_parquet(path)
    options = {
        "study": NEW_LISTING,
        "bars": write(folder / "bars.csv", BARS),
        "market": "small",
        "weights": weights,
        "out": folder / "out",
        "listed": write(folder / "listed.csv", listed),
        "transfer": [str(write(folder / "index.csv", {"I": BARS["A1"]}))],
        "forecasts": path,
    }
    return reproduce(**options), folder / "out", options


@pytest.mark.slow
def test_every_row_has_its_numbers(made):
    tables, out, _ = made
    cells = [cell for table in tables for row in table.rows for cell in row]
    assert not [cell for cell in cells if "nan" in cell.lower() or "diverged" in cell]
    ages = SMALL.ages
    assert list(tables[0].columns[1:]) == [f"n = {age}" for age in ages]
    for row in tables[0].rows:
        missing = {"EWMA": 1, "GARCH-t": 5}.get(row[0], 0)
        assert [bool(cell) for cell in row[1:]] == [False] * missing + [True] * (6 - missing), row
    names = [row.name for row in ROWS if row.key not in (MODEL, DONORS)]
    assert [row[0] for row in tables[0].rows] == [
        "the model, ensemble of 2",
        "the model, one training",
        "the same without adaptation, ensemble",
        "the same without adaptation, one training",
        *names,
        "from outside.parquet",
    ]
    assert all("±" in cell for cell in tables[0].rows[1][1:])
    titles = [table.title for table in tables]
    for part in ("R2", "gains", "QLIKE", "utility", "donors", "Exceed", "Losses", "Volatility"):
        assert any(part in title for title in titles), part
    assert titles[-1] == "Weights of daily stocks elsewhere"
    assert tables[-1].rows[0][4] == "too short"
    record = json.loads((out / "new-listing-small.json").read_text())
    assert record["failed"] == {}
    assert record["listed"]["after"] == 0
    assert [each[:2] for each in record["listed"]["listings"]] == ["L2", "L3"]


@pytest.mark.slow
def test_before_the_first_outcome_adaptation_changes_nothing(made):
    record = json.loads((made[1] / "new-listing-small.json").read_text())
    for age in ("0", "1", "5"):
        assert record["gains"][age]["network"]["value"] == pytest.approx(0, abs=1e-4)
    assert record["gains"]["60"]["network"]["value"] != 0


@pytest.mark.slow
def test_what_is_there_is_not_made_again(made, monkeypatch):
    tables, _, options = made

    def refuse(*_):
        pytest.fail("a result that is there was made again")

    for name in ("forecast_row", "forecast_model", "hold_listed", "transfer"):
        monkeypatch.setattr(f"benchmarks.reproduce.new_listing.{name}", refuse)
    again = reproduce(**options, parts=["volatility", "listed", "transfer"])
    assert again[0].rows == tables[0].rows
    assert again[-1].rows == tables[-1].rows


@pytest.mark.slow
def test_adapted_forecasts_are_those_of_whole_listings(data):
    """One posterior for each bar and age, and one pass over a listing, are the same numbers."""
    asset, age = data.unseen[0], 60
    times = data.grid[:4]
    options = {"horizon": SMALL.horizon, "others": data.seen}
    found = forecast_members(data.model, data.histories, [asset], times, age=age, **options)
    mean, _ = forecast_listings(
        data.model, data.histories, asset, times - age, rows=age + 1, **options
    )
    np.testing.assert_allclose(found[0, :, 0].mean(axis=0), mean[:, -1], atol=2e-4)


def change_later_bars(data, time):
    """Make the data of the same assets whose bars after a time are others."""
    rng = np.random.default_rng(0)
    frames = {}
    for name, frame in BARS.items():
        later = frame.copy()
        moves = 1 + 0.05 * rng.standard_normal(COUNT - time - 1)
        later.iloc[time + 1 :] *= moves[:, None]
        frames[name] = later
    return replace(data, bars=data.bars._replace(frames=frames))


@pytest.mark.slow
def test_later_bars_change_no_forecast(data):
    time = FIRST + 200
    other = change_later_bars(data, time)
    assert other.names[1] == UNSEEN
    model = data.model
    for row in ROWS:
        ages = SMALL.donor_ages if row.key == DONORS else SMALL.ages
        if row.forecast is not None:
            full, changed = (row.forecast(each, ages) for each in (data, other))
        else:
            at = data.grid[data.grid <= time]
            full, changed = (
                np.concatenate(
                    forecast_members(
                        model, each.histories, each.unseen, at, age=60, horizon=SMALL.horizon
                    )
                )
                for each in (data, other)
            )
        before = full[..., : time + 1]
        assert np.isfinite(before).any(), row.key
        np.testing.assert_allclose(
            changed[..., : time + 1], before, rtol=1e-5, atol=1e-5, err_msg=row.key
        )


@pytest.mark.slow
def test_weights_are_trained_once_and_on_the_seen_assets_before_the_test(data, folder):
    weights = Weights(folder / "trained", TINY)
    other = change_later_bars(data, FIRST - 1)
    unseen = {name: 2 * frame for name, frame in other.bars.frames.items() if name in UNSEEN}
    other = replace(other, bars=data.bars._replace(frames=other.bars.frames | unseen))
    first, second = (replace(each, weights=weights) for each in (data, other))
    model = first.model
    (kept,) = folder.glob(f"trained/small-weights.*/{CARD}")
    made_at = kept.stat().st_mtime_ns
    assert replace(second, bars=data.bars).model.card == model.card
    assert kept.stat().st_mtime_ns == made_at
    elsewhere = replace(second, weights=Weights(folder / "again", TINY)).model
    for name, value in model.members[1].items():
        np.testing.assert_array_equal(elsewhere.members[1][name], value)
    assert load_model(kept.parent).horizons == TINY.horizons


@pytest.mark.slow
def test_later_bars_change_no_tail(data):
    horizon, listed = 5, imagine(data)
    last = FIRST + 300
    other = change_later_bars(data, last)
    other.__dict__["model"] = data.model
    full, changed = (
        forecast_tails_of_model(each, listed, horizon)
        | forecast_tails_of_others(each, listed, horizon)
        for each in (data, other)
    )
    for place, age in enumerate(SMALL.tail_ages):
        kept = listed.starts + age <= last
        assert kept.any()
        for key in full.keys() - {"outcome"}:
            pair = (each[key][:, :, place][..., kept] for each in (changed, full))
            np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-7, err_msg=key)


def test_holding_is_what_a_loop_over_bars_comes_to():
    rng = np.random.default_rng(1)
    returns = 0.02 * rng.standard_normal((1, 60))
    logs = np.log(0.02 * np.exp(0.3 * rng.standard_normal((1, 6))))
    times = 5 + 5 * np.arange(6)
    held = hold(returns, logs, times, target=0.3, per_year=252.0, block=10)
    weight, earned, traded = 0.0, [], []
    for bar in range(7, 37):
        wanted = min(0.3 / 252**0.5 / np.exp(logs[0, (bar - 2 - 5) // 5 if bar < 32 else 5]), 4.0)
        traded.append(abs(wanted - weight))
        weight = wanted
        earned.append(weight * (np.exp(returns[0, bar]) - 1) - COST * traded[-1])
    expected = np.sqrt(252 * np.mean(np.reshape(earned, (3, 10)) ** 2, axis=1))
    np.testing.assert_allclose(held.realised[0], expected)
    assert held.turnover == pytest.approx(252 * np.mean(traded))
    assert held.cost == pytest.approx(COST * held.turnover)


def test_a_variance_shift_leads_to_the_root_of_the_mean_variance():
    error = np.log([0.5, 1.0, 2.0, np.nan])
    assert variance_shift(error) == pytest.approx(0.5 * np.log((0.25 + 1 + 4) / 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"market": "bonds"}, r"--market bonds: no such market; .*'stocks', 'crypto'"),
        ({"bars": "nothing.csv"}, "--bars nothing.csv: no such file"),
        ({"forecasts": "nothing.parquet"}, "--forecasts nothing.parquet: no such file"),
        ({"parts": ["zzz"]}, "no such part"),
        ({"every": 0}, "--every: must be at least 1"),
    ],
)
def test_impossible_options_are_refused(folder, tmp_path, options, message):
    path = write(tmp_path / "bars.csv", {name: BARS[name].iloc[:9] for name in UNSEEN})
    with pytest.raises(ConfigError, match=message):
        reproduce(NEW_LISTING, **{"bars": path, "out": tmp_path, "market": "small", **options})
