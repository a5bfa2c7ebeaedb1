"""What stands in which column: never an asset a field, and a refusal that names the way out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_jax.data import as_bars, read_bars, to_bars
from maml_jax.errors import DataError

COUNT = 40
RNG = np.random.default_rng(3)
CLOSE = 100 * np.exp(np.cumsum(RNG.normal(0, 0.01, COUNT)))
OPEN = CLOSE * np.exp(RNG.normal(0, 0.005, COUNT))
BARS = {
    "open": OPEN, "high": np.maximum(OPEN, CLOSE) * 1.004, "low": np.minimum(OPEN, CLOSE) / 1.004,
    "close": CLOSE, "volume": RNG.integers(1000, 100_000, COUNT).astype(float),
}  # fmt: skip
DAYS = pd.date_range("2019-01-02", periods=COUNT).strftime("%Y-%m-%d")


def table(names, values=BARS):
    return pd.DataFrame({"Date": DAYS} | dict(zip(names, values.values(), strict=True)))


def only(bars):
    (frame,) = bars.values()
    return frame


SPELLINGS = {
    "Bloomberg": ["PX_OPEN", "PX_HIGH", "PX_LOW", "PX_LAST", "PX_VOLUME"],
    "bare volume": ["PX_OPEN", "PX_HIGH", "PX_LOW", "PX_LAST", "VOLUME"],
    "Nasdaq": ["Open", "High", "Low", "Close/Last", "Volume"],
    "Alpha Vantage": ["1. open", "2. high", "3. low", "4. close", "5. volume"],
    "candles": ["mid.o", "mid.h", "mid.l", "mid.c", "volume"],
    "bids": ["bidopen", "bidhigh", "bidlow", "bidclose", "tickqty"],
    "lastPrice": ["openPrice", "highPrice", "lowPrice", "lastPrice", "baseVolume"],
    "settlement": ["Open", "High", "Low", "Settle", "Vol."],
    "letters": ["o", "h", "l", "c", "v"],
}


@pytest.mark.parametrize("vendor", SPELLINGS)
def test_one_asset_however_its_fields_are_called(vendor):
    frame = only(to_bars(table(SPELLINGS[vendor])))
    for role, values in BARS.items():
        np.testing.assert_allclose(frame[role], values)
    shuffled = table(SPELLINGS[vendor])[["Date", *reversed(SPELLINGS[vendor])]]
    pd.testing.assert_frame_equal(only(to_bars(shuffled)), frame)


@given(
    prefix=st.sampled_from(["PX_", "day ", "(1d) ", "px."]),
    kept=st.sets(st.sampled_from("open high low volume turnover trades".split()), min_size=1),
    strange=st.sets(st.sampled_from(["XCLS", "FOO", "bar_x", "Zuletzt"]), max_size=2),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_fields_without_a_close_are_never_assets(prefix, kept, strange):
    names = [prefix + name for name in sorted(kept)] + sorted(strange)
    values = {name: CLOSE * (1 + i) for i, name in enumerate(names)}
    with pytest.raises(DataError, match=r"data\.columns = \{close ="):
        to_bars(table(names, values))
    named = to_bars(table([*names, "Schluss"], values | {"x": CLOSE}), columns={"close": "schluss"})
    np.testing.assert_allclose(only(named)["close"], CLOSE)


TICKERS = "AAPL MSFT BTC/USDT ^GSPC BRK.B 7203.T EURUSD=X BASE REAL DAY F X9 SP500".split()


@given(
    st.lists(st.sampled_from(TICKERS), min_size=4, unique=True),
    st.sets(st.sampled_from("LOW OPEN T V COIN BAR TS TIC C HIGH/USDT".split())),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_tickers_stay_assets_beside_those_that_are_words(plain, words):
    tickers = [*plain, *sorted(words - ({"LOW"} if "HIGH/USDT" in words else set()))]
    values = {name: CLOSE * 1.37**i for i, name in enumerate(tickers)}
    bars = to_bars(table(tickers, values))
    assert list(bars) == tickers
    for name in tickers:
        np.testing.assert_allclose(bars[name]["close"], values[name])


@pytest.mark.parametrize("pattern", ["{0}.{1}", "{1}_{0}", "{0} {1}", "{1} {0}"])
def test_names_of_asset_and_field_are_many_assets(pattern):
    values = {
        pattern.format(asset, field): column * scale
        for asset, scale in (("BRK-B", 1), ("X9", 3))
        for field, column in (("Close", CLOSE), ("Volume", BARS["volume"]))
    }
    bars = to_bars(table(list(values), values))
    assert list(bars) == ["BRK-B", "X9"]
    np.testing.assert_allclose(bars["X9"]["close"], 3 * CLOSE)
    np.testing.assert_allclose(bars["X9"]["volume"], 3 * BARS["volume"])
    with pytest.raises(DataError, match=r"\['VIX'\] are neither fields nor assets"):
        to_bars(table([*values, "VIX"], values | {"VIX": CLOSE}))


def test_foreign_names_of_a_bar_are_recognised_by_their_values():
    foreign = ["Eroeffnung", "Hoch", "Tief", "Schluss"]
    with pytest.raises(DataError, match=r"'Hoch' is always the highest.*data\.columns"):
        to_bars(table(foreign, {role: BARS[role] for role in ("open", "high", "low", "close")}))
    with pytest.raises(DataError, match=r"'Umsatz' moves by .*data\.columns"):
        to_bars(table(["Kurs", "Index", "Umsatz"], {"a": CLOSE, "b": OPEN, "c": BARS["volume"]}))
    columns = {"open": foreign[0], "high": foreign[1], "low": foreign[2], "close": foreign[3]}
    frame = only(to_bars(table([*foreign, "Stk"]), columns={**columns, "volume": "Stk"}))
    pd.testing.assert_frame_equal(frame, only(to_bars(table(BARS))))


def test_foreign_names_of_times_and_symbols_are_refused_and_can_be_named():
    raw = table(["收盘"], {"x": CLOSE}).rename(columns={"Date": "日期"}).assign(代码="600519")
    with pytest.raises(DataError, match=r"data\.columns = \{timestamp ="):
        to_bars(raw)
    named = to_bars(raw, columns={"timestamp": "日期", "close": "收盘", "symbol": "代码"})
    assert list(named) == ["600519"]
    for wrong, said in (({"cloze": "x"}, "no key 'cloze'"), ({"close": "y"}, "close = 'y'; found")):
        with pytest.raises(DataError, match=said):
            to_bars(raw, columns=wrong)
    # Bars in normal form need no names, whatever a run's settings say of its files.
    assert as_bars(named, columns={"close": "收盘"})["600519"].equals(named["600519"])


def test_which_of_several_columns_is_taken():
    both = table([*BARS, "Last"], BARS | {"Last": CLOSE * 1.001})
    frame = only(to_bars(both))
    np.testing.assert_allclose(frame["close"], CLOSE)
    assert any("'close' is the close" in note for note in frame.attrs["notes"])
    with pytest.raises(DataError, match=r"\['bidclose', 'askclose'\] mean the same"):
        to_bars(table(["bidclose", "askclose"], {"a": CLOSE, "b": CLOSE * 1.0001}))
    sides = {f"{s}{r}": BARS[r] * k for s, k in (("bid", 1), ("ask", 2)) for r in list(BARS)[:4]}
    frame = only(to_bars(table(list(sides), sides), columns={"close": "askclose"}))
    np.testing.assert_allclose(frame["open"], 2 * OPEN)


def test_a_bar_opens_at_its_first_time_and_words_alone_are_no_close():
    ends = pd.date_range("2019-01-03", periods=COUNT).strftime("%Y-%m-%d")
    raw = table(BARS).rename(columns={"Date": "timeOpen"}).assign(timestamp=ends, timeClose=ends)
    assert str(only(to_bars(raw)).index[0].date()) == "2019-01-02"
    for word in ("VALUE", "LAST", "NAV"):
        with pytest.raises(DataError, match=r"data\.columns = \{close"):
            to_bars(table(["AAPL", "MSFT", word], {"a": CLOSE, "b": 2 * CLOSE, "c": 3 * CLOSE}))
        np.testing.assert_allclose(only(to_bars(table([word], {"a": CLOSE})))["close"], CLOSE)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"decimal": ";"}, "decimal=';'"), ({"missing": "x"}, "missing='x'"),
     ({"columns": "close"}, "columns='close'"),
     ({"columns": {"open": "close", "close": "close"}}, "'close' as open and close")],
)  # fmt: skip
def test_options_that_cannot_be_are_named(options, said):
    with pytest.raises(DataError, match=said):
        to_bars(table(BARS), **options)


@pytest.mark.parametrize("kind", ["datetime64[s]", "timedelta64[s]", "bool", "complex"])
def test_columns_of_other_kinds_are_no_prices(kind):
    with pytest.raises(DataError, match="row 0, column 'close': not a number"):
        to_bars(table(BARS).assign(close=np.arange(1, COUNT + 1).astype(kind)))


def test_volume_of_ticks_where_there_is_no_other(tmp_path):
    ticks = BARS["volume"]
    raw = table([*BARS, "<TICKVOL>"], BARS | {"volume": 0 * ticks, "t": ticks})
    frame = only(to_bars(raw))
    np.testing.assert_allclose(frame["volume"], ticks)
    assert "'<TICKVOL>' is the volume" in frame.attrs["notes"][0]
    np.testing.assert_allclose(only(to_bars(raw.assign(volume=2.0)))["volume"], 2.0)
    left = only(to_bars(raw.assign(volume=-1.0), columns={"volume": ""}))
    assert "volume" not in left


def test_columns_that_are_left_are_named(tmp_path):
    path = tmp_path / "X.csv"
    table([*BARS, "Change %"], BARS | {"c": ["0.1%"] * COUNT}).to_csv(path, index=False)
    assert only(read_bars(path)).attrs["notes"] == ["columns ['Change %'] are not used"]
    wide = table(["A", "B"], {"a": CLOSE, "b": 2 * CLOSE}).assign(Unix=np.arange(COUNT) + 1.5e9)
    assert list(to_bars(wide)) == ["A", "B"]


def test_repeated_columns_and_strange_levels_are_refused():
    index = pd.date_range("2019", periods=COUNT, name="date")
    for names in (["A", "A"], ["close", "close"]):
        with pytest.raises(DataError, match="duplicate columns"):
            to_bars(pd.DataFrame(np.c_[CLOSE, CLOSE], index, names))
    with pytest.raises(DataError, match="duplicate columns 'close'"):  # as pandas reads a file
        to_bars(table(["close", "close.1"], {"a": CLOSE, "b": 2 * CLOSE}))
    for columns in ([("A", "x"), ("B", "y")], [("A", "Close", "z"), ("B", "Close", "z")]):
        levels = pd.MultiIndex.from_tuples(columns)
        with pytest.raises(DataError, match=r"levels, expected two, one of which has 'close'"):
            to_bars(pd.DataFrame(np.c_[CLOSE, CLOSE], index, levels))
    levels = pd.MultiIndex.from_tuples([("SPX Index", "PX_LAST"), ("NDX Index", "PX_LAST")])
    assert list(to_bars(pd.DataFrame(np.c_[CLOSE, CLOSE], index, levels))) == [
        "SPX Index", "NDX Index",
    ]  # fmt: skip


def test_a_bad_cell_below_two_levels_of_names_is_found_in_its_row():
    levels = pd.MultiIndex.from_tuples([("Close", "A"), ("Close", "B")])
    cells = np.array([["1", ""], ["2", "5"], ["3", "x"]], dtype=object)
    raw = pd.DataFrame(cells, pd.date_range("2019", periods=3), levels)
    with pytest.raises(DataError, match=r"B, line 12, column .*'x'"):
        to_bars(raw, place=lambda row: f"line {row + 10}")
