"""The exceptions of maml_jax, under one base class."""

from typing import Any


class MamlJaxError(Exception):
    """Base class of all exceptions that maml_jax raises on purpose."""


class DataError(MamlJaxError, ValueError):
    """Bars that cannot be used; the message names the file or asset, and the line or date."""


class LookAheadError(DataError):
    """A feature whose values change with later bars.

    Attributes:
        feature: its name.
        asset: the asset of the bars.
        bar: the first bar whose value changes.
        cut: the first later bar that was changed.
    """

    def __init__(self, message: str, *, feature: str, asset: str, bar: Any, cut: Any):
        super().__init__(message)
        self.feature = feature
        self.asset = asset
        self.bar = bar
        self.cut = cut


class SourceError(MamlJaxError, OSError):
    """A source of bars that refuses, cannot be reached, or sends impossible bars."""


class StoreError(MamlJaxError, OSError):
    """A store of bars that cannot be read or written, or lacks a series."""


class ConfigError(MamlJaxError, ValueError):
    """A setting that is unknown, of the wrong type or impossible; the message names its key."""


class ShapeError(MamlJaxError, ValueError):
    """Arrays whose shapes do not fit together."""


class TaskError(MamlJaxError, ValueError):
    """A sampler or an iterator of tasks that cannot be trained on as it is."""


class GradientError(MamlJaxError, ValueError):
    """A derivative that does not exist, or that a gradient mode cannot compute."""


class TrainingError(MamlJaxError, ArithmeticError):
    """A loss or gradient of meta-training that is not finite.

    Attributes:
        step: the meta-step.
        tasks: indices in its meta-batch of the tasks whose loss is not finite.
        state: the parameters and the optimizer's state before that step, to save or to continue
            from; its `step` is past it, so that other tasks are drawn.
        history: of the steps before it.
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
    """A run directory that exists already, is missing, lacks something, or cannot be written.

    Attributes:
        result: what was to be written, where that was found; it can be saved elsewhere.
    """

    result: Any = None
