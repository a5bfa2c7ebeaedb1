"""What a run leaves on disk until it is complete, so that one that was killed goes on.

Beside the run directory `a` lies `a.partial`: settings, digests of the bars, checkpoints of every
method in every fold, and logs, which move to `a` when the run is complete.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from maml_jax import watchdog
from maml_jax.atomic import find_unfinished, is_running, keep_on_exit, remove, remove_on_exit
from maml_jax.errors import DataError, RunError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.training_folder import TrainingFolder
from maml_jax.experiment.process import is_first_process, together, whole_folder
from maml_jax.listing import join_names

ENDING = ".partial"

_FORMAT = 1
_ABOUT, _CONFIG, _LOCK, _TRAINING = "about.json", "config.toml", ".lock", "training"
_LOGS = "logs"
_KEPT = (_LOGS, "tensorboard", "log.txt", "log.jsonl", watchdog.LOG)
"""What moves to the run directory."""


class WorkingDirectory:
    """The working directory of a run.

    Attributes:
        folder: where it is.
        out: the run directory that the run writes.
        backtested: whether the run ends with a backtest, or with training.
    """

    def __init__(self, out: Path, backtested: bool):
        """Name what is there; `create` and `find` return one."""
        self.out, self.folder, self.backtested = out, working_folder(out), backtested
        self._resumed = False

    @classmethod
    def create(
        cls, out: Path, config: Config, bars: Mapping[str, pd.DataFrame], backtested: bool
    ) -> "WorkingDirectory":
        """Make the working directory of a new run.

        Args:
            out: the run directory.
            config: settings that the run begins with.
            bars: in normal form, that it begins with.
            backtested: whether it ends with a backtest.

        Raises:
            RunError: if it cannot be made.
        """
        found = cls(out, backtested)
        require_no_work(out)
        about = {"format": _FORMAT, "backtested": backtested, "bars": _digests(bars)}
        with together(f"making {found.folder}"), whole_folder(found.folder) as partial:
            if is_first_process():
                _write(partial / _CONFIG, config.to_toml())
                _write(partial / _ABOUT, json.dumps(about, indent=2))
        return found

    @classmethod
    def find(cls, path: str | Path) -> "WorkingDirectory | None":
        """Find the working directory of a run that was cut off; None if the run is complete.

        Args:
            path: the directory, or the run directory that it belongs to.

        Raises:
            RunError: if there is neither, or it cannot be read.
        """
        out = run_directory(path)
        found = cls(out, True)
        if not found.folder.is_dir():
            if (out / _CONFIG).exists():
                return None
            raise RunError(f"{path}: no unfinished run; neither it nor {found.folder} is there")
        found.backtested = bool(found._about()["backtested"])
        found._resumed = True
        return found

    def config(self, trust: bool = False) -> Config:
        """Return the settings that the run began with.

        Args:
            trust: import the modules of features that they name.

        Raises:
            ConfigError: if they cannot be read.
        """
        return load_config(self.folder / _CONFIG, trust=trust)

    def require_same(self, bars: Mapping[str, pd.DataFrame]) -> None:
        """Refuse bars that are not those that the run began with.

        Raises:
            DataError: naming the assets.
        """
        before, now = self._about()["bars"], _digests(bars)
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if changed:
            raise DataError(
                f"{join_names(changed)}: the bars are not those that {self.folder} began with, and "
                "what would be trained now would not go with what was; give the same bars, or "
                "begin a new run"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory, which one process may at a time.

        Where nothing worth keeping was written at the end of the block it is removed.

        Raises:
            RunError: if another process holds it.
        """
        if not is_first_process():
            yield
            return
        self._sweep()
        lock = FileLock(self.folder / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(f"{self.folder}: another process is at work in it") from None
        except OSError as error:
            raise RunError(f"{self.folder}: cannot be written: {error}") from error
        with remove_on_exit(self.folder):
            if self._resumed:
                self.keep("what was trained before")
            try:
                yield
            finally:
                lock.release()
                if self.holds_something():
                    keep_on_exit(self.folder)
                else:
                    remove(self.folder)

    def training(self, fold: int, method: str, title: str, several: bool) -> TrainingFolder:
        """Return the folder of a method in a fold.

        Args:
            fold: its number.
            method: which.
            title: says both.
            several: whether there are several folds.
        """
        name = f"{fold:02d}-{method}" if several else method

        def saved(step: int) -> None:
            self.keep(f"{title} up to step {step}")

        path = self.folder / _TRAINING / f"{fold:02d}" / method
        return TrainingFolder(path, self.folder / _LOGS / name, saved)

    def keep(self, what: str) -> None:
        """Let the directory stay whatever ends the process, and say what it holds."""
        keep_on_exit(self.folder)
        watchdog.keep(self.folder, f"{what} is kept, go on with {self.command()}")

    def command(self) -> str:
        """Return the command that goes on with the run."""
        name = "run" if self.backtested else "train"
        return f"`{shlex.join(['maml-jax', name, '--resume', str(self.out)])}`"

    def finish(self) -> None:
        """Move the logs to the run directory, and remove the working directory.

        Raises:
            RunError: if the logs cannot be moved.
        """
        if not is_first_process():
            return
        gone = self.folder.with_name(f".{self.folder.name}.partial-{os.getpid()}")
        with remove_on_exit(gone):
            try:
                for name in _KEPT:
                    if (self.folder / name).exists():
                        remove(self.out / name)
                        os.replace(self.folder / name, self.out / name)
                os.replace(self.folder, gone)
                watchdog.keep(self.out, f"all of it is kept in {self.out}")
            except OSError as error:
                raise RunError(f"{self.folder}: cannot be removed: {error}") from error

    def holds_something(self) -> bool:
        """Say whether there is anything that was trained."""
        training = self.folder / _TRAINING
        found = (*training.glob("*/*/*.safetensors"), *training.glob("*/*/checkpoints/step-*"))
        return bool(found)

    def _about(self) -> dict:
        path = self.folder / _ABOUT
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']} is not the one of this version")
            return about
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot be read, so the run cannot go on: {error}") from error

    def _sweep(self) -> None:
        """Remove what processes that were killed left half-written."""
        own = tuple(f".{path.name}.partial-" for path in (self.out, self.folder))
        for path in find_unfinished(self.folder.parent):
            process = path.name.rpartition(".partial-")[2].partition("-")[0]
            if path.name.startswith(own) and process.isdigit() and not is_running(int(process)):
                remove(path)


def working_folder(out: Path) -> Path:
    """Return where the working directory of a run lies."""
    if out.name in ("", ".."):  # of no name of its own, such as "."
        out = out.resolve()
    return out.with_name(f"{out.name}{ENDING}")


def run_directory(path: str | Path) -> Path:
    """Return the run directory of a working directory, or what is one already."""
    path = Path(path)
    own = path.name.endswith(ENDING) and (path / _ABOUT).exists()
    return path.with_name(path.name.removesuffix(ENDING)) if own else path


def require_no_work(out: str | Path) -> None:
    """Refuse a run directory beside which an unfinished run lies.

    Raises:
        RunError: saying how to go on.
    """
    folder = working_folder(Path(out))
    if folder.exists():
        command = shlex.join(["maml-jax", "run", "--resume", str(out)])
        raise RunError(
            f"{folder}: holds an unfinished run; go on with `{command}`, remove it, or name "
            "another output directory"
        )


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _digests(bars: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Return a digest of the bars of each asset."""
    found = {}
    for name, frame in bars.items():
        seen = hashlib.sha256(json.dumps([str(column) for column in frame]).encode())
        seen.update(pd.util.hash_pandas_object(frame).to_numpy().tobytes())
        found[str(name)] = seen.hexdigest()[:16]
    return found
