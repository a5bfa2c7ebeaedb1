"""One row of numbers for each progress."""

import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from helpers import sinusoid_sampler

from maml_jax import CSVLogger, TensorBoardLogger, maml, progress_record, training
from maml_jax.errors import RunError
from maml_jax.models import mlp

KEY = jax.random.key(0)
OPTIMIZER = optax.adam(1e-2)
LEARNER = maml(mlp((4, 1)), inner_steps=1)
SAMPLER = sinusoid_sampler(4)


def mean_error(y_hat, y):
    return jnp.mean(jnp.abs(y_hat - y))


@pytest.fixture(scope="module")
def calls():
    options = {"steps": 6, "every": 2, "validate": SAMPLER, "metrics": {"error": mean_error}}
    return list(training(LEARNER, OPTIMIZER, SAMPLER, KEY, **options))


@pytest.mark.slow
def test_a_record_says_in_numbers_what_a_progress_holds(calls):
    progress = calls[1]
    record = progress_record(progress)
    assert record["step"] == 4
    np.testing.assert_allclose(record["loss"], progress.history.loss.mean(), rtol=1e-6)
    np.testing.assert_allclose(record["grad_norm"], progress.history.grad_norm.mean(), rtol=1e-6)
    assert record["validation_loss"] == progress.validation["loss"]
    assert record["validation_error"] == progress.validation["error"]
    assert record["skipped"] == 0
    assert record["seconds"] > 0
    assert all(type(value) is float for value in record.values())


def test_steps_that_were_skipped_whole_are_left_out_of_means(calls):
    history = calls[0].history
    last = history.loss[1]
    history = history._replace(loss=jnp.stack([jnp.nan, last]), skipped=jnp.array([4, 0]))
    record = progress_record(calls[0]._replace(history=history))
    np.testing.assert_allclose(record["loss"], last, rtol=1e-6)
    assert record["skipped"] == 4


def test_a_log_that_is_resumed_is_the_undisturbed_one(tmp_path, calls):
    whole, cut = CSVLogger(tmp_path / "whole.csv"), tmp_path / "logs" / "cut.csv"
    for progress in calls:
        whole(progress)
    first = CSVLogger(cut)
    first(calls[0])
    first(calls[1])
    with cut.open("a") as file:
        file.write("6,0.1")  # a process ended within a row
    again = CSVLogger(cut)
    for progress in calls[1:]:
        again(progress)
    assert cut.read_text() == whole.path.read_text()
    table = pd.read_csv(cut)
    assert table["step"].tolist() == [2, 4, 6]
    np.testing.assert_array_equal(
        table["validation_loss"], [each.validation["loss"] for each in calls]
    )


def test_a_log_of_other_columns_is_not_mixed(tmp_path, calls):
    path = tmp_path / "log.csv"
    CSVLogger(path)(calls[0])
    before = path.read_text()
    with pytest.raises(RunError, match="has the columns"):
        CSVLogger(path)(calls[1]._replace(validation={}))
    assert path.read_text() == before


def test_tensorboard_receives_every_number(monkeypatch, tmp_path, calls):
    written = []

    class Writer:
        def __init__(self, folder, purge_step):
            written.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def flush(self):
            pass

        close = flush

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    log = TensorBoardLogger(tmp_path)
    for progress in calls[1:]:
        log(progress)
    log.close()
    assert written[0] == (str(tmp_path), 4)
    expected = {(*each, 4) for each in progress_record(calls[1]).items() if each[0] != "step"}
    assert expected == {each for each in written[1:] if each[2] == 4}


def test_tensorboard_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(RunError, match=r"pip install 'maml-jax\[tensorboard\]'"):
        TensorBoardLogger(tmp_path)
