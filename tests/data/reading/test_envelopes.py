"""Replies of which the table is in an unusual form, and values that must not be lost."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import read_bars
from maml_jax.errors import DataError

BARS = random_bars(count=40, start="2024-01-01T05:00", step="h").round(3)
STAMPS = BARS.index.as_unit("ms").asi8.tolist()
CLOSES = BARS["close"].tolist()


def pairs(values):
    return [list(pair) for pair in zip(STAMPS, np.asarray(values).tolist(), strict=True)]


def rows(names):
    return [[t, *r] for t, r in zip(STAMPS, BARS[names].to_numpy().tolist(), strict=True)]


FORMS = {
    "CoinGecko": (
        {"prices": pairs(CLOSES), "market_caps": pairs(BARS["close"] * 1e6),
         "total_volumes": pairs(BARS["volume"])},
        ["close", "volume"],
    ),
    "one list of pairs": ({"prices": pairs(CLOSES)}, ["close"]),
    "pairs": (pairs(CLOSES), ["close"]),
    "prices by time": (
        {"bpi": dict(zip(BARS.index.strftime("%Y-%m-%d %H:%M"), CLOSES, strict=True)),
         "disclaimer": "none"},
        ["close"],
    ),
    "columns as objects": (
        {"datatable": {"data": rows(["open", "close"]),
                       "columns": [{"name": n, "type": "x"} for n in ("date", "open", "close")]}},
        ["open", "close"],
    ),
    "column_names": (
        {"dataset": {"id": 1, "data": rows(["close", "volume"]),
                     "column_names": ["Date", "Close", "Volume"]}},
        ["close", "volume"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_unusual_forms_are_read(tmp_path, form):
    content, columns = FORMS[form]
    path = tmp_path / "X.json"
    path.write_text(json.dumps(content))
    pd.testing.assert_frame_equal(read_bars(path)["X"], BARS[columns], check_freq=False)


FAULTS = {
    "volumes alone": ({"total_volumes": pairs(BARS["volume"])}, "missing column 'close'"),
    "pairs of other times": (
        {"prices": pairs(CLOSES)[:-1], "volumes": pairs(CLOSES)[1:]},
        r"holds 2 tables \(prices, volumes\); write the one to read",
    ),
    "columns without a time": (
        {"result": {"ticks": STAMPS, "open": CLOSES, "high": CLOSES, "close": CLOSES}},
        r"missing time column.*data.columns = \{timestamp",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing_is_named_with_the_way_out(tmp_path, fault):
    content, message = FAULTS[fault]
    path = tmp_path / "X.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_bars(path)
    if "ticks" in str(content):
        assert (read_bars(path, columns={"timestamp": "ticks"})["X"].index == BARS.index).all()


def test_a_value_that_another_of_its_key_would_replace_is_refused(tmp_path):
    path = tmp_path / "X.json"
    days = [f'"2024-01-0{day}": {{"close": {price}}}' for day, price in ((1, 1), (1, 2), (3, 3))]
    path.write_text("{" + ", ".join(days) + "}")
    with pytest.raises(DataError, match=r"the key '2024-01-01' stands twice"):
        read_bars(path)
    path.write_text("{" + ", ".join([*days[1:], days[1]]) + "}")
    assert read_bars(path)["X"]["close"].tolist() == [2, 3]


def test_a_line_of_json_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "X.jsonl"
    lines = [json.dumps({"ts": t, "close": c}) for t, c in zip(STAMPS, CLOSES, strict=True)]
    path.write_text("\n".join([*lines[:6], "", lines[6][:20]]))
    with pytest.raises(DataError, match=r"X.jsonl, line 8: cannot be read as JSON.*cut off"):
        read_bars(path)
