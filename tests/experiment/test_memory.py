"""What a run says of its memory before it trains."""

import logging

import pytest
from market import MARKET, SMALL

from maml_jax.experiment import load_config, memory
from maml_jax.experiment.folds.prepare import prepare_folds


def folds_with(**changes):
    return prepare_folds(load_config(SMALL, changes), MARKET)


@pytest.fixture(autouse=True)
def same_process(monkeypatch):
    monkeypatch.setattr(memory, "resident_memory", lambda: 10**9)


def test_more_to_test_takes_more_memory():
    least = memory.estimate(folds_with(**{"backtest.baselines": []}))
    assert least > 10**9  # what is held already
    wider = memory.estimate(folds_with())
    assert wider > least
    assert memory.estimate(folds_with(**{"data.test_assets": ["A1", "A2", "A3"]})) > wider
    assert memory.estimate(folds_with(**{"learner.methods": ["maml", "alpaca", "anil"]})) > wider


def test_a_run_that_does_not_fit_says_so_before_it_trains(monkeypatch, caplog):
    folds = folds_with()
    monkeypatch.setattr(memory, "memory", lambda: 10**9)
    need = memory.say_memory(folds)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{need / 1e9:.1f} GB" in record.message and "1.0 GB" in record.message
    for key in ("data.test_assets", "data.test_start", "learner.methods", "backtest.baselines"):
        assert key in record.message


def test_a_run_that_fits_warns_of_nothing(monkeypatch, caplog):
    monkeypatch.setattr(memory, "memory", lambda: 10**12)
    memory.say_memory(folds_with())
    assert not caplog.records
