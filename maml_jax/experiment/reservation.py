"""The name of a run directory, held by the one process that writes it."""

import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import get_ident
from typing import NamedTuple

from maml_jax.atomic import find_unfinished, is_running, list_unfinished, remove, remove_on_exit
from maml_jax.errors import RunError
from maml_jax.experiment.process import is_first_process, together

OWNER = "owner.json"

RESUMABLE = "resume.json"
"""A partial folder that holds a file of this name can be continued and is not removed."""

_TRIES = 5
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
"""What systems answer where a folder is in the way."""

_HELD: set[tuple[Path, int]] = set()
"""What threads of this process hold."""


class Owner(NamedTuple):
    """Who holds a name.

    Attributes:
        host: its name.
        pid: of the process.
        started: when that process began, in the words of its system; "" where it does not say.
        since: when it took the name.
    """

    host: str
    pid: int
    started: str
    since: str

    def is_gone(self) -> bool:
        """Say whether the process has ended; of another host nobody can tell."""
        if self.host != socket.gethostname():
            return False
        return not is_running(self.pid) or (
            self.started != "" and self.started != _started(self.pid)
        )

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def require_parent(path: Path) -> None:
    """Refuse a path whose parent cannot hold it.

    Raises:
        RunError: naming the path.
    """
    parent = next(each for each in path.absolute().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RunError(
            f"{path}: cannot be made, {parent} is not a writable folder; name another with --out"
        )


@contextmanager
def reserved(path: str | Path | None) -> Iterator[None]:
    """Hold the name of a run directory during a block, so that no other process writes it.

    The name is held by a folder `.<name>.reserved` beside it, which says who. That of a process of
    this host that has ended is taken over, and what such processes left unfinished is removed. A
    thread may hold a name several times. Of several processes of one program, the first holds it.

    Args:
        path: of the directory, which need not exist; None holds nothing.

    Raises:
        RunError: at once, if another process or thread holds it, or it cannot be made.
    """
    if path is None:
        yield
        return
    whole = Path(os.path.realpath(path))
    key = (whole, get_ident())
    if key in _HELD:
        yield
        return
    lock, made = whole.with_name(f".{whole.name}.reserved"), []
    with together(f"reserving {path}"):
        if is_first_process():
            require_parent(Path(path))
            if os.path.lexists(path) and not os.path.isdir(path):
                raise RunError(f"{path}: exists already; name an output directory that does not")
            try:
                made = _make_parents(whole)
                _take(lock, path)
            except RunError:
                raise
            except OSError as error:
                raise RunError(f"{path}: cannot be made: {error.strerror or error}") from error
    _HELD.add(key)
    try:
        if not is_first_process():
            yield
            return
        with remove_on_exit(lock):
            _sweep(whole)
            yield
    finally:
        _HELD.discard(key)
        for parent in made:  # in which nothing came to be
            with suppress(OSError):
                parent.rmdir()


def _make_parents(path: Path) -> list[Path]:
    """Make the folders above a path, and return those that were missing, the nearest first."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _take(lock: Path, path: str | Path) -> None:
    """Put a folder that says who we are in the place of the lock, which at most one process can.

    Raises:
        RunError: if another one did.
    """
    own = Owner(
        socket.gethostname(),
        os.getpid(),
        _started(os.getpid()),
        datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    draft = lock.with_name(f"{lock.name}.partial-{os.getpid()}-{get_ident()}")
    with remove_on_exit(draft):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        (draft / OWNER).write_text(json.dumps(own._asdict()), encoding="utf-8")
        for _ in range(_TRIES):
            try:
                os.rename(draft, lock)
                return
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            owner = _read(lock)
            if owner is None and not os.path.lexists(lock):
                continue  # it was given back just then
            if owner is None or not owner.is_gone():
                who = "another process" if owner is None else str(owner)
                raise RunError(
                    f"{path}: is being written by {who}; wait for it, or name another directory. "
                    f"If it no longer runs, delete {lock}"
                )
            _clear(lock, owner)
    raise RunError(f"{path}: other processes are taking this name; name another directory")


def _clear(lock: Path, owner: Owner) -> None:
    """Remove the lock of a process that has ended, and no other."""
    gone = lock.with_name(f"{lock.name}.partial-{os.getpid()}-{get_ident()}-old")
    with suppress(OSError):  # another process was faster
        os.rename(lock, gone)
        if _read(gone) == owner:
            shutil.rmtree(gone, ignore_errors=True)
        else:  # who cleared it before us, and took it
            os.rename(gone, lock)


def _read(lock: Path) -> Owner | None:
    try:
        record = json.loads((lock / OWNER).read_text(encoding="utf-8"))
        owner = Owner(**record)
    except (OSError, ValueError, TypeError):
        return None
    whole = isinstance(owner.pid, int) and all(
        isinstance(each, str) for each in (owner.host, owner.started, owner.since)
    )
    return owner if whole else None


def _sweep(path: Path) -> None:
    """Remove what processes that have ended left unfinished of a directory that is held.

    Of those of other hosts none can be writing it, or it would not be held here.
    """
    name = glob.escape(path.name)
    found = [*path.parent.glob(f".{name}.partial-*")]
    found += path.parent.glob(f".{name}.reserved.partial-*")
    for folder in (path, path / "folds"):
        found += find_unfinished(folder)
    for partial in found:
        writer = partial.name.rpartition(".partial-")[2].partition("-")[0]
        own = writer == str(os.getpid())
        if partial in list_unfinished() or (partial / RESUMABLE).exists():
            continue
        if not own and writer.isdigit() and is_running(int(writer)):
            continue
        remove(partial)


def _started(process: int) -> str:
    """Return when a process began, in ticks of the system; "" where it does not say."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
