"""Binance's archive, over loopback and in a folder: exact bars, or one error naming the file."""

import re
import sys

import pandas as pd
import pytest
from binance_server import HEADER, Archive, bars, packed, rows, serving, utc

from maml_jax.data.sources.binance import binance
from maml_jax.data.sources.http import Retries
from maml_jax.data.store.fetch import fetch
from maml_jax.data.store.store import Store
from maml_jax.errors import DataError

QUICK = {"per_second": None, "retries": Retries(3, first=0.001), "timeout": 2.0}
BTC = ("BTCUSDT", "1h")
JANUARY = "2024-01"


@pytest.fixture
def archive():
    return Archive()


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def get(archive, store, start, end, symbols="BTCUSDT", interval="1h", **options):
    made = {key: options.pop(key) for key in [*options] if key in ("checksums", "retries")}
    with serving(archive) as address:
        source = binance(archive.market, address=address, **{**QUICK, **made})
        return fetch(source, symbols, interval, start=start, end=end, store=store, **options)


def one_error(report):
    (error,) = report.errors.values()
    return str(error)


def assert_same(found, expected):
    pd.testing.assert_frame_equal(found, expected, check_freq=False)


def until(report):
    (series,) = report.series
    ((_, ends),) = report.store.covered(series.key)
    return ends


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


def with_line(number, change):
    def apply(archive):
        lines = rows(*BTC, utc("2024-01-01"), utc("2024-02-01"))
        lines[number - 1] = change(lines[number - 1])
        archive.add(*BTC, JANUARY, lines=lines)

    return apply


def with_field(number, field, value):
    def change(line):
        fields = line.split(",")
        fields[field] = value
        return ",".join(fields)

    return with_line(number, change)


def with_body(make):
    def apply(archive):
        path = archive.add(*BTC, JANUARY)
        archive.put(path, make(archive.files[path]))

    return apply


NAME = "BTCUSDT-1h-2024-01.csv"
LATER = str(int(utc("2024-01-01T05:00").timestamp() * 1000))
FAULTY = {
    "a truncated zip": (with_body(lambda body: body[: len(body) // 2]), "the zip is damaged"),
    "no zip": (with_body(lambda body: b"<html>"), "the zip is damaged"),
    "a flipped bit": (
        with_body(lambda body: body[:3000] + bytes([body[3000] ^ 1]) + body[3001:]),
        "the zip is damaged",
    ),
    "an empty zip": (with_body(lambda body: b"PK\5\6" + bytes(18)), "holds nothing, expected"),
    "two members": (
        with_body(lambda body: packed(NAME, ["1"], other="2")),
        f"holds {NAME}, other, expected {NAME} alone",
    ),
    "another member": (
        with_body(lambda body: packed("../../x.csv", ["1"])),
        r"holds \.\./\.\./x.csv, expected",
    ),
    "no rows": (with_body(lambda body: packed(NAME, [HEADER])), "holds no rows"),
    "nothing at all": (with_body(lambda body: packed(NAME, [])), "holds no rows"),
    "no text": (with_body(lambda body: packed(NAME, b"\xff\xfe\x00")), "holds no text"),
    "another header": (
        with_body(lambda body: packed(NAME, ["open_time,price,x"])),
        "line 1: the columns are",
    ),
    "a short row": (with_line(7, lambda line: line[:40]), "line 7: . columns, expected 12"),
    "an empty row": (with_line(7, lambda line: ""), "line 7: 1 columns, expected 12"),
    "text for a price": (with_field(9, 2, "dear"), "line 9: not all are numbers: .*dear"),
    "no price": (with_field(9, 4, ""), "line 9: not all are numbers"),
    "NaN": (with_field(9, 4, "NaN"), "line 9: close is nan at 2024-01-01 08"),
    "infinity": (with_field(9, 1, "inf"), "line 9: open is inf"),
    "a price of 0": (with_field(9, 3, "0.0"), "line 9: low is 0 at"),
    "a negative price": (with_field(9, 3, "-1"), "line 9: low is -1 at"),
    "a negative volume": (with_field(9, 5, "-1"), "line 9: volume is -1 at"),
    "text for a time": (with_field(9, 0, "monday"), "line 9: 'monday' is no time"),
    "a time in seconds": (with_field(9, 0, "1704067200"), "line 9: '1704067200' is no time"),
    "a time in nanoseconds": (with_field(9, 0, LATER + "000000"), "line 9: .* is no time"),
    "a time off the hour": (
        with_field(9, 0, str(int(LATER) + 60_000)),
        "line 9: a bar opens at 2024-01-01 05:01.*not one of those every 1h",
    ),
    "a time twice": (with_field(9, 0, LATER), "line 9: a bar opens at .*05:00.*second time"),
    "a time of another month": (
        with_field(9, 0, str(int(utc("2024-02-01").timestamp() * 1000))),
        "line 9: a bar opens at 2024-02-01 .* outside of 2024-01-01 .* to 2024-02-01",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_file_is_one_error_that_names_it(archive, store, tmp_path, name):
    spoil, said = FAULTY[name]
    spoil(archive)
    report = get(archive, store, "2024-01-01", "2024-01-31")
    error = one_error(report)
    assert re.search(said, error), error
    assert f"{archive.path(*BTC, JANUARY)}" in error
    assert store.keys() == []
    archive.write(tmp_path / "zips")
    source = binance(folder=tmp_path / "zips")
    error = one_error(fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store))
    assert re.search(said, error) and archive.path(*BTC, JANUARY) in error


def test_what_came_before_a_faulty_file_is_kept(archive, store):
    archive.add(*BTC, "2023-12")
    with_field(9, 4, "NaN")(archive)
    report = get(archive, store, "2023-12-01", "2024-01-31")
    assert "line 9: close is nan" in one_error(report)
    assert until(report) == utc("2024-01-01")
    archive.add(*BTC, JANUARY)
    report = get(archive, store, "2023-12-01", "2024-01-31")
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2023-12-01T00Z", "2024-02-01T00Z"))


def test_a_member_that_is_too_large_is_not_unpacked(archive, store, monkeypatch):
    monkeypatch.setattr(sys.modules[binance.__module__], "_MOST_BYTES", 1 << 20)
    with_body(lambda body: packed(NAME, ["0" * (2 << 20)]))(archive)
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31"))
    assert "has 2097153 bytes, more than 1048576" in error


def test_a_member_that_lies_about_its_size_is_refused(archive, store):
    def lie(body):
        honest = (100_001).to_bytes(4, "little")
        assert body.count(honest) == 2
        return body.replace(honest, (100).to_bytes(4, "little"))

    with_body(lambda body: lie(packed(NAME, ["0" * 100_000])))(archive)
    assert "the zip is damaged" in one_error(get(archive, store, "2024-01-01", "2024-01-31"))


PASSING = {
    "a server that fails": (500, b"oops"),
    "too many requests": (429, b""),
    "half a zip": "half",
    "another zip": "other",
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_leaves_the_right_bars(archive, store, name):
    path = archive.add(*BTC, JANUARY)
    whole = archive.files[path]
    fault = PASSING[name]
    if fault == "half":
        fault = (200, whole[: len(whole) // 2])
    elif fault == "other":
        fault = (200, packed(NAME, rows("OTHER", "1h", utc("2024-01-01"), utc("2024-02-01"))))
    archive.faults[path] = [fault]
    report = get(archive, store, "2024-01-01", "2024-01-31")
    assert report.errors == {}
    assert_same(report.bars["BTCUSDT"], bars(*BTC, "2024-01-01T00Z", "2024-02-01T00Z"))


def test_a_checksum_that_passes_and_one_that_does_not(archive, store):
    path = archive.add(*BTC, JANUARY)
    archive.faults[f"{path}.CHECKSUM"] = [(200, b"<html>"), (503, b"")]
    assert get(archive, store, "2024-01-01", "2024-01-31").errors == {}
    archive.files[f"{path}.CHECKSUM"] = b"0" * 64 + b"  BTCUSDT-1h-2024-01.zip\n"
    report = get(archive, store, "2024-01-01", "2024-01-31", again=True)
    assert re.search(f"{path}: its SHA-256 is .*, and 000.*; gave up after 3", one_error(report))
    archive.files[f"{path}.CHECKSUM"] = b"0" * 64 + b"  OTHER.zip\n"
    report = get(archive, store, "2024-01-01", "2024-01-31", again=True)
    assert "its .CHECKSUM is about OTHER.zip" in one_error(report)


def test_a_missing_checksum_says_how_to_go_on(archive, store, tmp_path):
    path = archive.add(*BTC, JANUARY)
    del archive.files[f"{path}.CHECKSUM"]
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31"))
    assert f"{path}: there is no .CHECKSUM beside it" in error and "checksums=False" in error
    archive.write(tmp_path / "zips")
    source = binance(folder=tmp_path / "zips")
    error = one_error(fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store))
    assert "there is no .CHECKSUM beside it" in error and "--no-checksums" in error
    report = get(archive, store, "2024-01-01", "2024-01-31", checksums=False)
    assert report.errors == {}
    source = binance(folder=tmp_path / "zips", checksums=False)
    report = fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store, again=True)
    assert report.errors == {} and report.series[0].added == 0


def test_a_zip_that_was_changed_on_disk_is_named(archive, store, tmp_path):
    path = archive.add(*BTC, JANUARY)
    archive.write(tmp_path / "zips")
    other = packed(NAME, rows("OTHER", "1h", utc("2024-01-01"), utc("2024-02-01")))
    (tmp_path / "zips" / path).write_bytes(other)
    source = binance(folder=tmp_path / "zips")
    error = one_error(fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store))
    assert re.search("BTCUSDT-1h-2024-01.zip: its SHA-256 is .* download it again", error)


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
    assert "have one name; keep one of them" in error


def test_what_cannot_be_asked_for_is_refused(archive, store, tmp_path):
    with pytest.raises(DataError, match="market 'margin': expected one of"):
        binance("margin")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        binance(folder=tmp_path / "nowhere")
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31", interval="7m"))
    assert "interval 7m: Binance's archive has 1m, 3m" in error
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31", "../BTC"))
    assert "'../BTC' is no symbol" in error
    assert archive.requests == []


def test_a_refusal_is_told(archive, store):
    archive.faults[archive.path(*BTC, JANUARY)] = [(451, b"no")]
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31"))
    assert "HTTP 451: Binance's archive is not served in this country" in error
