"""`--tensorboard` writes what the setting of that name asks for."""

import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from helpers import random_market

from maml_jax.cli import main as cli
from maml_jax.experiment import load_config

pytestmark = pytest.mark.long

SETTINGS = {
    "features": {"window": 5, "fast": 3, "slow": 5},
    "target": {"horizon": 3, "volatility_window": 5},
    "task": {"support": 10, "query": 5},
    "model": {"hidden": [4]},
    "learner": {"methods": ["ridge"]},
    "training": {"steps": 2, "meta_batch": 2},
}


class Writer:
    """Stands in for that of tensorboardX; writes lines of JSON."""

    def __init__(self, folder, purge_step):
        from pathlib import Path

        Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = open(Path(folder) / "events", "a")

    def add_scalar(self, name, value, step):
        self.file.write(json.dumps([name, value, step]) + "\n")

    def flush(self):
        self.file.flush()

    def close(self):
        self.file.close()


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["maml-jax", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def test_the_flag_is_the_setting(tmp_path, monkeypatch, capsys):
    market = pd.concat(random_market(count=200, assets=2), names=["symbol"])
    market.reset_index().to_parquet(tmp_path / "market.parquet")
    path = tmp_path / "config.toml"
    data = {"data": {"path": str(tmp_path / "market.parquet")}}
    path.write_text(load_config(SETTINGS | data).to_toml())
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert call(monkeypatch, "train", path, "--out", tmp_path / "run", "--tensorboard") == 2
    assert "pip install 'maml-jax[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    assert call(monkeypatch, "train", path, "--out", tmp_path / "run", "--tensorboard") in (0, None)
    rows = [*map(json.loads, (tmp_path / "run/tensorboard/ridge/events").read_text().splitlines())]
    table = pd.read_csv(tmp_path / "run/logs/ridge.csv")
    for column in table.columns.drop("step"):
        logged = {step: value for name, value, step in rows if name == column}
        assert [logged[step] for step in table["step"]] == pytest.approx(table[column].tolist())
    assert load_config(tmp_path / "run/config.toml").training.tensorboard
    capsys.readouterr()
    call(monkeypatch, "run", "--resume", tmp_path / "run", "--tensorboard")
    assert "leave out CONFIG, --set, --out and --tensorboard" in capsys.readouterr().err
