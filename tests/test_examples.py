"""The examples run, offline, and say what they claim to say."""

import runpy
from pathlib import Path

import pytest
from helpers import random_market

from maml_jax.data import Store, fetch, frames_source
from maml_jax.experiment import load_config, run

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_multi_asset(capsys):
    table = runpy.run_path(str(EXAMPLES / "multi_asset.py"))["main"](steps=60)
    assert list(table.index) == [0, 1, 2, 3, 4, 5]
    assert (table["meta-learned"] < table["from scratch"]).all()
    assert "query error on WTI" in capsys.readouterr().out


@pytest.mark.slow
def test_trading_strategy(tmp_path, capsys):
    result = runpy.run_path(str(EXAMPLES / "trading_strategy.py"))["main"](
        steps=20, report=str(tmp_path / "report.html")
    )
    assert "buy and hold" in result.stats
    assert (tmp_path / "report.html").is_file()
    assert "the latest trades" in capsys.readouterr().out


@pytest.mark.slow
def test_few_shot_images(capsys):
    scores = runpy.run_path(str(EXAMPLES / "few_shot_images.py"))["main"](steps=40)
    assert scores.interval["accuracy"].low > 0.6  # of five kinds, 0.2 by chance
    assert "5-way 1-shot accuracy on new kinds" in capsys.readouterr().out


@pytest.mark.slow
def test_bybit(tmp_path):
    config = load_config(EXAMPLES / "bybit.toml")
    names = config.data.test_assets
    market = random_market(count=500, assets=len(names), start="2024-05-20", step="h")
    frames = dict(zip(names, market.values(), strict=True))
    source, store = frames_source("bybit-linear", frames), Store(tmp_path)
    fetch(source, names, "1h", start="2024-05-20", end="2024-06-30", store=store)
    quick = {"data.store": str(tmp_path), "training.steps": 2, "training.meta_batch": 4}
    result = run(EXAMPLES / "bybit.toml", **quick, **{"learner.methods": ["alpaca"]})
    assert set(result.predictions["asset"]) == {*names}
    assert len(result.checkpoints["alpaca"].scaler.mean) == 11 + 7 + 3 + 2
