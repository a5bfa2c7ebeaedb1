"""Binance's archive as it should not be: the right bars, or one error that names the file."""

import re
import sys

import pytest
from binance_fetching import BTC, JANUARY, assert_same, get, one_error, until
from binance_server import HEADER, bars, packed, rows, utc

from maml_jax.data.sources.binance import binance
from maml_jax.data.store.fetch import fetch


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
    "no text": (with_body(lambda body: packed(NAME, b"\xff\xfe\x00")), "not text"),
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
    "text for a time": (with_field(9, 0, "monday"), "line 9: 'monday' is not a time"),
    "a time in seconds": (with_field(9, 0, "1704067200"), "line 9: '1704067200' is not a time"),
    "a time in nanoseconds": (with_field(9, 0, LATER + "000000"), "line 9: .* is not a time"),
    "a time off the hour": (
        with_field(9, 0, str(int(LATER) + 60_000)),
        "line 9: a bar opens at 2024-01-01 05:01.*not on the grid of 1h",
    ),
    "a time twice": (with_field(9, 0, LATER), "line 9: a bar opens at .*05:00.*twice"),
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
    assert re.search(
        f"{path}: its SHA-256 is .*, expected 000.*; gave up after 3", one_error(report)
    )
    archive.files[f"{path}.CHECKSUM"] = b"0" * 64 + b"  OTHER.zip\n"
    report = get(archive, store, "2024-01-01", "2024-01-31", again=True)
    assert "its .CHECKSUM is of OTHER.zip" in one_error(report)


def test_a_missing_checksum_says_how_to_go_on(archive, store, tmp_path):
    path = archive.add(*BTC, JANUARY)
    del archive.files[f"{path}.CHECKSUM"]
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31"))
    assert f"{path}: has no .CHECKSUM file" in error and "checksums=False" in error
    archive.write(tmp_path / "zips")
    source = binance(folder=tmp_path / "zips")
    error = one_error(fetch(source, *BTC, start="2024-01-01", end="2024-01-31", store=store))
    assert "has no .CHECKSUM file" in error and "--no-checksums" in error
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


def test_a_refusal_is_told(archive, store):
    archive.faults[archive.path(*BTC, JANUARY)] = [(451, b"no")]
    error = one_error(get(archive, store, "2024-01-01", "2024-01-31"))
    assert "HTTP 451: Binance's archive is not served in this country" in error
