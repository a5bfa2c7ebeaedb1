"""The commands about bars, as they are typed."""

import pytest
from bybit_server import Exchange, serving
from helpers import random_bars
from market import SMALL
from typer.testing import CliRunner

from maml_jax.cli.main import app
from maml_jax.data import fetch, frames_source, read_bars
from maml_jax.errors import MamlJaxError
from maml_jax.experiment import run

SPAN = ["--start", "2023-11-01", "--end", "2024-01-09"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MAML_JAX_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def typed(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_fetch_shows_what_came_and_goes_on_from_it(store):
    with serving(Exchange()) as address:
        first = typed("fetch", "bybit", "BTCUSDT", "ETHUSDT", *SPAN, "--address", address)
        again = typed("fetch", "bybit", "BTCUSDT", "ETHUSDT", "--address", address)
    assert "bybit-linear/BTCUSDT/1h" in first and "1,680" in first and str(store) in first
    assert "1,692" in again and " 12 " in again
    assert "bybit-linear/ETHUSDT/1h" in typed("data", "list")


def test_a_revised_bar_is_told(store):
    exchange = Exchange()
    with serving(exchange) as address:
        typed("fetch", "bybit", "BTCUSDT", *SPAN, "--address", address)
        exchange.changed = {int(t): "99.5" for t in exchange.opens("60")[-20:]}
        output = typed("fetch", "bybit", "BTCUSDT", "--address", address)
    assert "revised: bybit-linear/BTCUSDT/1h close at 2024-01-09 17:00:00+00:00: " in output
    assert "became 99.5" in output
    assert "2 more; all are in its revisions.csv" in output


def test_a_symbol_that_fails_is_told_and_the_others_are_kept(store):
    with serving(Exchange()) as address:
        words = ["fetch", "bybit", "BTCUSDT", "NOPE", *SPAN, "--address", address, "--rate", "0"]
        output = typed(*words, "--timeout", "5", "--attempts", "2", code=2)
    assert "failed, see below" in output
    assert "error: bybit-linear/NOPE/1h: Bybit answers 10001 for NOPE (linear)" in output
    assert "NOPE" not in typed("data", "list")


def test_stored_bars_are_shown_checked_and_exported(store, tmp_path):
    with serving(Exchange()) as address:
        typed("fetch", "bybit", "BTCUSDT", "ETHUSDT", *SPAN, "--address", address)
    shown = typed("data", "show", "bybit-linear/60")
    assert "BTCUSDT: 1,680 bars from 2023-11-01 00:00:00+00:00" in shown
    assert "2 series, 3,360 bars, files intact" in typed("data", "verify")
    for name in ("out.csv", "out.csv.gz", "out.parquet"):
        assert "3,360 rows of 2 assets" in typed(
            "data", "export", "bybit-linear/1h", "--out", tmp_path / name
        )
        back = read_bars(tmp_path / name)
        assert {symbol: len(bars) for symbol, bars in back.items()} == {
            "BTCUSDT": 1680,
            "ETHUSDT": 1680,
        }
    with pytest.raises(MamlJaxError, match="unknown kind of file"):
        typed("data", "export", "bybit-linear/1h", "--out", tmp_path / "out.xlsx")


def test_a_damaged_file_is_found(store):
    with serving(Exchange()) as address:
        typed("fetch", "bybit", "BTCUSDT", *SPAN, "--address", address)
        part = next(store.glob("**/2023.parquet"))
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 0xFF
        part.write_bytes(content)
        assert "is damaged" in typed("data", "verify", code=1)
        part.unlink()
        assert "2023.parquet: holds 0 bars, but 1464 were" in typed("data", "verify", code=1)
        typed("fetch", "bybit", "BTCUSDT", *SPAN, "--address", address, "--again")
    assert "files intact" in typed("data", "verify")


def test_files_go_into_the_store_and_are_shown_with_their_faults(store, tmp_path):
    bars = random_bars(count=400, step="4h")
    bars.iloc[200, 3] *= 0.5
    bars.to_csv(tmp_path / "XY.csv")
    assert "bad_tick 1" in typed("fetch", "files", tmp_path / "XY.csv", "--name", "mine")
    assert "bad_tick" in typed("data", "show", tmp_path / "XY.csv")
    assert "bad_tick" in typed("data", "verify", "mine/XY/4h")
    typed("data", "export", "mine", "--out", tmp_path / "clean.csv", "--policy", "drop")
    assert len(read_bars(tmp_path / "clean.csv")["XY"]) == 399


def test_what_is_not_there_is_named(store):
    with pytest.raises(MamlJaxError, match="there is no such file, and .*none yet"):
        typed("data", "show", "nothing/1h")
    with pytest.raises(MamlJaxError, match="start is required"):
        typed("fetch", "bybit", "BTCUSDT")
    with pytest.raises(MamlJaxError, match="category 'options'"):
        typed("fetch", "bybit", "BTCUSDT", "--category", "options", *SPAN)


@pytest.mark.slow
def test_a_run_takes_bars_from_the_store(store):
    frame = random_bars(count=260)
    frame.iloc[100, 3] *= 2
    market = {f"A{i}": random_bars(i, count=260) for i in range(3)} | {"A3": frame}
    fetch(frames_source("mine", market), [*market], "1d", start="2020-01-01")
    policies = {"data": {**SMALL["data"], "path": "store:mine/1d", "policies": "mask"}}
    result = run({**SMALL, **policies}, learner={"methods": ["maml"], "inner_steps": 2})
    assert any("bad_tick: A3 (1)" in note.text and "masked" in note.text for note in result.notes)
    assert result.config.data.path == "store:mine/1d"
    assert result.returns.notna().all(axis=None)
