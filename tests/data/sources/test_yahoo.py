"""Yahoo by a stand-in for yfinance, and by yfinance itself with replies that are made up."""

import inspect
import logging
import re
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from yahoo_stand_in import FIELDS, NOW, Yahoo, YFRateLimitError, get, one_error

from maml_jax.data.store.store import Store


@pytest.fixture
def market(monkeypatch):
    return playing(monkeypatch, Yahoo())


def playing(monkeypatch, market):
    monkeypatch.setitem(sys.modules, "yfinance", market.module())
    return market


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def days(bars):
    return [f"{time:%F}" for time in bars.index]


def values(table):
    return table[FIELDS].to_numpy().astype(float)


def test_daily_bars_carry_the_day_of_the_exchange_and_are_over(market, store):
    report = get(market, store, "2024-03-01")
    assert report.errors == {}
    bars = report.bars["AAPL"]
    assert days(bars) == [
        f"{day:%F}" for day in pd.date_range("2024-03-01", "2024-03-14", freq="B")
    ]
    assert (bars.index == bars.index.normalize()).all()
    first, last = (pd.Timestamp(day, tz=market.zone) for day in ("2024-03-01", "2024-03-15"))
    np.testing.assert_array_equal(bars.to_numpy(), values(market.table("1d", first, last)))
    ((_, ends),) = store.covered(report.series[0].key)
    assert f"{ends:%F}" == "2024-03-15"


@pytest.mark.parametrize(
    ("zone", "now", "last"),
    [
        ("America/New_York", "2024-03-15T03:59Z", "2024-03-13"),
        ("America/New_York", "2024-03-15T04:00Z", "2024-03-14"),
        ("Asia/Tokyo", "2024-03-14T14:59Z", "2024-03-13"),
        ("Asia/Tokyo", "2024-03-14T15:00Z", "2024-03-14"),
        ("Europe/London", "2024-03-14T23:59Z", "2024-03-13"),
    ],
)
def test_a_day_is_over_at_midnight_of_the_exchange(monkeypatch, store, zone, now, last):
    market = playing(monkeypatch, Yahoo(zone))
    market.now = pd.Timestamp(now)
    assert days(get(market, store, "2024-03-01").bars["AAPL"])[-1] == last


@pytest.mark.parametrize(
    ("interval", "start", "first", "last"),
    [
        ("1w", "2024-01-03", "2024-01-08", "2024-03-04"),
        ("1mo", "2023-06-15", "2023-07-01", "2024-02-01"),
        ("D", "2024-01-06", "2024-01-08", "2024-03-14"),
    ],
)
def test_weeks_and_months_are_over_too(market, store, interval, start, first, last):
    bars = get(market, store, start, interval=interval).bars["AAPL"]
    assert (days(bars)[0], days(bars)[-1]) == (first, last)


@pytest.mark.parametrize("interval", ["1m", "15m", "1h"])
def test_bars_within_a_day_open_in_utc_and_are_finished(market, store, interval):
    market.now = pd.Timestamp("2024-03-15T18:07:30Z")
    report = get(market, store, "2024-03-07", "2024-03-15T18:07:30Z", interval=interval)
    assert report.errors == {}
    bars = report.bars["AAPL"]
    step = pd.Timedelta({"1m": "1min", "15m": "15min", "1h": "1h"}[interval])
    table = market.table(interval, pd.Timestamp("2024-03-07", tz="UTC"), market.now)
    table = table[table.index + step <= market.now].tz_convert("UTC")
    pd.testing.assert_index_equal(bars.index, table.index.as_unit("us"), check_names=False)
    np.testing.assert_array_equal(bars.to_numpy(), values(table))
    assert f"{bars.index[0]:%F %R}" == "2024-03-07 14:30"
    assert (
        f"{table.index[-1] + step:%R}" == {"1m": "18:07", "15m": "18:00", "1h": "17:30"}[interval]
    )
    spans = [one["end"] - one["start"] for one in market.requests]
    assert max(spans) <= pd.Timedelta(days=8) or interval != "1m"


def test_the_price_of_this_moment_is_no_bar(market, store):
    live = pd.DataFrame([[1.0] * 5], [pd.Timestamp("2024-03-15T15:03:17Z")], FIELDS)
    market.change = lambda table: pd.concat(
        [table[:"2024-03-15T15:00Z"], live.tz_convert(market.zone)]
    )
    report = get(market, store, "2024-03-14", interval="15m")
    assert report.errors == {}
    assert not (report.bars["AAPL"]["close"] == 1.0).any()


@pytest.mark.parametrize("adjusted", [True, False])
def test_what_is_asked_of_yfinance(market, store, adjusted):
    report = get(market, store, "2024-03-01", adjusted=adjusted)
    assert report.series[0].key.source == ("yahoo" if adjusted else "yahoo-unadjusted")
    (asked,) = market.requests
    assert asked["auto_adjust"] is adjusted
    assert asked["start"] == "2024-02-20" and asked["interval"] == "1d"
    assert market.hidden == [False]


@pytest.mark.parametrize("layout", ["field, ticker", "ticker, field", "several", "adj close"])
def test_all_layouts_are_read(market, store, layout):
    def change(table):
        if layout == "adj close":
            return table.assign(**{"Adj Close": 1.0, "Dividends": 0.0})
        names = ["MSFT", "AAPL"] if layout == "several" else ["AAPL"]
        tables = {name: table * (1 if name == "AAPL" else 7) for name in names}
        wide = pd.concat(tables, axis="columns")
        return wide.swaplevel(axis="columns") if layout == "field, ticker" else wide

    plain = get(market, store, "2024-03-01").bars["AAPL"]
    market.change = change
    report = get(market, store, "2024-03-01", again=True)
    assert report.errors == {} and len(report.series[0].revised) == 0
    pd.testing.assert_frame_equal(report.bars["AAPL"], plain)


def test_a_second_fetch_brings_only_what_is_new(market, store):
    get(market, store, "2024-01-01")
    market.now += pd.Timedelta(days=4)
    report = get(market, store, None, "2024-03-19T18:00Z")
    assert report.series[0].added == 2
    assert market.requests[-1]["start"] == "2024-02-20"  # ten bars, and ten days before them
    assert len(report.series[0].revised) == 0


def test_noise_is_no_revision_and_a_dividend_is_one(market, store):
    get(market, store, "2023-01-01", "2024-03-13")
    market.scale = 1 + 1e-6
    report = get(market, store, None)
    assert report.series[0].added > 0 and len(report.series[0].revised) == 0
    market.scale = 0.995
    market.now += pd.Timedelta(days=5)
    report = get(market, store, None, "2024-03-20")
    assert len(report.series[0].revised) > 1000
    closes = report.bars["AAPL"]["close"]
    begins, ends = (pd.Timestamp(day, tz=market.zone) for day in ("2023-01-01", "2024-03-20"))
    np.testing.assert_array_equal(closes, market.table("1d", begins, ends)["Close"])


def test_years_before_the_listing_and_weekends_are_no_error(market, store):
    market.listed = pd.Timestamp("2024-02-01", tz=market.zone)
    report = get(market, store, "1990-01-01")
    assert report.errors == {} and days(report.bars["AAPL"])[0] == "2024-02-01"
    asked = len(market.requests)
    assert get(market, store, "1990-01-01", "2024-03-12").errors == {}
    assert len(market.requests) == asked
    report = get(market, store, "2024-03-09", "2024-03-10", "MSFT")  # nothing but a weekend
    assert "yahoo has no bars of MSFT (1d) from 2024-03-09" in one_error(report)


def test_a_day_that_is_late_is_fetched_later(market, store):
    late = pd.Timestamp("2024-03-14", tz=market.zone)
    market.change = lambda table: table.drop(late)
    assert days(get(market, store, "2024-03-01").bars["AAPL"])[-1] == "2024-03-13"
    market.change = lambda table: table
    assert days(get(market, store, None).bars["AAPL"])[-1] == "2024-03-14"


def test_rows_without_any_price_are_no_bars(market, store):
    def change(table):
        table = table.astype(float)
        table.loc["2024-03-05", FIELDS[:4]] = np.nan
        return table

    market.change = change
    report = get(market, store, "2024-03-01")
    assert report.errors == {}
    assert "2024-03-05" not in days(report.bars["AAPL"]) and len(report.bars["AAPL"]) == 9


def with_value(day, column, value):
    def change(table):
        table = table.astype(float)
        table.loc[day, column] = value
        return table

    return change


UNSOUND = {
    "no open": (with_value("2024-03-05", "Open", np.nan), "open is nan at 2024-03-05"),
    "no volume": (with_value("2024-03-05", "Volume", np.nan), "volume is nan at 2024-03-05"),
    "a price of 0": (with_value("2024-03-06", "Low", 0.0), "low is 0 at 2024-03-06"),
    "a negative price": (with_value("2024-03-06", "Close", -2.0), "close is -2 at 2024-03-06"),
    "an infinite price": (with_value("2024-03-06", "High", np.inf), "high is inf at 2024-03-06"),
    "a negative volume": (with_value("2024-03-06", "Volume", -1.0), "volume is -1 at 2024-03-06"),
    "two of one day": (
        lambda table: pd.concat([table, table.iloc[[3]] * 2]),
        "two different bars at 2024-0",
    ),
    "no zone": (lambda table: table.tz_localize(None), "their times have no time zone"),
    "no times": (lambda table: table.reset_index(drop=True), "their times have no time zone"),
    "no close": (lambda table: table.drop(columns="Close"), "no column 'close' in"),
    "text": (lambda table: table.astype(str) + "x", "could not convert"),
    "other tickers": (
        lambda table: pd.concat({"A": table, "B": table}, axis="columns"),
        "they are of A, B",
    ),
    "other levels": (
        lambda table: pd.concat({"AAPL": table[["Open"]]}, axis="columns"),
        "its columns are",
    ),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_bars_that_cannot_be_right_are_refused(market, store, name):
    market.change, said = UNSOUND[name]
    error = one_error(get(market, store, "2024-03-01"))
    assert re.search(said, error), error
    assert error.startswith("Yahoo returned implausible bars of AAPL (1d)")
    assert store.keys() == []


def test_weeks_that_begin_on_another_day_are_refused(market, store):
    market.change = lambda table: table.set_axis(table.index + pd.Timedelta(days=2))
    error = one_error(get(market, store, "2024-01-01", interval="1w"))
    assert "not every 1w" in error
    market.change = lambda table: table.set_axis(
        [table.index[0] + pd.Timedelta(days=2), *table.index[1:]]
    )
    market.listed = pd.Timestamp("2024-01-15", tz=market.zone)  # its week has three days
    report = get(market, store, "2024-01-01", interval="1w")
    assert report.errors == {} and days(report.bars["AAPL"])[0] == "2024-01-15"


def test_a_symbol_that_is_not_there_is_explained_and_harms_none(market, store):
    report = get(market, store, "2024-03-01", symbols=["AAPL", "APPL", "MSFT"])
    error = one_error(report)
    assert "no bars of APPL (1d)" in error and "no timezone found" in error
    assert "is the symbol written as on finance.yahoo.com" in error and "delisted" in error
    assert [*report.bars] == ["AAPL", "MSFT"]
    assert len(market.requests) == 3  # asking again would not help


@pytest.mark.parametrize("empty", [pd.DataFrame(), None])
def test_an_empty_answer_is_an_error(market, store, empty):
    market.faults = [empty]
    error = one_error(get(market, store, "2024-03-01", interval="15m"))
    assert "has no bars of AAPL (15m) from" in error
    assert "keeps 15m for 60 days only" in error


@pytest.mark.parametrize(("interval", "kept"), [("1m", 30), ("15m", 60), ("1h", 730)])
def test_history_that_yahoo_has_forgotten_is_an_error(market, store, interval, kept):
    old = (market.now - pd.Timedelta(days=kept + 1)).isoformat()
    error = one_error(get(market, store, old, interval=interval))
    assert f"bars of {interval} for the last {kept} days only" in error
    assert market.requests == []
    start = re.search(r"start on (\S+) or later", error)[1]
    assert get(market, store, start, interval=interval).errors == {}
    horizon = market.now - pd.Timedelta(days=kept)
    assert all(asked["start"] > horizon for asked in market.requests)


class Refused(OSError):
    response = SimpleNamespace(status_code=404)


def test_failures_that_pass_are_asked_again(market, store):
    market.faults = [YFRateLimitError("Too Many Requests"), TimeoutError("late")]
    report = get(market, store, "2024-03-01")
    assert report.errors == {} and len(market.requests) == 3
    assert market.cleared == 2


@pytest.mark.parametrize(
    ("failure", "said", "asked"),
    [
        (YFRateLimitError("Too Many"), "rate limit.*gave up after 3 attempts", 3),
        (ConnectionError("no route"), "ConnectionError: no route; gave up after 3", 3),
        (KeyError("chart"), "KeyError: 'chart'; gave up after 3", 3),
        (Refused("HTTP Error 404"), "it says: HTTP Error 404", 1),
    ],
)
def test_failures_that_last_are_explained(market, store, failure, said, asked):
    market.faults = [failure] * 3
    error = one_error(get(market, store, "2024-03-01"))
    assert re.search(said, error), error
    assert len(market.requests) == asked


def test_nothing_is_printed_and_settings_come_back(market, store, capfd, monkeypatch):
    logger = logging.getLogger("yfinance")
    before = list(logger.handlers)
    monkeypatch.setattr(logger, "propagate", False)
    get(market, store, "2024-03-01", symbols=["AAPL", "MSFT", "NONE"])
    assert capfd.readouterr() == ("", "")
    assert logger.handlers == before
    assert sys.modules["yfinance"].config.debug.hide_exceptions is True
    assert market.hidden == [False] * 3


def test_a_missing_package_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "yfinance", None)
    error = one_error(get(Yahoo(), store, "2024-03-01"))
    assert "pip install 'maml-jax[yahoo]'" in error


def test_intervals_that_yahoo_lacks_are_refused(market, store):
    error = get(market, store, "2024-03-01", interval="4h").errors["AAPL"]
    assert "interval 4h: Yahoo has 1m, 2m" in str(error)


def test_a_start_that_lies_ahead_asks_nothing(market, store):
    report = get(market, store, "2030-01-01", "2030-02-01")
    assert "yahoo has no bars of AAPL" in one_error(report)
    assert market.requests == []


def chart(market, interval, params):
    """A reply of Yahoo as yfinance reads it."""
    first, last = (pd.Timestamp(params[key], unit="s", tz="UTC") for key in ("period1", "period2"))
    table = market.table(interval, first, last)
    lists = {name.lower(): table[name].astype(float).tolist() for name in FIELDS}
    meta = {
        "instrumentType": "EQUITY", "exchangeTimezoneName": market.zone, "currency": "USD",
        "validRanges": ["1d", "max"], "priceHint": 2, "gmtoffset": -18000, "timezone": "EST",
        "regularMarketTime": 1, "firstTradeDate": 1,
        "tradingPeriods": [[
            {"start": int(day.timestamp()), "end": int(day.timestamp()) + 23400, "gmtoffset": 0,
             "timezone": "EST"}]
            for day in pd.to_datetime(table.index.date).tz_localize(market.zone).unique()
            + pd.Timedelta(hours=9.5)],
    }  # fmt: skip
    halved = [price / 2 for price in lists["close"]]
    indicators = {"quote": [lists], "adjclose": [{"adjclose": halved}]}
    seconds = table.index.tz_convert("UTC").as_unit("s").asi8.tolist()
    result = {"meta": meta, "timestamp": seconds, "indicators": indicators}
    return {"chart": {"result": [result], "error": None}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pandas, by yfinance
def test_yfinance_itself_takes_what_it_is_given(store, monkeypatch, capfd):
    yfinance = pytest.importorskip("yfinance")
    history = sys.modules["yfinance.scrapers.history"].PriceHistory.history
    used = {"interval", "start", "end", "auto_adjust", "actions", "keepna", "timeout"}
    assert used <= set(inspect.signature(inspect.unwrap(history)).parameters)
    assert yfinance.config.debug.hide_exceptions is True
    assert callable(yfinance.data.YfData.cache_get.cache_clear)
    kinds = yfinance.exceptions
    for kind in (kinds.YFTzMissingError, kinds.YFPricesMissingError):
        assert issubclass(kind, kinds.YFTickerMissingError)
    assert issubclass(kinds.YFRateLimitError, Exception)

    market, missing = Yahoo(), {"chart": {"result": None, "error": {"description": "No data"}}}
    market.now = pd.Timestamp(NOW)

    def reply(self, url, params=None, timeout=30):
        if "period1" not in params:
            content = {"chart": {"result": [{"meta": {"exchangeTimezoneName": market.zone}}]}}
        else:
            content = chart(market, params["interval"], params)
        content = content if url.endswith("/AAPL") else missing
        return SimpleNamespace(text="", json=lambda: content)

    monkeypatch.setattr(yfinance.data.YfData, "get", reply)
    monkeypatch.setattr(yfinance.data.YfData, "cache_get", reply)
    nothing = SimpleNamespace(lookup=lambda name: None, store=lambda name, zone: None)
    monkeypatch.setattr(sys.modules["yfinance.cache"], "get_tz_cache", lambda: nothing)
    monkeypatch.setattr(sys.modules["yfinance.base"], "_tz_info_fetch_ctr", 2)
    report = get(market, store, "2024-03-01", symbols=["AAPL", "APPL"])
    assert re.search("no bars of APPL .*it says: .*APPL.*no timezone found", one_error(report))
    bars = report.bars["AAPL"]
    assert days(bars)[-1] == "2024-03-14" and len(bars) == 10
    unadjusted = get(market, store, "2024-03-01", adjusted=False).bars["AAPL"]
    np.testing.assert_allclose(bars["close"], unadjusted["close"] / 2, rtol=1e-12)
    np.testing.assert_allclose(bars["high"], unadjusted["high"] / 2, rtol=1e-12)
    for interval, start, count in (
        ("1w", "2024-01-01", 10),
        ("1mo", "2024-01-01", 2),
        ("15m", "2024-03-15", 18),
        ("30m", "2024-03-15", 9),
    ):
        report = get(market, store, start, interval=interval)
        assert report.errors == {}
        assert len(report.bars["AAPL"]) == count, interval
    assert capfd.readouterr() == ("", "")
