"""The exceptions that maml_jax raises on purpose, all under one base class."""

from typing import Any


class MamlJaxError(Exception):
    """Base class: catch this to catch everything that maml_jax raises on purpose."""


class DataError(MamlJaxError, ValueError):
    """Bars that cannot be used as they are; the message names file or asset, and line or date."""


class LookAheadError(DataError):
    """A feature whose values change with later bars.

    Attributes:
        feature: its name.
        asset: on whose bars.
        bar: the first bar that changes.
        cut: the first of the later bars.
    """

    def __init__(self, message: str, *, feature: str, asset: str, bar: Any, cut: Any):
        super().__init__(message)
        self.feature = feature
        self.asset = asset
        self.bar = bar
        self.cut = cut


class SourceError(MamlJaxError, OSError):
    """A source of bars that refuses, cannot be reached, or answers what cannot be right."""


class StoreError(MamlJaxError, OSError):
    """A store of bars that cannot be read or written, or lacks what is asked of it."""


class ConfigError(MamlJaxError, ValueError):
    """A setting that is unknown, of the wrong type or impossible; the message names its key."""


class ShapeError(MamlJaxError, ValueError):
    """Arrays whose shapes do not fit together."""


class GradientError(MamlJaxError, ValueError):
    """A derivative that does not exist, or cannot be taken in the mode that was asked for."""


class TrainingError(MamlJaxError, ArithmeticError):
    """Meta-training met a loss or a gradient that is not finite.

    Attributes:
        step: the meta-step at which it happened.
        tasks: the places in that step's meta-batch whose loss is not finite.
        state: the state of meta-training before that step, to save or to go on from.
        history: what was seen in the steps before it.
    """

    def __init__(
        self, message: str, *, step: int, tasks: list[int], state: Any = None, history: Any = None
    ):
        super().__init__(message)
        self.step = step
        self.tasks = tasks
        self.state = state
        self.history = history


class RunError(MamlJaxError, OSError):
    """A run directory that exists already, is missing, or lacks what is asked of it."""
