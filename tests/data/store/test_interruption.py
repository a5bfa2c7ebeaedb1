"""Writers that are killed, and writers at the same time, lose nothing."""

import os
import random
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from bybit_server import Exchange, serving

from maml_jax.data import SeriesKey, Store, parse_interval

SYMBOLS = ["AUSDT", "BUSDT", "CUSDT"]
SPAN = ("2023-06-01", "2024-01-09")

# Imports once and forks for each fetch, so that a fetch takes a fraction of a second. It writes
# each page, so that there is much to interrupt.
FORKS = """
import os, sys
from maml_jax.data import Store, bybit, fetch
sys.modules[fetch.__module__]._FLUSH_BARS = 1
for line in sys.stdin:
    address, root, symbols, start, end = line.split()
    pid = os.fork()
    if pid == 0:
        source = bybit(address=address, per_second=None)
        report = fetch(source, symbols.split(","), "1h", start=start, end=end, store=Store(root))
        os._exit(len(report.errors))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forks:
    """Starts fetches, one after the other."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, address, root, symbols=SYMBOLS, span=SPAN):
        self.process.stdin.write(f"{address} {root} {','.join(symbols)} {span[0]} {span[1]}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        return int(self.process.stdout.readline())


@pytest.fixture
def forks():
    started = []

    def start():
        started.append(Forks())
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def contents(root):
    files = [path for path in root.glob("**/*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def assert_nothing_partial(root, exchange):
    """The store opens; what is noted is there to the bar, and every bar is a right one."""
    store = Store(root)
    for key in store.keys():
        for problem in store.verify(key):
            assert "interrupted" in problem, problem
        for begins, ends in store.covered(key):
            bars = store.read(key, begins, ends)
            expected = exchange.bars(key.symbol, "60", begins, ends)
            np.testing.assert_array_equal(bars.to_numpy(), expected[:, 1:])
        for opened, row in store.read(key).iloc[::97].iterrows():
            right = exchange.row(key.symbol, int(opened.timestamp() * 1000))
            assert row.tolist() == [float(value) for value in right[1:6]]


def kill_again_and_again(forks, exchange, tmp_path, kills):
    rng = random.Random(0)
    runner = forks()
    with serving(exchange) as address:
        runner.start(address, tmp_path / "undisturbed")
        assert runner.end() == 0
        undisturbed, asked = contents(tmp_path / "undisturbed"), len(exchange.requests)
        assert len(undisturbed) == 3 * len(SYMBOLS)  # series.json, 2023, 2024
        killed = finished = 0
        while killed < kills:
            root = tmp_path / f"killed-{finished}"
            strike = {"at": rng.randrange(1, asked // 2), "after": 0.03 * rng.random(), "pid": 0}

            def kill(server, query, reply, strike=strike):
                strike["at"] -= 1
                if strike["at"] == 0:
                    threading.Event().wait(strike["after"])
                    os.kill(strike["pid"], signal.SIGKILL)
                return reply

            ready = threading.Event()
            exchange.always = lambda *given, ready=ready, kill=kill: ready.wait(10) and kill(*given)
            strike["pid"] = runner.start(address, root)
            ready.set()
            status = runner.end()
            assert status in (0, -signal.SIGKILL)
            assert_nothing_partial(root, exchange)
            if status:
                killed += 1
            else:
                assert contents(root) == undisturbed
                finished += 1
        exchange.always = None
        runner.start(address, root)
        assert runner.end() == 0
    assert contents(root) == undisturbed
    return finished + 1


@pytest.mark.long
@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_a_fetch_that_is_killed_goes_on_to_the_same_bytes(forks, tmp_path, kills):
    exchange = Exchange(symbols=SYMBOLS)
    assert kill_again_and_again(forks, exchange, tmp_path, kills) > kills // 8


@pytest.mark.long
def test_two_processes_write_at_once_without_loss(forks, tmp_path):
    exchange = Exchange(symbols=SYMBOLS)
    both, one = tmp_path / "both", tmp_path / "one"
    runners = [forks() for _ in range(2)]
    spans = [("2023-01-01", "2023-10-15"), ("2023-05-01", "2024-01-09")]
    with serving(exchange) as address:
        for runner, span in zip(runners, spans, strict=True):
            runner.start(address, both, span=span)
        assert [runner.end() for runner in runners] == [0, 0]
        runners[0].start(address, one, span=("2023-01-01", "2024-01-09"))
        assert runners[0].end() == 0
    assert contents(both) == contents(one)
    key = SeriesKey("bybit-linear", SYMBOLS[0], parse_interval("1h"))
    assert Store(both).verify(key) == []
