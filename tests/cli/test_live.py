"""Signals, a paper account and its reconciliation, from the command line."""

import json
import sys

import pandas as pd
import pytest
from live.small import START, result
from market import MARKET

from maml_jax.cli import main as cli

pytestmark = pytest.mark.long

NOW = str(START + pd.Timedelta(days=41))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    result().save(tmp_path / "run")
    frames = pd.concat({name: MARKET[name] for name in ("A2", "A3")}, names=["symbol"])
    table = frames.reset_index()
    monkeypatch.chdir(tmp_path)
    for name, days in (("bars", 40), ("early", 30)):
        kept = table[table["timestamp"] <= START + pd.Timedelta(days=days)]
        kept.to_csv(f"{name}.csv", index=False)
    (tmp_path / "held.csv").write_text("asset,units\nA2,3\n")
    return tmp_path


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["maml-jax", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def test_a_monday(folder, monkeypatch, capsys):
    ask = ("signal", "run", "--bars", "bars.csv", "--now", NOW)
    code, out, err = call(monkeypatch, capsys, *ask, "--holdings", "held.csv", "--capital", "5000")
    assert (code, err) == (0, "")
    assert "A2" in out
    assert "to be filled at the next close" in out
    code, out, _ = call(monkeypatch, capsys, *ask, "--json")
    record = json.loads(out)
    assert [each["asset"] for each in record["signals"]] == ["A2", "A3"]
    assert {"run", "settings", "capital"} <= {*record["about"]}
    code, out, _ = call(monkeypatch, capsys, "signal", "run", "--bars", "bars.csv", "--csv")
    assert code == 3
    assert "stale" in out
    code, _, err = call(monkeypatch, capsys, *ask, "--json", "--csv")
    assert code == 2
    assert err.startswith("error: --json, --csv")


def test_an_account_goes_on_and_is_explained(folder, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "paper", "run", "--bars", "early.csv")
    assert code == 0
    assert "0 fills" in out
    code, out, _ = call(monkeypatch, capsys, "paper", "run", "--bars", "bars.csv")
    assert code == 0
    assert "9 bars came while nobody looked" in out
    code, out, _ = call(monkeypatch, capsys, "paper", "run", "--bars", "bars.csv")
    assert "no new bar" in out
    ask = ("reconcile", "run", "--bars", "bars.csv")
    code, out, _ = call(monkeypatch, capsys, *ask, "--html", "why.html")
    assert code == 0
    assert "missed bar" in out
    assert "missed bar" in (folder / "why.html").read_text()
    code, out, _ = call(monkeypatch, capsys, *ask, "--json")
    record = json.loads(out)
    assert sum(each["amount"] for each in record["causes"]) == pytest.approx(record["gap"])


def test_a_replay_is_the_backtest_whatever_the_book(folder, monkeypatch, capsys):
    ask = ("paper", "run", "--replay", "bars.csv", "--book", "replay.sqlite")
    code, out, _ = call(monkeypatch, capsys, *ask)
    assert code == 0
    assert "41 bars" in out
    code, out, _ = call(
        monkeypatch, capsys, "reconcile", "run", "--bars", "bars.csv", "--book", "replay.sqlite"
    )
    assert "to the cent" in out
    code, _, err = call(monkeypatch, capsys, *ask, "--watch")
    assert (code, err[:17]) == (2, "error: --replay: ")
    code, _, err = call(monkeypatch, capsys, "reconcile", "run", "--book", "none.sqlite")
    assert code == 2
