"""A training that was interrupted goes on as if it was not."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sinusoid_sampler

from maml_jax import maml, training
from maml_jax.errors import RunError
from maml_jax.models import mlp

pytestmark = pytest.mark.long

KEY = jax.random.key(0)
# Noise on the gradient: a typed key is a part of the state.
OPTIMIZER = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(5)), optax.adam(1e-2))
LEARNER = maml(mlp((8, 1)), inner_optimizer=optax.sgd(0.01), inner_steps=2)
SAMPLER = sinusoid_sampler(4)


def run(folder, learner=LEARNER, optimizer=OPTIMIZER, key=KEY, until=None, **options):
    options = {"steps": 8, "every": 1, "validate": SAMPLER, "keep": 2} | options
    found = []
    for progress in training(learner, optimizer, SAMPLER, key, checkpoints=folder, **options):
        found.append(progress._replace(seconds=0.0))
        if progress.step == until:
            break
    return found


def to_bytes(progress):
    leaves = []
    for leaf in jax.tree.leaves(progress):
        key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if key else leaf)
        leaves.append((key, array.dtype, array.shape, array.tobytes()))
    return jax.tree.structure(progress), leaves


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert to_bytes(a) == to_bytes(b)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


@pytest.mark.slow
def test_a_training_that_is_resumed_is_the_undisturbed_one(tmp_path, whole):
    run(tmp_path, until=3)
    assert_same(run(tmp_path, resume=True), whole[1][2:])


def test_states_may_be_donated(tmp_path):
    expected = run(tmp_path / "a", steps=4, donate=True)
    run(tmp_path / "b", steps=4, until=2, donate=True)
    assert_same(run(tmp_path / "b", steps=4, donate=True, resume=True)[-1:], expected[-1:])


def test_a_training_that_ended_gives_its_last_progress_again(whole):
    folder, expected = whole
    before = names(folder)
    assert_same(run(folder, resume=True), expected[-1:])
    assert names(folder) == before


def test_the_latest_and_the_best_are_kept(whole):
    folder, expected = whole
    best = expected[-1].best.step
    assert names(folder) == [f"step-{step:010d}" for step in sorted({7, 8, best})]


def test_patience_is_counted_on(tmp_path):
    worse = {"validate": lambda key: jax.tree.map(lambda a: -a, SAMPLER(key)), "patience": 3}
    expected = run(tmp_path / "a", steps=40, **worse)
    run(tmp_path / "b", steps=40, until=len(expected) - 1, **worse)
    found = run(tmp_path / "b", steps=40, resume=True, **worse)
    assert_same(found, expected[-2:])
    assert_same(run(tmp_path / "b", steps=40, resume=True, **worse), expected[-1:])


def test_more_steps_may_follow(tmp_path):
    run(tmp_path / "a", steps=3)
    longer = run(tmp_path / "a", steps=5, resume=True)
    assert_same(longer, run(tmp_path / "b", steps=5)[2:])


def test_what_was_left_unfinished_or_damaged_is_passed_over(tmp_path, whole):
    run(tmp_path, until=4)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".step-0000000005.partial-{ended.pid}-1").mkdir()
    other = tmp_path / f".step-0000000005.partial-{os.getppid()}-1"
    other.mkdir()
    (tmp_path / "step-0000000004" / "about.json").write_text('{"format": 1, "st')
    assert_same(run(tmp_path, resume=True), whole[1][2:])
    assert [name for name in names(tmp_path) if "partial" in name] == [other.name]


def test_checkpoints_of_another_training_are_refused(tmp_path):
    run(tmp_path, until=2)
    with pytest.raises(RunError, match=r"holds checkpoints.*resume=True") as caught:
        run(tmp_path)
    assert str(tmp_path) in str(caught.value)
    wider = maml(mlp((9, 1)))
    for options, said in (
        ({"learner": wider}, r"another training: state.*\[8\].*\[9\]"),
        ({"optimizer": optax.sgd(0.1)}, "another training"),
        ({"key": jax.random.key(1)}, "the key differs"),
    ):
        with pytest.raises(RunError, match=said) as caught:
            run(tmp_path, resume=True, **options)
        assert str(tmp_path) in str(caught.value)
    for path in tmp_path.glob("step-*"):
        (path / "about.json").unlink()
    with pytest.raises(RunError, match="not a readable checkpoint"):
        run(tmp_path, resume=True)


def test_without_room_nothing_is_printed_and_the_reason_is_said(tmp_path, capfd):
    run(tmp_path, until=2, keep=3)
    before, limits = names(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(RunError, match="step-0000000003: cannot be written: File too large"):
            run(tmp_path, resume=True, keep=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == before  # the earlier checkpoints, and nothing half-written
    assert capfd.readouterr().err == ""


def test_a_folder_is_needed_to_resume_from(tmp_path):
    with pytest.raises(ValueError, match="give checkpoints="):
        run(None, resume=True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(RunError, match="cannot hold checkpoints"):
        run(file)


@pytest.mark.parametrize(
    "kills",
    [pytest.param(1, marks=pytest.mark.long), pytest.param(50, marks=pytest.mark.slow)],
)
def test_a_training_that_is_killed_goes_on_to_the_same_bytes(tmp_path, kills):
    script = Path(__file__).parent / "killed_training.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(kills)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills
    assert found["seen"] and not found["differences"]
