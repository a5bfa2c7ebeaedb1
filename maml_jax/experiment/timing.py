"""How long the stages of a run took, compilation included."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax

from maml_jax import watchdog

_log = logging.getLogger("maml_jax")
_COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
_compiled = [0.0]
_collections: list[list["Stage"]] = []


class Stage(NamedTuple):
    """One stage of a run.

    Attributes:
        name: of the stage.
        seconds: how long it took.
        compiling: seconds of it spent compiling, or looking programs up in the cache.
    """

    name: str
    seconds: float
    compiling: float


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Time what happens inside."""
    start, compiled = time.perf_counter(), _compiled[0]
    with watchdog.during(name):
        yield
    done = Stage(name, time.perf_counter() - start, _compiled[0] - compiled)
    _log.info("%s: %.2f s (compilation %.2f s)", *done)
    for collection in _collections:
        collection.append(done)


@contextmanager
def collect_stages() -> Iterator[list[Stage]]:
    """Collect every stage that ends inside."""
    collection: list[Stage] = []
    _collections.append(collection)
    try:
        yield collection
    finally:
        _collections[:] = [each for each in _collections if each is not collection]


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    if event in _COMPILING:
        _compiled[0] += duration_secs


jax.monitoring.register_event_duration_secs_listener(_count)
