import os
import subprocess
import sys

import pytest

from maml_jax.errors import ConfigError
from maml_jax.experiment import process as runtime
from maml_jax.experiment.timing import collect_stages, stage
from maml_jax.parallel import machine

SHOW = """
import glob, sys
import jax
from maml_jax.experiment.process import set_up
set_up()
from maml_jax.parallel.machine import pool_threads
threads = pool_threads()
if sys.platform == "linux":
    names = [open(path).read() for path in glob.glob("/proc/self/task/*/comm")]
    assert sum("XLAEigen" in name for name in names) == threads, (names, threads)
print(jax.local_device_count(), threads, jax.config.jax_compilation_cache_dir)
"""


def show(**settings):
    told = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR", "NPROC")
    environment = {name: value for name, value in os.environ.items() if name not in told}
    process = subprocess.run(
        [sys.executable, "-c", SHOW], env=environment | settings, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    count, threads, folder = process.stdout.split()
    return int(count), int(threads), folder


@pytest.mark.long
def test_a_device_for_every_core_a_thread_to_spare_where_calls_wait_and_a_cache(tmp_path):
    count, threads, folder = show(XDG_CACHE_HOME=str(tmp_path))
    assert count == machine.cores()
    assert threads == count + machine.lapack_waits()
    if sys.platform == "linux":
        assert folder == str(tmp_path / "maml_jax" / "compiled")


@pytest.mark.long
def test_what_the_environment_says_wins(tmp_path):
    told = {"JAX_NUM_CPU_DEVICES": "3", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    assert show(**told) == (3, max(3, machine.cores()) + machine.lapack_waits(), str(tmp_path))
    assert show(**told, NPROC="7") == (3, 7, str(tmp_path))


def test_numbers_of_processes_are_read_with_care(monkeypatch):
    monkeypatch.setenv("JAX_PROCESS_ID", "-1")
    with pytest.raises(ConfigError, match="JAX_PROCESS_ID: '-1' is not a whole number"):
        runtime.set_up(distributed=True)


def test_the_coordinator_needs_a_port(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "somewhere")
    with pytest.raises(ConfigError, match="JAX_COORDINATOR_ADDRESS: 'somewhere' is not host:port"):
        runtime.set_up(distributed=True)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 6), ("250000 100000", 3), ("50000 100000", 1), ("", 6), ("900000 100000", 6)],
)
def test_containers_may_use_a_part_of_the_cores(monkeypatch, tmp_path, limit, expected):
    monkeypatch.setattr(machine, "_LIMITS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    if limit:
        (tmp_path / "cpu.max").write_text(limit + "\n")
    assert machine.cores() == expected


def test_containers_may_use_a_part_of_the_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_LIMITS", tmp_path)
    whole = machine.usable_memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.usable_memory() == whole
    (tmp_path / "memory.max").write_text(str(2**24))
    assert machine.usable_memory() == 2**20  # half of it, shared by eight devices


def test_stages_are_collected_while_someone_listens():
    with stage("before"):
        pass
    with collect_stages() as outer:
        with stage("a"), collect_stages() as inner, stage("b"):
            pass
        with pytest.raises(ZeroDivisionError), stage("failing"):
            _ = 1 / 0
    assert [each.name for each in outer] == ["b", "a"]
    assert [each.name for each in inner] == ["b"]
    assert all(0 <= each.compiling <= each.seconds + 1e-6 for each in outer)


@pytest.mark.long
def test_a_cache_that_cannot_be_made_or_written_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    script = (
        "import jax\nfrom maml_jax.experiment.process import set_up\nset_up()\n"
        "print(jax.config.jax_compilation_cache_dir, jax.jit(lambda x: x + 1)(1))"
    )
    for more in ({"XDG_CACHE_HOME": str(tmp_path / "file")},
                 {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "file" / "x")}):  # fmt: skip
        told = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        process = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | told | more,
            capture_output=True, text=True,
        )  # fmt: skip
        assert process.returncode == 0 and process.stderr == ""
        assert process.stdout.split()[1] == "2"
