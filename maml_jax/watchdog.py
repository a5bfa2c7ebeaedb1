"""Stop a command that hangs, and log the stacks of all its threads.

This module knows nothing of JAX and imports almost nothing of the package, so that any module can
report progress.

A command makes progress while it uses processor time, in any thread or child process: a deadlock
uses none, a slow computation uses it all. Code that waits on purpose says so (`progress`). Time is
counted in samples of the processor clock, which a sleeping computer or a stopped process does not
take.
"""

import faulthandler
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from maml_jax import _guard
from maml_jax.atomic import list_unfinished, remove_unfinished
from maml_jax.errors import mask_secrets

EXIT_CODE = 4
"""Of a command that was stopped because it made no progress."""

PATIENCE = 10.0
"""Minutes without progress after which a command is stopped, by default."""

LOG = "watchdog.log"

_FOR_EVER = 1e6
"""Minutes, two years."""

_SAMPLES = 20
"""Samples of the processor clock per patience."""

_IDLE_SHARE = 0.05 / 60
"""Share of one core that does not count as progress: 50 ms per minute.

JAX's idle threads use half a millisecond per minute. A computation uses a whole core or more; one
that mostly waits for a slow disk still uses a few per cent.
"""

_IDLE_SECONDS = 0.02
"""Processor seconds that never count as progress: two ticks of the Linux clock."""

_PACKAGES = ("maml-jax", "jax", "jaxlib", "numpy", "pandas")

_current: "_Watcher | None" = None
_outcome: tuple[Path, str, str] | None = None
_stages: list[str] = []
_signs = [0]
_waiting_until = [0.0]
_idle_seconds = [0.0]
_adding = threading.Lock()
_of_thread = threading.local()


@contextmanager
def watch(patience: float | None = None, command: str = "") -> Iterator[None]:
    """Stop the process if a block makes no progress for some time.

    For the command line only: a library must not stop the process that it runs in.

    Args:
        patience: minutes; 0, or years, watches nothing; None means `PATIENCE` (see
            `expect_waiting`).
        command: for the log; default the arguments of the process.
    """
    global _current, _outcome
    _outcome = None
    _waiting_until[0] = 0.0  # what was awaited before has nothing to do with this block
    minutes = PATIENCE if patience is None else patience
    if not 0 < minutes < _FOR_EVER:
        yield
        return
    watcher = _Watcher(60 * minutes, command or _read_command())
    watcher.by_default = patience is None
    _current = watcher
    watcher.start()
    try:
        yield
    finally:
        _current = None
        watcher.stop()


def _read_command() -> str:
    return mask_secrets(shlex.join(["maml-jax", *sys.argv[1:]]))


def keep(folder: Path, kept: str, lost: str | None = None) -> None:
    """Say what is left if the command is stopped, and where its log belongs.

    Args:
        folder: what the command writes; the log goes there, or beside it until it exists.
        kept: what the last line says once the folder exists.
        lost: what it says before; default that nothing was saved.
    """
    global _outcome
    _outcome = (folder, kept, "nothing was saved" if lost is None else lost)
    if _current is not None:
        _current.wake.set()


def describe_outcome() -> str:
    """Say what is left of the command if it is stopped at this moment."""
    if _outcome is None:
        return "only what was already finished is saved"
    folder, kept, lost = _outcome
    return kept if folder.is_dir() else lost


def expect_waiting() -> None:
    """Stop watching, unless the user set a patience.

    A process that waits for other processes uses as little processor time as one that hangs.
    """
    if _current is not None and _current.by_default:
        _current.stop()


def progress(wait: float = 0.0) -> None:
    """Report progress that processor time may not show.

    Args:
        wait: seconds from here in which nothing need happen, as for a reply or a rate limit.
    """
    _signs[0] += 1
    _waiting_until[0] = max(_waiting_until[0], time.monotonic() + wait)


def ignore_this_thread() -> None:
    """Do not count the processor time of the calling thread as progress."""
    used = time.thread_time()
    with _adding:
        _idle_seconds[0] += used - getattr(_of_thread, "used", 0.0)
    _of_thread.used = used


@contextmanager
def during(stage: str) -> Iterator[None]:
    """Name the stage of a block; its start and its end count as progress."""
    _stages.append(stage)
    _report_change()
    try:
        yield
    finally:
        _stages.remove(stage)
        _report_change()


def _report_change() -> None:
    progress()
    if _current is not None:
        _current.wake.set()


class _Watcher(threading.Thread):
    """Samples the processor time, and stops the process if it uses none.

    Attributes:
        by_default: whether the patience is the default.
        wake: makes it report a change to the guard at once.
    """

    def __init__(self, seconds: float, command: str):
        super().__init__(name="watchdog", daemon=True)
        self.seconds = seconds
        self.interval = seconds / _SAMPLES
        self.limit = _IDLE_SECONDS + _IDLE_SHARE * seconds
        self.command = command
        self.by_default = False
        self.wake = threading.Event()
        self._ended = False
        self._guard: subprocess.Popen | None = None
        self._stacks = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self._seen = (-1, 0.0)

    def stop(self) -> None:
        """Stop watching."""
        if self._ended:
            return
        self._ended = True
        self.wake.set()
        self.join()
        faulthandler.cancel_dump_traceback_later()
        self._dismiss_guard()
        self._stacks.close()

    def run(self) -> None:
        pause, quiet, versions = min(1.0, self.interval), 0, ""
        while True:
            changed = self.wake.wait(pause)
            self.wake.clear()
            if self._ended:
                return
            if not versions:  # only here, so that a command of a second starts no guard
                pause, versions = self.interval, _versions()
                self._guard = self._start_guard()
            self._beat(versions)
            quiet = 0 if self._has_progressed() else quiet + (not changed)
            if quiet >= _SAMPLES:
                self._end(versions)

    def _has_progressed(self) -> bool:
        """Say whether there was progress since there last was any."""
        ignore_this_thread()
        children = sum(os.times()[2:4]) + _guard.children_seconds(
            os.getpid(), without=None if self._guard is None else self._guard.pid
        )
        used = time.process_time() + children - _idle_seconds[0]
        signs, before = self._seen
        if _signs[0] == signs and abs(used - before) <= self.limit:
            return time.monotonic() < _waiting_until[0]
        self._seen = (_signs[0], used)
        return True

    def _beat(self, versions: str) -> None:
        """Let the guard and `faulthandler` know that Python threads still run."""
        # If this thread does not come back, `faulthandler` writes the stacks without the GIL.
        faulthandler.cancel_dump_traceback_later()
        os.ftruncate(self._stacks.fileno(), 0)
        os.lseek(self._stacks.fileno(), 0, os.SEEK_SET)
        faulthandler.dump_traceback_later(self.seconds, file=self._stacks)
        if self._guard is not None and self._guard.stdin is not None:
            try:
                self._guard.stdin.write(json.dumps(self._report(versions)).encode() + b"\n")
            except OSError:
                self._dismiss_guard()

    def _report(self, versions: str) -> dict:
        """Return the last line, the log, and the files to remove."""
        stages = list(_stages)
        places = [Path(LOG), Path(tempfile.gettempdir(), LOG)]
        if _outcome is not None:
            folder = _outcome[0]
            exists = folder.is_dir()
            places.insert(0, folder / LOG if exists else folder.with_name(f"{folder.name}.{LOG}"))
        doing = f" during {stages[-1]}" if stages else ""
        lasted = _in_words(self.seconds)
        header = {
            "Time": datetime.now().astimezone().isoformat(timespec="seconds"),
            "Command": self.command,
            "Stage": " / ".join(stages) or "-",
            "No progress for": f"{lasted} (at most {self.limit:.2f} s of processor time)",
            "Process": os.getpid(),
            "Versions": versions,
        }
        return {
            "places": [str(place) for place in places],
            "header": "".join(f"{name}: {value}\n" for name, value in header.items()) + "\n",
            "line": f"no progress for {lasted} (see --patience){doing}; {describe_outcome()}",
            "unfinished": [str(path.absolute()) for path in list_unfinished()],
        }

    def _start_guard(self) -> subprocess.Popen | None:
        if sys.platform != "linux" or not sys.executable or not os.path.isfile(_guard.__file__):
            return None
        stacks = self._stacks.fileno()
        # A few samples more than the thread, which should stop the process if it can.
        numbers = (os.getpid(), self.interval, _SAMPLES + 3, self.limit, stacks)
        command = [sys.executable, "-I", "-S", _guard.__file__, *map(str, numbers)]
        try:
            started = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                bufsize=0,
                pass_fds=[stacks],
                start_new_session=True,  # a Ctrl-C in the terminal is not for it
            )
        except OSError:  # no more processes: the thread still watches
            return None
        assert started.stdin is not None
        os.set_blocking(started.stdin.fileno(), False)
        return started

    def _dismiss_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.kill()
            self._guard.wait()
            self._guard = None

    def _end(self, versions: str) -> None:
        """Write the log, remove unfinished files, say so, and stop the process."""
        try:
            report = self._report(versions)
            faulthandler.cancel_dump_traceback_later()
            faulthandler.dump_traceback(self._stacks, all_threads=True)
            text = f"{report['header']}{_guard.read_stacks(self._stacks.fileno())}\n"
            log = _guard.write_log(
                report["places"], f"{text}{_guard.native_threads(os.getpid())}\n"
            )
            remove_unfinished()
            _try(lambda: sys.stdout.flush())
            _try(lambda: os.write(2, _guard.final_line(report, log)))
        finally:
            os._exit(EXIT_CODE)


def _try(action: Callable[[], object]) -> None:
    """Do what may hang as well: waiting for a lock, or for a reader."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(timeout=1.0)


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join([*found, f"Python {platform.python_version()}", platform.platform()])


def _in_words(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} seconds"
    return "1 minute" if seconds == 60 else f"{seconds / 60:g} minutes"
