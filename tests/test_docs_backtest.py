"""What the page on backtests shows does what it says."""

import re
import tomllib
from pathlib import Path
from typing import get_args

from maml_jax.backtest.strategy_names import BUY_AND_HOLD, FROM_SCRATCH, NO_ADAPTATION, RANDOM
from maml_jax.experiment import load_config
from maml_jax.experiment.config.backtest import BacktestConfig, PositionRule
from maml_jax.experiment.evaluation.baselines import (
    EWMA,
    MOMENTUM,
    POOLED_HAR,
    RIDGE,
    TRAILING,
    TREES,
)

PAGE = Path(__file__).parents[1] / "docs" / "backtest.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S)


def test_settings_are_read():
    read = [load_config(tomllib.loads(text)) for text in blocks("toml")]
    assert {"levels"} <= {config.backtest.positions for config in read}
    assert any("trees" in config.backtest.baselines for config in read)
    assert any(config.online.variants for config in read)


def test_code_runs():
    for text in blocks("python"):
        exec(compile(text, str(PAGE), "exec"), {})


def test_every_baseline_and_every_side_is_told():
    named = {*re.findall(r"`([a-z_ -]+)`", TEXT)}
    assert {NO_ADAPTATION, FROM_SCRATCH, RANDOM, BUY_AND_HOLD, RIDGE, MOMENTUM, TREES} <= named
    assert {TRAILING, EWMA, POOLED_HAR} <= named
    assert {*get_args(BacktestConfig.model_fields["sides"].annotation)} <= named


def test_every_rule_is_told_where_positions_are():
    page = PAGE.with_name("tasks.md").read_text(encoding="utf-8")
    assert {*get_args(PositionRule)} <= {*re.findall(r"`([a-z_]+)`", page)}
