"""Write files and folders atomically: they appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

_UNFINISHED: set[Path] = set()


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces `path` if the block succeeds.

    Readers see the old file or the new one. A killed process leaves `.<name>.partial-...` (see
    `find_unfinished`).

    Raises:
        OSError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{get_ident()}")
    with remove_on_exit(partial):
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())  # or a power cut may leave an empty file with the new name
        os.replace(partial, path)


@contextmanager
def remove_on_exit(partial: Path) -> Iterator[None]:
    """Remove a file or folder at the end of a block, or of the process, if it still exists.

    It stays if `keep_on_exit` was called meanwhile.
    """
    _UNFINISHED.add(partial)
    try:
        yield
    finally:
        if partial in _UNFINISHED:
            remove(partial)
        _UNFINISHED.discard(partial)


def keep_on_exit(partial: Path) -> None:
    """Let a file or folder stay that `remove_on_exit` would remove."""
    _UNFINISHED.discard(partial)


def find_unfinished(folder: Path) -> list[Path]:
    """Return what is unfinished in a folder, by this process or by one that was killed."""
    return sorted(folder.glob(".*.partial-*"))


def list_unfinished() -> list[Path]:
    """Return the unfinished files and folders of this process."""
    return sorted(_UNFINISHED.copy())


def remove_unfinished() -> None:
    """Remove unfinished files and folders, before the process ends without unwinding."""
    for partial in list_unfinished():
        remove(partial)


def remove(path: Path) -> None:
    """Remove a file or a folder; nothing happens where there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
