"""Custom features, known by name like the built-in ones."""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from maml_jax.errors import ConfigError
from maml_jax.features.catalogue import is_built_in
from maml_jax.features.feature import Feature

LAG = re.compile(r"(.+)_lag_([1-9][0-9]*)")
"""The name of a feature some bars ago."""

_registered: dict[str, Feature] = {}
_imported: dict[Path, int] = {}


def register_feature(
    name: str,
    compute: Callable[[pd.DataFrame], pd.Series | np.ndarray],
    *,
    warm_up: int,
    columns: tuple[str, ...] = ("close",),
) -> Feature:
    """Register a function of bars as a feature that settings can name.

    Registering a name again replaces the feature.

    Args:
        name: an identifier that is not built in.
        compute: `bars -> Series` on the index of the bars, or an array `[bar]`. The value at bar t
            must depend on bars up to and including t only (see `check_feature`).
        warm_up: bars at the start of a series without a value.
        columns: the columns of the bars that it reads.

    Returns:
        The feature.

    Raises:
        ConfigError: if an argument is impossible, or the name is taken.

    >>> from maml_jax.features import find_features, register_feature
    >>> _ = register_feature("squared", lambda bars: bars["close"].diff() ** 2, warm_up=1)
    >>> [feature.name for feature in find_features(["rsi", "squared", "squared_lag_2"])]
    ['rsi', 'squared', 'squared_lag_2']
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(f"a feature's name must be an identifier, such as my_feature: {name!r}")
    if LAG.fullmatch(name):
        raise ConfigError(f"feature {name!r}: names that end in _lag_N are reserved for lags")
    if is_built_in(name):
        raise ConfigError(f"feature {name!r} is built in; choose another name")
    if not callable(compute):
        raise ConfigError(f"feature {name!r}: compute must be a function of bars, not {compute!r}")
    if isinstance(warm_up, bool) or not isinstance(warm_up, int) or warm_up < 0:
        raise ConfigError(f"feature {name!r}: warm_up must be a number of bars, not {warm_up!r}")
    if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
        raise ConfigError(f"feature {name!r}: columns must be a tuple of names, not {columns!r}")
    _registered[name] = Feature(name, compute, warm_up, tuple(columns))
    return _registered[name]


def registered_features() -> dict[str, Feature]:
    """Return all registered features, by name."""
    return dict(_registered)


def is_registered(feature: Feature) -> bool:
    """Say whether a feature, or the feature it is a lag of, was registered by the user."""
    lag = LAG.fullmatch(feature.name)
    return feature.name in _registered or (lag is not None and lag[1] in _registered)


def import_features(module: str) -> None:
    """Import a module that registers features.

    Args:
        module: the name of a module, or the path of a `.py` file. A file that changed is run again.

    Raises:
        ConfigError: naming the module, if it cannot be imported.
    """
    try:
        if module.endswith(".py"):
            _run_file(Path(module).absolute())
        else:
            importlib.import_module(module)
    except Exception as error:  # a module may raise anything
        hint = "" if module.endswith(".py") else "; name a file by its path, ending in .py"
        raise ConfigError(
            f"module {module!r} cannot be imported: {type(error).__name__}: {error}{hint}"
        ) from error


def is_imported(module: str) -> bool:
    """Say whether a module that registers features was imported already."""
    if module.endswith(".py"):
        return Path(module).absolute() in _imported
    return module in sys.modules


def _run_file(path: Path) -> None:
    changed = path.stat().st_mtime_ns
    if _imported.get(path) == changed:
        return
    name = f"own_features_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    _imported[path] = changed
