"""Binance's archive, over loopback and in a folder: exactly the bars that were asked for."""

import re

import pandas as pd
import pytest
from binance_fetching import BTC, JANUARY, assert_same, get, one_error, until
from binance_server import Archive, bars, rows, utc

from maml_jax.data.sources.binance import binance
from maml_jax.data.store.fetch import fetch
from maml_jax.errors import DataError


@pytest.mark.parametrize("market", ["spot", "um", "cm"])
@pytest.mark.parametrize("header", [False, True])
def test_months_come_exactly(store, market, header):
    archive = Archive(market)
    for month in ("2024-11", "2024-12", "2025-01"):  # the last one in microseconds
        archive.add(*BTC, month, header=header)
    report = get(archive, store, "2024-11-01", "2025-01-31")
    assert report.errors == {}
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-11-01T00Z", "2025-02-01T00Z"))
    assert report.series[0].key.source == f"binance-{market}"
    assert until(report) == utc("2025-02-01")
    assert len(archive.requests) == 6


def test_one_file_may_hold_both_units_of_time(archive, store):
    first = rows(*BTC, utc("2024-01-01"), utc("2024-01-10"), microseconds=False)
    second = rows(*BTC, utc("2024-01-10"), utc("2024-02-01"), microseconds=True)
    archive.add(*BTC, JANUARY, lines=first + second)
    report = get(archive, store, "2024-01-01", "2024-01-31")
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-01-01T00Z", "2024-02-01T00Z"))


def test_minutes_carriage_returns_and_a_last_line_that_is_empty(archive, store):
    lines = rows("BTCUSDT", "1m", utc("2024-01-02"), utc("2024-01-03"))
    archive.add("BTCUSDT", "1m", "2024-01-02", lines=[line + "\r" for line in lines] + ["\r", ""])
    report = get(archive, store, "2024-01-02", "2024-01-02", interval="1m")
    assert_same(report.bars["BTCUSDT"], bars("BTCUSDT", "1m", "2024-01-02T00Z", "2024-01-03T00Z"))


def test_only_what_is_asked_for_comes(archive, store):
    archive.add(*BTC, JANUARY)
    report = get(archive, store, "2024-01-05T07:30Z", "2024-01-20T06:00Z")
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-01-05T08Z", "2024-01-20T07Z"))


def test_days_follow_months_until_the_last_published_one(archive, store):
    archive.add(*BTC, JANUARY)
    archive.add_days(*BTC, "2024-02-01", "2024-03-04")
    report = get(archive, store, "2024-01-01", "2024-03-20")
    assert report.errors == {}
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-01-01T00Z", "2024-03-05T00Z"))
    assert until(report) == utc("2024-03-05")


def test_what_is_published_later_is_fetched_later(archive, store):
    archive.add(*BTC, JANUARY)
    archive.add_days(*BTC, "2024-02-01", "2024-02-03")
    get(archive, store, "2024-01-01", "2024-02-10")
    archive.add_days(*BTC, "2024-02-04", "2024-02-07")
    archive.requests.clear()
    report = get(archive, store, None, "2024-02-10")
    assert report.series[0].added == 4 * 24
    assert len(report.series[0].revised) == 0
    assert not any("2024-01" in path or "02-01" in path for path in archive.requests)
    archive.add(*BTC, "2024-02")
    report = get(archive, store, "2024-01-01", "2024-02-29")
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-01-01T00Z", "2024-03-01T00Z"))


def test_nothing_new_is_no_error(archive, store):
    archive.add(*BTC, JANUARY)
    get(archive, store, "2024-01-01", "2024-02-05")
    report = get(archive, store, None, "2024-02-06")
    assert report.errors == {} and report.series[0].added == 0
    assert until(report) == utc("2024-02-01")


def test_a_day_that_the_archive_lacks_is_passed_over(archive, store):
    archive.add_days(*BTC, "2024-02-01", "2024-02-20")
    lacking = [utc("2024-02-07"), utc("2024-02-08")]
    for day in lacking:
        del archive.files[archive.path(*BTC, day.strftime("%Y-%m-%d"))]
    report = get(archive, store, "2024-02-01", "2024-02-25")
    assert report.errors == {}
    expected = bars(*BTC, "2024-02-01T00Z", "2024-02-21T00Z", lacking)
    assert_same(report.bars["BTCUSDT"], expected)
    assert until(report) == utc("2024-02-21")


def test_days_that_a_monthly_file_lacks_are_taken_from_daily_files(archive, store):
    archive.add(*BTC, JANUARY, end=utc("2024-01-08"))
    archive.add_days(*BTC, "2024-01-08", "2024-01-31")
    report = get(archive, store, "2024-01-01", "2024-01-31")
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-01-01T00Z", "2024-02-01T00Z"))


@pytest.mark.parametrize("missing", [["2024-02"], ["2024-02", "2024-03"]])
def test_months_without_a_monthly_file_are_taken_from_daily_files(archive, store, missing):
    for month in ("2024-01", "2024-02", "2024-03", "2024-04", "2024-05"):
        if month in missing:
            last = (utc(month) + pd.offsets.MonthEnd()).strftime("%Y-%m-%d")
            archive.add_days("BTCUSDT", "1d", f"{month}-01", last)
        else:
            archive.add("BTCUSDT", "1d", month)
    report = get(archive, store, "2024-01-01", "2024-05-31", interval="1d")
    assert_same(report.bars["BTCUSDT"], bars("BTCUSDT", "1d", "2024-01-01T00Z", "2024-06-01T00Z"))


def test_years_before_the_listing_cost_few_requests(archive, store):
    archive.add("BTCUSDT", "1d", "2024-03", start=utc("2024-03-12"))
    for month in ("2024-04", "2024-05"):
        archive.add("BTCUSDT", "1d", month)
    report = get(archive, store, "2010-01-01", "2024-05-31", interval="1d")
    assert_same(report.bars["BTCUSDT"], bars("BTCUSDT", "1d", "2024-03-12T00Z", "2024-06-01T00Z"))
    assert len(archive.requests) < 3 * 80 + 70
    assert not any("2016" in path for path in archive.requests)


def test_the_month_before_the_first_monthly_file_is_looked_through(archive, store):
    archive.add_days("BTCUSDT", "1d", "2024-01-20", "2024-01-25")  # its last day is missing
    for month in ("2024-02", "2024-03", "2024-04"):
        archive.add("BTCUSDT", "1d", month)
    report = get(archive, store, "2023-06-01", "2024-04-30", interval="1d")
    lacking = list(pd.date_range("2024-01-26", "2024-01-31", tz="UTC"))
    expected = bars("BTCUSDT", "1d", "2024-01-20T00Z", "2024-05-01T00Z", lacking)
    assert_same(report.bars["BTCUSDT"], expected)


def test_a_listing_without_any_monthly_file(archive, store):
    archive.add_days("BTCUSDT", "1d", "2024-02-10", "2024-03-05")
    report = get(archive, store, "2023-01-01", "2024-03-10", interval="1d")
    assert_same(report.bars["BTCUSDT"], bars("BTCUSDT", "1d", "2024-02-10T00Z", "2024-03-06T00Z"))


def test_an_end_that_lies_ahead_is_none(archive, store):
    today = pd.Timestamp.now("UTC").floor("D")
    first = today - pd.Timedelta(days=5)
    archive.add_days("BTCUSDT", "1d", first, today - pd.Timedelta(days=2))
    report = get(archive, store, str(first.date()), "2099-01-01", interval="1d")
    assert len(report.bars["BTCUSDT"]) == 4
    assert until(report) == today - pd.Timedelta(days=1)


def test_weeks_and_months_stand_where_they_open(archive, store):
    for month in ("2024-01", "2024-02"):
        archive.add("BTCUSDT", "1w", month)
        archive.add("BTCUSDT", "1mo", month)
    # A file that was written before its last week was over.
    whole = archive.add("BTCUSDT", "1w", "2024-03")
    finished = archive.files[whole], archive.files[f"{whole}.CHECKSUM"]
    archive.add("BTCUSDT", "1w", "2024-03", end=utc("2024-03-25"))
    report = get(archive, store, "2024-01-01", "2024-04-20", interval="1w")
    assert_same(report.bars["BTCUSDT"], bars("BTCUSDT", "1w", "2024-01-01T00Z", "2024-03-25T00Z"))
    archive.files[whole], archive.files[f"{whole}.CHECKSUM"] = finished
    report = get(archive, store, None, "2024-04-20", interval="1w")
    assert report.series[0].added == 1
    assert not any("daily" in path for path in archive.requests)
    report = get(archive, store, "2024-01-01", "2024-02-29", interval="1mo")
    assert_same(report.bars["BTCUSDT"], bars("BTCUSDT", "1mo", "2024-01-01T00Z", "2024-03-01T00Z"))


def test_symbols_come_side_by_side_and_one_that_is_not_there_harms_none(archive, store):
    names = ["BTCUSDT", "ETHUSDT", "币安USDT"]
    for name in names:
        archive.add(name, "1d", JANUARY)
    report = get(archive, store, "2024-01-01", "2024-01-31", [*names, "NONE"], interval="1d")
    assert re.search("binance-spot has no bars of NONE .* is the symbol right", one_error(report))
    for name in names:
        assert_same(report.bars[name], bars(name, "1d", "2024-01-01T00Z", "2024-02-01T00Z"))


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_gives_what_the_address_gives(archive, store, tmp_path, flat):
    archive.add(*BTC, "2023-12", start=utc("2023-12-14"))
    archive.add(*BTC, JANUARY)
    archive.add_days(*BTC, "2024-02-01", "2024-02-09")
    archive.write(tmp_path / "zips", flat=flat)
    source = binance(folder=tmp_path / "zips")
    report = fetch(source, *BTC, start="2018-01-01", end="2024-02-20", store=store)
    assert report.errors == {}
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2023-12-14T00Z", "2024-02-10T00Z"))
    assert until(report) == utc("2024-02-10")
    report = get(archive, store, "2018-01-01", "2024-02-20", again=True)
    assert report.series[0].added == 0 and len(report.series[0].revised) == 0


def test_markets_and_indices_in_one_folder_are_told_apart(store, tmp_path):
    folder = tmp_path / "zips"
    for market, symbol in (("spot", "BTCUSDT"), ("um", "OTHER")):
        archive = Archive(market)
        archive.add(*BTC, JANUARY, lines=rows(symbol, "1h", utc("2024-01-01"), utc("2024-02-01")))
        archive.write(folder)
    index = folder / "data/futures/um/monthly/markPriceKlines/BTCUSDT/1h"
    index.mkdir(parents=True)
    (index / "BTCUSDT-1h-2024-01.zip").write_bytes(b"")
    for market, symbol in (("spot", "BTCUSDT"), ("um", "OTHER")):
        source = binance(market, folder=folder)
        report = fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store)
        expected = bars(symbol, "1h", "2024-01-01T00Z", "2024-02-01T00Z")
        assert_same(report.bars["BTCUSDT"], expected)


def test_two_files_of_one_name_are_refused(archive, store, tmp_path):
    archive.add(*BTC, JANUARY)
    for copy in ("a", "b"):
        archive.write(tmp_path / "zips" / copy, flat=True)
    source = binance(folder=tmp_path / "zips")
    error = one_error(fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store))
    assert "have the same name; keep one of them" in error


def test_what_cannot_be_asked_for_is_refused(archive, store, tmp_path):
    with pytest.raises(DataError, match="market 'margin': expected one of"):
        binance("margin")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        binance(folder=tmp_path / "nowhere")
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31", interval="7m"))
    assert "interval 7m: Binance's archive has 1m, 3m" in error
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31", "../BTC"))
    assert "'../BTC' is not a Binance symbol" in error
    assert archive.requests == []
