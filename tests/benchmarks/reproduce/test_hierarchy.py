import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.reproduce import HIERARCHY, reproduce
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.hierarchy import (
    LEVELS,
    ROWS,
    VALIDATION_SEEDS,
    WORLDS,
    Cell,
    HierarchyRow,
    Protocol,
)
from maml_jax import MetaLearner
from maml_jax.errors import ConfigError
from maml_jax.worlds.known_answer import compute_signals

STEPS = (1, 2, 4)
BEST = {"nested": 2, "hierarchical": 2, "maml": 4, "own-rows": 1}
LEVEL = {"nested": 0.95, "hierarchical": 0.9, "maml": 0.7, "own-rows": 0.8}


@pytest.fixture
def trainings(monkeypatch):
    """Stands in for training: shares that are made up of row, steps and seed."""
    counted = []

    def run(self, seed, advance):
        counted.append(seed)
        key = self.row.key
        share = LEVEL[key] + 0.01 * ((7 * seed + len(key)) % 5) - 0.1 * (self.steps != BEST[key])
        return {
            "ic": 0.5 * share,
            "oracle_ic": 0.5,
            "share": share,
            "seconds": 1.0,
            "training_loss": 1.0,
        }

    monkeypatch.setattr(Cell, "_run", run)
    monkeypatch.setattr(sys.modules[Cell.__module__], "STEPS", STEPS)
    return counted


@pytest.fixture
def record(tmp_path, trainings):
    options = {"seeds": 3, "out": tmp_path}
    (table,) = reproduce(HIERARCHY, **options)
    return table, json.loads((tmp_path / "hierarchy.json").read_text()), tmp_path, options


def cell_of(record, row, world):
    (cell,) = (c for c in record["cells"] if (c["row"], c["world"]) == (row, world))
    return cell


def test_inner_steps_are_chosen_on_seeds_that_are_not_shown(record):
    _, result, _, _ = record
    assert len(result["cells"]) == 8
    for cell in result["cells"]:
        means = {int(steps): np.mean(found) for steps, found in cell["validation"].items()}
        assert list(means) == [LEVELS * steps for steps in STEPS]
        assert cell["inner_steps"] == max(means, key=means.__getitem__)
        assert len(cell["seeds"]) == 3
    for row, steps in BEST.items():
        assert cell_of(result, row, "flat")["inner_steps"] == LEVELS * steps
    assert not set(VALIDATION_SEEDS) & set(range(100))


def test_gains_are_paired_by_seed(record):
    _, result, _, _ = record
    assert len(result["differences"]) == 6
    for each in result["differences"]:
        ours, theirs = (
            np.array([seed["share"] for seed in cell_of(result, row, each["world"])["seeds"]])
            for row in ("nested", each["less"])
        )
        gain = ours - theirs
        assert each["mean"] == pytest.approx(gain.mean())
        # Student's t of two degrees of freedom: 4.303.
        assert each["half_width"] == pytest.approx(4.303 * gain.std(ddof=1) / 3**0.5, rel=1e-3)


def test_the_table_holds_all_of_it(record):
    table, result, out, _ = record
    share = cell_of(result, "maml", "flat")["share"]
    gain = next(
        d["mean"] for d in result["differences"] if (d["less"], d["world"]) == ("maml", "flat")
    )
    text = (out / "hierarchy.md").read_text()
    assert "3 seeds, by Student's t" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| MAML, all rows |"))
    assert f"| {share:.3f} ± " in line
    assert f"| {gain:.3f} ± " in line
    assert f"{result['cells'][0]['seeds'][0]['oracle_ic']:.3f}" in text
    assert len({len(row) for row in (table.columns, *table.rows)}) == 1


def test_what_is_there_is_not_trained_again(record, trainings):
    table, _, _, options = record
    assert len(trainings) == 2 * 4 * (len(STEPS) * len(VALIDATION_SEEDS) + 3)
    trainings.clear()
    (again,) = reproduce(HIERARCHY, **options)
    assert trainings == []
    assert again.rows == table.rows
    (some,) = reproduce(HIERARCHY, **{**options, "methods": ["own"]})
    assert [row[0] for row in some.rows] == ["oracle (IC)", ROWS[3].name]


def test_the_command_calls_it(record, trainings, monkeypatch, capsys):
    _, _, out, _ = record
    trainings.clear()
    asked = ["hierarchy", "--seeds", "3", "--method", "maml", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["reproduce", *asked])
    with pytest.raises(SystemExit) as end:
        main()
        raise SystemExit(0)
    assert not end.value.code
    assert trainings == []
    shown = capsys.readouterr().out
    assert "the first gains" in shown
    assert ROWS[2].name in shown


@pytest.mark.slow
@pytest.mark.parametrize("own_rows", [False, True])
def test_a_training_is_judged_by_the_oracle_of_its_world(own_rows):
    """Ridge regression on the true directions is that oracle, if it sees all rows."""
    seen = set()

    def make(steps):
        def adapt(meta_params, support, steps=None):
            seen.add(len(support.y))
            phi = compute_signals(WORLDS["flat"].world, support.x)
            return jnp.linalg.solve(phi.T @ phi + jnp.eye(3), phi.T @ support.y)

        def predict(adapted, x):
            return compute_signals(WORLDS["flat"].world, x) @ adapted

        def loss(meta_params, task, step):
            error = predict(adapt(meta_params, task.support), task.query.x) - task.query.y
            return jnp.mean(error**2) + meta_params**2, ()

        return MetaLearner(lambda key, x: jnp.zeros(()), adapt, predict, loss)

    row = HierarchyRow("ridge", "ridge", make, own_rows)
    job = Cell(row, "flat", 1, Protocol(meta_steps=1, tasks=200)).job(0)
    result = job.make(lambda done: None)
    assert seen == {10 if own_rows else 90}
    assert result["share"] == pytest.approx(result["ic"] / result["oracle_ic"])
    assert 0.85 < result["oracle_ic"] < 1
    if own_rows:
        assert result["share"] < 0.95
    else:
        assert result["share"] == pytest.approx(1, abs=1e-3)


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there are nested, hierarchical, maml, own-rows"):
        reproduce(HIERARCHY, methods=["alpaca"], out=tmp_path)
    with pytest.raises(ConfigError, match="--seeds"):
        reproduce(HIERARCHY, seeds=0, out=tmp_path)


def test_all_rows_have_as_many_inner_steps_and_rows_to_choose_from():
    assert len({row.key for row in ROWS}) == len(ROWS)
    assert {sum(world.rows) for world in WORLDS.values()} == {90}
    assert {world.rows for world in WORLDS.values()} == {(60, 20, 10)}


@pytest.mark.slow
def test_the_learners_of_the_table_can_be_trained(tmp_path):
    (table,) = reproduce(HIERARCHY, quick=True, steps=2, out=tmp_path)
    assert all("diverged" not in cell for row in table.rows for cell in row)
