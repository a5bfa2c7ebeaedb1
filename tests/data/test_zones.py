"""The time zone that a file states is that of its times, or is asked for; never taken for UTC."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import read_bars, to_bars
from maml_jax.data.options import reading_notes
from maml_jax.data.zones import find_zone
from maml_jax.errors import DataError

ZONE = "America/New_York"
BARS = random_bars(count=80, start="2024-03-08T09:00", step="h")
"""Across a change of clocks."""
WALL = BARS.index.tz_convert(ZONE).tz_localize(None)


def only(frames):
    (frame,) = frames.values()
    return frame


def table(times, name="time", **more):
    return BARS.reset_index(drop=True).assign(**{name: times, **more})


def envelope(**stated):
    rows = [
        {"datetime": str(t), **row} for t, row in zip(WALL, BARS.to_dict("records"), strict=True)
    ]
    return {"meta": {"symbol": "X", **stated}, "values": rows}


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("US/Eastern", "US/Eastern"), ("Time (europe/berlin)", "Europe/Berlin"), ("EST", None),
        ("Date (UTC+8)", "UTC+08:00"), ("gmt-05:30", "UTC-05:30"), ("time_utc", "UTC"),
        ("Gmt time", "UTC"), ("CET", None), ("Date/Time", None), ("Local time", None), ("", None),
        ("UTC+0530", "UTC+05:30"), ("GMT+20", None),
    ],
)  # fmt: skip
def test_a_zone_is_found_where_it_is_certain(text, zone):
    assert find_zone(text) == zone
    if zone is not None:
        pd.Timestamp("2024-01-01").tz_localize(zone)


@pytest.mark.parametrize(
    ("told", "given"),
    [
        (ZONE, table(WALL.astype(str), f"Time ({ZONE})")),
        (ZONE, table(WALL.strftime("%d.%m.%Y %H:%M"), "time", timezone=ZONE)),
        ("US/Eastern", table(WALL.astype(str), **{"Exchange Timezone": "US/Eastern"})),
        (None, table(BARS.index.tz_localize(None).astype(str), "time (UTC)")),
        (None, table(WALL.astype(str), "Local time", **{"UTC time": BARS.index.astype(str)})),
        (None, table(BARS.index.tz_localize(None).astype(str), Gmtoffset=0)),
        (None, table(BARS.index.tz_convert(ZONE).astype(str), "Local time")),
        (None, table(BARS.index.as_unit("ms").asi8, "time (EST)")),
        (None, table(BARS.index.astype(str), timezone="none of them")),
    ],
)
def test_what_names_and_columns_state_is_applied(told, given):
    frame = only(to_bars(given))
    pd.testing.assert_frame_equal(frame, BARS, check_freq=False)
    notes = [note for note in reading_notes({"X": frame}) if "as the table says" in note]
    assert len(notes) == (told is not None) and all(str(told) in note for note in notes)


@pytest.mark.parametrize(
    "given",
    [
        table(WALL.astype(str), "Date (EST)"),
        table(WALL.astype(str), "Local time"),
        table(WALL.astype(str), "time", timezone="CET"),
        table(WALL.astype(str), "time", timezone=np.resize([ZONE, "Europe/Paris"], len(WALL))),
        table(WALL.astype(str), "Date-Time", **{"GMT Offset": -5}),
    ],
)
def test_a_zone_that_is_not_certain_is_asked_for(given):
    with pytest.raises(DataError, match=r'in which time zone.*timezone = "America/New_York"'):
        to_bars(given)
    pd.testing.assert_frame_equal(only(to_bars(given, timezone=ZONE)), BARS, check_freq=False)
    days = given.assign(**{given.columns[5]: pd.date_range("2024-01-01", periods=80).astype(str)})
    assert only(to_bars(days)).index[0] == pd.Timestamp("2024-01-01", tz="UTC")


@pytest.mark.parametrize(
    ("stated", "fault"),
    [
        ({"exchange_timezone": ZONE}, None),
        ({"6. Time Zone": "US/Eastern"}, None),
        ({"timezone": "EST", "exchangeTimezoneName": ZONE}, None),
        ({"timezone": "EST"}, "in which time zone.*the file says EST"),
        ({"timezone": ZONE, "tz": "Europe/Paris"}, "in which time zone.*America/New_York, Europe"),
    ],
)
def test_what_an_envelope_states_is_applied_or_asked_for(tmp_path, stated, fault):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(envelope(**stated)))
    if fault is not None:
        with pytest.raises(DataError, match=fault):
            read_bars(path)
    options = {} if fault is None else {"timezone": ZONE}
    frame = read_bars(path, **options)["X"]
    pd.testing.assert_frame_equal(frame, BARS, check_freq=False)
    shifted = read_bars(path, timezone="UTC")["X"]  # what is said comes before what a file states
    assert (shifted.index == WALL.tz_localize("UTC")).all()


def chart(stamps, zone=ZONE):
    quote = {name: BARS[name].tolist() for name in BARS}
    result = {"meta": {"symbol": "X", "exchangeTimezoneName": zone}, "timestamp": stamps,
              "indicators": {"quote": [quote]}}  # fmt: skip
    return {"chart": {"result": [result], "error": None}}


def test_daily_bars_of_an_exchange_in_numbers_are_its_days(tmp_path):
    path = tmp_path / "x.json"
    days = pd.bdate_range("2024-01-29", periods=80)
    opened = (days + pd.Timedelta("9h30min")).tz_localize(ZONE)
    path.write_text(json.dumps(chart(opened.as_unit("s").asi8.tolist())))
    assert (read_bars(path)["X"].index == days.tz_localize("UTC")).all()
    live = [*opened[:-1], opened[-1] + pd.Timedelta("2h7s")]  # the market is open
    path.write_text(json.dumps(chart([int(time.timestamp()) for time in live])))
    frame = read_bars(path)["X"]
    assert (frame.index == days.tz_localize("UTC")).all() and not reading_notes({"X": frame})
    path.write_text(json.dumps(chart(BARS.index.as_unit("s").asi8.tolist())))
    assert (read_bars(path)["X"].index == BARS.index).all()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_numbers_since_1970_are_utc_whatever_the_zone(unit):
    given = table(BARS.index.as_unit(unit).asi8)
    for options in ({}, {"timezone": ZONE}, {"timezone": ZONE, "date_format": unit}):
        assert (only(to_bars(given, **options)).index == BARS.index).all()
    days = pd.date_range("2024-03-01", periods=80, tz=ZONE)
    frame = only(to_bars(table(days.as_unit(unit).asi8), timezone=ZONE))
    assert (frame.index == days.tz_localize(None).tz_localize("UTC")).all()
