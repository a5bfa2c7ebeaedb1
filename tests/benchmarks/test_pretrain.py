"""What a study measured of weights, in their card."""

import json
import shutil

import pytest

from benchmarks.pretrain import record_measured
from maml_jax.errors import ConfigError
from maml_jax.risk.model import CARD, PRETRAINED, WEIGHTS, load_model


def write_study(path, digest):
    tails = {"coverage": {"model": [[0.01 + age / 1000 for age in range(8)], [0.05] * 8]}}
    study = {
        "weights": {"given": digest},
        "bars": {"file": "bars.csv", "sha256": "0"},
        "r2": {"model-ensemble": {"1": [0.25], "5": [0.42]}},
        "tails": {"5": tails},
    }
    path.write_text(json.dumps(study))
    return path


def test_figures_stand_in_the_card_of_the_weights_they_are_of(tmp_path):
    names = ("stocks-daily", "crypto-hourly")
    for name in names:
        shutil.copytree(PRETRAINED / name, tmp_path / name)
    stocks, crypto = (json.loads((tmp_path / name / CARD).read_text()) for name in names)
    path = write_study(tmp_path / "study.json", stocks["sha256"])
    assert record_measured(path, tmp_path) == tmp_path / names[0] / CARD
    model = load_model(tmp_path / names[0])
    assert model.card["measured"]["r2"] == {"1": 0.25, "5": 0.42}
    assert model.card["measured"]["coverage"]["5"]["0.01"]["20"] == pytest.approx(0.012)
    assert {k: v for k, v in model.card.items() if k != "measured"} == {
        k: v for k, v in stocks.items() if k != "measured"
    }
    assert json.loads((tmp_path / names[1] / CARD).read_text()) == crypto
    for name in names:
        own, there = (folder / name / WEIGHTS for folder in (tmp_path, PRETRAINED))
        assert own.read_bytes() == there.read_bytes()


def test_a_study_of_other_weights_is_refused(tmp_path):
    path = write_study(tmp_path / "study.json", "f" * 64)
    with pytest.raises(ConfigError, match="there are none in"):
        record_measured(path, tmp_path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="needs the JSON that new-listing"):
        record_measured(path, tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        record_measured(tmp_path / "none.json", tmp_path)
