"""Parquet, feather and Excel: indices and levels that say little, and sheets like text."""

import datetime

import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.data import read_bars, to_bars
from maml_jax.errors import DataError

BARS = random_bars(count=15)


def assert_same(read, expected=BARS):
    pd.testing.assert_frame_equal(read, expected, check_freq=False, rtol=1e-12)


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_indices_that_do_not_say_what_they_are(tmp_path, ending):
    plain = BARS.tz_localize(None)
    since = plain.index.astype("datetime64[s]").astype("int64")
    for index in (plain.index.astype(str), plain.index.to_period("D"), since):
        table = plain.set_axis(pd.Index(index, name=None))
        getattr(table, f"to_{ending}")(tmp_path / f"XY.{ending}")
        assert_same(read_bars(tmp_path / f"XY.{ending}")["XY"])
        assert_same(to_bars(table)["asset"])


def test_levels_survive_writers_that_know_none(tmp_path):
    market = random_market(count=15, assets=2)
    table = pd.concat(market, axis="columns", names=["Ticker", "Price"], sort=True)
    flat = table.set_axis([str(pair) for pair in table.columns], axis="columns")
    for written in (table, flat, flat.rename_axis("__index_level_0__").reset_index()):
        written.to_parquet(tmp_path / "x.parquet")
        read = read_bars(tmp_path / "x.parquet")
        assert list(read) == list(market)
        for asset, bars in market.items():
            assert_same(read[asset], bars)


@pytest.fixture
def book(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")

    def write(**sheets):
        made = openpyxl.Workbook()
        made.remove(made.active)
        for title, rows in sheets.items():
            sheet = made.create_sheet(title)
            for row in rows:
                sheet.append(row)
        made.save(tmp_path / "XY.xlsx")
        return tmp_path / "XY.xlsx"

    return write


def rows_of(bars, header=True):
    table = bars.tz_localize(None).reset_index()
    rows = [list(row) for row in table.itertuples(index=False)]
    return [list(table.columns), *rows] if header else rows


def test_a_workbook_reads_like_its_text(book):
    assert_same(read_bars(book(Sheet1=rows_of(BARS), Sheet2=[]))["XY"])
    above = [["Historical Data"], [], ["of", "XY"], *rows_of(BARS)]
    assert_same(read_bars(book(Sheet1=above))["XY"])
    path = book(Sheet1=rows_of(BARS, header=False))
    assert_same(read_bars(path, layout="date,open,high,low,close,volume")["XY"])
    with pytest.raises(DataError, match="there is no header"):
        read_bars(path)
    times = [["date", "time", "close"], [datetime.date(2024, 1, 31), datetime.time(9, 30), 1.5]]
    assert read_bars(book(Sheet1=times))["XY"].index[0] == pd.Timestamp("2024-01-31T09:30Z")


def test_sheets_are_assets_and_errors_name_them(book):
    market = random_market(count=15, assets=2)
    first, second = market
    read = read_bars(book(**{name: rows_of(bars) for name, bars in market.items()}))
    for asset, bars in market.items():
        assert_same(read[asset], bars)
    path = book(**{first: rows_of(market[first]), second: [["date", "close"], ["2024-01-31", "x"]]})
    with pytest.raises(DataError, match=rf"XY\.xlsx, sheet '{second}', line 2.*'x'"):
        read_bars(path)
    with pytest.raises(DataError, match="holds no rows"):
        read_bars(book(A=[]))


def test_headers_of_two_levels_in_a_sheet_are_read(tmp_path):
    pytest.importorskip("openpyxl")
    market = random_market(count=15, assets=2)
    table = pd.concat(market, axis="columns", sort=True).tz_localize(None).rename_axis("date")
    table.to_excel(tmp_path / "x.xlsx")  # merges cells
    for asset, bars in read_bars(tmp_path / "x.xlsx").items():
        assert_same(bars, market[asset])
