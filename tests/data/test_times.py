"""Times in any unit, order and spelling become the same bars, or are refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from maml_jax.data import to_bars
from maml_jax.errors import DataError

SCALES = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
STEPS = [60, 300, 900, 3600, 5 * 3600, 86_400, 7 * 86_400]


def index_of(times, **options):
    times = pd.Series(times, name="time")
    table = pd.DataFrame({"time": times, "close": 1.0 + np.arange(len(times))})
    (frame,) = to_bars(table, **options).values()
    return pd.DatetimeIndex(frame.index)


def two_columns(date, time, **options):
    table = pd.DataFrame({"Date": date, "Time": time, "close": 1.0 + np.arange(len(date))})
    (frame,) = to_bars(table, **options).values()
    return pd.DatetimeIndex(frame.index)


@given(
    unit=st.sampled_from(list(SCALES)),
    step=st.sampled_from(STEPS),
    start=st.integers(-60 * 365 * 1440, 60 * 365 * 1440),
    written=st.sampled_from(["numbers", "text"]),
    descending=st.booleans(),
)
@settings(max_examples=70, deadline=None)
def test_numbers_since_1970_have_one_unit(unit, step, start, written, descending):
    seconds = 60 * start // step * step + step * np.arange(60)
    assume(np.abs(seconds).min() > 86_400)  # numbers of the first day are too small to know
    numbers = (seconds * SCALES[unit])[:: -1 if descending else 1]
    read = index_of(numbers.astype(str) if written == "text" else numbers)
    assert list(read.asi8 // 10**6) == list(seconds)
    assert index_of(numbers, date_format=unit).equals(read)


@pytest.mark.parametrize("first", ["1970-01-05", "1972-06-01", "1973-02-01", "1969-11-03"])
def test_milliseconds_of_years_about_1970_are_no_seconds(first):
    days = pd.bdate_range(first, periods=400, tz="UTC")
    assert list(index_of(days.as_unit("ms").asi8)) == list(days)


@pytest.mark.parametrize("units", [("ms", "us"), ("s", "ms"), ("us", "ns")])
def test_a_feed_that_changed_its_unit_keeps_its_order(units):
    hours = pd.date_range("2024-12-30", periods=96, freq="h", tz="UTC")
    old, new = (hours.as_unit("s").asi8 * SCALES[unit] for unit in units)
    mixed = np.where(hours.year < 2025, old, new)
    assert list(index_of(mixed)) == list(hours)
    assert list(index_of(mixed[::-1])) == list(hours)
    stacked = pd.DataFrame({"time": [*mixed, *mixed], "symbol": ["A"] * 96 + ["B"] * 96})
    for frame in to_bars(stacked.assign(close=1.0)).values():
        assert list(frame.index) == list(hours)
    swapped = np.where(np.arange(96) % 2, old, new)  # no feed, but a mess
    with pytest.raises(DataError, match="date_format"):
        index_of(swapped)


def test_irregular_bars_are_read_by_the_size_of_their_numbers():
    seconds = 1_546_300_800 + np.cumsum(np.random.default_rng(0).integers(1, 20_000, 200))
    for scale in SCALES.values():
        assert list(index_of(seconds * scale).asi8 // 10**6) == list(seconds)


@pytest.mark.parametrize("form", ["%.5E", "%.6e"])
@pytest.mark.parametrize("scale", [1, 1000])
def test_rounded_numbers_are_refused(form, scale):
    days = (1_546_387_200 + 86_400 * np.arange(50)) * scale
    with pytest.raises(DataError, match="too coarse: rounded.*date_format"):
        index_of([form % day for day in days])
    with pytest.raises(DataError, match="too coarse"):
        index_of([float(f"{day:.5e}") for day in days])
    exact = index_of([f"{day:.12e}" for day in days])
    assert list(exact.asi8 // 10**6 * scale) == list(days)


@pytest.mark.parametrize(
    "numbers", [np.arange(50), np.arange(17_897, 17_950), [0.5, 0.1], [10**25]]
)
def test_numbers_that_may_be_anything_are_refused(numbers):
    with pytest.raises(DataError, match='date_format = "s"'):
        index_of(numbers)


FORMS = [
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%y%m%d", "%d%m%Y", "%d.%m.%Y", "%d/%m/%Y",
    "%m/%d/%Y", "%d-%m-%y", "%m-%d-%y", "%y-%m-%d", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y",
    "%A, %d %B %Y", "%d%b%Y", "%a %b %d %Y",
]  # fmt: skip
CLOCKS = ["", " %H:%M", "T%H:%M:%S", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", " %H:%M:%S.%f"]


@given(
    form=st.sampled_from(FORMS), clock=st.sampled_from(CLOCKS), first=st.dates(
        pd.Timestamp("1971-01-01").date(), pd.Timestamp("2060-01-01").date()
    ), descending=st.booleans(),
)  # fmt: skip
@settings(max_examples=70, deadline=None)
def test_dates_are_read_as_written_or_refused_never_otherwise(form, clock, first, descending):
    step = "37h" if clock else "D"
    times = pd.date_range(first, periods=45, freq=step)[:: -1 if descending else 1]
    text = times.strftime(form + clock)
    truth = list(times.sort_values().tz_localize("UTC"))
    if "%y" in form:  # a century is not in the text, and bars are of the past
        last = pd.Timestamp.now().year + 1
        truth = [t if last - 99 <= t.year <= last else None for t in truth]
        if None in truth:
            return
    try:
        assert list(index_of(text)) == truth
    except DataError as error:
        assert "date_format" in str(error)
        assert form != "%Y-%m-%d"
    assert list(index_of(text, date_format=form + clock)) == truth


def test_order_tells_days_from_months_and_else_they_are_refused():
    text = ["05/02/2019", "06/02/2019", "07/02/2019", "08/02/2019", "05/03/2019"]
    assert list(index_of(text).month) == [2, 2, 2, 2, 3]
    with pytest.raises(DataError, match=r'date_format = "%d/%m/%Y" or "%m/%d/%Y"'):
        index_of(["01/02/2019", "02/02/2019", "03/02/2019"])
    with pytest.raises(DataError, match='date_format = "%y%m%d"'):
        index_of(["200101", "200102", "200103"])


def test_days_of_spreadsheets():
    hours = pd.date_range("2019-01-02", periods=72, freq="h", tz="UTC")
    serial = (hours - pd.Timestamp("1899-12-30", tz="UTC")) / pd.Timedelta(days=1)
    for numbers in (serial, [f"{day:.5f}" for day in serial]):
        assert list(index_of(numbers)) == list(hours)
    old = [18_264, 18_265, 18_266]
    assert list(index_of(old, date_format="excel").year) == [1950] * 3
    assert list(index_of(old, date_format="D").year) == [2020] * 3


CLOCK_FORMS = ["%H%M%S", "%H%M", "%H:%M", "%H:%M:%S", "%I:%M:%S %p"]


@pytest.mark.parametrize("form", CLOCK_FORMS)
@pytest.mark.parametrize("dates", ["%Y%m%d", "%d.%m.%Y", "%m/%d/%Y"])
def test_dates_and_times_of_the_day_are_joined(form, dates):
    hours = pd.date_range("2019-01-02", periods=24 * 30, freq="h")
    expected = list(hours.tz_localize("UTC"))
    clock = hours.strftime(form)
    assert list(two_columns(hours.strftime(dates), clock)) == expected
    if form.isalnum() or form in ("%H%M%S", "%H%M"):
        assert list(two_columns(hours.strftime(dates), clock.astype(int))) == expected
    read = two_columns(hours.strftime(dates), clock, date_format=dates, timezone="Asia/Tokyo")
    assert list(read) == list(hours.tz_localize("Asia/Tokyo").tz_convert("UTC"))


def test_a_time_of_the_day_that_is_none_is_refused():
    hours = pd.date_range("2019-01-02", periods=3, freq="h")
    for clock in (["25:00"] * 3, ["9999"] * 3, ["100", "200", "260"]):
        with pytest.raises(DataError, match="row [012], column"):
            two_columns(hours.strftime("%Y-%m-%d"), clock)
    whole = hours.strftime("%Y-%m-%d %H:%M")
    assert list(two_columns(hours.strftime("%Y-%m-%d"), whole)) == list(hours.tz_localize("UTC"))


@pytest.mark.parametrize(
    "zone", ["America/New_York", "Asia/Tokyo", "Europe/Berlin", "Asia/Kolkata"]
)
def test_days_of_an_exchange_are_its_own(zone):
    days = pd.date_range("2019-02-20", periods=60, tz=zone)
    expected = list(days.tz_localize(None).tz_localize("UTC"))
    utc = days.tz_convert("UTC")
    assert list(index_of(days)) == list(index_of(days.astype(str))) == expected
    assert list(index_of(days.strftime("%Y-%m-%d %H:%M:%S%z"))) == expected
    form = "%d/%m/%Y %H:%M:%S %z"
    assert list(index_of(days.strftime(form), date_format=form)) == expected
    assert list(index_of(utc.astype(str))) == list(utc)  # whose days they are is not known
    assert list(index_of(utc.astype(str), timezone=zone)) == expected
    assert list(index_of(days.strftime("%Y-%m-%d"), timezone=zone)) == expected
    hours = pd.date_range("2019-03-28", periods=100, freq="h", tz=zone)
    assert list(index_of(hours.astype(str))) == list(hours.tz_convert("UTC"))


def test_names_of_time_zones():
    hours = pd.date_range("2019-03-09", periods=60, freq="h", tz="US/Eastern")
    for name in ("US/Eastern", "America/New_York"):
        text = hours.strftime(f"%Y%m%d %H:%M:%S {name}")
        assert list(index_of(text)) == list(hours.tz_convert("UTC"))
    text = ["2019-01-02 09:30 EST", "2019-01-02 10:30 EST"]
    with pytest.raises(DataError, match=r'date_format = "%Y-%m-%d %H:%M %Z"'):
        index_of(text)
    for options in (
        {"date_format": "%Y-%m-%d %H:%M %Z"},
        {"date_format": "%Y-%m-%d %H:%M EST", "timezone": "America/New_York"},
    ):
        assert str(index_of(text, **options)[0]) == "2019-01-02 14:30:00+00:00"
    with pytest.raises(DataError, match="several time zones"):
        index_of(["2019-01-02 09:30 Europe/Berlin", "2019-01-02 09:30 Asia/Tokyo"])


@pytest.mark.parametrize("year", ["0001-01-01", "1800-05-06", "9999-12-31", "2150-01-01"])
def test_years_that_cannot_be_are_refused(year):
    for times in (["2019-01-02", year], pd.Series(pd.to_datetime(["2019-01-02", year]))):
        with pytest.raises(DataError, match=r"row 1.*not within the years 1900 to 2100"):
            index_of(times)


def test_periods_and_indices_that_are_times():
    months = pd.period_range("2010-01", periods=24, freq="M")
    expected = list(months.to_timestamp().tz_localize("UTC"))
    assert list(index_of(months)) == list(index_of(list(months))) == expected
    assert list(index_of([f"{p.year}Q{p.quarter}" for p in months[::3]])) == expected[::3]
    for index in (months, months.to_timestamp().strftime("%Y-%m-%d")):
        (frame,) = to_bars(pd.DataFrame({"close": np.arange(24) + 1.0}, index=index)).values()
        assert list(frame.index) == expected
