"""The process that a run lives in: its devices, its compilation cache, its companions."""

import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
import platformdirs
from jax.experimental import multihost_utils

from maml_jax.atomic import remove_on_exit, sync_folder, sync_names
from maml_jax.errors import ConfigError, RunError
from maml_jax.parallel.machine import cores, lapack_waits

_SHORTEST_COMPILATION = 0.2
"""Seconds; what compiles faster is not worth a file."""

_SPARE_THREADS = 1
"""Threads of XLA's pool beyond one for each CPU device, so that all at once never fill it."""

_log = logging.getLogger("maml_jax")


def set_up(*, distributed: bool = False) -> None:
    """Prepare JAX for the command line; to be called before anything is computed.

    One CPU device per core, with jaxlib 0.10 one thread more than that in the pool that they share,
    and compiled programs kept in the user's cache directory. JAX's own environment variables win:
    `JAX_NUM_CPU_DEVICES`, `NPROC`, `JAX_COMPILATION_CACHE_DIR`,
    `JAX_ENABLE_COMPILATION_CACHE=false`.

    Args:
        distributed: take part in a computation of several processes, known from Slurm, Open MPI,
            Kubernetes or a TPU pod, or by `JAX_COORDINATOR_ADDRESS` (host:port),
            `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.

    Raises:
        ConfigError: if the processes cannot find each other.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "device_count" not in os.environ.get(
        "XLA_FLAGS", ""
    ):
        with suppress(RuntimeError):  # where JAX is in use already its devices stay as they are
            jax.config.update("jax_num_cpu_devices", cores())
    _widen_pool()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and _is_there(cache_directory()):
        jax.config.update("jax_compilation_cache_dir", str(cache_directory()))
    # A cache that becomes full, or unreadable, costs time alone.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation")
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST_COMPILATION)
    if distributed:
        _join()


def cache_directory() -> Path:
    """Return where compiled programs are kept between runs."""
    return Path(platformdirs.user_cache_dir("maml_jax")) / "compiled"


def _is_there(folder: Path) -> bool:
    """Say whether a folder is there, or could be made, and can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = os.access(folder, os.W_OK)
    except OSError:
        there = False
    if not there:
        _log.info("%s: cannot be written; compiled programs are not kept for later runs", folder)
    return there


def is_first_process() -> bool:
    """Say whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


@contextmanager
def together(what: str) -> Iterator[None]:
    """Let all processes pass the beginning and the end of a block together.

    Raises:
        RunError: in all others, if one of them fails inside.
    """
    if jax.process_count() == 1:
        yield
        return
    multihost_utils.sync_global_devices(what)
    failure = None
    try:
        yield
    except Exception as error:  # the others must know first, or they would wait for ever
        failure = error
    failed = np.asarray(multihost_utils.process_allgather(np.asarray(failure is not None)))
    if failure is not None:
        raise failure
    if failed.any():
        raise RunError(f"{what}: process {int(failed.argmax())} failed; its output says why")


@contextmanager
def whole_folder(path: Path, *, within: str | None = None, replace: bool = False) -> Iterator[Path]:
    """Give a folder to write in, which takes its name only when all went well and is on the disk.

    Args:
        path: its name.
        replace: take the place of a folder of this name.
        within: take what was written there under this name, and leave the rest; None takes all.

    Raises:
        RunError: if it cannot be written.
    """
    # Several processes write into one folder, which the first of them makes and names.
    writer = os.getpid() if jax.process_count() == 1 else "shared"
    partial = path.with_name(f".{path.name}.partial-{writer}")
    if not is_first_process():
        yield partial
        return
    before = path.with_name(f".{path.name}.partial-{writer}-before")
    with remove_on_exit(partial), remove_on_exit(before):
        try:
            for each in (partial, before):  # of a process that was cut off
                shutil.rmtree(each, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            whole = partial / within if within else partial
            sync_folder(whole)
            if replace and path.exists():
                os.rename(path, before)
            os.rename(whole, path)
            sync_names(path.parent)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error}") from error


def _widen_pool() -> None:
    """Give XLA's pool more threads than there are CPU devices, where LAPACK waits inside of it.

    Elsewhere it stays as it is: more threads than cores make programs a third slower. XLA reads the
    variable when it makes the devices; where they are there already nothing changes.
    """
    if "NPROC" in os.environ or not lapack_waits():
        return
    found = re.search(r"host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", ""))
    devices = int(getattr(jax.config, "jax_num_cpu_devices", 0))
    if devices < 1:  # not set: XLA's flag decides
        devices = int(found.group(1)) if found else 1
    threads = max(devices, cores()) + _SPARE_THREADS
    os.environ["NPROC"] = str(threads)
    _log.info("NPROC=%d: threads of XLA's pool, for %d CPU device(s)", threads, devices)


def _join() -> None:
    settings = {
        "coordinator_address": os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": _number("JAX_NUM_PROCESSES"),
        "process_id": _number("JAX_PROCESS_ID"),
    }
    address = settings["coordinator_address"]
    if address is not None and not address.rpartition(":")[2].isdigit():
        raise ConfigError(
            f"environment variable JAX_COORDINATOR_ADDRESS: {address!r} is not host:port"
        )
    try:
        jax.distributed.initialize(**settings)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"--distributed: the processes cannot find each other: {reason}. Outside of Slurm, Open"
            " MPI, Kubernetes and TPU pods, set JAX_COORDINATOR_ADDRESS (host:port),"
            " JAX_NUM_PROCESSES and JAX_PROCESS_ID for each process"
        ) from error


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdigit():
        raise ConfigError(f"environment variable {variable}: {text!r} is not a whole number")
    return int(text)
