"""One table in whatever envelope: records, candles, columns, mappings by time."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import read_bars
from maml_jax.data.reading.json_tables import read_json_table
from maml_jax.errors import DataError

BARS = random_bars(count=12)
NAMES = list(BARS.columns)
LETTERS = "ohlcv"
SINCE = [int(t.timestamp()) for t in BARS.index]
DAYS = [f"{t:%Y-%m-%d}" for t in BARS.index]
ROWS = BARS.to_numpy().tolist()


def candles(order="ohlc", width=6):
    columns = [LETTERS.index(letter) for letter in f"{order}v"]
    return [
        [1000 * t, *(row[i] for i in columns)][:width]
        for t, row in zip(SINCE, ROWS, strict=True)
    ]  # fmt: skip


def records(times, names, key):
    return [
        {key: t} | dict(zip(names, row, strict=True)) for t, row in zip(times, ROWS, strict=True)
    ]


NUMBERED = [f"{i + 1}. {name}" for i, name in enumerate(NAMES)]
LISTS = {name: BARS[name].tolist() for name in NAMES}
TABLE = BARS.tz_localize(None).rename_axis("date")

FORMS = {
    "records": records(DAYS, NAMES, "date"),
    "letters": records([1000 * t for t in SINCE], LETTERS, "t"),
    "candles": candles(),
    "by time": {
        day: dict(zip(NUMBERED, row, strict=True)) for day, row in zip(DAYS, ROWS, strict=True)
    },
    "columns": {"s": "ok", "t": SINCE} | dict(zip(LETTERS, LISTS.values(), strict=True)),
    "nested records": [
        {"time": day, "volume": row[4], "mid": dict(zip("ohlc", row[:4], strict=True))}
        for day, row in zip(DAYS, ROWS, strict=True)
    ],
    "nested columns": {
        "meta": {"currency": "USD"}, "timestamp": SINCE, "indicators": {"quote": [LISTS]}
    },
} | {
    f"pandas, {orient}, {len(table.columns)} columns": json.loads(
        table.to_json(orient=orient, date_format="iso", double_precision=15)
    )
    for orient in ("columns", "index", "split", "table")
    for table in (TABLE, TABLE.reset_index())
}  # fmt: skip
ENVELOPES = {
    "bare": lambda table: table,
    "results": lambda table: {"ticker": "AAPL", "status": "OK", "count": 12, "results": table},
    "meta": lambda table: {
        "Meta Data": {"1. Information": "x", "2. Symbol": "AAPL"},
        "Data": table,
    },
    "deep": lambda table: {
        "chart": {"result": [{"meta": {"symbol": "AAPL"}, "a": {"b": table}}], "error": None},
        "splits": [{"date": "2020-01-01", "ratio": 2}],
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_every_form_in_every_envelope_is_one_table(form, envelope):
    content = ENVELOPES[envelope](FORMS[form])
    raw = read_json_table(json.loads(json.dumps(content)), "x.json")
    assert raw.symbol == (None if envelope == "bare" else "AAPL")
    numbers = raw.table.rename(columns=lambda name: re.sub(r"^\d\. ", "", name))
    numbers = numbers.rename(columns=dict(zip(LETTERS, NAMES, strict=True)))
    np.testing.assert_allclose(numbers[NAMES].astype(float), BARS, rtol=1e-12)
    assert len(raw.table.columns) > 5  # the time is there, too


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_bars(tmp_path, form):
    (tmp_path / "XY.json").write_text(json.dumps(ENVELOPES["results"](FORMS[form])))
    read = read_bars(tmp_path / "XY.json")
    pd.testing.assert_frame_equal(read["AAPL"], BARS, check_freq=False, rtol=1e-12)


def test_lines_of_json_and_grouped_days_are_read(tmp_path):
    path = tmp_path / "XY.jsonl"
    path.write_text("\n".join(map(json.dumps, FORMS["letters"])))
    pd.testing.assert_frame_equal(read_bars(path)["XY"], BARS, check_freq=False, rtol=1e-12)
    both = [row | {"T": asset} for asset in ("A", "B") for row in FORMS["letters"]]
    path.write_text(json.dumps({"results": both}))
    assert list(read_bars(path)) == ["A", "B"]


@pytest.mark.parametrize("order", [*map("".join, itertools.permutations("ohlc"))])
def test_candles_in_another_order_are_never_taken_for_open_high_low_close(tmp_path, order):
    path = tmp_path / "XY.json"
    path.write_text(json.dumps(candles(order)))
    if order.index("h") == 1 and order.index("l") == 2:  # open and close: nobody can tell
        assert (read_bars(path)["XY"]["high"] == BARS["high"]).all()
        return
    with pytest.raises(DataError, match=r"impossible.*layout='timestamp,") as caught:
        read_bars(path)
    if order in ("ochl", "lhoc"):  # of exchanges: what the message says is right
        layout = re.findall(r"layout='(.*)'", str(caught.value))[0]
        read = read_bars(path, layout=layout)["XY"]
        pd.testing.assert_frame_equal(read, BARS, check_freq=False, rtol=1e-12)


def test_candles_of_unknown_width_ask_for_a_layout(tmp_path):
    path = tmp_path / "XY.json"
    kraken = [
        [t, *map(str, row[:4]), str(row[3]), str(row[4]), 9]
        for t, row in zip(SINCE, ROWS, strict=True)
    ]
    path.write_text(json.dumps({"error": [], "result": {"XXBTZUSD": kraken, "last": SINCE[-1]}}))
    with pytest.raises(DataError, match=r"candles of 8 values.*layout.*kraken"):
        read_bars(path)
    read = read_bars(path, layout="kraken", symbol="XBT")["XBT"]
    pd.testing.assert_frame_equal(read, BARS, check_freq=False, rtol=1e-12)


FAULTS = {
    "two tables": ({"a": FORMS["records"], "b": FORMS["records"]}, r"2 tables \(a, b\)"),
    "two assets": ([{"values": FORMS["by time"]}] * 2, r"2 tables \(\[0\].values, \[1\].values\)"),
    "columns of unequal length": ({"t": SINCE, "c": [1.0]}, r"'c' has 1 values, but 't' has 12"),
    "candles of unequal length": ([*candles(), candles()[0][:4]], r"candles have \[4, 6\] values"),
    "an error": ({"Note": "Thank you for using us!"}, r"Thank you for using us!"),
    "no rows": ({"results": []}, r"expected .* a list of objects"),
    "a number": (3, r"expected .* a list of objects"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_one_table_is_refused(tmp_path, fault):
    content, message = FAULTS[fault]
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read_bars(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 60_000 + "1" + "}" * 60_000, '["a', "]"])
def test_nesting_without_end_and_broken_json_are_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: cannot be read"):
        read_bars(tmp_path / "x.json")
