"""Commands that wait for ever are ended; whatever works, or waits as it should, is left alone."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from maml_jax import _guard, watchdog
from maml_jax.data.sources.http import Client, RateLimit, Retries
from maml_jax.errors import SourceError
from maml_jax.experiment.timing import stage

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the guard reads /proc")
SECOND = 1 / 60
LASTED = "no progress for {} (see --patience)"


@pytest.fixture
def ended(monkeypatch):
    """Set when the process would have been ended, instead of ending it."""
    event = threading.Event()
    monkeypatch.setattr(watchdog._Watcher, "_end", lambda *_: event.set())
    return event


def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(400_000))
        time.sleep(0.005)


WAIT = """
import threading
from contextlib import nullcontext
from io import StringIO
from rich.console import Console
from maml_jax import watchdog
from maml_jax.terminal import ProgressBars

ended = threading.Event()
watchdog._Watcher._end = lambda *_: ended.set()
console = Console(file=StringIO(), force_terminal=True)
with watchdog.watch(0.5 / 60), ProgressBars(console=console) if {bars} else nullcontext():
    assert ended.wait(60)
"""
"""In a process of its own, where no thread of another test is at work."""


@pytest.mark.parametrize("bars", [False, True], ids=["", "while a bar is drawn"])
def test_waiting_is_noticed(bars):
    subprocess.run([sys.executable, "-c", WAIT.format(bars=bars)], check=True, timeout=120)


@pytest.mark.long
def test_computing_is_left_alone(ended):
    with watchdog.watch(0.7 * SECOND):
        compute(1.8)
    assert not ended.is_set()


@pytest.mark.long
@linux_only
def test_a_child_that_computes_is_left_alone(ended):
    code = (
        "import time; end = time.monotonic() + 1.5\nwhile time.monotonic() < end: sum(range(9999))"
    )
    with watchdog.watch(0.7 * SECOND):
        subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    assert not ended.is_set()


def test_what_was_awaited_before_does_not_count(ended):
    watchdog.progress(wait=60)
    with watchdog.watch(0.7 * SECOND):
        assert ended.wait(60)


@pytest.mark.long
def test_a_limit_of_requests_may_be_awaited(ended):
    limit = RateLimit(per_second=0.6)
    with watchdog.watch(0.7 * SECOND):
        for _ in range(2):
            with limit.request():
                pass
        assert not ended.is_set()
        assert ended.wait(60)  # once nobody waits on purpose


def test_waiting_for_a_server_is_reported(monkeypatch):
    waits = []
    monkeypatch.setattr(watchdog, "progress", waits.append)
    client = Client(retries=Retries(2, first=0.01), timeout=5, deadline=60)
    with socket.socket() as taken, pytest.raises(SourceError):
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        client.get(f"http://127.0.0.1:{taken.getsockname()[1]}", {}, lambda reply: reply)
    first, pause, second = waits
    assert first == second == 65
    assert 0 < pause <= 0.01


@pytest.mark.long
def test_reported_progress_counts(ended):
    with watchdog.watch(0.7 * SECOND):
        for _ in range(18):
            with stage("computing elsewhere"):
                time.sleep(0.1)
        assert not ended.is_set()


def test_it_may_be_switched_off(ended):
    for patience in (0, float("nan"), float("inf")):
        with watchdog.watch(patience):
            assert watchdog._current is None
    with watchdog.watch():
        watchdog.expect_waiting()
        assert not watchdog._current.is_alive()
    with watchdog.watch(5):
        watchdog.expect_waiting()
        assert watchdog._current.is_alive()
    assert "watchdog" not in [thread.name for thread in threading.enumerate()]


def test_the_last_line_says_what_is_kept(tmp_path):
    run = tmp_path / "run"
    with watchdog.watch(10, "maml-jax run"):
        watchdog.keep(run, "trained: kept")
        with stage("outer"), stage("inner"):
            told = watchdog._current._report("")
            line = f"{LASTED.format('10 minutes')} during inner; nothing was saved"
            assert told["line"] == line
            assert told["places"][0] == str(tmp_path / "run.watchdog.log")
            assert "Stage: outer / inner\n" in told["header"]
        run.mkdir()
        told = watchdog._current._report("")
        assert told["line"] == f"{LASTED.format('10 minutes')}; trained: kept"
        assert told["places"][0] == str(run / "watchdog.log")


def test_a_log_goes_where_it_can_be_written(tmp_path):
    places = [str(tmp_path / "none" / "a"), str(tmp_path / "b")]
    assert _guard.write_log(places, "x") == places[1]
    assert _guard.write_log(places[:1], "x") is None
    assert b"no log could be written" in _guard.final_line({"line": "stuck"}, None)


GUARDED = """
import ctypes, threading, time
from pathlib import Path
from maml_jax import watchdog
from maml_jax.atomic import remove_on_exit
half = Path("half")
half.mkdir()
with watchdog.watch(1.5 / 60, "maml-jax run"), remove_on_exit(half):
    while watchdog._current._guard is None:
        time.sleep(0.05)
    watchdog.keep(Path("a"), "kept")
    time.sleep(0.5)
    print("begun", flush=True)
    hold()
"""

HOLDS = """
def hold():
    ctypes.PyDLL(None).sleep(300)  # unlike CDLL with the interpreter's lock held
"""

COMPUTES = """
def hold():
    start = time.perf_counter()
    sum(range(10_000_000))
    sum(range(round(3.5 / (time.perf_counter() - start)) * 10_000_000))
"""


def guarded(folder, hold):
    return subprocess.Popen(
        [sys.executable, "-c", hold + GUARDED],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@linux_only
@pytest.mark.long
def test_a_deadlock_with_the_interpreters_lock_is_ended_from_outside(tmp_path):
    process = guarded(tmp_path, HOLDS)
    _, error = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert error == (
        f"error: {LASTED.format('1.5 seconds')}; nothing was saved; stacks of all threads: "
        "a.watchdog.log\n"
    )
    assert "in hold" in (tmp_path / "a.watchdog.log").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["a.watchdog.log"]


@pytest.mark.long
def test_a_long_call_with_the_interpreters_lock_is_left_alone(tmp_path):
    process = guarded(tmp_path, COMPUTES)
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@linux_only
@pytest.mark.long
def test_time_in_which_the_process_was_stopped_does_not_count(tmp_path):
    process = guarded(tmp_path, "def hold():\n    time.sleep(0.5)\n")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(4)
    assert _guard.usage(Path("/proc") / str(process.pid))[0] == "T"
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=120)[1] == ""
    assert process.returncode == 0


@linux_only
def test_threads_of_the_system_are_listed():
    lines = _guard.native_threads(os.getpid()).splitlines()
    assert any(line.split()[0] == str(os.getpid()) for line in lines[1:])
