"""Tables on the console show names as they are."""

from pathlib import Path

import pandas as pd
from helpers import random_bars
from typer.testing import CliRunner

from maml_jax.cli.main import app
from maml_jax.data import Store, fetch, frames_source


def test_brackets_in_names_are_no_markup(tmp_path: Path):
    names = ["[bold]X[/]", "A[/]", "[red]", "BTC/USDT:USDT"]
    bars = {name: random_bars(seed, count=20) for seed, name in enumerate(names)}
    span = {"start": "2020-01-01", "end": pd.Timestamp("2020-01-20", tz="UTC")}
    fetch(frames_source("files", bars), names, "1d", store=Store(tmp_path), **span)
    shown = CliRunner().invoke(app, ["data", "list", "--store", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    for name in names:
        assert name in shown.output
    table = pd.concat(bars, names=["symbol"]).reset_index()
    table.to_csv(tmp_path / "long.csv", index=False)
    arguments = ["fetch", "files", str(tmp_path / "long.csv"), "--store", str(tmp_path / "other")]
    fetched = CliRunner().invoke(app, arguments)
    assert fetched.exit_code == 0, fetched.output
    assert all(name in fetched.output for name in names)
