"""Tasks from an iterator on the host, fetched by a thread while the device works."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maml_jax.errors import ShapeError, TaskError
from maml_jax.meta.scan import split_steps
from maml_jax.meta.task_checks import first_difference, require_tasks
from maml_jax.meta.types import MetaLearner, Task

STACK_BYTES = 64 * 2**20
"""Tasks of several meta-steps are stacked up to this size, to be run in one program."""

AHEAD = 2
"""Stacks that wait for the device at most."""

_PAUSE = 0.02
"""Seconds between two looks at whether the thread has ended, once its loop is left."""

_PATIENCE = 1.0
"""Seconds that it is given."""


class HostTasks:
    """Meta-batches of an iterator, stacked, in the order in which it gives them."""

    def __init__(self, tasks: Iterable[Task], learner: MetaLearner):
        """Take the first meta-batch.

        Args:
            tasks: gives one meta-batch a step.
            learner: what they are for.

        Raises:
            ShapeError: if it is no meta-batch.
            TaskError: if there is none.
        """
        self._rest, self._learner = iter(tasks), learner
        try:
            first = next(self._rest)
        except StopIteration:
            raise TaskError("the iterator of tasks gives none") from None
        self._first = self._check(0, first)
        each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self._first))
        self._longest = max(1, STACK_BYTES // max(each, 1))
        self._queue: Queue[Any] = Queue(AHEAD)
        self._stopped = Event()
        self._thread: Thread | None = None

    @property
    def shapes(self) -> Task:
        """Shapes of the tasks of one meta-step."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), self._first)

    def sizes(self, steps: int) -> list[int]:
        """Split the meta-steps of a call into stacks of a bounded size."""
        return split_steps(steps, self._longest)

    def start(self, calls: Sequence[int], skip: int = 0) -> None:
        """Begin to fetch the stacks of calls in a thread, after passing over meta-batches."""
        arguments = (calls, skip)
        self._thread = Thread(target=self._fetch, args=arguments, name="tasks", daemon=True)
        self._thread.start()

    def take(self) -> tuple[Task | None, int]:
        """Return the next stack, `[step, task, ...]`, and how many steps it holds.

        That is fewer than its size, and then perhaps none, where the iterator has ended. What the
        iterator raised is raised here.
        """
        found = self._queue.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the thread, unless the iterator keeps it waiting."""
        self._stopped.set()
        end = time.monotonic() + _PATIENCE
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < end:
            with suppress(Empty):  # room for what it may be waiting to put
                self._queue.get(timeout=_PAUSE)

    def _fetch(self, calls: Sequence[int], skip: int) -> None:
        try:
            batches = self._batches()
            for _ in range(skip):
                if self._stopped.is_set() or next(batches, None) is None:
                    break
            for size in (size for steps in calls for size in self.sizes(steps)):
                stack = self._stack(batches, size)
                if not self._put(stack) or stack[1] < size:
                    return
        except BaseException as error:  # the loop raises it, with the traceback of this thread
            self._put(error)

    def _batches(self) -> Iterator[Task]:
        yield self._first
        for number, tasks in enumerate(self._rest, 1):
            yield self._check(number, tasks)

    def _stack(self, batches: Iterator[Task], size: int) -> tuple[Task | None, int]:
        found: list[Task] = []
        while len(found) < size and not self._stopped.is_set():
            tasks = next(batches, None)
            if tasks is None:
                break
            found.append(tasks)
        return (jax.tree.map(_stack_leaves, *found) if found else None), len(found)

    def _put(self, what: Any) -> bool:
        """Wait for room, without asking again and again: waiting is no progress."""
        if not self._stopped.is_set():
            self._queue.put(what)
        return not self._stopped.is_set()

    def _check(self, number: int, tasks: Any) -> Task:
        """Return a meta-batch as arrays of the types that JAX computes in."""
        if number == 0 or not isinstance(tasks, Task):
            require_tasks(tasks, self._learner)
        tasks = jax.tree.map(_to_array, tasks)
        difference = first_difference(tasks, self._first) if number else None
        if difference is not None:
            raise ShapeError(
                f"meta-batch {number} of the iterator is not like the first: {difference}. All "
                "need the same shapes: give stack_tasks rows=(support, query), the same for all"
            )
        return tasks


def _to_array(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _stack_leaves(*leaves: Any) -> Any:
    return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)
