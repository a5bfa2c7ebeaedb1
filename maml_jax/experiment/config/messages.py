"""What is wrong with settings, in sentences that name the key and the way out."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import Config
from maml_jax.listing import show_value, suggest

MOST_DEEP = 8
"""Levels of tables and lists in settings."""

MOST_VALUES = 100_000
"""Values in settings, all lists and tables together."""

MOST_TEXT = 4_096
"""Characters of a text in settings, such as a path."""

_KEY = 80
"""Characters of a key in a message."""

_SHARES = 10
"""Settings that are bounded by no more than this are shares, or rates."""


def describe_errors(error: ValidationError, values: Mapping) -> str:
    """Say what pydantic found wrong, one sentence for each key.

    Args:
        error: of the settings.
        values: as they were given, by section and key.
    """
    found: dict[str, list[str]] = {}
    for problem in error.errors(include_url=False):
        key, text = _describe(problem, values)
        texts = found.setdefault(key, [])
        if text not in texts:
            texts.append(text)
    return "; ".join(key + ", or ".join(texts) for key, texts in found.items())


def require_plain(values: Mapping, name: str) -> None:
    """Refuse settings that nothing later could write down: too deep, too many, or no text.

    Args:
        values: by section and key.
        name: of their file.

    Raises:
        ConfigError: naming the key and the bound.
    """
    count = 0
    for keys, value in _walk(values):
        problem = ""
        count += len(value) if isinstance(value, Mapping | list | tuple) else 0
        if count > MOST_VALUES:
            problem = f"settings hold at most {MOST_VALUES:,} values"
        elif len(keys) > MOST_DEEP:
            problem = f"nested too deeply, at most {MOST_DEEP} levels"
        elif not all(isinstance(part, str | int) for part in keys):
            problem = "keys are texts"
        elif isinstance(value, bytes | bytearray):
            problem = "expected a text, a number, a date, a list or a table; got bytes"
        elif isinstance(value, str) and len(value) > MOST_TEXT:
            problem = f"a text has at most {MOST_TEXT:,} characters; this one has {len(value):,}"
        elif isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
            problem = f"{show_value(value)} is no text in UTF-8; rename what it names"
        if problem:
            key = shorten_key(".".join(map(str, keys)))
            raise ConfigError(f"{name}: key {key!r}: {problem}")


def require_text(key: str, *texts: str | None) -> None:
    """Refuse names that no file can hold in writing, such as paths that are not UTF-8.

    Raises:
        ConfigError: naming the key.
    """
    for text in texts:
        if text is not None and not _is_unicode(text):
            raise ConfigError(
                f"key {key!r}: {show_value(text)} is no text in UTF-8; rename the file or folder"
            )


def shorten_key(key: str) -> str:
    """Cut a key that is longer than any there is."""
    return key if len(key) <= _KEY else f"{key[:_KEY]}..."


def _walk(values: Any) -> Iterator[tuple[tuple, Any]]:
    """Yield all values and their keys, tables and lists before what they hold."""
    waiting: list[tuple[tuple, Any]] = [((), values)]
    while waiting:
        keys, value = waiting.pop()
        yield keys, value
        if isinstance(value, Mapping):
            waiting += [((*keys, key), each) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [((*keys, place), each) for place, each in enumerate(value)]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe(problem: Any, values: Mapping) -> tuple[str, str]:
    """Return the key of a problem, as a sentence begins with it, and the rest of the sentence."""
    loc = problem["loc"]
    if problem["type"] == "extra_forbidden":
        return _unknown_key([str(part) for part in loc]), ""
    message = problem["msg"].removeprefix("Value error, ")
    if not loc:  # of settings that do not go together; it names one of them
        key, _, message = message.partition(": ")
        return f"key {key!r}: {message}", ""
    key = shorten_key(".".join(_keys(loc, values)))
    message = f"{message[:1].lower()}{message[1:]}".replace("valid tuple", "valid list")
    message = re.sub(r"valid dictionary or instance of \w+", "section of settings", message)
    got = show_value(problem["input"])
    return f"key {key!r}: ", f"{message}{_way_out(problem)} (got {got})"


def _keys(loc: Sequence, values: Any) -> Iterator[str]:
    """Yield the parts of a location that are keys or places, not the kinds that a value may be."""
    for part in loc:
        if isinstance(values, BaseModel):
            values = dict(values)
        inside = isinstance(values, Mapping) and part in values
        if not inside and isinstance(values, list | tuple):
            inside = isinstance(part, int) and part < len(values)
        if inside:
            yield str(part)
            values = values[part]


def _way_out(problem: Any) -> str:
    kind, value = problem["type"], problem["input"]
    bounds = problem.get("ctx", {})
    if kind in ("tuple_type", "list_type") and isinstance(value, str | int | float):
        text = (
            json.dumps(value, ensure_ascii=False) if isinstance(value, str) else show_value(value)
        )
        return f"; for a single one write [{text}]" if len(text) < _KEY else ""
    if kind in ("less_than", "less_than_equal"):
        bound = bounds.get("lt", bounds.get("le"))
        if isinstance(bound, float) and bound <= _SHARES and 1 <= value <= 100:
            return f"; a share: {value / 100:g} is {value:g} %"
    if kind == "literal_error" and isinstance(value, str):
        meant = suggest(value, re.findall(r"'([^']+)'", bounds.get("expected", "")))
        return f". Did you mean `{meant}`?" if meant else ""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {show_value(int(value))}"
    if kind.startswith("bool"):
        return "; write true or false"
    return ""


def _unknown_key(parts: list[str]) -> str:
    """Say that there is no such key, which there are, and which was meant most likely."""
    section: Any = Config
    for part in parts[:-1]:
        section = section.model_fields[part].annotation
    names = list(section.model_fields)
    text = f"unknown key {shorten_key('.'.join(parts))!r}; there are {names}"
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    whole = {
        f"{name}.{key}": key
        for name, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for key in kind.model_fields
    }
    last = parts[-1].strip()
    elsewhere = [path for path, key in whole.items() if key == last.lower().replace("-", "_")]
    meant = elsewhere[0] if elsewhere else suggest(last, names)
    if not meant:
        key = suggest(last, whole.values())
        meant = next((path for path, each in whole.items() if each == key), "")
    return f"{text}. Did you mean `{meant}`?" if meant else text
