"""How files are read, as commands and settings say it."""

import pandas as pd
import pytest
from helpers import random_bars
from typer.testing import CliRunner

from maml_jax.cli.main import app
from maml_jax.cli.reading import file_settings
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import load_config
from maml_jax.experiment.preparation.bars import load_bars

BARS = random_bars(count=40)
ODD = "Währung: €\nnot,a,header\n"
"""Not UTF-8 in the file, and nobody could know where the header is."""


@pytest.fixture
def odd(tmp_path):
    table = ODD + BARS.rename_axis("Tag").to_csv(sep=";").replace(";", ",")
    (tmp_path / "odd.csv").write_text(table, encoding="cp1252")
    return tmp_path / "odd.csv"


@pytest.fixture
def candles(tmp_path):
    table = BARS.reset_index()
    table["timestamp"] = [int(time.timestamp()) for time in BARS.index]
    table.assign(trades=1).to_csv(tmp_path / "XBTUSD.csv", index=False, header=False)
    return tmp_path / "XBTUSD.csv"


SET = ("data.encoding=cp1252", "data.skip_lines=2", "data.symbol=X.Y", "data.columns.timestamp=Tag")


def test_settings_and_options_read_the_same_bars(odd, candles):
    with pytest.raises(DataError, match="encoding="):
        read_bars(odd)
    read = read_bars(odd, **file_settings(None, [*SET]))
    data = {"encoding": "cp1252", "skip_lines": 2, "symbol": "X.Y", "columns": {"timestamp": "Tag"}}
    loaded = load_bars(load_config({"data": {"path": str(odd), **data}}))
    for bars in (read, loaded):
        assert list(bars) == ["X.Y"]
        pd.testing.assert_frame_equal(bars["X.Y"], BARS, check_freq=False, rtol=1e-12)
    loaded = load_bars(load_config({"data": {"path": str(candles), "layout": "kraken"}}))
    pd.testing.assert_frame_equal(loaded["XBTUSD"], BARS, check_freq=False, rtol=1e-12)


def test_other_files_take_the_settings_of_a_run_but_its_symbol():
    base = load_config({"data": {"path": "x.csv", "symbol": "IBM", "encoding": "gbk"}})
    options = file_settings("mt4", ["data.timezone=Asia/Tokyo"], base=base)
    assert options["symbol"] is None and options["encoding"] == "gbk"
    assert (options["layout"], options["timezone"]) == ("mt4", "Asia/Tokyo")
    assert file_settings(None, ["data.symbol=X"], base=base)["symbol"] == "X"
    assert file_settings(None, None) == {}
    with pytest.raises(ConfigError, match="--set training.steps: expected a setting of data"):
        file_settings(None, ["training.steps=3"])
    with pytest.raises(ConfigError, match="data.skip_lines"):
        file_settings(None, ["data.skip_lines=-1"])


def test_commands_take_them(odd, candles, tmp_path, monkeypatch):
    monkeypatch.setenv("MAML_JAX_STORE", str(tmp_path / "store"))

    def typed(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    sets = [word for each in SET for word in ("--set", each)]
    assert "X.Y: 40 bars" in typed("data", "show", odd, *sets)
    assert "files/X.Y/1d" in typed("fetch", "files", odd, *sets)
    with pytest.raises(DataError, match="layout='kraken'"):
        typed("fetch", "files", candles)
    assert "files/XBTUSD/1d" in typed("fetch", "files", candles, "--layout", "kraken")
    out = tmp_path / "out.csv"
    typed("data", "export", candles, "--layout", "kraken", "--out", out)
    pd.testing.assert_frame_equal(read_bars(out)["XBTUSD"], BARS, check_freq=False, rtol=1e-12)
    with pytest.raises(DataError, match="layout='kraken'"):
        typed("risk", candles)
