import ast
import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from scipy.stats import norm

import maml_jax
from benchmarks.reproduce import UNCERTAINTY, reproduce
from benchmarks.reproduce.uncertainty import (
    ROWS,
    UncertaintyRow,
    predict_best,
    rescale_targets,
)
from maml_jax import Batch, MetaLearner, Prediction, alpaca
from maml_jax.errors import ConfigError
from maml_jax.models import mlp
from maml_jax.parallel import map_tasks
from maml_jax.worlds.known_answer import World, known_answer_tasks, oracle

pytestmark = pytest.mark.slow


def flat(std=1.0, spoil=False):
    """Learns nothing: predicts a normal distribution around 0, of a fixed deviation."""

    def predict(adapted, x):
        mean = jnp.zeros((len(x), 1)) + 0 * adapted
        return Prediction(mean, jnp.full_like(mean, std))

    def loss(meta_params, task, step):
        del task
        return meta_params**2 + (jnp.where(step > 0, jnp.nan, 0) if spoil else 0), ()

    return MetaLearner(
        lambda key, x: jnp.zeros(()), lambda params, support, steps=None: params, predict, loss
    )


def row(key, learner, **options):
    return UncertaintyRow(
        key, key.title(), lambda network: learner, steps=2, meta_batch=2, **options
    )


@pytest.mark.parametrize("snr", [1.0, 0.1])
def test_the_oracle_predicts_what_a_gaussian_process_does(snr):
    """The distribution given the support rows, from the joint one of all rows in numpy."""
    world = World(snr)
    tasks, _ = known_answer_tasks(world, jax.random.key(0), tasks=1, support=15, query=4)
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    found = predict_best(world, task)
    from maml_jax.worlds.known_answer import compute_signals

    phi = np.asarray(compute_signals(world, jnp.concatenate([task.support.x, task.query.x])), float)
    joint = phi @ phi.T + np.eye(19) / snr
    weights = np.linalg.solve(joint[:15, :15], joint[:15, 15:])
    covariance = joint[15:, 15:] - joint[15:, :15] @ weights
    np.testing.assert_allclose(found.mean, weights.T @ task.support.y, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(found.std[:, 0], np.sqrt(np.diag(covariance)), rtol=1e-3)
    np.testing.assert_allclose(found.mean, oracle(world, task))


def test_the_oracle_is_calibrated():
    world = World(0.1)
    tasks, _ = known_answer_tasks(world, jax.random.key(1), tasks=300, support=20, query=50)
    found = map_tasks(partial(predict_best, world), tasks)
    z = np.asarray((tasks.query.y - found.mean) / found.std)
    for level in (0.5, 0.9):
        assert np.mean(np.abs(z) < norm.ppf((1 + level) / 2)) == pytest.approx(level, abs=0.012)


def test_worlds_without_a_known_distribution_are_refused():
    tasks, _ = known_answer_tasks(World(0.1), jax.random.key(0), tasks=1)
    for world in (World(0.1, noise="student_t"), World(0.1, drift=0.9)):
        with pytest.raises(ValueError, match="Gaussian noise without drift"):
            predict_best(world, jax.tree.map(lambda leaf: leaf[0], tasks))


def test_a_learner_in_other_units_predicts_in_those_of_the_task():
    learner, unit = alpaca(mlp((4, 3))), 5.0
    tasks, _ = known_answer_tasks(World(1.0), jax.random.key(0), tasks=1)
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    small = jax.tree.map(lambda rows: rows._replace(y=rows.y / unit), task, is_leaf=is_rows)
    other = rescale_targets(learner, unit)
    params = learner.init(jax.random.key(0), task.support.x)
    found = other.predict(other.adapt(params, task.support), task.query.x)
    expected = learner.predict(learner.adapt(params, small.support), task.query.x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, unit * b, rtol=1e-6)
    np.testing.assert_allclose(other.loss(params, task, 0)[0], learner.loss(params, small, 0)[0])


def is_rows(node):
    return isinstance(node, Batch)


def test_figures_are_measured_written_and_reused(tmp_path, monkeypatch, capsys):
    rows = (row("narrow", flat(0.5)), row("spoilt", flat(spoil=True)))
    monkeypatch.setattr("benchmarks.reproduce.uncertainty.TEST_TASKS", 40)
    console = Console(width=200)
    for _ in range(2):
        study = replace(UNCERTAINTY, rows=rows)
        tables = reproduce(study, seeds=2, steps=2, out=tmp_path, console=console)
    assert tables[0].rows[0][0] == "oracle"
    assert capsys.readouterr().out.count("found in") == 8
    record = json.loads((tmp_path / "uncertainty.json").read_text())
    narrow, spoilt = record["ratios"]["1"]
    seeds = [each["coverage_90"] for each in narrow["seeds"]]
    assert narrow["coverage_90"]["mean"] == pytest.approx(np.mean(seeds))
    # Two seeds: Student's t of one degree of freedom.
    assert narrow["coverage_90"]["half_width"] == pytest.approx(
        12.706 * np.std(seeds, ddof=1) / math.sqrt(2), rel=1e-3
    )
    assert narrow["coverage_90"]["mean"] < 60 < 85 < narrow["oracle"]["coverage_90"]["mean"] < 95
    assert narrow["oracle"]["nll"]["mean"] < narrow["nll"]["mean"]
    assert (spoilt["failed"], spoilt["nll"]["mean"]) == (2, None)
    text = (tmp_path / "uncertainty.md").read_text()
    assert "Spoilt (2 failed) | diverged" in text
    assert text.count("## Uncertainty at a signal-to-noise ratio of") == 2


def test_a_row_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such row"):
        reproduce(UNCERTAINTY, methods=["bayes-by-backprop"], out=tmp_path)
    with pytest.raises(ConfigError, match="--seeds"):
        reproduce(UNCERTAINTY, seeds=0, out=tmp_path)


@pytest.mark.slow
def test_intervals_of_the_bayesian_learners_cover(tmp_path):
    reproduce(UNCERTAINTY, methods=["alpaca", "bayesian-maml"], out=tmp_path)
    ratios = json.loads((tmp_path / "uncertainty.json").read_text())["ratios"]
    assert len(ROWS) == 4
    for cells in ratios.values():
        for cell in cells:
            assert 87 < cell["coverage_90"]["mean"] < 93, cell


def test_what_the_page_shows_runs():
    page = Path(__file__).parents[3] / "docs" / "uncertainty.md"
    learners, measures, positions = re.findall(
        r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S
    )
    homes = (maml_jax, maml_jax.models)
    names = {name: getattr(home, name) for home in homes for name in home.__all__}
    for statement in ast.parse(learners).body:
        exec(ast.unparse(statement), names)
        assert isinstance(names["learner"], MetaLearner)
    names = {}
    exec(measures + positions, names)
    assert 88 < names["honest"]["Coverage 90 % [%]"] < 92
    assert names["too_sure"]["Coverage 90 % [%]"] < 70
    assert names["honest"]["NLL"] < names["too_sure"]["NLL"]
    assert set(np.unique(names["sides"])) == {-1.0, 0.0, 1.0}
    assert names["sizes"].abs().max(axis=None) == 1
    np.testing.assert_allclose(names["steady"], 0.4 * names["sides"])
