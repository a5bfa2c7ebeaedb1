"""Write files and folders atomically: they appear whole or not at all."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident

_UNFINISHED: set[Path] = set()

_NO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""What systems answer that cannot sync folders."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to, which replaces `path` if the block succeeds.

    Readers see the old file or the new one, also after a power cut. A killed process leaves
    `.<name>.partial-...` (see `find_unfinished`). A file that is replaced keeps its mode. What a
    symbolic link points at is replaced, and not the link; a device or a pipe is not replaced at
    all: what was written is copied to it.

    Raises:
        OSError: if it cannot be written, as on a full disk; the old file is then as it was.
    """
    path = Path(path)
    kind = _kind(path)
    if kind is not None and stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if _is_open_file(path) or not (kind is None or stat.S_ISREG(kind)):
        with _copied_to(path) as partial:
            yield partial
        return
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}-{get_ident()}")
    with remove_on_exit(partial):
        yield partial
        if kind is not None:
            partial.chmod(stat.S_IMODE(kind))
        with partial.open("r+b") as file:
            os.fsync(file.fileno())  # or a power cut may leave an empty file with the new name
        os.replace(partial, target)
        sync_names(target.parent)


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


def sync_folder(folder: Path) -> None:
    """Wait until the disk holds all files of a folder; to be called before it gets its name."""
    for place, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(place, name), "r+b") as file:
                os.fsync(file.fileno())
        sync_names(Path(place))


def sync_names(folder: Path) -> None:
    """Wait until the disk holds the names in a folder, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders; a file system may forbid to read one
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDERS:
            raise
    finally:
        os.close(descriptor)


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
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _kind(path: Path) -> int | None:
    """Return the mode of what a path leads to; None where there is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _is_open_file(path: Path) -> bool:
    """Say whether a path names a file that a process has open, as that of `/dev/stdout`."""
    text = str(path)
    return text in ("/dev/stdout", "/dev/stderr") or text.startswith(("/dev/fd/", "/proc/"))


@contextmanager
def _copied_to(path: Path) -> Iterator[Path]:
    """Give a temporary path whose content is copied to a device or a pipe."""
    descriptor, name = tempfile.mkstemp(prefix="maml-jax-")
    os.close(descriptor)
    partial = Path(name)
    with remove_on_exit(partial):
        yield partial
        try:
            # Without waiting: a pipe that nobody reads would be waited for for ever.
            descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, "nobody reads from it", str(path)) from None
            raise
        os.set_blocking(descriptor, True)
        with partial.open("rb") as source, open(descriptor, "wb") as sink:
            shutil.copyfileobj(source, sink)


def is_running(process: int) -> bool:
    """Say whether a process of this host, by its number, has not ended."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True
