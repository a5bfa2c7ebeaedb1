"""What the machine has: cores and memory, as far as this process may use them."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxlib import version
from threadpoolctl import threadpool_limits

try:
    import resource
except ImportError:  # not on every system
    resource = None

_USABLE_SHARE = 0.5
"""Share of the memory that a computation may plan with."""

_UNKNOWN_MEMORY = 8 * 2**30
"""Bytes that a machine is taken to have where it does not say."""

_CACHE_SHARE = 0.8
"""Share of a core's own cache that the intermediate values of a chunk may fill."""

_USUAL_CACHE = 2**20
"""Bytes that a core's second-level cache is taken to have where the machine does not say."""

_LIMITS = Path("/sys/fs/cgroup")
"""Where Linux tells a container what it may use."""


def cores() -> int:
    """Return how many processor cores this process may use; containers may allow a part of them."""
    present = _present_cores()
    quota, _, period = _limit("cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        present = min(present, max(1, math.ceil(int(quota) / int(period))))
    return present


@lru_cache
def pool_threads() -> int:
    """Return how many threads XLA's own pool has, which the CPU devices of this process share.

    As many as the environment variable `NPROC` says or, without it, as there are cores, and at
    least one for each device. XLA reads the variable when it makes the CPU devices, and this
    function when it is called first: a change in between goes unseen.
    """
    try:
        threads = int(os.environ.get("NPROC", ""))
    except ValueError:
        threads = 0
    if threads < 1:
        threads = _present_cores()  # XLA knows nothing of a container's share of them
    return max(threads, len(jax.local_devices(backend="cpu")))


def lapack_waits() -> bool:
    """Say whether LAPACK's calls on a batch, on a CPU, wait for threads of XLA's pool.

    Those of jaxlib 0.10 do. Earlier ones know no pool, and from 0.11 on builds for everyone are
    made without it. They wait inside of the pool, so that as many of them at one time as the pool
    has threads wait for ever.
    """
    return version.__version__.split(".")[:2] == ["0", "10"]


def fft_waits() -> bool:
    """Say whether Fourier transforms of a batch, on a CPU, wait for threads of XLA's pool.

    Measured: those of jaxlib 0.11 do.
    """
    release = [int(part) for part in version.__version__.split(".")[:2]]
    return release >= [0, 11]


@lru_cache
def usable_cache() -> int:
    """Return the bytes that stay in a processor core's own cache beside what else it needs."""
    try:
        present = os.sysconf("SC_LEVEL2_CACHE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        present = 0
    # Some machines report none, others one that many cores share.
    present = present if 2**18 <= present <= 2**22 else _USUAL_CACHE
    return _agree_on(int(_CACHE_SHARE * present))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let numpy's linear algebra use one thread.

    Products of long rows by few columns take milliseconds on one core, and seconds where its
    threads wait for cores that others use. Also a decorator.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


def usable_memory() -> int:
    """Return the bytes that a computation on one device may plan with.

    Half of an accelerator's own memory, or half of the host's shared by its devices. The amount
    does not depend on what is in use, so that programs planned with it are always the same.
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if device.platform != "cpu":
        return _agree_on(int(_USABLE_SHARE * stats.get("bytes_limit", _UNKNOWN_MEMORY)))
    return _agree_on(int(_USABLE_SHARE * memory()) // jax.local_device_count())


def memory() -> int:
    """Return the bytes of memory that the machine has, or what a container may use of them."""
    try:
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on every system
        present = _UNKNOWN_MEMORY
    limit = _limit("memory.max")
    return min(present, int(limit)) if limit.isdigit() else present


def resident_memory() -> int:
    """Return the bytes of memory that this process holds; the most it ever held, off Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        if resource is None:
            return 0
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else 1024 * size


def _present_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@lru_cache
def _agree_on(number: int) -> int:
    """Return what the first process says: all must make the same plan, whatever they run on."""
    if jax.process_count() == 1:
        return number
    with jax.ensure_compile_time_eval():
        return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.float32)))


def _limit(name: str) -> str:
    try:
        return (_LIMITS / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
