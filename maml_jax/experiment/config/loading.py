"""Reading settings: from a TOML file or a mapping, with single ones overridden."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from maml_jax.errors import ConfigError, shorten
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.messages import (
    MOST_TEXT,
    describe_errors,
    require_plain,
    shorten_key,
)
from maml_jax.features import import_features
from maml_jax.listing import show_value

DEFAULT_CONFIG = Path(__file__).with_name("builtin.toml")

_MOST_BYTES = 16_000_000
"""Of a config."""


def load_config(
    source: str | Path | Mapping | Config | None = None,
    overrides: Mapping | None = None,
    *,
    trust: bool = True,
) -> Config:
    """Read and check settings, and import the modules of features that they name.

    Args:
        source: a TOML file, nested or dotted keys in a mapping, a `Config`, or None for the
            built-in example (for the defaults where `overrides` name other bars).
        overrides: replaces single settings; keys are dotted (`"training.steps"`) or nested.
        trust: import `features.modules`. For settings that were written to a run directory, and not
            by the user, False.

    Raises:
        ConfigError: naming the key; also if the file cannot be read.
    """
    changes = _flatten(overrides or {})
    if source is None:
        # The assets and dates of the built-in example mean nothing for other bars.
        source = {} if any(key == "data.path" for key, _ in changes) else DEFAULT_CONFIG
    name, values = _read_base(source, changes)
    for key, value in changes:
        _assign(values, key, value)
    try:
        return _validate(values, name, trust)
    except ConfigError as error:
        if not changes:
            raise
        # What is wrong without them is the file's.
        _validate(_read_base(source, changes)[1], name, trust)
        raise ConfigError(str(error).removeprefix(f"{name}: ")) from None


def _read_base(source: Any, changes: list[tuple[str, Any]]) -> tuple[str, dict]:
    """Return the name of what holds the settings, and the settings before they are overridden."""
    name, values = _read(source)
    if source == DEFAULT_CONFIG:  # its dates are those of one fold
        kind = dict(changes).get("folds.kind", "single")
        for date in {"single": (), "combinatorial": ("train_end", "test_start")}.get(
            kind if isinstance(kind, str) else "single", ("train_end",)
        ):
            del values["data"][date]
    return name, values


def _validate(values: dict, name: str, trust: bool) -> Config:
    require_plain(values, name)
    if trust:
        _import_modules(name, values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{name}: {describe_errors(error, values)}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as TOML where it is TOML, else as text.

    >>> parse_override("training.steps=50"), parse_override("data.path=bars.csv")
    (('training.steps', 50), ('data.path', 'bars.csv'))

    Raises:
        ConfigError: if there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{show_value(text)}: expected key=value, such as training.steps=500")
    key = key.strip()
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value.strip()
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"key {shorten_key(key)!r}: cannot be read: {error}") from None


def import_modules(config: Config) -> None:
    """Import the modules of features that settings name: this runs their code.

    Raises:
        ConfigError: naming one that cannot be imported, or a feature that none of them registers.
    """
    _import_modules("config", config.model_dump())
    config.features.named()


def _import_modules(name: str, values: Mapping) -> None:
    """Import modules before settings are checked: the names of features depend on them."""
    features = values.get("features")
    modules = features.get("modules") if isinstance(features, Mapping) else None
    for module in modules if isinstance(modules, list | tuple) else ():
        if isinstance(module, str):  # what else there is, the check refuses
            try:
                import_features(module)
            except ConfigError as error:
                raise ConfigError(f"{name}: key 'features.modules': {error}") from error


def _read(source) -> tuple[str, dict]:
    if isinstance(source, Config):
        return "config", source.model_dump()
    if isinstance(source, Mapping):
        values: dict = {}
        for key, value in _flatten(source):
            _assign(values, key, value)
        return "config", values
    path = Path(source)
    name = shorten(str(path), MOST_TEXT // 4)
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{name}: no config is longer than {_MOST_BYTES:,} bytes")
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        return name, tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{name}: no such config file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: cannot be read as TOML: save it as UTF-8 ({error})") from None
    except RecursionError:
        raise ConfigError(f"{name}: cannot be read as TOML: it is nested too deeply") from None
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{name}: cannot be read as TOML: {reason}") from None
    except ConfigError:
        raise
    except ValueError as error:  # also a number with thousands of digits, and a path with a NUL
        raise ConfigError(f"{name}: cannot be read as TOML: {error}") from None


def _flatten(values: Mapping) -> list[tuple[str, Any]]:
    """List settings by `section.key`; a table that is the value of a key stays whole."""
    pairs = []
    for key, value in values.items():
        if not isinstance(key, str):
            raise ConfigError(f"config key {show_value(key)}: keys are texts")
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if isinstance(value, Mapping) and "." not in key:
            pairs += [(f"{key}.{name}", each) for name, each in value.items()]
        else:
            pairs.append((key, value))
    return pairs


def _assign(values: dict, key: str, value: Any) -> None:
    """Set `key`, `section.key`, or one entry of a table, `section.key.entry`."""
    *sections, last = key.split(".", maxsplit=2)
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(
                f"config key {shorten_key(key)!r}: {shorten_key(section)!r} is no section"
            )
    values[last] = value
