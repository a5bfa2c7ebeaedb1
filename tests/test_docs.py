"""What the documentation shows does what it says."""

import re
import tomllib
from pathlib import Path

import pytest
from helpers import random_bars

from maml_jax.experiment import load_config
from maml_jax.features import registry as own

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
TEXT = PAGE.read_text(encoding="utf-8")


def block(kind, part):
    (found,) = [each for each in re.findall(rf"```{kind}\n(.*?)```", TEXT, re.S) if part in each]
    return found


def run(part, **names):
    exec(compile(block("python", part), str(PAGE), "exec"), names)
    return names


def test_a_simulated_market():
    names = run("regime_bars")
    assert list(names["market"].bars) == ["A", "B"]
    assert len(names["market"].truth) == 1000


def test_a_feature_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setattr(own, "_registered", {})
    assert run("def skew", bars=random_bars(count=300))["feature"].warm_up == 30
    settings = tomllib.loads(block("toml", "my_features.py"))
    text = block("python", "def skew").replace("check_feature(feature, bars)", "feature")
    (tmp_path / "my_features.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    names = [feature.name for feature in load_config(settings).features.named()]
    assert {"rsi", "natr", "skew", "return_1_lag_2"} < {*names}


def test_policies():
    text = block("toml", "policies")
    other = text.replace("policies =", "# policies =", 1).replace("# # policies", "policies")
    for settings in (text, other.replace("# policies = {", "policies = {")):
        assert load_config(tomllib.loads(settings)).data.policies != "keep"


@pytest.mark.parametrize("kind", ["finding", "source"])
def test_tables_name_what_there_is(kind):
    from maml_jax.data.quality.checks import MEANINGS

    named = set(re.findall(r"`([a-z_]+)`", TEXT))
    if kind == "finding":
        assert {*MEANINGS} <= named
    else:
        assert {"bybit", "yahoo", "binance", "files"} <= set(re.findall(r"`fetch (\w+)`", TEXT))


TASKS = PAGE.with_name("tasks.md")


def test_settings_of_tasks_are_read():
    blocks = re.findall(r"```toml\n(.*?)```", TASKS.read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 8
    read = [load_config(tomllib.loads(text)) for text in blocks]
    assert {"regime", "strategy"} <= {str(config.task.family) for config in read}
    assert any(config.online.variants for config in read)


@pytest.mark.slow
def test_tasks_in_code():
    (text,) = re.findall(r"```python\n(.*?)```", TASKS.read_text(encoding="utf-8"), re.S)
    names = {}
    exec(compile(text, str(TASKS), "exec"), names)
    assert names["frozen"].mean.shape == (4, 400)


@pytest.mark.long
def test_training_in_code(monkeypatch, tmp_path):
    page = PAGE.with_name("training.md")
    (text,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    names = {}
    text = text.replace("steps=1000, every=100", "steps=2, every=1")
    exec(compile(text, str(page), "exec"), names)
    assert names["progress"].step == 2
    assert len((tmp_path / "runs/x/log.csv").read_text().splitlines()) == 3


def test_risk_in_code():
    page = PAGE.with_name("risk.md")
    (text,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    names = {}
    exec(compile(text, str(page), "exec"), names)
    assert names["table"]["age"].tolist() == [2]
