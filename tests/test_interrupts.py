"""Signals: an end at the next point from which work can be gone on with, or at once."""

import signal
import subprocess
import sys
import time

import pytest

from maml_jax import interrupts

SCRIPT = """
import hashlib, sys, time
from pathlib import Path
from maml_jax import interrupts, watchdog
with interrupts.handle_signals():
    watchdog.keep(Path("."), "step 3 is kept")
    try:
        if sys.argv[1] == "asks":
            with interrupts.deferred():
                print("ready", flush=True)
                while True:
                    time.sleep(0.01)
                    interrupts.check()
        elif sys.argv[1] == "ends":
            with interrupts.deferred():
                print("ready", flush=True)
                time.sleep(0.5)
            print("went on", flush=True)
        elif sys.argv[1] == "native":
            with interrupts.deferred():
                print("ready", flush=True)
                hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)  # minutes, without the interpreter
        else:
            print("ready", flush=True)
            hashlib.pbkdf2_hmac("sha256", b"a", b"b", 10**9)
    except interrupts.Interrupted as stop:
        print(interrupts.describe_end(stop.number), file=sys.stderr)
        sys.exit(stop.exit_code)
"""


def start(how, *before):
    process = subprocess.Popen(
        [*before, sys.executable, "-c", SCRIPT, how],
        # Tests that are run with nohup ignore it, and what they start would.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("how", ["asks", "ends", "at once"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_process_with_one_line(how, name):
    number = getattr(signal, name)
    process = start(how)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (out, err) == ("", f"stopped by {name}; step 3 is kept\n")


def test_a_second_signal_ends_it_at_once_even_in_compiled_code():
    process = start("native")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped by SIGINT; step 3 is kept\n"


def test_a_hangup_that_is_ignored_stays_so():
    process = start("asks", "sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_handlers_of_others_come_back():
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with interrupts.handle_signals():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    with interrupts.deferred():  # where nobody handles signals there is nothing to stop for
        interrupts.check()
