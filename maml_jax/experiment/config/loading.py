"""Reading settings: from a TOML file or a mapping, with single ones overridden."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import Config
from maml_jax.features import import_features

DEFAULT_CONFIG = Path(__file__).with_name("builtin.toml")


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
    name, values = _read(source)
    if source == DEFAULT_CONFIG:  # its dates are those of one fold
        kind = dict(changes).get("folds.kind", "single")
        for date in {"single": (), "combinatorial": ("train_end", "test_start")}.get(
            kind, ("train_end",)
        ):
            del values["data"][date]
    for key, value in changes:
        _assign(values, key, value)
    if trust:
        _import_modules(name, values)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(problem) for problem in error.errors())
        raise ConfigError(f"{name}: {problems}") from None


def parse_override(text: str) -> tuple[str, Any]:
    """Read `key=value`, the value as TOML where it is TOML, else as text.

    >>> parse_override("training.steps=50"), parse_override("data.path=bars.csv")
    (('training.steps', 50), ('data.path', 'bars.csv'))

    Raises:
        ConfigError: if there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r}: expected key=value, such as training.steps=500")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


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
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from None


def _flatten(values: Mapping) -> list[tuple[str, Any]]:
    """List settings by `section.key`; a table that is the value of a key stays whole."""
    pairs = []
    for key, value in values.items():
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
            raise ConfigError(f"config key {key!r}: no section {section!r}")
    values[last] = value


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        section: Any = Config
        for part in problem["loc"][:-1]:
            section = section.model_fields[str(part)].annotation
        return f"unknown key {key!r}; there are {list(section.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # of settings that do not go together; it names one of them
        key, _, message = message.partition(": ")
        return f"key {key!r}: {message}"
    message = message.replace("valid tuple", "valid list")
    return f"key {key!r}: {message[:1].lower()}{message[1:]} (got {problem['input']!r})"
