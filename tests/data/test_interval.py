"""Lengths of bars and moments, as people write them."""

from datetime import date, datetime

import pandas as pd
import pytest

from maml_jax.data import parse_interval, parse_moment
from maml_jax.errors import DataError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1", "1m"), ("60", "1h"), (240, "4h"), ("720", "12h"), ("D", "1d"), ("W", "1w"),
        ("M", "1mo"), ("5m", "5m"), ("1M", "1mo"), ("1min", "1m"), ("2 hours", "2h"),
        ("1wk", "1w"), ("7d", "1w"),
        ("24h", "1d"), ("3mo", "3mo"), ("1day", "1d"),
    ],
)  # fmt: skip
def test_lengths_of_bars(text, canonical):
    assert str(parse_interval(text)) == canonical
    assert parse_interval(canonical) == parse_interval(text)


@pytest.mark.parametrize("text", ["", "m", "0", "00", "0h", "-5", "1.5h", "1y", "soon", None])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(DataError, match="expected one such as 5m"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("text", "opened", "after"),
    [
        ("5m", "2024-05-17T13:45Z", "2024-05-17T13:50Z"),
        ("4h", "2024-05-17T12:00Z", "2024-05-17T16:00Z"),
        ("1w", "2024-05-13T00:00Z", "2024-05-20T00:00Z"),
        ("1mo", "2024-05-01T00:00Z", "2024-06-01T00:00Z"),
        ("3mo", "2024-04-01T00:00Z", "2024-07-01T00:00Z"),
    ],
)
def test_bars_open_on_the_calendar(text, opened, after):
    interval = parse_interval(text)
    floor = interval.floor(pd.Timestamp("2024-05-17T13:47:09Z"))
    assert floor == pd.Timestamp(opened)
    assert interval.after(floor) == pd.Timestamp(after)
    assert interval.after(interval.after(floor), -1) == floor
    assert interval.floor(floor) == floor


def test_moments():
    assert parse_moment("2024-01-31") == pd.Timestamp("2024-01-31T00:00Z")
    assert parse_moment(date(2024, 1, 31), end=True) == parse_moment("2024-01-31", end=True)
    assert parse_moment("2024-01-31T10:00+02:00") == pd.Timestamp("2024-01-31T08:00Z")
    assert parse_moment(datetime(2024, 1, 31, 10), end=True) == pd.Timestamp("2024-01-31T10:00Z")


@pytest.mark.parametrize(
    ("day", "last"),
    [("2024-10-27", "2024-10-27T22:59:59.999999Z"), ("2024-03-31", "2024-03-31T21:59:59.999999Z")],
)
def test_a_day_ends_by_the_clock_of_its_zone(day, last):
    assert parse_moment(day, end=True, timezone="Europe/Berlin") == pd.Timestamp(last)


@pytest.mark.parametrize("text", ["2023", "2023-06", "now", "today", "monday", "", 2023, 1.5, None])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(DataError, match=r"is not a date or time \(expected e.g. 2024-01-31"):
        parse_moment(text)


def test_a_zone_that_there_is_not_is_refused():
    with pytest.raises(DataError, match="'X/Y' is not a time zone"):
        parse_moment("2024-01-31", timezone="X/Y")
