"""Every layout leads to one normal form, and every fault to one clear line."""

import gzip

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import as_bars, bar_interval, builtin_bars, read_bars, to_bars
from maml_jax.data.bars import require_same_interval
from maml_jax.errors import DataError

DAYS = ["2020-01-01", "2020-01-02", "2020-01-03"]


def write(folder, text, name="bars.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def only(bars):
    assert len(bars) == 1
    return next(iter(bars.values()))


def assert_normal(frame):
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert str(frame.index.tz) == "UTC"
    assert frame.index.name == "timestamp"
    assert frame.index.is_monotonic_increasing
    assert frame.index.is_unique
    assert "close" in frame.columns
    assert (frame.dtypes == np.float64).all()
    assert frame.notna().all(axis=None)


def test_builtin_bars_are_real_and_normal():
    bars = builtin_bars()
    assert list(bars) == ["SP500", "NASDAQ", "WTI"]
    for frame in bars.values():
        assert_normal(frame)
    # The index closed at 2506.85 on the last day of 2018.
    assert bars["SP500"]["close"].iloc[-1] == pytest.approx(2506.85, abs=0.01)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_files_come_back_as_they_were_written(tmp_path, ending):
    bars = random_bars(count=20)
    path = tmp_path / f"BTC.{ending}"
    if ending == "parquet":
        bars.to_parquet(path)
    else:
        bars.to_csv(path)
    read = read_bars(path)
    assert list(read) == ["BTC"]
    pd.testing.assert_frame_equal(read["BTC"], bars, check_freq=False)


LAYOUTS = {
    "one asset": "date,open,high,low,close,volume\n2020-01-01,1,2,1,2,5\n2020-01-02,2,3,2,3,6\n",
    "any case": "Date,OPEN,High,lOw,CLOSE,Volume\n2020-01-01,1,2,1,2,5\n2020-01-02,2,3,2,3,6\n",
    "letters": "timestamp,o,h,l,c,v\n2020-01-01,1,2,1,2,5\n2020-01-02,2,3,2,3,6\n",
    "newest first": "date,open,high,low,close,volume\n2020-01-02,2,3,2,3,6\n2020-01-01,1,2,1,2,5\n",
    "index column": ",open,high,low,close,volume\n2020-01-01,1,2,1,2,5\n2020-01-02,2,3,2,3,6\n",
    "extra columns": (
        "date,open,high,low,close,volume,vwap\n2020-01-01,1,2,1,2,5,x\n2020-01-02,2,3,2,3,6,y\n"
    ),
    "repeated row": (
        "date,open,high,low,close,volume\n2020-01-01,1,2,1,2,5\n2020-01-01,1,2,1,2,5\n"
        "2020-01-02,2,3,2,3,6\n"
    ),
    "blank line": (
        "date,open,high,low,close,volume\n2020-01-01,1,2,1,2,5\n\n2020-01-02,2,3,2,3,6\n\n"
    ),
    "byte order mark": (
        "\ufeffdate,open,high,low,close,volume\n2020-01-01,1,2,1,2,5\n2020-01-02,2,3,2,3,6\n"
    ),
    "day first": "date,open,high,low,close,volume\n01/01/2020,1,2,1,2,5\n02/01/2020,2,3,2,3,6\n",
    "seconds": "time,open,high,low,close,volume\n1577836800,1,2,1,2,5\n1577923200,2,3,2,3,6\n",
    "milliseconds": (
        "open time,open,high,low,close,volume\n1577836800000,1,2,1,2,5\n1577923200000,2,3,2,3,6\n"
    ),
    "microseconds": (
        "time,open,high,low,close,volume\n1577836800000000,1,2,1,2,5\n1577923200000000,2,3,2,3,6\n"
    ),
    "zoned": (
        "time,open,high,low,close,volume\n2020-01-01T01:00+01:00,1,2,1,2,5\n"
        "2020-01-02T00:00Z,2,3,2,3,6\n"
    ),
    "semicolons": ("date;open;high;low;close;volume\n2020-01-01;1;2;1;2;5\n2020-01-02;2;3;2;3;6\n"),
    "angle brackets": (
        "<DATE>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n2020.01.01,1,2,1,2,5\n2020.01.02,2,3,2,3,6\n"
    ),
    "date and time": (
        "date,time,open,high,low,close,volume\n2020.01.01,00:00,1,2,1,2,5\n"
        "2020.01.02,00:00,2,3,2,3,6\n"
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_spelling_leads_to_the_same_bars(tmp_path, layout):
    options = {"date_format": "%d/%m/%Y"} if layout == "day first" else {}
    frame = only(read_bars(write(tmp_path, LAYOUTS[layout]), **options))
    assert_normal(frame)
    expected = only(read_bars(write(tmp_path, LAYOUTS["one asset"], "x.csv")))
    pd.testing.assert_frame_equal(frame, expected)


def test_long_and_wide_tables_hold_many_assets(tmp_path):
    long = write(tmp_path, "symbol,date,close\nA,2020-01-01,1\nB,2020-01-01,5\nA,2020-01-02,2\n")
    wide = write(tmp_path, "Date,A,B\n2020-01-01,1,5\n2020-01-02,2,\n", "wide.csv")
    for bars in (read_bars(long), read_bars(wide)):
        assert list(bars) == ["A", "B"]
        assert bars["A"]["close"].tolist() == [1, 2]
        assert bars["B"]["close"].tolist() == [5]


def test_wide_tables_may_hold_assets_named_like_columns(tmp_path):
    text = "Date,T,LOW,V,COIN,OPEN,AAPL,MSFT\n" + "".join(f"{d},1,2,3,4,5,6,7\n" for d in DAYS)
    bars = read_bars(write(tmp_path, text))
    assert list(bars) == ["T", "LOW", "V", "COIN", "OPEN", "AAPL", "MSFT"]


def test_columns_of_two_levels_in_either_order():
    index = pd.date_range("2020", periods=3)
    table = pd.DataFrame(
        np.arange(1.0, 13.0).reshape(3, 4),
        index=index,
        columns=pd.MultiIndex.from_product([["Close", "Volume"], ["A", "B"]]),
    )
    for each in (table, table.swaplevel(axis="columns")):
        bars = to_bars(each)
        assert bars["A"]["close"].tolist() == [1, 5, 9]
        assert bars["B"]["volume"].tolist() == [4, 8, 12]


def test_the_adjusted_close_scales_all_prices():
    table = pd.DataFrame({"date": DAYS, "open": [1.0, 2, 3], "close": [2.0, 4, 6],
                          "Adj Close": [1.0, 2, 6], "volume": [7.0, 8, 9]})  # fmt: skip
    adjusted = only(to_bars(table))
    assert adjusted["close"].tolist() == [1, 2, 6]
    assert adjusted["open"].tolist() == [0.5, 1, 3]
    assert adjusted["volume"].tolist() == [7, 8, 9]
    assert only(to_bars(table, adjust=False))["close"].tolist() == [2, 4, 6]


def test_times_without_a_zone_are_placed_in_the_one_named():
    table = pd.DataFrame({"time": ["2020-07-01 09:30"], "close": [1.0]})
    frame = only(to_bars(table, timezone="America/New_York"))
    assert frame.index[0] == pd.Timestamp("2020-07-01 13:30", tz="UTC")


def test_local_times_across_a_change_of_clocks():
    clock = pd.date_range("2020-10-24", periods=60, freq="h", tz="Europe/Berlin")
    table = pd.DataFrame({"time": clock.tz_localize(None).astype(str), "close": 1.0})
    frame = only(to_bars(table, timezone="Europe/Berlin"))
    assert frame.index.equals(clock.tz_convert("UTC").as_unit("us").rename("timestamp"))
    table = pd.DataFrame({"time": ["2020-03-29 02:30"], "close": [1.0]})
    with pytest.raises(DataError, match=r"cannot be in Europe/Berlin.*offset from UTC"):
        to_bars(table, timezone="Europe/Berlin")


def test_a_date_format_that_is_none_is_told():
    with pytest.raises(DataError, match=r"date_format '%Q'"):
        to_bars(pd.DataFrame({"time": ["x"], "close": [1.0]}), date_format="%Q")


def test_what_is_no_table_is_refused_by_its_type():
    for thing in ([1.0], np.ones(3), "bars.csv"):
        with pytest.raises(DataError, match=type(thing).__name__):
            as_bars(thing)


def test_mappings_and_series_are_taken():
    series = pd.Series([1.0, 2.0, 3.0], index=pd.to_datetime(DAYS), name="AAPL")
    assert list(as_bars(series)) == ["AAPL"]
    assert list(as_bars({"X": series})) == ["X"]
    pd.testing.assert_frame_equal(
        as_bars({"X": random_bars()})["X"], random_bars(), check_freq=False
    )


def test_missing_values_may_be_dropped_on_request(tmp_path):
    path = write(tmp_path, "date,close\n2020-01-01,1\n2020-01-02,\n2020-01-03,3\n")
    assert only(read_bars(path, missing="drop"))["close"].tolist() == [1, 3]


FAULTS = {
    "missing close": ("date,open,high\n2020-01-01,1,2\n", r"missing column 'close'"),
    "missing time": ("when,close\nx,1\n", r"missing time column.*'when'"),
    "bad number": (
        "date,close\n2020-01-01,1\n2020-01-02,oops\n",
        r"line 3, column 'close': not a number: 'oops'",
    ),
    "bad number after a blank line": (
        "date,close\n2020-01-01,1\n\n2020-01-02,oops\n",
        r"line 4, column 'close'",
    ),
    "bad date": (
        "date,close\n2020-01-01,1\n2020-02-31,2\n",
        r"line 3, column 'date': not a date: '2020-02-31'",
    ),
    "ambiguous dates": (
        "date,close\n01/02/2020,1\n02/02/2020,2\n",
        r"start with the day or the month.*date_format",
    ),
    "infinite": ("date,close\n2020-01-01,inf\n", r"line 2, column 'close': not a finite number"),
    "duplicates that disagree": (
        "date,close\n2020-01-01,1\n2020-01-02,2\n2020-01-01,1.5\n",
        r"several bars at 2020-01-01.*disagree \(line 2, line 4\)",
    ),
    "zero price": (
        "date,close\n2020-01-01,1\n2020-01-02,0\n",
        r"column 'close' is 0 at 2020-01-02.*\(line 3\); a price must be positive",
    ),
    "negative price": (
        "date,open,close\n2020-01-02,1,1\n2020-01-01,-1,1\n",
        r"column 'open' is -1 at 2020-01-01.*\(line 3\)",
    ),
    "negative volume": ("date,close,volume\n2020-01-01,1,-5\n", r"'volume' is -5.*not be negative"),
    "hole": (
        "date,close\n2020-01-01,1\n2020-01-02,\n2020-01-03,3\n",
        r"column 'close' has no value at 2020-01-02.*\(line 3\), inside the series",
    ),
    "hole in a wide table": (
        "date,A,B\n2020-01-01,1,1\n2020-01-02,1,\n2020-01-03,1,3\n",
        r", B: .*no value at 2020-01-02.*\(line 3\)",
    ),
    "empty column of a wide table": ("date,A,B\n2020-01-01,1,\n", r"column 'B': holds no prices"),
    "more fields than names": (
        "date,close\n2020-01-01,1,5\n2020-01-02,2,6\n",
        r"more fields than the header",
    ),
    "lines above the header": (
        "downloaded from,somewhere\nyesterday,close\n2020-01-01,1\n",
        r"2 lines stand above line 3.*skip_lines=1",
    ),
    "commas that may be decimal": (
        "date;close\n2020-01-01;1,500\n",
        r"column 'close': '1,500' may be thousands or a fraction.*data.decimal",
    ),
    "no rows": ("date,close\n", r"holds no rows"),
    "empty file": ("", r"cannot be read"),
    "row without a symbol": (
        "symbol,date,close\nA,2020-01-01,1\n,2020-01-02,1\n",
        r"line 3.*no symbol",
    ),
    "columns that mean the same": ("date,close,last\n2020-01-01,1,2\n", r"mean the same"),
    "some times zoned": (
        "time,close\n2020-01-01T00:00Z,1\n2020-01-01T01:00,1\n",
        r"only some times have a time zone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_its_place(tmp_path, fault):
    text, message = FAULTS[fault]
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read_bars(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.csv: no such file"):
        read_bars(tmp_path / "nothing.csv")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"junk\.parquet: cannot be read"):
        read_bars(tmp_path / "junk.parquet")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"date,close\n" * 1000)[:30])
    with pytest.raises(DataError, match=r"cut\.csv\.gz: cannot be read"):
        read_bars(tmp_path / "cut.csv.gz")
    (tmp_path / "x.doc").write_bytes(b"")
    with pytest.raises(DataError, match="is a folder"):
        read_bars(tmp_path)
    with pytest.raises(DataError, match="unknown kind of file"):
        read_bars(tmp_path / "x.doc")


def test_two_files_may_not_hold_one_asset(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "date,close\n2020-01-01,1\n", "BTC.csv")
    with pytest.raises(DataError, match=r"holds BTC, as does "):
        read_bars([tmp_path / "a" / "BTC.csv", tmp_path / "b" / "BTC.csv"])


def test_different_intervals_are_refused_and_months_are_not():
    hourly, daily = random_bars(step="h"), random_bars(step="D")
    with pytest.raises(DataError, match=r"H has a bar every 0 days 01:00:00, D every 1 days"):
        require_same_interval({"D": daily, "H": hourly})
    monthly = random_bars(step="MS", count=24)
    require_same_interval({"M": monthly, "N": monthly.iloc[1:3]})
    assert bar_interval(hourly) == pd.Timedelta(hours=1)
