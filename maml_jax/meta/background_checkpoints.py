"""Checkpoints that are written while meta-training goes on, and whose failure does not end it."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from maml_jax.errors import RunError
from maml_jax.meta.checkpoints import KEEP, Checkpoints, Record

_log = logging.getLogger("maml_jax")


class BackgroundCheckpoints(Checkpoints):
    """Checkpoints that a thread writes, one after the other and in order.

    One that cannot be written, because the disk is full for instance, is left out: the earlier ones
    stay, training goes on, and a warning is logged, one for each time that writing begins to fail.
    Leave it as a context manager, or call `wait`, so that the last one is whole.

    Attributes:
        first: called by the thread before each checkpoint, as it was when that was handed over;
            what must be on disk before it. If it raises a `RunError` there is no checkpoint.
        saved: called by the thread with the step of each checkpoint that was written.
    """

    def __init__(self, folder: str | os.PathLike, key: Any, keep: int = KEEP):
        super().__init__(folder, key, keep)
        self.first: Callable[[], None] = _nothing
        self.saved: Callable[[int], None] = _nothing
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._last: Future | None = None
        self._fails = False

    def __enter__(self) -> "BackgroundCheckpoints":
        return self

    def __exit__(self, *exc) -> None:
        self.wait()
        self._thread.shutdown()

    def wait(self) -> None:
        """Wait until what was handed over is written."""
        if self._last is not None:
            self._last.result()

    def _write(self, record: Record, arrays: list[np.ndarray], more: list[np.ndarray]) -> None:
        self.wait()  # at most one copy of the state is in memory
        copies = [[np.array(array) for array in each] for each in (arrays, more)]  # may be donated
        self._last = self._thread.submit(self._try, self.first, record, *copies)

    def _try(self, first: Callable[[], None], record: Record, *arrays: list[np.ndarray]) -> None:
        try:
            first()
            super()._write(record, *arrays)
        except RunError as error:
            if not self._fails:
                _log.warning("no checkpoint of step %d, training goes on: %s", record.step, error)
            self._fails = True
            return
        self._fails = False
        self.saved(record.step)


def _nothing(*_: Any) -> None:
    """Do nothing."""
