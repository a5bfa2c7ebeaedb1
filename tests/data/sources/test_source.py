"""A source that a user wrote: the one of the documentation, and ones that break their promises."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import loopback
import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import Page, Source, Store, fetch, frames_source

PAGE = Path(__file__).parents[3] / "docs" / "data.md"


def documented():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [block for block in blocks if "def acme" in block]
    assert len([line for line in block.splitlines() if line.strip()]) <= 30
    names: dict = {}
    exec(compile(block, str(PAGE), "exec"), names)
    return names["acme"]


@pytest.fixture
def bars():
    return random_bars(count=1200, step="h", start="2024-01-01")


@pytest.fixture
def address(bars):
    replies = ["{", json.dumps({"candles": None})]

    class Candles(loopback.Handler):
        def do_GET(self):
            query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            seconds = bars.index.as_unit("s").asi8
            chosen = bars[(seconds >= int(query["from"])) & (seconds <= int(query["to"]))]
            rows = [[int(row[0].timestamp()), *row[1:]] for row in chosen.itertuples()]
            self.send(200, replies.pop() if replies else json.dumps({"candles": rows}))

    with loopback.serving(Candles) as found:
        yield found


def test_the_source_of_the_documentation_works(bars, address, tmp_path):
    store, acme = Store(tmp_path), documented()
    report = fetch(acme(address), "XAU", "1h", start="2024-01-01", end="2024-02-19", store=store)
    assert report.errors == {}
    pd.testing.assert_frame_equal(report.bars["XAU"], bars.loc[:"2024-02-19"], check_freq=False)
    assert [str(key) for key in store.keys()] == ["acme/XAU/1h"]


def broken(change, end=None):
    bars = random_bars(count=48, step="h", start="2024-01-01")

    def pages(symbol, interval, start, stop):
        yield Page(change(bars), stop if end is None else pd.Timestamp(end))

    return Source("own", pages)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (broken(lambda b: b.iloc[::-1]), "not in order"),
        (broken(lambda b: pd.concat([b, b]).sort_index()), "two have the same time"),
        (broken(lambda b: b.tz_convert("Asia/Tokyo")), "in UTC"),
        (broken(lambda b: b.tz_localize(None)), "in UTC"),
        (broken(lambda b: b.reset_index(drop=True)), "no DatetimeIndex"),
        (broken(lambda b: b.drop(columns="close")), "its columns are"),
        (broken(lambda b: b.rename(columns=str.title)), "its columns are"),
        (broken(lambda b: b.assign(low=np.nan)), "low is nan at 2024-01-01"),
        (broken(lambda b: b.assign(open=0.0)), "open is 0 at 2024-01-01"),
        (broken(lambda b: b.assign(volume=-1.0)), "volume is -1 at"),
        (broken(lambda b: b.shift(freq="365D")), "a bar at 2024-12-31"),
        (broken(lambda b: b, end="2024-01-02T00:00Z"), "a bar at 2024-01-02"),
        (broken(lambda b: b, end="2030-01-01T00:00Z"), "it ends at 2030-01-01"),
        (broken(lambda b: b, end="2020-01-01T00:00Z"), "it ends at 2020-01-01"),
    ],
)
def test_a_page_that_cannot_be_right_is_refused_and_not_written(source, said, tmp_path):
    report = fetch(source, "X", "1h", start="2024-01-01", end="2024-01-02", store=Store(tmp_path))
    assert "own, X: an invalid page" in str(report.errors["X"])
    assert said in str(report.errors["X"])
    assert list(tmp_path.glob("**/*.parquet")) == []


def test_bars_that_are_here_already_are_kept(bars, tmp_path):
    store = Store(tmp_path)
    source = frames_source("mine", {"X": bars, "Y": bars.iloc[100:900]})
    report = fetch(source, ["X", "Y"], "1h", start="2024-01-01", end="2024-03-01", store=store)
    assert report.errors == {}
    pd.testing.assert_frame_equal(report.bars["X"], bars, check_freq=False)
    pd.testing.assert_frame_equal(report.bars["Y"], bars.iloc[100:900], check_freq=False)


def test_columns_stay_what_they_were(bars, tmp_path):
    store = Store(tmp_path)
    span = {"start": "2024-01-01", "end": "2024-01-31", "store": store}
    fetch(frames_source("mine", {"X": bars}), "X", "1h", **span)
    report = fetch(frames_source("mine", {"X": bars[["close"]]}), "X", "1h", **span, again=True)
    assert "its columns are ['open', 'high', 'low', 'close', 'volume']" in str(report.errors["X"])
