"""Settings in, results out: what a notebook and the command line call.

Names are imported when they are first used, so that `import maml_jax.experiment` takes little time.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maml_jax.experiment.compare.compare import Comparison, compare
    from maml_jax.experiment.compare.page import write_comparison
    from maml_jax.experiment.config.config import Config
    from maml_jax.experiment.config.loading import load_config
    from maml_jax.experiment.learning.adapt import Adapted, load_adapted
    from maml_jax.experiment.learning.step_errors import AdaptationTable, adaptation_table
    from maml_jax.experiment.result import Result, load
    from maml_jax.experiment.run import backtest, resume, run, train

__all__ = [
    "AdaptationTable",
    "Adapted",
    "Comparison",
    "Config",
    "Result",
    "adaptation_table",
    "backtest",
    "compare",
    "load",
    "load_adapted",
    "load_config",
    "resume",
    "run",
    "train",
    "write_comparison",
]

_HOMES = {
    "compare.compare": ("Comparison", "compare"),
    "compare.page": ("write_comparison",),
    "config.config": ("Config",),
    "config.loading": ("load_config",),
    "learning.adapt": ("Adapted", "load_adapted"),
    "learning.step_errors": ("AdaptationTable", "adaptation_table"),
    "result": ("Result", "load"),
    "run": ("backtest", "resume", "run", "train"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


class _Package(ModuleType):
    """A package whose functions keep their names although `run` and `compare` are modules too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            return  # Python sets submodules as attributes when it has imported them
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
