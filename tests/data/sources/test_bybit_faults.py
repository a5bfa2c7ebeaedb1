"""Bybit as it should not be: the right bars or one clear error."""

import re

import bybit_server as play
import pytest
from bybit_fetching import END, IMPATIENT, START, assert_bars, assert_sound, get
from bybit_server import altered, altered_rows, serving


def drop_some(rows):
    return rows[:100] + rows[137:]


def conflicting(rows):
    return [*rows, [rows[0][0], *rows[1][1:]]]


def at_other_times(rows):
    return [[str(int(row[0]) + 60_000), *row[1:]] for row in rows]


def with_value(column, value):
    return lambda rows: [*rows[:5], [*rows[5][:column], value, *rows[5][column + 1 :]], *rows[6:]]


def outside(rows):
    return [*rows, [str(int(rows[-1][0]) - 3_600_000), *rows[0][1:]]]


PASSING = {
    "rate limit": [play.code(10006)],
    "rate limit, three times": [play.code(10006)] * 3,
    "rate limit with headers": [
        play.code(10006, X_Bapi_Limit_Status="0", X_Bapi_Limit_Reset_Timestamp="1"),
    ],
    "request timeout": [play.code(10016)],
    "server timeout": [play.code(10000)],
    "address limit": [play.code(10018)],
    "too many requests": [play.status(429)],
    "too many requests, retry at once": [play.status(429, Retry_After="0")],
    "too many requests, by date": [play.status(429, Retry_After="Wed, 10 Jan 2024 12:00:00 GMT")],
    "server error": [play.status(500, "oops")],
    "bad gateway": [play.status(502, "<html>")],
    "unavailable, three times": [play.status(503)] * 3,
    "truncated JSON": [play.status(200, '{"retCode":0,"result":{"list":[["16')],
    "empty body": [play.status(200, "")],
    "HTML": [play.status(200, "<html><body>maintenance</body></html>")],
    "not UTF-8": [play.status(200, b"\xff\xfe\x00garbage")],
    "JSON that is a list": [play.status(200, "[]")],
    "JSON that is null": [play.status(200, "null")],
    "nested without end": [play.status(200, "[" * 100_000)],
    "no result": [altered(lambda content: content.pop("result") and None)],
    "result is null": [altered(lambda content: content | {"result": None})],
    "no list": [altered(lambda content: content["result"].pop("list") and None)],
    "list is text": [altered_rows(lambda rows: "none")],
    "no time": [altered(lambda content: content.pop("time") and None)],
    "time 0": [altered(lambda content: content | {"time": 0})],
    "time is text": [altered(lambda content: content | {"time": "soon"})],
    "rows are objects": [altered_rows(lambda rows: [{"open": 1}])],
    "row too short": [altered_rows(lambda rows: [rows[0][:3], *rows[1:]])],
    "value is null": [altered_rows(with_value(4, None))],
    "value is a list": [altered_rows(with_value(4, ["1"]))],
    "value is true": [altered_rows(with_value(2, True))],
    "value is empty": [altered_rows(with_value(1, ""))],
    "value is NaN": [altered_rows(with_value(4, "NaN"))],
    "value is infinite": [altered_rows(with_value(4, "Infinity"))],
    "value is a bare NaN": [altered_rows(with_value(4, float("nan")))],
    "price is 0": [altered_rows(with_value(3, "0"))],
    "price is negative": [altered_rows(with_value(3, "-5"))],
    "volume is negative": [altered_rows(with_value(5, "-1"))],
    "time of a row is text": [altered_rows(with_value(0, "yesterday"))],
    "time of a row is 1e400": [altered_rows(with_value(0, "9" * 400))],
    "rows out of order": [altered_rows(lambda rows: rows[::2] + rows[1::2])],
    "oldest first": [altered_rows(lambda rows: rows[::-1])],
    "rows twice": [altered_rows(lambda rows: [row for row in rows for _ in (0, 1)])],
    "two rows of one time differ": [altered_rows(conflicting)],
    "rows outside of the window": [altered_rows(outside)],
    "rows off the hour": [altered_rows(at_other_times)],
    "another symbol": [altered(lambda c: c["result"].update(symbol="ETHUSDT"))],
    "a hole": [altered_rows(drop_some)],
    "only the newest rows": [altered_rows(lambda rows: rows[:200])],
    "only the oldest rows": [altered_rows(lambda rows: rows[-200:])],
    "empty list": [altered_rows(lambda rows: [])],
    "another category": [altered(lambda c: c["result"].update(category="spot"))],
    "retCode is text": [altered(lambda content: content | {"retCode": "0"})],
    "numbers as Python writes them": [altered_rows(with_value(4, "1_000"))],
    "numbers of full width": [altered_rows(with_value(4, "\uff11\uff12"))],
    "body cut off": [play.cut_off],
    "chunks cut off": [play.chunks_cut_off],
    "compressed body cut off": [play.status(200, b"\x1f\x8b\x08\x00", Content_Encoding="gzip")],
    "compressed": [play.compressed],
    "in chunks": [play.chunked],
    "reset in the middle of a page": [play.reset],
    "hung socket": [play.hang],
    "slow drip": [play.drip],
    "one thing after another": [play.reset, play.status(500), altered_rows(conflicting)],
}  # fmt: skip

LASTING = {
    "rate limit": (play.code(10006, "Too many visits!"), "10006 .* visits!; gave up after 4"),
    "request timeout": (play.code(10016, "Server error"), "10016 .*gave up after 4 attempts"),
    "address limit": (play.code(10018), "10018 .*gave up after 4"),
    "parameters": (play.code(10001, "Not supported"), "10001 .*Not supported.*right"),
    "time": (play.code(10002, "invalid time"), "10002 .*invalid time"),
    "unknown code": (play.code(99999, "??"), r"99999 .*\?\?"),
    "forbidden": (play.status(403, "The CloudFront ..."), "HTTP 403.*too many requests.*country"),
    "unauthorised": (play.status(401, "who?"), r"HTTP 401: who\?"),
    "not found": (play.status(404), "no such page; is this an address of Bybit"),
    "too many requests": (play.status(429), "429.*gave up after 4"),
    "server error": (play.status(500), "HTTP 500.*gave up after 4"),
    "HTML": (play.status(200, "<html>closed"), "not from Bybit: '<html>closed'"),
    "truncated": (play.status(200, '{"retCode":0,'), "not from Bybit"),
    "NaN": (altered_rows(with_value(4, "NaN")), "makes no sense: close is nan at 20"),
    "no time": (altered(lambda content: content.pop("time") and None), "makes no sense"),
    "two bars of one time": (altered_rows(conflicting), "two different bars at 20"),
    "body cut off": (play.cut_off, "connection failed.*gave up after 4"),
    "reset": (play.reset, "connection failed.*gave up after 4"),
    "hung socket": (play.hang, "no answer within 0.4 s; gave up"),
}  # fmt: skip


HANGING = ("hung socket", "slow drip")


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_fault_that_passes_leaves_the_right_bars(exchange, store, name, after):
    exchange.faults = [None] * after + PASSING[name]
    with serving(exchange) as address:
        report = get(address, store, **(IMPATIENT if name in HANGING else {}))
    assert report.errors == {}
    assert exchange.faults == []
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", START, END))
    assert_sound(store, exchange)


@pytest.mark.parametrize("name", LASTING)
@pytest.mark.parametrize("after", [0, 2])
def test_a_fault_that_lasts_is_one_clear_error_and_loses_nothing(exchange, store, name, after):
    fault, said = LASTING[name]
    exchange.faults, exchange.always = [None] * after, fault
    with serving(exchange) as address:
        report = get(address, store, **(IMPATIENT if name in HANGING else {}))
        assert len(report.errors) == 1
        assert_sound(store, exchange)
        assert report.series[0].added == 1000 * after
        assert re.search(said, str(report.errors["BTCUSDT"])), report.errors["BTCUSDT"]
        exchange.always = None
        report = get(address, store)
    assert report.errors == {}
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", START, END))
