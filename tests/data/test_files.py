"""JSON files, times in mixed units, and writing what reading gives back."""

import json

import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.data import read_bars, write_bars
from maml_jax.errors import DataError, StoreError


def reply(rows, time=1_700_015_000_000):
    result = {"symbol": "BTCUSDT", "category": "linear", "list": rows}
    return {"retCode": 0, "retMsg": "OK", "result": result, "time": time}


ROWS = [[str(1_700_006_400_000 + 3_600_000 * i), "1", "3", "0.5", "2", "10"] for i in (2, 1, 0)]


def test_a_saved_reply_of_bybit_is_read_without_its_unfinished_bar(tmp_path):
    path = tmp_path / "reply.json"
    path.write_text(json.dumps(reply(ROWS)))
    bars = read_bars(path)["BTCUSDT"]
    assert list(bars["close"]) == [2, 2]  # the third is unfinished at the reply's time


def test_a_list_of_records_is_read(tmp_path):
    bars = random_bars(count=5)
    bars.reset_index().to_json(tmp_path / "XY.json", orient="records", date_format="iso")
    back = read_bars(tmp_path / "XY.json")["XY"]
    pd.testing.assert_frame_equal(back, bars, check_freq=False, rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a reply of Bybit, or a list"),
        ("[1, 2]", "expected a reply of Bybit, or a list"),
        ('{"a": 1}', "expected a reply of Bybit, or a list"),
        ('{"retCode": 10006, "retMsg": "Too many visits!"}', "10006: Too many visits!"),
        ('{"retCode": 0}', "is not a Bybit kline response"),
        (json.dumps(reply([])), "is not a Bybit kline response"),
        (json.dumps(reply([["1"], *ROWS])), "is not a Bybit kline response"),
        (json.dumps(reply([[*ROWS[0][:4], "NaN?", "1"], ROWS[1], ROWS[2]], 2e12)), "'NaN?'"),
    ],
)
def test_json_that_holds_no_bars_is_refused(tmp_path, text, said):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_bars(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_milliseconds_and_microseconds_in_one_file(tmp_path):
    times = pd.date_range("2024-12-31T22:00Z", periods=4, freq="h")
    numbers = [t.value // 10**6 if t.year < 2025 else t.value // 10**3 for t in times]
    pd.DataFrame({"open_time": numbers, "close": 1.5}).to_csv(tmp_path / "B.csv", index=False)
    assert list(read_bars(tmp_path / "B.csv")["B"].index) == list(times)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "new/a.csv.xz"])
def test_what_is_written_is_read_back(tmp_path, name):
    market = random_market(count=50)
    assert write_bars(market, tmp_path / name) == 150
    for asset, bars in read_bars(tmp_path / name).items():
        pd.testing.assert_frame_equal(bars, market[asset], check_freq=False, rtol=1e-14)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    market = random_market(count=50)
    with pytest.raises(DataError, match="unknown kind of file"):
        write_bars(market, tmp_path / "a.xlsx")
    (tmp_path / "plain").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_bars(market, tmp_path / "plain" / "a.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain"]


def test_the_unfinished_month_of_a_reply_is_left_out(tmp_path):
    opened = [pd.Timestamp(f"2023-0{month}-01", tz="UTC") for month in (3, 2, 1)]
    rows = [[str(time.value // 10**6), "1", "3", "0.5", "2", "10"] for time in opened]
    now = pd.Timestamp("2023-03-29T12:00Z").value // 10**6
    (tmp_path / "months.json").write_text(json.dumps(reply(rows, now)))
    assert list(read_bars(tmp_path / "months.json")["BTCUSDT"].index.month) == [1, 2]


def test_masked_bars_and_different_columns_are_written_and_read(tmp_path):
    market = {"A": random_bars(count=20), "B": random_bars(count=20, columns="close")}
    market["A"].iloc[5] = float("nan")
    write_bars(market, tmp_path / "both.csv")
    back = read_bars(tmp_path / "both.csv", missing="drop")
    assert list(back["A"].columns) == ["close"] and len(back["A"]) == 19
    with pytest.raises(DataError, match="no bars to write"):
        write_bars({}, tmp_path / "none.csv")
