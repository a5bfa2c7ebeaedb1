"""Whatever separator, encoding, line ends and lines above: the same bars, or one clear error."""

import itertools

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.data import read_bars, to_bars
from maml_jax.data.reading.headers import find_header, split_rows
from maml_jax.data.reading.layouts import LAYOUTS
from maml_jax.errors import DataError

BARS = random_bars(count=30)
TEXT = BARS.to_csv()


def write(folder, content, name="XY.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def assert_same(path, expected=BARS, **options):
    (bars,) = read_bars(path, **options).values()
    pd.testing.assert_frame_equal(bars, expected, check_freq=False, rtol=1e-12)


ABOVE = {
    "none": "",
    "a title": "Prices of XY\n",
    "lines, one blank": 'Historical Data\n\n"From 2020-01-01 to 2020-12-31"\nNL0010273215\n',
    "as wide as the table": "Prices,,,,,\nExported,2024-01-01,,,,\n",
    "a comment": "# source, where, when\n",
}


WRITTEN = itertools.cycle(
    [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\n"), ("utf-32", "\r")]
)


@pytest.mark.parametrize(
    ("separator", "above", "written"),
    [(*pair, next(WRITTEN)) for pair in itertools.product(",;\t|", ABOVE)],
)
def test_separators_encodings_and_lines_above_change_nothing(tmp_path, separator, above, written):
    encoding, end = written
    text = (ABOVE[above] + TEXT).replace(",", separator).replace("\n", end)
    assert_same(write(tmp_path, text.encode(encoding)))


def test_lines_above_the_header_may_be_counted(tmp_path):
    for above in ("a,b,c,d,e,f\n" * 2, "2020-01-01,1,2,3,4,5\n", ABOVE["lines, one blank"]):
        assert_same(write(tmp_path, above + TEXT), skip_lines=above.count("\n"))


@pytest.mark.parametrize(
    ("encoding", "extra"),
    [("gbk", "名称"), ("big5", "名稱"), ("shift_jis", "銘柄"), ("cp1252", "Währung"),
     ("cp1251", "имя"), ("utf-16-le", "é"), ("utf-16-be", "é")],
)  # fmt: skip
def test_other_encodings_are_read_by_name_and_asked_for_without(tmp_path, encoding, extra):
    text = BARS.assign(**{extra: extra}).to_csv().encode(encoding)
    path = write(tmp_path, text)
    assert_same(path, encoding=encoding)
    with pytest.raises(DataError, match=r"XY\.csv.*encoding='"):
        read_bars(path)
    with pytest.raises(DataError, match=r"encoding='klingon': no such encoding"):
        read_bars(path, encoding="klingon")


def test_utf_16_cut_after_a_line_is_read(tmp_path):
    assert_same(write(tmp_path, TEXT.encode("utf-16")[:-1]))


@pytest.mark.parametrize("names", [None, ("Price", "Ticker"), ("Ticker", "Price")])
@pytest.mark.parametrize("index", [None, "Date"])
@pytest.mark.parametrize("assets", [1, 2])
def test_headers_of_two_levels_give_the_bars_of_the_frame_in_memory(tmp_path, names, index, assets):
    market = random_market(count=20, assets=assets)
    first = next(iter(market))
    market[first] = market[first].iloc[5:]  # begins later: cells before are empty
    table = pd.concat(market, axis="columns", names=names, sort=True).rename(
        columns=str.title, level=1
    )
    table.index.name = index
    for each in (table, table.swaplevel(axis="columns").sort_index(axis="columns")):
        expected = to_bars(each)
        read = read_bars(write(tmp_path, each.to_csv()))
        assert list(read) == list(expected) == sorted(market)
        for asset, bars in expected.items():
            pd.testing.assert_frame_equal(read[asset], bars, check_freq=False, rtol=1e-12)
            pd.testing.assert_frame_equal(bars, market[asset], check_freq=False)


def test_errors_under_a_header_of_two_levels_name_the_line(tmp_path):
    text = "Price,Close,Close\nTicker,A,B\nDate,,\n2020-01-01,1,\n2020-01-02,1,x\n"
    with pytest.raises(DataError, match=r"line 5.*'x'"):
        read_bars(write(tmp_path, text))


def without_header(layout):
    """Return the text of bars as an exchange exports them."""
    table = BARS.tz_localize(None).reset_index()
    times = table["timestamp"]
    since = times.astype("datetime64[s]").astype("int64")
    if layout == "histdata":
        table["timestamp"] = times.dt.strftime("%Y%m%d %H%M%S")
        return table.to_csv(index=False, header=False, sep=";")
    if layout == "mt4":
        table.insert(0, "date", times.dt.strftime("%Y.%m.%d"))
        table["timestamp"] = times.dt.strftime("%H:%M")
    if layout == "kraken":
        table["timestamp"], table["trades"] = since, 7
    if layout == "binance":
        table["timestamp"], table["end"] = 1000 * since, 1000 * since + 86_399_999
        table = table.assign(quote=1.0, count=5, taker=0.5, taker_quote=0.5, ignore=0)
    return table.to_csv(index=False, header=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tables_without_a_header_are_read_by_layout_and_refused_without(tmp_path, layout):
    path = write(tmp_path, without_header(layout))
    assert_same(path, layout=layout)
    with pytest.raises(DataError, match=rf"there is no header.*looks like layout='{layout}'"):
        read_bars(path)
    for other in {*LAYOUTS} - {layout}:
        with pytest.raises(DataError, match=rf"XY\.csv.*layout='{other}'"):
            read_bars(path, layout=other)
    path = write(tmp_path, "a title\n" + without_header(layout))
    assert_same(path, layout=layout, skip_lines=1)
    assert_same(path, layout=layout)
    assert_same(write(tmp_path, TEXT), layout=layout)  # some exports have a header after all


def test_columns_may_be_named_in_any_order(tmp_path):
    order = ["volume", "close", "low", "high", "open"]
    table = BARS[order].reset_index().assign(other="x")
    path = write(tmp_path, table.to_csv(index=False, header=False))
    assert_same(path, layout=f"date,{','.join(order)},-")
    with pytest.raises(DataError, match="names 2 columns, but there are 7"):
        read_bars(path, layout="date,close")
    with pytest.raises(DataError, match="layout='excel': expected binance"):
        read_bars(path, layout="excel")
    with pytest.raises(DataError, match="line 1 is one; leave it out"):
        read_bars(write(tmp_path, TEXT), layout="date,open,high,low,close,volume")


FAULTS = {
    "a footer": (TEXT + '"Downloaded from somewhere"\n', r"line 32: .*'Downloaded from.*footer"),
    "a footer in cells": (TEXT + "Data as of 01-02-2024, 05:00pm CST\n", r"line 32: .*footer"),
    "a footer of many cells": (TEXT + "so,much,to,say,of,all,this\n", r"line 32: has 7 fields"),
    "the header again": (TEXT + TEXT, r"line 32: repeats the header"),
    "a unit row": (TEXT.replace("\n", "\n,USD,USD,USD,USD,pcs\n", 1), r"line 2: stands between"),
    "two headers": ("a,b,c,d,e,f\ng,h,i,j,k,l\n" + TEXT.partition("\n")[2], r"skip_lines=1"),
    "dates as columns": ("symbol,2020-01-01,2020-01-02\nA,1,2\n", r"line 1: has dates as names"),
    "an open quote": ("a title\n" + TEXT + '"2021-01-01,1,1', r"line 33: a quotation mark"),
    "too many lines skipped": (TEXT, r"skip_lines=99"),
    "nothing": ("\n\n", r"is empty"),
    "zeros": (TEXT + "\0", r"NUL bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_table_is_refused_with_its_line(tmp_path, fault):
    text, message = FAULTS[fault]
    path = write(tmp_path, text)
    options = {"skip_lines": 99} if "skipped" in fault else {}
    with pytest.raises(DataError, match=message) as caught:
        read_bars(path, **options)
    assert str(caught.value).startswith(str(path))


def test_lines_are_counted_under_lines_above_the_header(tmp_path):
    text = ABOVE["lines, one blank"] + TEXT.replace("2020-01-03", "\n2020-01-33")
    with pytest.raises(DataError, match=r"line 9\b.*2020-01-33"):
        read_bars(write(tmp_path, text))


def test_names_and_numbers_as_assets_are_no_missing_header(tmp_path):
    numbered = "Date,600519,000001\n2020-01-01,1,\n2020-01-02,1,2\n"
    assert list(read_bars(write(tmp_path, numbered))) == ["600519", "000001"]
    assert list(read_bars(write(tmp_path, numbered[4:]))) == ["600519", "000001"]
    ticker = "symbol,date,close\nT,2020-01-01,1\nT,2020-01-02,1\n"
    assert list(read_bars(write(tmp_path, ticker))) == ["T"]
    assert len(read_bars(write(tmp_path, TEXT.replace("\n", ",\n")))["XY"].columns) == 5


def test_the_separator_is_the_one_on_which_the_rows_agree():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cells = int(rng.integers(2, 8))
        numbers = [[f"{x:.2f}".replace(".", ",") for x in rng.normal(size=cells)] for _ in range(9)]
        for separator in "\t;|":
            lines = [separator.join("abcdefgh"[:cells]), *map(separator.join, numbers)]
            assert split_rows("\n".join(lines))[0] == separator
    assert find_header([["date", "close"]], "x").row == 0
