"""Files and folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

_UNFINISHED: set[Path] = set()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of `path` only when all went well.

    Readers see the old file or the new one. What a killed process leaves is named
    `.<name>.partial-...` (see `unfinished_in`).

    Raises:
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{get_ident()}")
    with unfinished(partial):
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        os.replace(partial, path)


@contextmanager
def unfinished(partial: Path) -> Iterator[None]:
    """Remove a file or folder at the end of a block, or of the process, if it is still there."""
    _UNFINISHED.add(partial)
    try:
        yield
    finally:
        _remove(partial)
        _UNFINISHED.discard(partial)


def unfinished_in(folder: Path) -> list[Path]:
    """Return what is being written in a folder, or was when a process was killed."""
    return sorted(folder.glob(".*.partial-*"))


def being_written() -> list[Path]:
    """Return the files and folders that this process has not finished."""
    return sorted(_UNFINISHED.copy())


def remove_unfinished() -> None:
    """Remove what is being written, before the process ends without unwinding."""
    for partial in being_written():
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
