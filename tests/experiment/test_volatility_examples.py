"""The examples of volatility are what its table reproduces."""

from pathlib import Path

import pytest

from benchmarks.reproduce.volatility_rows import MARKETS, ROWS
from maml_jax.experiment import load_config

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(("file", "market"), [("us20", "stocks"), ("crypto", "crypto")])
def test_an_example_has_the_settings_of_the_table(file, market):
    config = load_config(EXAMPLES / f"{file}_volatility.toml")
    rows = {row.key: row for row in ROWS}
    for method in config.learner.methods:
        settings = rows[method].settings(MARKETS[market], config.task.support)
        assert config.task.support in rows[method].trainings()
        settings["learner"] = {**settings["learner"], "methods": config.learner.methods}
        assets = {key: getattr(config.data, key) for key in ("train_assets", "test_assets", "path")}
        settings["data"] |= assets
        assert load_config(settings) == config
    names = sorted({*config.data.train_assets, *config.data.test_assets})
    assert list(config.data.test_assets) == names[-5:]
    assert list(config.data.train_assets) == names[:-5]
