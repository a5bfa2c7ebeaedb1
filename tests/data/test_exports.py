"""Habits of exports that nearly read: what is like a field and is none, names, ends of rows."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import read_bars, to_bars
from maml_jax.data.options import reading_notes
from maml_jax.errors import DataError

DAYS = random_bars(count=40, start="2024-01-01").round(3)
HOURS = random_bars(count=40, start="2024-01-01T05:00", step="h").round(3)
FIELDS = ["open", "high", "low", "close"]


def only(frames):
    (frame,) = frames.values()
    return frame


def as_text(bars, form="%Y-%m-%d", name="date"):
    return bars.reset_index(drop=True).assign(**{name: bars.index.strftime(form)})


@pytest.mark.parametrize("name", ["changeOverTime", "time zone offset", "high time", "count_time"])
def test_a_column_is_no_time_of_the_day_because_its_name_ends_so(name):
    table = as_text(DAYS).assign(**{name: np.linspace(0.1, 0.2, len(DAYS))})
    pd.testing.assert_frame_equal(only(to_bars(table)), DAYS, check_freq=False)


def test_the_time_of_the_day_is_joined_with_the_date_where_it_alone_is_named():
    table = as_text(HOURS).assign(barBegins=HOURS.index.strftime("%H:%M"))
    with pytest.raises(DataError, match=r'several bars.*time = "'):
        to_bars(table)
    frame = only(to_bars(table, columns={"time": "barBegins"}))
    pd.testing.assert_frame_equal(frame, HOURS, check_freq=False)


def test_plurals_are_the_same_fields():
    table = as_text(DAYS, name="Dates").rename(columns={"close": "Closing Prices"})
    table = table.rename(columns={"volume": "Volumes", "open": "Opens"})
    pd.testing.assert_frame_equal(only(to_bars(table)), DAYS, check_freq=False)


def test_several_securities_below_each_other_are_several_assets():
    table = pd.concat([as_text(DAYS), as_text(2 * DAYS)]).assign(Security=["A"] * 40 + ["B"] * 40)
    assert [*to_bars(table)] == ["A", "B"]
    assert [*to_bars(as_text(DAYS).assign(contract=1), symbol="X")] == ["X"]


def test_fields_beside_an_asset_are_no_assets():
    closes = {"BTC": DAYS["close"], "ETH": 2 * DAYS["close"]}
    table = pd.DataFrame({
        "date": DAYS.index.strftime("%Y-%m-%d"), **{k: v.to_numpy() for k, v in closes.items()},
        "BTC Volume": DAYS["volume"].to_numpy(), "BTC_MarketCap": 9e6 * DAYS["close"].to_numpy(),
        "ETH_MarketCap": 3e6 * DAYS["close"].to_numpy(),
    })  # fmt: skip
    frames = to_bars(table)
    assert {k: [*v.columns] for k, v in frames.items()} == {"BTC": ["close", "volume"],
                                                            "ETH": ["close"]}  # fmt: skip
    (note,) = reading_notes(frames)
    assert "'BTC_MarketCap', 'ETH_MarketCap'] are not used" in note


@pytest.mark.parametrize("column", ["open", "high", "low", "volume"])
def test_a_column_without_values_is_left_out_and_the_close_never_is(column):
    table = as_text(DAYS).assign(**{column: None})
    frame = only(to_bars(table))
    pd.testing.assert_frame_equal(frame, DAYS.drop(columns=column), check_freq=False)
    assert f"'{column}' has no values" in reading_notes({"X": frame})[0]
    with pytest.raises(DataError, match=r"'close' holds no values; say which column holds"):
        to_bars(as_text(DAYS).assign(close=None))


@pytest.mark.parametrize(
    "numbers",
    [
        [day.toordinal() + 366 for day in DAYS.index],  # MATLAB
        [f"{day.to_julian_date():.1f}" for day in DAYS.index],
        [int(day.strftime("%Y%j")) for day in DAYS.index],
    ],
)
def test_days_from_another_beginning_are_never_seconds_since_1970(numbers):
    weekdays = DAYS.index.day_of_week < 5
    table = as_text(DAYS).assign(date=numbers)
    for rows in (table, table[weekdays]):
        with pytest.raises(DataError, match=r"unclear.*date_format"):
            to_bars(rows)


@pytest.mark.parametrize("form", ["%d-%b-%y", "%y%m%d", "%m/%d/%y"])
@pytest.mark.parametrize("said", [False, True])
def test_years_of_two_digits_are_of_the_past(form, said):
    bars = random_bars(count=40, start="1968-12-10")
    frame = only(to_bars(as_text(bars, form), **({"date_format": form} if said else {})))
    assert (frame.index == bars.index).all()


def lines(rows, header="date,open,high,low,close"):
    return header + "\n" + "".join(f"{row}\n" for row in rows)


ROWS = [",".join(map(str, row)) for row in as_text(DAYS)[["date", *FIELDS]].to_numpy()]


@pytest.mark.parametrize(
    "text",
    [
        lines([f"{row}," for row in ROWS]),  # a separator at the end of each row
        lines(ROWS, '"open","high","low","close"'),  # names of rows, as R writes them
        lines(ROWS, '"",open,high,low,close'),
    ],
)
def test_rows_with_a_cell_more_than_names(tmp_path, text):
    path = tmp_path / "X.csv"
    path.write_text(text)
    pd.testing.assert_frame_equal(read_bars(path)["X"], DAYS[FIELDS], check_freq=False)


def test_a_cell_more_that_is_not_clear_is_refused(tmp_path):
    path = tmp_path / "X.csv"
    for text in (lines([f"{row},7" for row in ROWS]), lines(ROWS, "date,high,low,close")):
        path.write_text(text)
        with pytest.raises(DataError, match="the rows have more fields than the header"):
            read_bars(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<!DOCTYPE html>\n<html><body>403, Forbidden</body></html>\n", "is a page of the web"),
        (b'\n<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "of the web or XML"),
        (b"<HEAD>,<DATE>,<CLOSE>\nx,y\n", "line 2|not a date|holds no rows|missing"),
        (b"PAR1\x15\x04\x15", "is no text but a Parquet file; let its name end in .parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "a workbook of old Excel; save it as .xlsx"),
    ],
)
def test_what_is_no_table_of_text_is_called_what_it_is(tmp_path, data, message):
    path = tmp_path / "X.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_bars(path)


def test_a_workbook_with_another_ending_is_called_one(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    openpyxl.Workbook().save(tmp_path / "X.xlsx")
    (tmp_path / "X.xlsx").rename(tmp_path / "X.csv")
    with pytest.raises(DataError, match=r"is no text but a workbook; let its name end in .xlsx"):
        read_bars(tmp_path / "X.csv")


def test_prices_that_are_returns_are_called_so(tmp_path):
    returns = as_text(DAYS).assign(close=np.random.default_rng(0).normal(0, 0.01, len(DAYS)))
    with pytest.raises(DataError, match="must be positive; are these returns or differences"):
        to_bars(returns)
    one = as_text(DAYS)
    one.loc[7, "close"] = -37.63
    with pytest.raises(DataError, match=r'is -37.63 .*correct it, or .*missing = "drop"'):
        to_bars(one)
    one.loc[7, "close"] = None
    assert len(only(to_bars(one, missing="drop"))) == len(DAYS) - 1


def test_json_of_a_vendor_with_change_over_time(tmp_path):
    history = [{"date": f"{t:%Y-%m-%d}", "close": c, "changeOverTime": 0.1}
               for t, c in DAYS["close"].items()]  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps({"symbol": "X", "historical": history[::-1]}))
    assert (read_bars(tmp_path / "x.json")["X"].index == DAYS.index).all()


def test_the_half_of_a_day_in_a_column_of_its_own_counts():
    table = as_text(HOURS, "%d.%m.%Y %I:%M", "Date").assign(Time=HOURS.index.strftime("%p"))
    pd.testing.assert_frame_equal(only(to_bars(table)), HOURS, check_freq=False)
