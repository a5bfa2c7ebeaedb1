"""Bars are judged by the calendar that they show."""

import pandas as pd
import pytest

from maml_jax.live.freshness import freshness

DAY, HOUR = pd.Timedelta("1D"), pd.Timedelta("1h")


def bars(times):
    return pd.DataFrame({"close": 1.0}, pd.DatetimeIndex(times, tz="UTC"))


def judge(times, now, interval=DAY, **others):
    frames = {"A": bars(times), **{name: bars(each) for name, each in others.items()}}
    return freshness(frames, tuple(frames), interval, pd.Timestamp(now, tz="UTC"))


WEEKDAYS = pd.bdate_range("2024-01-01", "2024-03-08")  # ends on a Friday


@pytest.mark.parametrize(
    ("now", "missing", "stale"),
    [
        ("2024-03-09 03:00", 0, False),
        ("2024-03-11 20:00", 0, False),  # Monday's bar has not closed
        ("2024-03-12 03:00", 1, False),  # it may have been a holiday
        ("2024-03-13 03:00", 2, True),
        ("2024-03-08 20:00", 0, True),  # Friday's bar has not closed yet
    ],
)
def test_weekends_are_no_missing_bars(now, missing, stale):
    found = judge(WEEKDAYS, now)["A"]
    assert (found.missing, found.stale) == (missing, stale)


def test_a_calendar_without_gaps_lacks_the_first_bar_that_does_not_come():
    hours = pd.date_range("2024-03-01", "2024-03-08 10:00", freq="h")
    assert not judge(hours, "2024-03-08 11:30", HOUR)["A"].stale
    found = judge(hours, "2024-03-08 12:00", HOUR)["A"]
    assert found.stale
    assert found.missing == 1
    assert found.age == HOUR


def test_sessions_are_hours_of_the_week():
    days = pd.bdate_range("2024-01-01", "2024-03-08")
    hours = [day + pd.Timedelta(hours=hour) for day in days for hour in range(14, 21)]
    assert judge(hours, "2024-03-11 14:30", HOUR)["A"].missing == 0
    assert judge(hours, "2024-03-11 17:00", HOUR)["A"].missing == 3


def test_an_asset_behind_the_others_is_stale():
    found = judge(WEEKDAYS, "2024-03-12 03:00", B=[*WEEKDAYS, pd.Timestamp("2024-03-11")])
    assert found["A"].stale
    assert "B has a bar" in found["A"].problem
    assert not found["B"].stale
    # Another calendar says nothing.
    coins = pd.date_range("2024-01-01", "2024-03-10")
    assert not judge(WEEKDAYS, "2024-03-11 03:00", B=coins)["A"].stale


def test_an_asset_without_bars_is_missing():
    found = freshness({}, ("A",), DAY, pd.Timestamp("2024-01-01", tz="UTC"))["A"]
    assert found.stale
    assert found.last is None
