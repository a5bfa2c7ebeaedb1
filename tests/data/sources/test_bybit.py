"""Bybit as it should be: all bars, finished ones alone, and only those that are missing."""

import json
import re
import time
from types import SimpleNamespace

import bybit_server as play
import numpy as np
import pandas as pd
import pytest
from bybit_fetching import END, KEY, START, assert_bars, assert_sound, get
from bybit_server import Exchange, altered_rows, serving

from maml_jax.data.interval import parse_interval
from maml_jax.data.sources.http import RateLimit, Retries
from maml_jax.data.store.series_files import read_revisions
from maml_jax.data.store.store import Store
from maml_jax.errors import DataError


@pytest.mark.parametrize("category", ["spot", "linear", "inverse"])
@pytest.mark.parametrize(
    ("interval", "asked", "start"),
    [
        ("1", "1", "2024-01-09T20:00Z"),
        ("15m", "15", "2023-12-20"),
        ("60", "60", "2023-09-01"),
        ("4h", "240", "2022-01-01"),
        ("D", "D", "2021-01-01"),
        ("1w", "W", "2021-01-01"),
        ("1M", "M", "2021-01-01"),
    ],
)
def test_all_intervals_come_whole_and_finished(exchange, store, category, interval, asked, start):
    with serving(exchange) as address:
        report = get(address, store, interval=interval, start=start, end=None, category=category)
    assert report.errors == {}
    bars = report.bars["BTCUSDT"]
    assert_bars(bars, exchange.bars("BTCUSDT", asked, start, exchange.now))
    assert parse_interval(interval).after(bars.index[-1]) <= exchange.now
    assert {query["category"] for query in exchange.requests} == {category}
    assert {query["interval"] for query in exchange.requests} == {asked}
    assert report.series[0].key.source == f"bybit-{category}"


def test_what_cannot_pass_is_asked_once(exchange, store):
    exchange.always = play.code(10001)
    with serving(exchange) as address:
        get(address, store)
    assert len(exchange.requests) == 1


def test_one_symbol_that_fails_keeps_no_other_from_coming(exchange, store):
    with serving(exchange) as address:
        report = get(address, store, ["BTCUSDT", "NONE", "ETHUSDT"])
    (error,) = report.errors.values()
    assert "NONE (linear): Not supported symbols; are symbol and category right?" in str(error)
    assert [*report.bars] == ["BTCUSDT", "ETHUSDT"]
    assert [key.symbol for key in store.keys()] == ["BTCUSDT", "ETHUSDT"]
    for symbol, bars in report.bars.items():
        assert_bars(bars, exchange.bars(symbol, "60", START, END))


def test_nobody_listens(store):
    with serving(Exchange()) as address:
        pass
    report = get(address, store)
    assert "connection failed" in str(report.errors["BTCUSDT"])
    assert not store.root.exists()


def test_a_symbol_without_any_bar_leaves_no_trace(exchange, store):
    with serving(exchange) as address:
        report = get(address, store, start="2020-01-01", end="2021-01-01")
    assert "has no bars of BTCUSDT (1h) from 2020-01-01" in str(report.errors["BTCUSDT"])
    assert store.keys() == []


def test_bars_before_the_listing_are_asked_for_once(exchange, store):
    with serving(exchange) as address:
        get(address, store, start="2021-01-01", end="2024-01-10T11:00Z")
        asked = len(exchange.requests)
        get(address, store, start="2021-01-01", end="2024-01-10T11:00Z")
    assert len(exchange.requests) == asked
    assert_sound(store, exchange)


def test_a_server_that_sends_few_rows_leaves_no_hole(exchange, store):
    exchange.rows_most = 200
    with serving(exchange) as address:
        report = get(address, store)
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", START, END))


@pytest.mark.long
@pytest.mark.parametrize("most", [pytest.param(1, marks=pytest.mark.slow), 200, 500])
def test_few_rows_and_a_bar_that_there_is_not(exchange, store, most):
    exchange.rows_most = most
    exchange.absent = {int(t) for t in exchange.opens("60")[[13000, 13001, 13500]]}
    with serving(exchange) as address:
        report = get(address, store, start="2023-11-20", per_second=None)
    assert report.errors == {}
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", "2023-11-20", END))


def test_a_window_that_comes_empty_twice_is_asked_for_again(exchange, store):
    empty = altered_rows(lambda rows: [])
    exchange.faults = [None, empty, empty]
    with serving(exchange) as address:
        report = get(address, store)
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", START, END))


def test_what_a_server_says_is_one_plain_line(exchange, store):
    exchange.always = play.code(10001, "no\n\x1b[31mline two")
    with serving(exchange) as address:
        report = get(address, store)
    assert "no [31mline two; are symbol" in str(report.errors["BTCUSDT"])


def test_bars_that_the_exchange_lacks_are_a_gap(exchange, store):
    exchange.absent = {int(t) for t in exchange.opens("60")[9000:9300]}
    with serving(exchange) as address:
        report = get(address, store, start="2023-01-01")
    assert report.errors == {}
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", "2023-01-01", END))


def test_a_second_fetch_brings_only_what_is_new(exchange, store):
    with serving(exchange) as address:
        first = get(address, store, end=None)
        asked, overlap = len(exchange.requests), first.bars["BTCUSDT"].index[-10]
        exchange.now += pd.Timedelta(hours=30)
        exchange._rows.clear()
        second = get(address, store, start=None, end=None)
    assert len(exchange.requests) == asked + 1
    assert int(exchange.requests[-1]["start"]) == overlap.timestamp() * 1000
    assert second.series[0].added == 30
    assert len(second.series[0].revised) == 0
    assert_sound(store, exchange)


def test_a_day_before_what_is_there_is_fetched_too(exchange, store):
    with serving(exchange) as address:
        get(address, store, start="2023-12-01")
        report = get(address, store, start="2023-11-01")
    assert_bars(report.bars["BTCUSDT"], exchange.bars("BTCUSDT", "60", "2023-11-01", END))
    assert len(store.covered(KEY)) == 1


def test_a_bar_that_was_revised_is_told_and_kept_track_of(exchange, store):
    with serving(exchange) as address:
        get(address, store, end="2024-01-09T23:00Z")
        opened = exchange.opens("60")
        opened = opened[opened <= pd.Timestamp("2024-01-09T23:00Z").value // 10**6]
        exchange.changed = {int(t): "99.99" for t in opened[-25:]}
        report = get(address, store)
    revised = report.series[0].revised
    assert len(revised) == 25  # farther back than the overlap
    assert set(revised["column"]) == {"close"} and set(revised["after"]) == {99.99}
    assert_sound(store, exchange)
    assert store.info(KEY).revised == 25
    kept = read_revisions(next(store.root.glob("**/revisions.csv"))).sort_index()
    pd.testing.assert_frame_equal(kept, revised)


def test_the_same_bars_make_the_same_bytes_whatever_the_order(exchange, tmp_path):
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    with serving(exchange) as address:
        get(address, one)
        get(address, two, start="2023-12-01", end="2023-12-31")
        get(address, two, start="2023-10-05", end="2023-10-06")
        get(address, two)
        get(address, two, again=True)
    assert contents(one) == contents(two)


def contents(store):
    files = [path for path in store.root.glob("**/*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(store.root)): path.read_bytes() for path in files}


def test_many_symbols_share_one_pace(exchange, store, monkeypatch):
    limits, request = [], RateLimit.request
    monkeypatch.setattr(RateLimit, "request", lambda limit: limits.append(limit) or request(limit))
    exchange.symbols = {f"S{i}" for i in range(6)}
    patient = {"timeout": 60.0, "deadline": 60.0}
    with serving(exchange) as address:
        get(
            address, store, sorted(exchange.symbols), start="2023-12-01", per_second=50.0, **patient
        )
    assert len(limits) == len(exchange.requests) == 6
    assert len(set(limits)) == 1


def test_a_pace_is_kept(monkeypatch):
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: now.append(now.pop() + s))
    monkeypatch.setattr("maml_jax.data.sources.http.time", clock)
    limit, begun = RateLimit(per_second=50.0), []
    for _ in range(6):
        with limit.request():
            begun.append(now[0])
    np.testing.assert_allclose(np.diff(begun), 1 / 50)


def test_what_the_headers_allow_is_obeyed(exchange, store):
    """A server that allows four requests in a period refuses none, however many threads ask."""
    state = {"reset": 0.0, "left": 4, "refused": 0}

    def headers():
        return {
            "X-Bapi-Limit": "4",
            "X-Bapi-Limit-Status": str(max(0, state["left"])),
            "X-Bapi-Limit-Reset-Timestamp": str(int(state["reset"] * 1000)),
        }

    def police(server, query, reply):
        if time.time() >= state["reset"]:
            state["reset"], state["left"] = time.time() + 0.3, 4
        state["left"] -= 1
        if state["left"] < 0:
            state["refused"] += 1
            return play.code(10006)(server, query, reply)
        return reply | {"headers": headers()}

    exchange.always = police
    with serving(exchange) as address:
        report = get(address, store, ["BTCUSDT", "ETHUSDT"], workers=2)
    assert report.errors == {}
    assert len(exchange.requests) > 4
    assert state["refused"] == 0


def test_a_limit_counts_requests_on_their_way():
    limit = RateLimit()
    limit.learn(limit=3, left=2, seconds=60.0)
    assert limit._take() == 0 and limit._take() == 0
    assert limit._take() > 50
    limit.learn(limit=3, left=2, seconds=60.0)  # a reply from before the two
    assert limit._take() > 50


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interval": "7"}, "interval 7m: Bybit has 1m, 3m"),
        ({"interval": "soon"}, "interval 'soon': expected one such as 5m"),
        ({"start": "2024-01-05", "end": "2024-01-01"}, "start 2024-01-05 .* is after end"),
        ({"start": "monday"}, "'monday' is not a date"),
        ({"start": None}, "start is required: the store has no bars of BTCUSDT"),
        ({"symbols": []}, "at least one symbol"),
        ({"category": "option"}, "category 'option': expected one of"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(store, options, said):
    address = "http://127.0.0.1:9"
    try:
        report = get(address, store, **options)
    except DataError as error:
        failure = error
    else:
        (failure,) = report.errors.values()
    assert re.search(said, str(failure))
    assert not store.root.exists()


def test_replies_of_the_documentation_are_read(shared_data, store):
    kline = (shared_data / "bybit/kline_inverse_BTCUSD_60_docs.json").read_text()
    rate = (shared_data / "bybit/error_10006_rate_limit_HANDWRITTEN.json").read_text()
    late = (shared_data / "bybit/error_10016_request_timeout.json").read_text()
    symbols = (shared_data / "bybit/error_10001_not_supported_symbols.json").read_text()
    exchange = Exchange()
    exchange.faults = [play.status(200, text) for text in (rate, late, kline)]
    span = {"start": "2022-12-09T16:00Z", "end": "2022-12-09T18:00Z", "category": "inverse"}
    with serving(exchange) as address:
        report = get(address, store, "BTCUSD", **span)
        assert report.errors == {}
        expected = np.array(json.loads(kline)["result"]["list"])[::-1].astype(float)
        assert_bars(report.bars["BTCUSD"], expected[:, :6])
        exchange.always = play.status(200, symbols)
        report = get(address, store, "OTHER", **span)
    assert "10001 for OTHER (inverse): Not supported symbols" in str(report.errors["OTHER"])


def test_a_reply_without_end_is_refused_once(exchange, store, monkeypatch):
    monkeypatch.setattr("maml_jax.data.sources.http._MOST_BYTES", 1000)
    with serving(exchange) as address:
        report = get(address, store)
    assert "longer than a gigabyte" in str(report.errors["BTCUSDT"])
    assert len(exchange.requests) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ftp://127.0.0.1", "http://"])
def test_what_is_no_address_is_said_at_once(store, address):
    report = get(address, store, retries=Retries(50, first=5.0))
    assert "not an address" in str(report.errors["BTCUSDT"])


def test_a_period_of_which_nobody_hears_is_as_long_as_the_last():
    limit = RateLimit()
    limit.learn(limit=2, left=0, seconds=0.01)
    time.sleep(0.02)
    assert limit._take() == 0 and limit._take() == 0
    assert limit._take() < 1.1
