"""The exceptions of maml_jax, under one base class."""

import re
from collections.abc import Mapping
from typing import Any

MOST = 4_000
"""Characters of a message; of a longer one the middle is left out."""

_HIDDEN = "***"

_NAMES = r"key|token|secret|passw|pwd|auth|signature|credential|session"
"""Parts of the names of parameters that let somebody in."""

_SECRETS = (
    # User and password before the host; a path cuts "//" to "/".
    (re.compile(r"(\b[a-z][a-z0-9+.-]+:/{1,2})[^\s/?#'\"]*@", re.IGNORECASE), rf"\1{_HIDDEN}@"),
    (re.compile(r"(?<![\w:/@.])[^\s/:@'\"]+:[^\s/:@'\"]+@(?=[\w-]+\.\w|localhost)"), f"{_HIDDEN}@"),
    (
        re.compile(
            rf"([?&;#][\w.%-]*(?:{_NAMES}|sig)[\w.%-]*=)[^\s&;#'\"<>]*[^\s&;#'\"<>:,.)\]]",
            re.IGNORECASE,
        ),
        rf"\1{_HIDDEN}",
    ),
    (re.compile(r"(\bauthorization:\s*\w+\s+)[\w.~+/=-]+", re.IGNORECASE), rf"\1{_HIDDEN}"),
)


def mask_secrets(text: str) -> str:
    """Hide what lets somebody in: user and password of addresses, keys and tokens of queries.

    >>> mask_secrets("https://me:pass@host.com/bars?symbol=A&apikey=1b2c")
    'https://***@host.com/bars?symbol=A&apikey=***'
    """
    for pattern, hidden in _SECRETS:
        text = pattern.sub(hidden, text)
    return text


def mask_values(value: Any) -> Any:
    """Hide secrets in all texts of tables and lists, such as settings."""
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, Mapping):
        return {key: mask_values(each) for key, each in value.items()}
    return type(value)(map(mask_values, value)) if type(value) in (list, tuple) else value


def shorten(text: str, most: int = MOST) -> str:
    """Leave the middle of a long text out.

    >>> shorten("a" * 1000, 40)
    'aaaaaaaaaa... (980 characters) aaaaaaaaaa'
    """
    if len(text) <= most:
        return text
    side = most // 4
    return f"{text[:side]}... ({len(text) - 2 * side:,} characters) {text[-side:]}"


class MamlJaxError(Exception):
    """Base class of all exceptions that maml_jax raises on purpose.

    Messages hide secrets in addresses, and are of bounded length.
    """

    def __str__(self) -> str:
        # Cut twice: masking takes time, and what the first cut may have opened the second drops.
        return shorten(mask_secrets(shorten(super().__str__(), 4 * MOST)))


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


class OrderError(MamlJaxError, ValueError):
    """An order that is impossible, or a step that its state does not allow."""


class BookError(MamlJaxError, OSError):
    """A book of orders that cannot be read or written."""


class BrokerError(MamlJaxError, OSError):
    """A broker that refuses, cannot be reached, or says what makes no sense."""


class MismatchError(BrokerError):
    """An account at the broker that differs from the book of orders."""


class RunError(MamlJaxError, OSError):
    """A run directory that exists already, is missing, lacks something, or cannot be written.

    Attributes:
        result: what was to be written, where that was found; it can be saved elsewhere.
    """

    result: Any = None
