import io
import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from benchmarks.reproduce import KNOWN_ANSWER, SINUSOID, known_answer, reproduce, sinusoid
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.known_answer_rows import ALL_PARTS, PARTS, KnownAnswerRow
from benchmarks.reproduce.known_answer_rows import ROWS as KNOWN_ANSWER_ROWS
from benchmarks.reproduce.progress import Progress
from benchmarks.reproduce.sinusoid_rows import ROWS as SINUSOID_ROWS
from benchmarks.reproduce.sinusoid_rows import SinusoidRow, network
from benchmarks.reproduce.training import train
from maml_jax import MetaLearner, Prediction
from maml_jax.errors import ConfigError, RunError
from maml_jax.report import plot_adaptation


def level(spoil=False):
    """Learns the level of a task, in one step that is no gradient's; predicts a deviation."""

    def adapt(meta_params, support, steps=None):
        assert steps is None
        return meta_params + support.y.mean()

    def predict(adapted, x):
        mean = jnp.broadcast_to(adapted, (len(x), 1)) + x[:, :1]
        return Prediction(mean, jnp.ones_like(mean))

    def loss(meta_params, task, step):
        error = predict(adapt(meta_params, task.support), task.query.x).mean - task.query.y
        return jnp.mean(error**2) + (jnp.where(step > 1, jnp.nan, 0) if spoil else 0), ()

    return MetaLearner(lambda key, x: jnp.zeros(()), adapt, predict, loss)


LEVEL = SinusoidRow(
    key="level",
    name="Level",
    learner=level,
    inner_lr="-",
    meta_steps=3,
    meta_batch=2,
    evaluated=(None,),
    seeds=2,
)
ONE_LEVEL = replace(SINUSOID, rows=(LEVEL,))


@pytest.fixture
def trainings(monkeypatch):
    """Counts what is trained."""
    counted = []
    for module in (sinusoid, known_answer):

        def counting(*arguments, **options):
            counted.append(options["steps"])
            return train(*arguments, **options)

        monkeypatch.setattr(module, "train", counting)
    return counted


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.mark.slow
def test_sinusoids_are_trained_once_and_written(tmp_path, monkeypatch, capsys, trainings):
    asked = [
        "sinusoid",
        "--quick",
        "--steps",
        "20",
        "--method",
        "maml-0.01",
        "--out",
        str(tmp_path),
    ]
    code, out, err = call(monkeypatch, capsys, *asked)
    assert (code, trainings) == (0, [20]), err
    for text in ("QUICK", "median", "0.435 ± 0.039", "meta-steps", "0 - 1 π", "Adam 1e-3"):
        assert text in out
    assert err.startswith("maml-0.01-seed0: ")
    assert err.count("\n") == 1
    record = json.loads((tmp_path / "sinusoid.json").read_text())
    (row,) = record["rows"]
    assert record["command"] == f"python -m benchmarks.reproduce {' '.join(asked)}"
    assert [figure["steps"] for figure in row["figures"]] == [0, 1, 2, 5, 10]
    assert row["protocol"]["meta_steps"] == 20
    assert 2 < row["figures"][0]["mean"] < 5
    assert "| MAML | 0.01 | 10 | 0 |" in (tmp_path / "sinusoid.md").read_text()
    assert (tmp_path / "sinusoid.png").stat().st_size > 5000
    again, out_again, err = call(monkeypatch, capsys, *asked)
    assert (again, trainings, "found in" in err) == (0, [20], True)
    assert out_again == out


@pytest.mark.slow
def test_the_market_is_trained_once_and_written(tmp_path, trainings):
    row = KnownAnswerRow("level", "Level", lambda network: level(), parts=ALL_PARTS, meta_batch=2)
    study = replace(KNOWN_ANSWER, rows=(row,))
    options = {"quick": True, "steps": 2, "methods": ["level"], "out": tmp_path}
    (table,) = reproduce(study, **options, parts=["activations"])
    assert trainings == [2] * 4
    assert table.title.startswith("QUICK")
    assert [line[0] for line in table.rows] == ["oracle (IC)", "Level"]
    (found,) = json.loads((tmp_path / "known-answer.json").read_text())["parts"].values()
    assert found["columns"] == ["tanh", "gelu", "silu", "relu"]
    cell = found["rows"][0]["cells"][0]
    assert cell["share"] == pytest.approx(cell["ic"] / cell["oracle_ic"])
    assert "| oracle (IC) | 0." in (tmp_path / "known-answer.md").read_text()
    # The world with tanh is a cell of this part too.
    reproduce(study, **options, parts=["learners"])
    assert trainings == [2] * 6


FAULTS = {
    "method": (["sinusoid", "--method", "mamml"], "there are maml-0.01, maml-0.001, fomaml"),
    "part": (["known-answer", "--part", "links"], "there are learners, activations, worlds"),
    "steps": (["sinusoid", "--steps", "0"], "--steps: must be at least 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_option_is_refused(tmp_path, monkeypatch, capsys, fault):
    arguments, message = FAULTS[fault]
    code, out, err = call(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "new"))
    assert (code, out, message in err) == (2, "", True), err
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_another_protocol_is_trained_again(tmp_path, trainings):
    options = {"study": ONE_LEVEL, "out": tmp_path}
    reproduce(**options)
    assert trainings == [3, 3]
    reproduce(**options, seeds=3)
    assert trainings == [3] * 3
    reproduce(**options, seeds=1, steps=2)
    assert trainings == [3] * 3 + [2]
    reproduce(**options, seeds=1, steps=2, quick=True)
    assert trainings == [3] * 3 + [2, 2]
    assert len(list((tmp_path / "results").iterdir())) == 5


def test_seeds_are_pooled_as_one_large_sample(tmp_path, monkeypatch):
    seen = []
    figure = sinusoid._describe_errors

    def keeping(steps, errors):
        seen.append(errors)
        return figure(steps, errors)

    monkeypatch.setattr(sinusoid, "_describe_errors", keeping)
    reproduce(ONE_LEVEL, out=tmp_path, quick=True, seeds=2, steps=1)
    record = json.loads((tmp_path / "sinusoid.json").read_text())["rows"][0]["figures"][0]
    both = np.concatenate(seen)
    assert len(both) == 400
    assert record["mean"] == pytest.approx(both.mean())
    assert record["half_width"] == pytest.approx(1.96 * both.std(ddof=1) / 20)
    assert record["seed_means"] == pytest.approx([each.mean() for each in seen])


@pytest.mark.slow
def test_a_training_that_diverges_is_a_result(tmp_path, trainings):
    row = KnownAnswerRow("bad", "Bad", lambda network: level(spoil=True), meta_batch=2)
    study = replace(KNOWN_ANSWER, rows=(row,))
    options = {"parts": ["learners"], "steps": 4, "out": tmp_path, "seeds": 1}
    for _ in range(2):
        (table,) = reproduce(study, **options)
        assert "diverged (1 failed)" in table.rows[1]
        assert len(trainings) == 3
    cell = json.loads((tmp_path / "known-answer.json").read_text())["parts"]["learners"]["rows"][0]
    assert "stopped at step 2" in cell["cells"][0]["seeds"][0]["failed"]
    assert cell["cells"][0]["share"] is None


def test_a_spoilt_result_is_named(tmp_path):
    options = {"study": ONE_LEVEL, "out": tmp_path, "quick": True, "steps": 1}
    reproduce(**options)
    (path,) = (tmp_path / "results").iterdir()
    path.write_text("{")
    with pytest.raises(RunError, match=f"{path.name}: not a result; delete it"):
        reproduce(**options)


def test_a_key_that_is_exact_stands_for_itself(tmp_path):
    with pytest.raises(ConfigError, match="--method : no such row"):
        reproduce(SINUSOID, methods=[""], out=tmp_path)
    rows = (LEVEL, SinusoidRow("level-2", "Level", level, "-", evaluated=(None,)))
    study = replace(SINUSOID, rows=rows)
    options = {"out": tmp_path, "quick": True, "steps": 1}
    assert len(reproduce(study, methods=["level"], **options)[1].rows) == 1
    assert len(reproduce(study, methods=["lev"], **options)[1].rows) == 2


def test_the_tables_rows_have_keys_of_their_own():
    for rows in (SINUSOID_ROWS, KNOWN_ANSWER_ROWS):
        assert len({row.key for row in rows}) == len(rows)
    for row in KNOWN_ANSWER_ROWS:
        assert {c.world.snr for part in row.parts for c in PARTS[part]} <= set(row.steps)


def test_the_network_begins_small():
    params = network().init(jax.random.key(0), jnp.zeros((1, 1)))
    weights = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params) if leaf.ndim == 2])
    # A normal distribution cut off at two standard deviations has 0.88 of its deviation.
    assert weights.std() == pytest.approx(0.0088, rel=0.05)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(params) if leaf.ndim == 1)


def test_a_learner_that_takes_no_steps_is_drawn_as_a_level():
    errors = pd.DataFrame({"a": [3.0, 1.0], "b": [2.0, np.nan]}, index=[0, 5])
    figure = plot_adaptation(errors, {"c": 0.5})
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_yscale() == "log"
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 1, 2]
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]


def test_progress_is_a_bar_on_a_terminal_only():
    def shown(terminal):
        out = io.StringIO()
        progress = Progress(Console(file=out, force_terminal=terminal, width=80))
        for name in ("one", "two"):
            with progress.job(name, 4) as advance:
                advance(4)
            progress.log(f"{name}: done")
        return out.getvalue()

    assert shown(False) == "one: done\ntwo: done\n"
    assert "0/4" in shown(True)
