"""A run that is cut off goes on to the bytes of an undisturbed one, and what is kept is said."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from folded import MARKET
from survival import SETTINGS, digest, left

from maml_jax import interrupts
from maml_jax.errors import ConfigError, DataError, RunError
from maml_jax.experiment import load, resume, run, train
from maml_jax.meta import checkpoints, retry

pytestmark = pytest.mark.long

ONE = {**SETTINGS, "folds": {}, "learner": {"methods": ["maml"], "inner_steps": 2}}
"""One training, of which three checkpoints are written."""


@pytest.fixture(scope="module", autouse=True)
def no_pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_jax.experiment.tear_sheet.tear_sheet", lambda *_: None)
        patch.setattr("maml_jax.experiment.tear_sheet.render", lambda _: "<html></html>")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    return run(SETTINGS, bars=MARKET, out=path), path


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "run"
    return train(ONE, bars=MARKET, out=path), path


def stop_at(monkeypatch, opportunity):
    """End a run at one of the points from which it can be gone on with, as a signal would."""
    calls = []

    def check():
        calls.append(1)
        if len(calls) == opportunity:
            raise interrupts.Interrupted(signal.SIGTERM)

    monkeypatch.setattr(interrupts, "check", check)


def interrupt(monkeypatch, path, opportunity=2, settings=ONE):
    with monkeypatch.context() as patch:
        stop_at(patch, opportunity)
        with pytest.raises(interrupts.Interrupted):
            train(settings, bars=MARKET, out=path)


def test_a_run_that_is_cut_off_again_and_again_goes_on_to_the_same_bytes(
    tmp_path, whole, monkeypatch
):
    path, taken, original = tmp_path / "run", [], retry.take_steps

    def count(learner, optimizer, source, shapes, steps, state, **options):
        taken.append(steps)
        return original(learner, optimizer, source, shapes, steps, state, **options)

    monkeypatch.setattr(retry, "take_steps", count)
    for opportunity in range(1, 50):
        stop_at(monkeypatch, opportunity)
        try:
            if opportunity == 1:
                run(SETTINGS, bars=MARKET, out=path)
            else:
                result = resume(path, bars=MARKET)
                break
        except interrupts.Interrupted:
            assert left(tmp_path) == ["run.partial"]
    assert opportunity > 5
    assert digest(path) == digest(whole[1])
    assert left(tmp_path) == []
    assert sum(taken) == len(whole[0].history)  # no step is taken twice
    for fold, method in ((0, "maml"), (1, "ridge")):
        rows = pd.read_csv(path / "logs" / f"{fold:02d}-{method}.csv")
        expected = whole[0].history.query("fold == @fold and method == @method")
        assert rows["step"].tolist() == [2, 4, 6][: len(expected) // 2]
    pd.testing.assert_frame_equal(result.stats, whole[0].stats)
    assert resume(path).config == result.config  # of a complete run it loads the result


@pytest.mark.slow
def test_what_goes_on_must_be_what_was_begun(tmp_path, monkeypatch, one):
    path = tmp_path / "run"
    with pytest.raises(RunError, match="no unfinished run; neither it nor .*run.partial is there"):
        resume(path)
    interrupt(monkeypatch, path)
    with pytest.raises(RunError, match="run.partial: holds an unfinished run; go on with `maml-j"):
        train(ONE, bars=MARKET, out=path)
    with pytest.raises(ConfigError, match="passed in memory"):
        resume(path)
    other = MARKET | {"A1": MARKET["A1"].assign(close=MARKET["A1"]["close"] * 1.0001)}
    with pytest.raises(DataError, match=r"A1: the bars are not those that .*run.partial began"):
        resume(path, bars=other)
    with FileLock(tmp_path / "run.partial" / ".lock"):
        with pytest.raises(RunError, match="run.partial: another process is at work in it"):
            resume(path, bars=MARKET)
    # What a process leaves that was killed while it wrote.
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".run.partial-{dead.pid}").mkdir()
    steps = tmp_path / "run.partial" / "training" / "00" / "maml" / "checkpoints"
    damaged = max(steps.glob("step-*"))
    (damaged / "about.json").write_text("{")
    resume(tmp_path / "run.partial", bars=MARKET)
    assert digest(path) == digest(one[1]) and left(tmp_path) == []


def test_the_best_parameters_on_validation_are_kept(one):
    history, (note,) = one[0].history, one[0].notes
    losses = history["validation_loss"].dropna()
    assert losses.index.tolist() == [1, 3, 5][: len(losses)]
    assert f"parameters of step {losses.idxmin() + 1} are kept" in note.text
    rows = pd.read_csv(one[1] / "logs" / "maml.csv")
    assert rows["validation_loss"].tolist() == pytest.approx(losses.tolist())


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_checkpoints_and_not_what_is_trained(tmp_path, monkeypatch, one, caplog):
    path, original, writes = tmp_path / "run", checkpoints._write_arrays, []

    def fails_later(*arguments):
        writes.append(1)
        return original(*arguments) if len(writes) == 1 else full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_write_arrays", fails_later)
        interrupt(monkeypatch, tmp_path / "cut")
        said = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(said) == 1 and "step 4, training goes on: " in said[0]
        assert "No space left on device" in said[0]
        writes.clear()
        train(ONE, bars=MARKET, out=path)
    assert digest(path) == digest(one[1])
    resume(tmp_path / "cut", bars=MARKET)  # from the checkpoint before
    assert digest(tmp_path / "cut") == digest(one[1])


def test_a_result_that_cannot_be_written_is_not_lost(tmp_path, monkeypatch, one):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("maml_jax.experiment.result.save_checkpoint", full_disk)
        with pytest.raises(RunError, match=r"run: cannot be written: .*No space left") as caught:
            train(ONE, bars=MARKET, out=path)
    assert left(tmp_path) == ["run.partial"]
    caught.value.result.save(tmp_path / "elsewhere")
    resume(path, bars=MARKET)
    for name in ("run", "elsewhere"):
        assert digest(tmp_path / name) == digest(one[1])


def test_nothing_is_left_of_a_run_that_kept_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"'training.validation': 0.01 .* leaves no room for val"):
        train(ONE, bars=MARKET, out=tmp_path / "run", **{"training.validation": 0.01})
    assert [*tmp_path.iterdir()] == []


def test_parameters_go_to_other_programs_and_back(tmp_path, one):
    from safetensors.numpy import load_file, save_file

    result = one[0]
    path = result.export_parameters(tmp_path / "a.safetensors")
    assert path.read_bytes() == load(one[1]).export_parameters(tmp_path / "b").read_bytes()
    arrays = load_file(path)
    assert {name: array.shape for name, array in arrays.items()}["layers/0/kernel"][1] == 8
    save_file({name: 2 * array for name, array in arrays.items()}, tmp_path / "twice")
    changed = result.with_parameters(tmp_path / "twice", method="maml")
    changed.export_parameters(tmp_path / "c")
    for name, array in load_file(tmp_path / "c").items():
        assert (array == 2 * arrays[name]).all()
    wrong = dict(arrays)
    wrong["layers/0/bias"] = arrays["layers/0/bias"][:-1]
    save_file(wrong, tmp_path / "short")
    with pytest.raises(RunError, match=r"short: parameter 'layers/0/bias' is float32\[7\], and m"):
        result.with_parameters(tmp_path / "short")
    del wrong["layers/0/bias"]
    save_file(wrong, tmp_path / "lacking")
    with pytest.raises(RunError, match=r"lacking: lacks parameter \['layers/0/bias'\]"):
        result.with_parameters(tmp_path / "lacking")
    (tmp_path / "none").write_text("not this")
    with pytest.raises(RunError, match="none: cannot be read as safetensors"):
        result.with_parameters(tmp_path / "none")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    """Set MAML_JAX_KILLS and MAML_JAX_TERMS for other numbers of signals than 100 and 20."""
    kills, terms = (os.environ.get(f"MAML_JAX_{n}", d) for n, d in (("KILLS", 100), ("TERMS", 20)))
    script = Path(__file__).parent / "killed_run.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(kills), str(terms)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differences"] == []
    assert found["kills"] >= int(kills) and found["terms"] >= int(terms)
