"""Two writers of one run directory: the second is refused; what dead ones left is removed."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from market import MARKET, SMALL
from small_run import small_result

from maml_jax.errors import RunError, TrainingError
from maml_jax.experiment import backtest, run, train
from maml_jax.experiment.reservation import OWNER, RESUMABLE, reserved

HOLD = """
import sys
from maml_jax.experiment.reservation import reserved
with reserved(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def dead_process():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def lock_of(path, **changes):
    """Make the lock of some process, by default one of this host that has ended."""
    lock = path.with_name(f".{path.name}.reserved")
    lock.mkdir()
    owner = {"host": socket.gethostname(), "pid": dead_process(), "started": "", "since": "then"}
    (lock / OWNER).write_text(json.dumps(owner | changes))
    return lock


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_is_refused_at_once_and_may_write_when_the_first_has_ended(tmp_path):
    path = tmp_path / "runs" / "a"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert first.stdout.readline() == b"held\n"
        message = rf"{path}: is being written by process {first.pid} on {socket.gethostname()}"
        for writing in (
            lambda: run(SMALL, bars=MARKET, out=path),
            lambda: train(SMALL, bars=MARKET, out=path),
            lambda: small_result().save(path),
        ):
            with pytest.raises(RunError, match=message):
                writing()
    finally:
        first.kill()  # without unwinding: its lock stays
        first.wait()
    assert names(tmp_path / "runs") == [".a.reserved"]
    with reserved(path):
        assert names(tmp_path / "runs") == [".a.reserved"]
        owner = json.loads((tmp_path / "runs" / ".a.reserved" / OWNER).read_text())
        assert owner["pid"] == os.getpid()
    assert names(tmp_path / "runs") == []


def test_nothing_is_trained_for_a_name_that_is_held(tmp_path, monkeypatch):
    from importlib import import_module

    def fail(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(import_module("maml_jax.experiment.run"), "train_folds", fail)
    lock_of(tmp_path / "a", host="elsewhere")
    with pytest.raises(RunError, match=r"is being written by .* on elsewhere.*delete .*\.a\.reser"):
        run(SMALL, bars=MARKET, out=tmp_path / "a")


def test_threads_exclude_each_other_and_a_thread_does_not_exclude_itself(tmp_path):
    path, outcomes, start = tmp_path / "a", [], threading.Barrier(8)

    def take():
        start.wait()
        try:
            with reserved(path), reserved(path):
                outcomes.append("held")
                start.wait()
        except RunError:
            outcomes.append("refused")
            start.wait()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held"] + 7 * ["refused"]
    assert names(tmp_path) == []


def test_locks_of_ended_processes_of_this_host_are_taken_over(tmp_path):
    path = tmp_path / "a"
    lock_of(path)
    with reserved(path):
        pass
    lock_of(path, pid=os.getpid(), started="1")  # its number was given to another process
    with reserved(path):
        pass
    assert names(tmp_path) == []
    lock = lock_of(path)
    for text in ("", "{}", "[1]", '{"host": 1, "pid": "x", "started": 0, "since": null}'):
        (lock / OWNER).write_text(text)
        with pytest.raises(RunError, match="is being written by another process.*delete"):
            reserved(path).__enter__()


def test_what_ended_processes_left_is_removed_unless_it_can_be_continued(tmp_path):
    path, dead = tmp_path / "a*", dead_process()
    partials = {
        f".a*.partial-{dead}": False,
        ".a*.partial-shared": False,
        f".a*.partial-{dead}-before": False,
        f".a*.reserved.partial-{dead}-7": False,
        f".a*.partial-{os.getppid()}": True,
        f".ab.partial-{dead}": True,
        f".b.partial-{dead}": True,
    }
    for name in partials:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    kept = tmp_path / f".a*.partial-{dead_process()}"
    kept.mkdir()
    (kept / RESUMABLE).touch()
    inside = path / "folds" / f".01.partial-{dead}"
    inside.mkdir(parents=True)
    (path / f".metrics.json.partial-{dead}-3").touch()
    with reserved(path):
        wanted = [name for name, stays in partials.items() if stays]
        assert names(tmp_path) == sorted([".a*.reserved", kept.name, path.name, *wanted])
        assert names(path) == ["folds"] and names(path / "folds") == []


def test_nothing_is_left_of_a_name_that_was_held_in_vain(tmp_path):
    with pytest.raises(TrainingError), reserved(tmp_path / "deep" / "er" / "a"):
        raise TrainingError("no", step=1, tasks=[])
    assert names(tmp_path) == []
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("nothing")
    for path in ("file", "file/a", "nowhere"):
        with pytest.raises(RunError, match="exists already|not a writable folder"):
            run(SMALL, bars=MARKET, out=tmp_path / path)
    assert names(tmp_path) == ["file", "nowhere"]


def test_a_directory_that_is_written_takes_no_backtest(tmp_path, no_page):
    path = small_result().save(tmp_path / "a")
    lock_of(path, pid=os.getppid())
    for name in ("trained", "out"):
        options = {"out": path} if name == "out" else {}
        with pytest.raises(RunError, match="is being written|exists already"):
            backtest(path, bars=MARKET, **options)
