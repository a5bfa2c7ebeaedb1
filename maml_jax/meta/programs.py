"""Compiled programs, kept as long as the learners that they belong to."""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from maml_jax.meta.types import MetaLearner

MOST = 64
"""Programs that are kept at most; those that were not used for longest are released first."""


class Programs:
    """Programs by key, released when their learner is gone.

    A program holds the learner's loss, so that the loss never goes before it. Functions of the
    learner that its loss does not need, `adapt` or `init`, go with the learner: as long as that is
    in use all of them are.
    """

    def __init__(self, most: int = MOST):
        """Keep so many at most."""
        self._most = most
        self._programs: OrderedDict[Hashable, Any] = OrderedDict()
        self._watched: set[int] = set()

    def get(self, learner: MetaLearner, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the program of a key, made if there is none."""
        key = (learner.loss, key)
        if key not in self._programs:
            self._programs[key] = make()
            self._watch(learner)
            while len(self._programs) > self._most:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key]

    def __len__(self) -> int:
        return len(self._programs)

    def _watch(self, learner: MetaLearner) -> None:
        for function in (learner.init, learner.adapt, learner.predict):
            if id(function) not in self._watched:
                try:
                    weakref.finalize(function, self._forget, id(function), id(learner.loss))
                except TypeError:  # some callables cannot be watched
                    continue
                self._watched.add(id(function))

    def _forget(self, function: int, loss: int) -> None:
        self._watched.discard(function)
        for key in [key for key in [*self._programs] if id(key[0]) == loss]:  # pyright: ignore[reportIndexIssue]
            self._programs.pop(key, None)
