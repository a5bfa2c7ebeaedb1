"""Real bars: the checks find what the notes beside them say, and take nothing real for a fault."""

import pandas as pd
import pytest

from maml_jax.data import read_bars
from maml_jax.data.quality.checks import check_bars, findings_table
from maml_jax.data.quality.cleaning import ACTS_ON, clean_bars
from maml_jax.errors import DataError

pytestmark = pytest.mark.long


def shared(folder, name):
    return {k: v for k, v in read_bars(folder / name).items()}


def by_kind(bars):
    table = findings_table(check_bars(bars))
    return table.groupby("kind")["bars"].sum().to_dict(), table.set_index(["asset", "kind"])


def test_coinbase_four_hours(shared_data):
    for coin, gaps in (("BTC", 4), ("ETH", 25)):
        bars = shared(shared_data, f"crypto/coinbase_{coin}USD_4h_2016_2020.csv.gz")
        found, table = by_kind(bars)
        assert found["gap"] == gaps
        if coin == "BTC":
            assert found["bad_tick"] == 1
            row = table.xs("bad_tick", level="kind").iloc[0]
            assert row["first"] == pd.Timestamp("2018-04-03T20:00Z")
            dropped = clean_bars(bars, "drop").bars
            # The other one opens at 0.06 dollars, between closes of 1178 and 1183.
            assert sum(map(len, bars.values())) - sum(map(len, dropped.values())) == 2
            assert table.xs("bad_open", level="kind").iloc[0]["detail"].startswith("open 0.06 at")
        else:
            assert "bad_tick" not in found
            assert "15 bars" in table.xs("gap", level="kind").iloc[0]["detail"]  # 64 h apart


def test_coinbase_hours(shared_data):
    found, _ = by_kind(shared(shared_data, "crypto/coinbase_BTCUSD_1h_2018_2019.csv.gz"))
    assert found["zero_volume"] == 24
    assert "continuous" in found
    assert "bad_tick" not in found and "gap" not in found


def test_bitstamp_days(shared_data):
    found, table = by_kind(
        shared(shared_data, "crypto/bitstamp_BTC_ETH_LTC_daily_2014_2020.csv.gz")
    )
    assert found["zero_volume"] == 11
    gaps = table.xs("gap", level="kind")
    assert set(gaps.index) == {"BTCUSD", "ETHUSD", "LTCUSD"}
    assert (gaps["last"] == pd.Timestamp("2019-03-31", tz="UTC")).all()
    # The notes count the 19th as absent; it is there, with a tenth of the usual volume.
    assert (gaps["first"] == pd.Timestamp("2019-03-20", tz="UTC")).all()
    assert "bad_tick" not in found


def test_binance_hours(shared_data):
    bars = shared(shared_data, "crypto/binance_20pairs_1h_2024.csv.gz")
    found, table = by_kind(bars)
    early = table.xs("ends_early", level="kind")
    assert set(early.index) == {"BTCUSDT", "ETHUSDT", "LTCUSDT"}
    assert early["detail"].str.contains("22:00:00 before most others").all()
    jump = table.loc[("UNIUSDT", "jump")]
    assert "+54.7% at 2024-02-23 14:00" in jump["detail"]
    assert not {"bad_tick", "split", "gap", "ohlc"} & set(found)


def test_euro_hours(shared_data):
    found, table = by_kind(shared(shared_data, "fx/EURUSD_ask_1h_2017.csv.gz"))
    gaps = table.xs("gap", level="kind").iloc[0]["detail"]
    assert found["closed"] + int(gaps.split()[0]) == 52  # Christmas is no weekend
    assert "the longest of 50 h" in table.xs("closed", level="kind").iloc[0]["detail"]
    assert "bad_tick" not in found


@pytest.mark.slow
def test_us_stocks_keep_their_real_jumps(shared_data):
    bars = shared(shared_data, "stocks/us20_adjclose_daily_1990_2022.csv.gz")
    found, table = by_kind(bars)
    assert "bad_tick" not in found and "gap" not in found
    assert "13.0% of all returns" in table.loc[("RRC", "coarse")]["detail"]
    for asset, day, kind in (("AAPL", "2000-09-29", "split"), ("RRC", "1990-04-10", "split")):
        assert table.loc[(asset, kind)]["first"] == pd.Timestamp(day, tz="UTC")
    for policy in ("drop", "mask", {kind: "mask" for kind in ACTS_ON if kind not in ("stale",)}):
        cleaned = clean_bars(bars, policy).bars
        for name, frame in bars.items():
            pd.testing.assert_frame_equal(cleaned[name], frame)


def test_listings_of_ragged_stocks(shared_data):
    bars = shared(shared_data, "stocks/us19_adjclose_daily_1990_2022_ragged.csv.gz")
    _, table = by_kind(bars)
    late = table.xs("begins_late", level="kind")["first"].dt.strftime("%Y-%m-%d").to_dict()
    assert late == {
        "SBUX": "1992-06-26", "AMZN": "1997-05-15", "GOOG": "2004-08-19", "UAA": "2005-11-18",
        "MA": "2006-05-25", "GM": "2010-11-18", "META": "2012-05-18", "BABA": "2014-09-19",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "stocks/dj30_ohlc_daily_2020_2021.csv.gz",
        "stocks/GOOGL_ohlcv_daily_2009_2018.csv.gz",
        "index/sp500_index_daily_1990_2022.csv.gz",
        "index/us_factor_etfs_daily_2014_2022.csv.gz",
        "index/dji_ohlcv_daily_2000_2021.csv.gz",
    ],
)
def test_clean_series_lose_nothing(shared_data, name):
    bars = shared(shared_data, name)
    for policy in ("drop", "mask"):
        for key, frame in clean_bars(bars, policy).bars.items():
            pd.testing.assert_frame_equal(frame, bars[key])


def test_every_file_beside_the_project_loads_in_one_line(shared_data):
    paths = sorted(path for path in shared_data.glob("*/*") if path.suffix != ".md")
    assert len(paths) == 18
    counts = {}
    for path in paths:
        if path.name.startswith("error_"):
            with pytest.raises(DataError, match="holds no bars: Bybit answers 100"):
                read_bars(path)
        else:
            counts[path.name.split(".")[0]] = sum(map(len, read_bars(path).values()))
    assert counts["binance_20pairs_1h_2024"] == 119974
    assert counts["kline_inverse_BTCUSD_60_docs"] == 3
    assert counts["mark_price_kline_linear_BTCUSDT_15_docs"] == 1
    assert counts["us20_adjclose_daily_1990_2022"] == 20 * 8313
    assert counts["EURUSD_ask_1h_2017"] == 6225
