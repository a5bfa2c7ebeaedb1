"""States of meta-training on disk, so that a training that was killed goes on as if it was not."""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from maml_jax.atomic import find_unfinished, is_running, list_unfinished, remove_on_exit
from maml_jax.errors import RunError
from maml_jax.meta.steps import MetaState

KEEP = 3
"""How many of the latest checkpoints are kept, beside the best one."""

_OVERHEAD = 2**17
"""Bytes that the small files of a checkpoint take at the most beside its arrays."""

_FORMAT = 1
_ABOUT = "about.json"
_ARRAYS = "arrays"
_NAME = re.compile(r"step-(\d+)")


class Record(NamedTuple):
    """What a checkpoint holds beside arrays.

    Attributes:
        step: meta-steps taken.
        validation: means by name.
        best: step and loss of the best validation so far; None before there is one.
        waited: validations since.
        seconds: that the steps since the checkpoint before took.
    """

    step: int
    validation: dict[str, float]
    best: tuple[int, float] | None
    waited: int
    seconds: float


class Checkpoints:
    """The checkpoints of one training, `step-<number>/` each, in a folder.

    A checkpoint appears whole or not at all. What a process that was killed left unfinished is
    passed over, and removed.
    """

    def __init__(self, folder: str | os.PathLike, key: Any, keep: int = KEEP):
        """Open or make the folder.

        Args:
            folder: where.
            key: of the training; the same one is needed to go on.
            keep: how many of the latest to keep; the best one on validation is kept beside them.

        Raises:
            RunError: if the folder cannot be made.
        """
        if keep < 1:
            raise ValueError(f"at least the last checkpoint must be kept, got keep={keep}")
        self.folder, self._keep = Path(folder).absolute(), keep
        self._key = _key_text(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.folder}: cannot hold checkpoints: {error}") from error
        if jax.process_index() == 0:
            self._sweep()

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that are there, in order."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(name[1]) for name in names if name)

    def save(self, record: Record, state: MetaState, history: Any) -> None:
        """Write a checkpoint; the oldest ones beyond those to keep are then removed.

        In a program of several processes the first one writes.

        Raises:
            RunError: if it cannot be written.
        """
        arrays, more = ([_to_host(leaf) for leaf in jax.tree.leaves(t)] for t in (state, history))
        if jax.process_index() == 0:
            self._write(record, arrays, more)

    def _write(self, record: Record, arrays: list[np.ndarray], more: list[np.ndarray]) -> None:
        """Write the arrays of a state and of a history."""
        about = {
            "format": _FORMAT,
            "key": self._key,
            "state": [[list(leaf.shape), str(leaf.dtype)] for leaf in arrays],
            "history": [[list(leaf.shape), str(leaf.dtype)] for leaf in more],
            **record._asdict(),
        }
        try:
            with self._appearing(record.step) as partial:
                _write_arrays(partial / _ARRAYS, [*arrays, *more])
                with (partial / _ABOUT).open("w", encoding="utf-8") as file:
                    json.dump(about, file, indent=2)
                    file.flush()
                    os.fsync(file.fileno())
        except Exception as error:  # orbax and its storage raise types of their own
            reason = storage_reason(error)
            raise RunError(f"{self._path(record.step)}: cannot be written: {reason}") from error
        kept = {*self.steps()[-self._keep :], record.best[0] if record.best else record.step}
        for step in self.steps():
            if step not in kept:
                self._remove(step)

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints of later steps.

        Raises:
            RunError: if one cannot be removed.
        """
        try:
            for each in self.steps():
                if each > step:
                    self._remove(each)
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error}") from error

    def load(self, state: MetaState, structure: Any) -> tuple[Record, MetaState, Any] | None:
        """Read the latest checkpoint that is whole; None where there is none.

        Args:
            state: like the one that was saved.
            structure: the tree structure of the history.

        Raises:
            RunError: if checkpoints are of another training, or none of them can be read.
        """
        unreadable = None
        for step in reversed(self.steps()):
            try:
                found = self._read(step, state, structure)
            except _Unreadable as error:
                unreadable = unreadable or error
                continue
            _wait_for_all("checkpoint was read")
            return found
        if unreadable is not None:
            raise unreadable
        return None

    def load_state(self, step: int, state: MetaState) -> MetaState:
        """Read the state of one checkpoint.

        Raises:
            RunError: if it is missing, unreadable, or of another training.
        """
        return self._read(step, state, None)[1]

    def _read(self, step: int, like: MetaState, structure: Any):
        path = self._path(step)
        try:
            about = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise RunError(
                    f"{path}: was written in format {about['format']}; this version reads format "
                    f"{_FORMAT}"
                )
            shapes = [*about["state"], *about["history"]]
            best = None if about["best"] is None else tuple(about["best"])
            record = Record._make(about[name] for name in Record._fields)._replace(best=best)
            self._require_same(path, about, like, structure)
            if structure is not None and best is not None and not self._path(best[0]).is_dir():
                raise ValueError(f"the best state, of step {best[0]}, is missing")
            arrays = _read_arrays(path / _ARRAYS, shapes)
        except RunError:
            raise
        except Exception as error:  # orbax and its storage raise types of their own
            reason = str(error).strip().partition("\n")[0]
            raise _Unreadable(f"{path}: not a readable checkpoint: {reason}") from error
        count = len(about["state"])
        leaves = [
            _from_host(array, leaf)
            for array, leaf in zip(arrays[:count], jax.tree.leaves(like), strict=True)
        ]
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        history = None
        if structure is not None:
            history = jax.tree.unflatten(structure, [jnp.asarray(each) for each in arrays[count:]])
        return record, state, history

    def _require_same(self, path: Path, about: Any, like: MetaState, structure: Any) -> None:
        other = f"{path}: is of another training: "
        if about["key"] != self._key:
            raise RunError(
                f"{other}the key differs, and with it all tasks. Give the key that it began with, "
                "or another folder"
            )
        leaves = jax.tree_util.tree_leaves_with_path(like)
        wanted = [[list(shape), str(dtype)] for shape, dtype in (_host_shape(b) for _, b in leaves)]
        if wanted != about["state"] or (
            structure is not None and structure.num_leaves != len(about["history"])
        ):
            where = "it holds other arrays"
            for (name, _), one, two in zip(leaves, wanted, about["state"], strict=False):
                if one != two:
                    where = (
                        f"state{jax.tree_util.keystr(name)} has shape {two[0]} and type {two[1]} "
                        f"in it, and {one[0]} and {one[1]} here"
                    )
                    break
            raise RunError(
                f"{other}{where}. Give the same learner, optimizer, tasks and metrics, or another "
                "folder"
            )

    @contextmanager
    def _appearing(self, step: int) -> Iterator[Path]:
        """Give a folder to fill that becomes the checkpoint at the end of the block."""
        path = self._path(step)
        partial = self._partial(path)
        with remove_on_exit(partial):
            partial.mkdir()
            yield partial
            if path.exists():  # one that could not be read
                self._remove(step)
            os.replace(partial, path)

    def _remove(self, step: int) -> None:
        """Remove a checkpoint, which is at no time there in part."""
        path = self._path(step)
        gone = self._partial(path, "-old")
        with remove_on_exit(gone):
            os.replace(path, gone)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:010d}"

    def _partial(self, path: Path, end: str = "") -> Path:
        return path.with_name(f".{path.name}.partial-{os.getpid()}-{get_ident()}{end}")

    def _sweep(self) -> None:
        """Remove what processes that are gone left unfinished."""
        for path in find_unfinished(self.folder):
            owner = path.name.rpartition(".partial-")[2].partition("-")[0]
            if owner == str(os.getpid()):
                left = path not in list_unfinished()
            else:
                left = owner.isdigit() and not is_running(int(owner))
            if left:
                shutil.rmtree(path, ignore_errors=True)


class _Unreadable(RunError):
    """A checkpoint that is damaged, while an older one may not be."""


def storage_reason(error: Exception) -> str:
    """Say in few words why orbax, or the storage below it, failed."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else str(error).strip().partition("\n")[0]


def _key_text(key: Any) -> str:
    implementation = ""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        implementation, key = str(jax.random.key_impl(key)), jax.random.key_data(key)
    return implementation + " " + " ".join(map(str, np.asarray(key).ravel().tolist()))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _to_host(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _from_host(array: np.ndarray, like: Any) -> Any:
    if not _is_key(like):
        return jnp.asarray(array)
    return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))


def _host_shape(leaf: Any) -> tuple[tuple[int, ...], Any]:
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.shape(leaf), jnp.result_type(leaf)


def require_room(folder: Path, arrays: Any) -> None:
    """Refuse to write arrays where there is no room: threads below orbax would print stacks.

    Raises:
        OSError: saying why.
    """
    size = sum(np.asarray(array).nbytes for array in arrays) + _OVERHEAD
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.write(bytes(size))
            file.flush()


def _write_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    import orbax.checkpoint as ocp

    _quiet()
    require_room(path.parent, arrays)
    # Arrays without elements cannot be stored, and need not be.
    tree = {f"{n:05d}": array for n, array in enumerate(arrays) if array.size}
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as writer:
        writer.save(path, tree)


def _read_arrays(path: Path, shapes: list[Any]) -> list[np.ndarray]:
    import orbax.checkpoint as ocp

    _quiet()
    arrays = [np.zeros(shape, jnp.dtype(dtype)) for shape, dtype in shapes]
    wanted = {f"{n:05d}": array for n, array in enumerate(arrays) if array.size}
    with ocp.StandardCheckpointer() as reader:
        found = reader.restore(path, wanted)
    return [np.asarray(found.get(f"{n:05d}", array)) for n, array in enumerate(arrays)]


def _quiet() -> None:
    """Keep the checkpoint library silent: of what fails it prints stacks, and then raises it."""
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def _wait_for_all(what: str) -> None:
    """Let no process go on, and write, before all have read."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)
