"""The log of a run: lines of text, or of JSON, in the directory that the run is in."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path


class LogStyle(StrEnum):
    """How a log is written."""

    TEXT = "text"
    JSON = "json"


_NAMES = {LogStyle.TEXT: "log.txt", LogStyle.JSON: "log.jsonl"}


@contextmanager
def log_to(folders: Sequence[Path], style: LogStyle) -> Iterator[None]:
    """Log what happens inside: messages to a file, and warnings to standard error.

    Args:
        folders: the log is appended to in the first of them that is there; what is logged before
            one is there is written once it is.
        style: of the file.
    """
    logger = logging.getLogger("maml_jax")
    file = _FolderLog(folders, style)
    added: list[logging.Handler] = [file]
    if not logger.handlers:  # those of --verbose show warnings too
        console = logging.StreamHandler()
        console.setLevel(logging.WARNING)
        console.setFormatter(logging.Formatter("%(message)s"))
        added.append(console)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False  # libraries may have given the root a handler that prints everything
    for handler in added:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in added:
            logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _FolderLog(logging.Handler):
    """Appends each record to a file in a folder that may move; a full disk loses records only."""

    def __init__(self, folders: Sequence[Path], style: LogStyle):
        super().__init__(logging.INFO)
        self._folders, self._style = folders, style
        self._waiting: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(_format(record, self._style))
        folder = next((each for each in self._folders if each.is_dir()), None)
        if folder is None:
            return
        try:
            with (folder / _NAMES[self._style]).open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in self._waiting))
        except OSError:
            pass
        self._waiting.clear()


def _format(record: logging.LogRecord, style: LogStyle) -> str:
    moment = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")
    level, message = record.levelname.lower(), record.getMessage()
    if style is LogStyle.TEXT:
        return f"{moment} {level}: {message}"
    fields = {name: _finite(value) for name, value in getattr(record, "fields", {}).items()}
    return json.dumps({"time": moment, "level": level, "message": message, **fields})


def _finite(value):
    return None if isinstance(value, float) and value != value else value
