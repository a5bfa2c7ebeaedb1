"""What every peer is given so that it runs as fast as it can: memory, threads, chunks."""

import ctypes
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from statistics import median
from typing import NamedTuple, TypeVar

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8

Result = TypeVar("Result")
Candidate = TypeVar("Candidate")


class Plan(NamedTuple):
    """How a batch is cut up and who works on it.

    Attributes:
        chunk: tasks, or windows, that are computed together.
        workers: Python threads that each take every `workers`-th chunk; torch releases the
            interpreter lock inside its operations. More than one worker run with one torch thread
            each.
        threads: threads inside each operation.
    """

    chunk: int
    workers: int = 1
    threads: int = 1


def all_cores() -> int:
    """Cores that this process may use, whatever torch's threads are set to at the moment."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


@cache
def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of handing it back to the system.

    Torch allocates memory for every result, and by default glibc maps and unmaps pages for anything
    above 128 KiB: the page faults cost more than the arithmetic. This does what the tcmalloc or
    jemalloc that PyTorch's tuning guide recommends would do. Elsewhere it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * 2**20)
    mallopt(_M_ARENA_MAX, 1)


def use_threads(threads: int) -> None:
    """Set torch's threads within an operation, if they are others than now."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="peer")


def spread(work: Callable[[Sequence], Result], chunks: Sequence, workers: int) -> list[Result]:
    """Call `work` on the chunks of each worker, side by side.

    Args:
        work: takes a list of chunks.
        chunks: all chunks.
        workers: how many threads; 1 calls `work` directly.

    Returns:
        What each call returned.
    """
    workers = min(workers, len(chunks))
    if workers == 1:
        return [work(chunks)]
    shares = [chunks[i::workers] for i in range(workers)]
    futures = [_pool(workers).submit(work, share) for share in shares[1:]]
    return [work(shares[0]), *(future.result() for future in futures)]


def plans(count: int, chunks: Iterable[int], cores: int) -> list[Plan]:
    """List plans worth a try for `count` tasks: chunks no larger than that, one or all cores."""
    sizes = sorted({min(chunk, count) for chunk in chunks} | {count})
    out = [Plan(size) for size in sizes]
    if cores > 1:
        out += [Plan(size, workers=cores) for size in sizes if -(-count // size) >= cores]
        out += [Plan(size, threads=cores) for size in sizes]
    return out


def fastest(
    candidates: Sequence[Candidate],
    run: Callable[[Candidate], object],
    *,
    rounds: int = 7,
    screen: float = 1.5,
) -> Candidate:
    """Time the candidates in turn and return the one of least median time.

    Each is warmed up first; those whose second call takes more than `screen` times as long as the
    shortest are timed no further.

    Args:
        candidates: what to choose from.
        run: runs one.
        rounds: calls of each that are timed.
        screen: how much slower than the best a candidate may look at first.
    """

    def once(candidate: Candidate) -> float:
        begin = time.perf_counter()
        run(candidate)
        return time.perf_counter() - begin

    first = []
    for candidate in candidates:
        once(candidate)
        first.append(min(once(candidate), once(candidate)))
    left = [i for i, seconds in enumerate(first) if seconds <= screen * min(first)]
    seconds = {i: [] for i in left}
    for _ in range(rounds):
        for i in left:
            seconds[i].append(once(candidates[i]))
    return candidates[min(left, key=lambda i: median(seconds[i]))]
