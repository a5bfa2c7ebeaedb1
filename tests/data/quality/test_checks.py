"""The checks find what is planted and what real bars are known for, and nothing that is real."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market
from hypothesis import given, settings

from maml_jax.data import to_bars
from maml_jax.data.quality.checks import MEANINGS, check_bars, findings_table
from maml_jax.data.quality.cleaning import clean_bars
from maml_jax.errors import DataError


def kinds(bars, name="A"):
    return {each.kind: each for each in check_bars({name: bars})[name]}


def test_bars_without_fault_have_no_findings():
    for seed in range(20):
        assert set(kinds(random_bars(seed, count=1000))) <= {"jump"}  # its tails are fat


@settings(max_examples=60)
@given(
    seed=st.integers(0, 50),
    place=st.integers(1, 495),
    length=st.integers(1, 3),
    factor=st.sampled_from([0.3, 0.6, 0.7, 1.5, 10.0, 1000.0]),
    columns=st.sampled_from(["ohlcv", "close"]),
)
def test_a_tick_that_leaves_and_comes_back_is_found(seed, place, length, factor, columns):
    bars = random_bars(seed, count=500, columns=columns)
    bad = slice(place, place + length)
    bars.iloc[bad, bars.columns.get_loc("close")] *= factor
    found = kinds(bars)["bad_tick"]
    assert list(found.times) == list(bars.index[bad])


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 30.0])
@pytest.mark.parametrize(
    ("column", "kind"), [("open", "bad_open"), ("high", "wick"), ("low", "wick")]
)
def test_prices_far_from_the_closes_beside_them_are_found(column, kind, factor):
    bars = random_bars(count=500)
    bars.loc[bars.index[200], column] *= factor
    found = kinds(bars)
    if column != "open" and (factor > 1) == (column == "low"):
        assert set(found) == {"ohlc"}  # within the range of the closes there is no telling
    else:
        assert list(found[kind].times) == [bars.index[200]]


def test_what_was_mended_goes_with_the_rows_and_into_files(tmp_path):
    bars = random_bars(count=60).reset_index()
    frame = to_bars(pd.concat([bars, bars.iloc[[5]]]).reset_index(drop=True))["asset"]
    frame.to_parquet(tmp_path / "whole.parquet")
    assert "duplicate" in kinds(frame)
    assert "duplicate" not in kinds(frame.iloc[10:])


def test_bad_ticks_close_together_do_not_hide_each_other():
    bars = random_bars(count=500, columns="close")
    bars.iloc[[200, 203, 207], 0] *= [0.5, 1.8, 0.6]
    assert list(kinds(bars)["bad_tick"].times) == list(bars.index[[200, 203, 207]])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 50),
    place=st.integers(1, 498),
    factor=st.sampled_from([0.23, 0.45, 0.7, 1.4, 3.6]),
)
def test_a_move_that_stays_is_no_bad_tick(seed, place, factor):
    bars = random_bars(seed, count=500)
    bars.iloc[place:, :4] *= factor
    found = kinds(bars)
    assert "bad_tick" not in found
    assert bars.index[place] in found["jump"].times


def test_a_crash_that_recovers_within_wild_days_is_no_bad_tick():
    bars = random_bars(count=500, columns="close")
    moves = np.array([-0.08, 0.05, -0.12, 0.14, -0.1, 0.09, -0.06, 0.08])
    path = np.exp(np.cumsum(moves))
    bars.iloc[200:208, 0] *= path
    bars.iloc[208:, 0] *= path[-1]
    assert "bad_tick" not in kinds(bars)


def test_a_spike_in_company_is_no_bad_tick():
    bars = random_bars(count=500, columns="close")
    moves = np.array([0.15, 0.30, -0.28, -0.12, 0.1])
    bars.iloc[200:205, 0] *= np.exp(np.cumsum(moves))
    bars.iloc[205:, 0] *= np.exp(moves.sum())
    assert "bad_tick" not in kinds(bars)


@pytest.mark.parametrize("ratio", [2, 3, 10, 1 / 4])
@pytest.mark.parametrize("columns", ["ohlcv", "close"])
def test_a_split_is_suspected(ratio, columns):
    bars = random_bars(3, count=500, columns=columns)
    prices = [c for c in bars.columns if c != "volume"]
    bars.loc[bars.index[250] :, prices] /= ratio
    found = kinds(bars)
    assert list(found["split"].times) == [bars.index[250]]
    assert "jump" not in found and "bad_tick" not in found


def test_contradictions_within_a_bar_are_found():
    bars = random_bars(count=100)
    bars.iloc[10, bars.columns.get_loc("high")] = bars["close"].iloc[10] * 0.9
    bars.iloc[20, bars.columns.get_loc("low")] = bars["open"].iloc[20] * 1.1
    bars.iloc[30, [1, 2]] = bars.iloc[30, [2, 1]].to_numpy()
    assert list(kinds(bars)["ohlc"].times) == list(bars.index[[10, 20, 30]])


def test_silence_is_found():
    bars = random_bars(count=300)
    bars.iloc[50:60, 4] = 0
    bars.iloc[100:120, 3] = bars["close"].iloc[99]
    found = kinds(bars)
    assert list(found["zero_volume"].times) == list(bars.index[50:60])
    assert list(found["stale"].times) == list(bars.index[100:120])
    assert "at most 10 in a row" in found["zero_volume"].detail
    assert "at most 21 equal closes" in found["stale"].detail


def test_volume_that_is_always_zero_is_no_finding():
    bars = random_bars(count=100)
    bars["volume"] = 0.0
    assert kinds(bars) == {}


def test_an_unfinished_last_bar_shows_by_its_volume():
    bars = random_bars(count=300)
    bars.iloc[-1, 4] = 1.0
    assert list(kinds(bars)["last_bar"].times) == [bars.index[-1]]


def test_opens_that_are_the_closes_before_are_told():
    bars = random_bars(count=300)
    bars["open"] = bars["close"].shift(1).fillna(bars["open"])
    bars["high"] = bars[["open", "high", "close"]].max(axis=1)
    bars["low"] = bars[["open", "low", "close"]].min(axis=1)
    assert "continuous" in kinds(bars)


def test_coarse_ticks_are_told():
    bars = random_bars(count=2000, columns="close")
    bars["close"] = (bars["close"] / 2).round() * 2
    assert set(kinds(bars)) <= {"coarse", "stale", "jump"}
    assert "coarse" in kinds(bars)


@settings(max_examples=30)
@given(
    first=st.integers(1, 900), length=st.integers(1, 60), step=st.sampled_from(["5min", "h", "D"])
)
def test_gaps_of_a_market_that_never_closes_are_found_to_the_bar(first, length, step):
    bars = random_bars(count=1000, step=step)
    gone = bars.index[first : first + length]
    found = kinds(bars.drop(gone))
    assert list(found["gap"].times) == list(gone)
    assert "closed" not in found


def test_nights_weekends_and_holidays_are_no_gaps():
    hours = pd.date_range("2023-01-02", "2023-12-29", freq="h", tz="America/New_York")
    open_ = (hours.hour >= 10) & (hours.hour < 17) & (hours.day_of_week < 5)
    index = hours[open_].tz_convert("UTC")
    bars = random_bars(count=len(index)).set_axis(index.rename("timestamp"))
    found = kinds(bars)
    assert "gap" not in found
    assert len(found["closed"].times) == len(np.unique(hours[open_].date)) - 1
    gone = index[500:503]
    assert set(kinds(bars.drop(gone))["gap"].times) <= set(gone)
    days = pd.bdate_range("2010-01-01", "2020-01-01", tz="UTC")
    days = days[~((days.month == 12) & (days.day == 25))]
    bars = random_bars(count=len(days)).set_axis(days.rename("timestamp"))
    assert set(kinds(bars)) <= {"jump"}
    gone = days[1000:1008]
    assert list(kinds(bars.drop(gone))["gap"].times) == list(gone)


@pytest.mark.parametrize("freq", ["W-MON", "MS"])
def test_weeks_and_months_have_gaps_too(freq):
    index = pd.date_range("2000-01-01", periods=200, freq=freq, tz="UTC")
    bars = random_bars(count=200).set_axis(index.rename("timestamp"))
    assert kinds(bars) == {}
    assert list(kinds(bars.drop(index[100:103]))["gap"].times) == list(index[100:103])


def test_a_bar_between_two_others_is_irregular():
    bars = random_bars(count=300, step="h")
    index = bars.index.to_series()
    index.iloc[100] += pd.Timedelta(minutes=50)
    bars.index = pd.DatetimeIndex(index)
    assert list(kinds(bars)["irregular"].times) == [bars.index[101]]


def test_other_assets_show_what_one_lacks():
    market = random_market(count=400, assets=5)
    gone = market["A1"].index[100:103]
    market["A1"] = market["A1"].drop(gone)
    market["A2"] = market["A2"].iloc[30:]
    market["A3"] = market["A3"].iloc[:-20]
    found = {name: {e.kind: e for e in each} for name, each in check_bars(market).items()}
    assert list(found["A1"]["absent"].times) == list(gone)
    assert set(found["A2"]) == {"begins_late"}
    assert set(found["A3"]) == {"ends_early"}
    assert found["A0"] == {} and found["A4"] == {}


def test_what_the_reader_mended_is_told():
    bars = random_bars(count=60).reset_index()
    bars["timestamp"] = bars["timestamp"].astype(str)
    rows = pd.concat([bars.iloc[:10], bars.iloc[[20]], bars.iloc[10:], bars.iloc[[5, 7]]])
    frame = to_bars(rows.reset_index(drop=True))["asset"]
    found = kinds(frame)
    assert list(found["duplicate"].times) == list(frame.index[[5, 7, 20]])
    assert "unsorted" in found
    newest_first = to_bars(bars.iloc[::-1].reset_index(drop=True))["asset"]
    assert kinds(newest_first) == {}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 29, 31])
def test_few_bars_are_no_obstacle(count):
    bars = random_bars(count=max(count, 1)).iloc[:count]
    assert findings_table(check_bars({"A": bars, "B": random_bars(1)})) is not None


def test_constant_prices_are_no_obstacle():
    bars = random_bars(count=200)
    bars.iloc[:, :4] = 5.0
    assert {"stale", "coarse"} <= set(kinds(bars))


def test_the_table_names_asset_kind_and_times():
    bars = random_bars(count=300)
    bars.iloc[100, 3] *= 3
    table = findings_table(check_bars({"XY": bars}))
    row = table.set_index("kind").loc["bad_tick"]
    assert (row["asset"], row["bars"], row["first"]) == ("XY", 1, bars.index[100])
    assert set(table["kind"]) <= set(MEANINGS)


def faulty():
    bars = random_bars(count=300)
    bars.iloc[100, 3] *= 3
    bars.iloc[200, 1] = bars["low"].iloc[200] / 2
    bars.iloc[50:53, 4] = 0
    return bars.drop(bars.index[150:155])


def test_nothing_is_done_unless_asked_for_and_all_is_told():
    bars = faulty()
    cleaned = clean_bars({"A": bars})
    pd.testing.assert_frame_equal(cleaned.bars["A"], bars)
    text = "\n".join(cleaned.notes)
    for word in ("bad_tick: A (1)", "ohlc: A (2)", "zero_volume: A (3)", "gap: A (5)"):
        assert word in text
    assert text.count("; kept.") == 4


@pytest.mark.parametrize("policy", ["drop", "mask"])
def test_one_word_acts_on_what_is_wrong_for_certain(policy):
    bars = faulty()
    wrong = bars.index[[100, 195]]
    cleaned = clean_bars({"A": bars}, policy)
    if policy == "drop":
        pd.testing.assert_frame_equal(cleaned.bars["A"], bars.drop(wrong))
    else:
        assert cleaned.bars["A"].loc[wrong].isna().all(axis=None)
        pd.testing.assert_frame_equal(cleaned.bars["A"].drop(wrong), bars.drop(wrong))
    assert f"; {policy}ped." in "\n".join(cleaned.notes) or "; masked." in "\n".join(cleaned.notes)


def test_policies_by_kind():
    bars = faulty()
    cleaned = clean_bars({"A": bars}, {"zero_volume": "drop", "gap": "mask"}).bars["A"]
    assert len(cleaned) == 300 - 3
    assert int(cleaned["close"].isna().sum()) == 5
    assert cleaned.index.name == "timestamp" and cleaned.index.is_monotonic_increasing


@pytest.mark.parametrize(
    ("policies", "said"),
    [
        ("remove", "policy 'remove' of bad_tick: expected one of"),
        ({"jump": "drop"}, "'jump' cannot have a policy"),
        ({"gap": "drop"}, "gaps cannot be dropped"),
    ],
)
def test_policies_that_there_are_not(policies, said):
    with pytest.raises(DataError, match=said):
        clean_bars({"A": faulty()}, policies)
