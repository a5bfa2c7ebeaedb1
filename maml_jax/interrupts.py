"""Signals that end a command: at once, or at the next point from which it can be gone on with.

Only the command line handles signals: a library must not. Work that can be gone on with says so
(`deferred`), and asks now and then whether it was told to stop (`check`); where nobody handles
signals it never was.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from maml_jax import watchdog
from maml_jax.atomic import remove_unfinished

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

_lock = threading.Lock()
_depth = [0]
_requested: list[int] = []


class Interrupted(Exception):
    """A signal asked for an end, at a point from which the work can be gone on with.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(_name(number))
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code of a command that a signal ended: 128 and its number."""
        return 128 + self.number


@contextmanager
def handle_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the process; for the command line, in its main thread.

    Within `deferred` the first signal only makes `check` raise. Elsewhere, and always from the
    second on, the process ends at once with one line on standard error, even inside compiled code:
    a thread does it, since Python runs handlers only between instructions of the main thread. A
    SIGHUP that is ignored, as under `nohup`, stays so.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    handlers = {}
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is None or name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
            continue
        handlers[number] = signal.signal(number, lambda *_: None)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(receiver, {*map(int, handlers)}), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sender.close()
        thread.join()
        receiver.close()
        _requested.clear()


@contextmanager
def deferred() -> Iterator[None]:
    """Go on after a first signal, until `check` or the end of the block.

    Raises:
        Interrupted: at the end, if there was one.
    """
    with _lock:
        _depth[0] += 1
    try:
        yield
    finally:
        with _lock:
            _depth[0] -= 1
    check()


def check() -> None:
    """Stop here if a signal asked for it.

    Raises:
        Interrupted: naming the signal.
    """
    if _requested:
        raise Interrupted(_requested[0])


def describe_end(number: int) -> str:
    """Return the last line of a command that a signal ended."""
    return f"stopped by {_name(number)}; {watchdog.describe_outcome()}"


def _listen(receiver: socket.socket, numbers: set[int]) -> None:
    while received := receiver.recv(1):
        if received[0] in numbers:
            _on_signal(received[0])


def _on_signal(number: int) -> None:
    with _lock:
        if _depth[0] and not _requested:
            _requested.append(number)
            if sys.stderr.isatty():
                os.write(2, b"\nwriting a checkpoint after this meta-step; again to stop at once\n")
            return
        _end_process(number)


def _end_process(number: int) -> None:
    remove_unfinished()
    start = "\n" if sys.stderr.isatty() else ""  # the terminal shows ^C
    os.write(2, f"{start}{describe_end(number)}\n".encode())
    os._exit(128 + number)


def _name(number: int) -> str:
    return signal.Signals(number).name
