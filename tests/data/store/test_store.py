"""What a store is asked for, and what it says when a file is damaged."""

import re

import pytest
from helpers import random_bars

from maml_jax.data import SeriesKey, Store, fetch, frames_source, parse_interval
from maml_jax.errors import DataError, StoreError

HOURS = random_bars(count=100, step="h", start="2024-01-01")
SPAN = {"start": "2024-01-01", "end": "2024-01-31"}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "a store")


def keep(store, frames, source="src", **options):
    return fetch(frames_source(source, frames), frames, "1h", **SPAN, store=store, **options)


@pytest.mark.parametrize(
    "symbol", ["BTC/USDT", "..", ".", "^GSPC", "a b", "BRK-B", "Ü", "a%2Fb", "c:"]
)
def test_any_symbol_is_kept_and_found(store, symbol):
    assert keep(store, {symbol: HOURS}).errors == {}
    (key,) = store.keys()
    assert key == SeriesKey("src", symbol, parse_interval("60"))
    for text in ("src", "src/1h", "src/60", str(key), f"src/{symbol}/60"):
        assert store.find(text) == [key]
    assert len(store.read(key)) == 100
    assert list(store.root.iterdir()) == [store.root / "src"]


@pytest.mark.parametrize(
    "text", ["", "/", "other", "src/ETH", "src/5m", "src/ETH/1h", "src/BTC/soon"]
)
def test_what_is_not_there_is_named(store, text):
    keep(store, {"BTC": HOURS})
    with pytest.raises(StoreError, match=re.escape(f"has no series {text!r}")):
        store.find(text)


def test_folders_of_others_are_passed_over(store):
    keep(store, {"BTC": HOURS})
    (store.root / "a/b/c").mkdir(parents=True)
    (store.root / "a/b/c/series.json").write_text("{}")
    assert [str(key) for key in store.keys()] == ["src/BTC/1h"]


def test_one_damaged_series_stops_no_other(store):
    keep(store, {"BTC": HOURS.iloc[:50], "ETH": HOURS.iloc[:50]})
    (store.root / "src/BTC/1h/series.json").write_text("{")
    report = keep(store, {"BTC": HOURS, "ETH": HOURS}, again=True)
    assert list(report.errors) == ["BTC"]
    assert "delete its folder and fetch the series again" in str(report.errors["BTC"])
    assert len(report.bars["ETH"]) == 100


def test_parts_of_a_span_are_read(store):
    keep(store, {"BTC": HOURS})
    (key,) = store.keys()
    found = store.read(key, HOURS.index[10], HOURS.index[20])
    assert list(found.index) == list(HOURS.index[10:20])
    assert store.missing(key, *HOURS.index[[10, 20]]) == []


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    report = keep(Store(tmp_path / "file"), {"BTC": HOURS})
    assert "cannot be written" in str(report.errors["BTC"])


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_a_file_that_lacks_bars_is_no_silent_loss(store, damage):
    keep(store, {"BTC": HOURS})
    (key,), (part,) = store.keys(), store.root.glob("**/2024.parquet")
    if damage == "gone":
        part.unlink()
    else:
        other = Store(store.root.parent / "other")
        keep(other, {"BTC": HOURS.iloc[:40]})
        part.write_bytes(next(other.root.glob("**/2024.parquet")).read_bytes())
    with pytest.raises(StoreError, match=r"2024.parquet: .*, but 100 were written; .*--again"):
        store.read(key)
    assert keep(store, {"BTC": HOURS}, again=True).errors == {}
    assert len(store.read(key)) == 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"source": ""}, "a source needs a name"),
    ],
)
def test_fetching_needs_sensible_arguments(store, options, said):
    with pytest.raises(DataError, match=said):
        keep(store, {"BTC": HOURS}, **options)


def test_whatever_a_source_raises_is_told_by_symbol(store):
    def pages(symbol, *_):
        raise ZeroDivisionError("oops")
        yield

    source = frames_source("src", {"BTC": HOURS})
    report = fetch(source, ["BTC", "ETH"], "1h", **SPAN, store=store)
    assert list(report.errors) == ["ETH"]
    assert "src has no 'ETH'; it has BTC" in str(report.errors["ETH"])
    report = fetch(source._replace(pages=pages), "BTC", "1h", **SPAN, store=store, again=True)
    assert "src, BTC: failed with ZeroDivisionError: oops" in str(report.errors["BTC"])


def test_a_write_that_breaks_off_leaves_what_was_there(store, monkeypatch):
    keep(store, {"BTC": HOURS.iloc[:50]})
    before = {path: path.read_bytes() for path in store.root.glob("**/*.*") if path.is_file()}

    def break_off(table, path, **_):
        path.write_bytes(b"PAR1 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.write_table", break_off)
    report = keep(store, {"BTC": HOURS}, again=True)
    assert "No space left on device" in str(report.errors["BTC"])
    after = {path: path.read_bytes() for path in store.root.glob("**/*.*") if path.is_file()}
    assert after == before
