"""How `torch.compile` is called here."""

import os
import tempfile
from collections.abc import Callable
from functools import cache

import torch
import torch._dynamo


@cache
def _fresh_cache() -> tempfile.TemporaryDirectory:
    """Point the compiler at an empty directory, so that the compile time is a first run's.

    What this process has compiled before is still found there.
    """
    directory = tempfile.TemporaryDirectory(prefix="peers-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = directory.name
    return directory


def compile_whole(function: Callable) -> Callable:
    """Compile a function as one graph for fixed shapes, called from C++ rather than from Python.

    The C++ wrapper halves the time of a small step, where calls cost more than arithmetic, and is
    itself faster to compile than the Python one. A tanh taken apart into exponentials is a fifth
    faster than the default call of one.
    """
    _fresh_cache()
    # One function object serves every problem and plan of a process; the default limit is 8.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 128)
    options = {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def even_chunk(count: int, limit: int) -> int:
    """Largest divisor of `count` up to `limit`, so that one compiled shape serves all chunks.

    Where none comes near the limit (primes), all `count` are one chunk.
    """
    best = max(size for size in range(1, min(count, limit) + 1) if count % size == 0)
    return best if 4 * best >= min(count, limit) else count
