"""What the meta-training of one method leaves on disk while it goes on, and when it is done."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.atomic import write_atomically
from maml_jax.errors import RunError
from maml_jax.experiment.process import is_first_process
from maml_jax.meta.background_checkpoints import BackgroundCheckpoints
from maml_jax.meta.parameters import (
    fill_parameters,
    name_parameters,
    pack_arrays,
    unpack_arrays,
)
from maml_jax.meta.types import Params

_CHECKPOINTS = "checkpoints"
_TABLE = "history.parquet"
_PARAMS = "params.safetensors"


class TrainingFolder:
    """Checkpoints and history of one method in one fold.

    The history grows with the checkpoints, and is on disk before the checkpoint that follows it: it
    holds all steps up to the call that ended in the latest checkpoint, whose own steps the
    checkpoint holds.

    Attributes:
        path: the folder.
        log: the CSV file that one row is written to for each checkpoint.
        tensorboard: the folder of the same for TensorBoard.
    """

    def __init__(self, path: Path, logs: Path, saved: Callable[[int], None]):
        """Name the folder.

        Args:
            path: where.
            logs: path of the logs, without an ending.
            saved: called with the step of each checkpoint that was written.
        """
        self.path, self.log = path, logs.with_name(f"{logs.name}.csv")
        self.tensorboard = logs.parent.parent / "tensorboard" / logs.name
        self._saved = saved

    def checkpoints(self, key: Any) -> BackgroundCheckpoints:
        """Open the checkpoints of a training.

        Raises:
            RunError: if the folder cannot be made.
        """
        found = BackgroundCheckpoints(self.path / _CHECKPOINTS, key)
        found.saved = self._saved
        return found

    def table(self, steps: int) -> pd.DataFrame | None:
        """Read the history of the first so many steps; None for none.

        Raises:
            RunError: if it cannot be read, or lacks steps.
        """
        if not steps:
            return None
        table = self._read_table()
        if len(table) < steps:
            raise RunError(f"{self.path / _TABLE}: has {len(table)} of {steps} steps")
        return table.iloc[:steps]

    def write_table(self, table: pd.DataFrame) -> None:
        """Write the history so far.

        Raises:
            RunError: if it cannot be written.
        """
        if is_first_process():
            self._write(_TABLE, table.to_parquet)

    def finished(self, like: Callable[[], Params]) -> tuple[Params, pd.DataFrame] | None:
        """Read what was trained, and the history, of a training that is done; None otherwise.

        Args:
            like: gives the structure of the parameters.

        Raises:
            RunError: if a file is damaged.
        """
        path = self.path / _PARAMS
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {error}") from error
        return fill_parameters(unpack_arrays(content, path), like(), path), self._read_table()

    def finish(self, params: Params, table: pd.DataFrame) -> None:
        """Write what was trained, in place of the checkpoints.

        Raises:
            RunError: if it cannot be written.
        """
        content = pack_arrays(name_parameters(params))
        if not is_first_process():
            return
        self._write(_TABLE, table.to_parquet)
        self._write(_PARAMS, lambda file: file.write_bytes(content))
        self._saved(len(table))
        shutil.rmtree(self.path / _CHECKPOINTS, ignore_errors=True)

    def _read_table(self) -> pd.DataFrame:
        path = self.path / _TABLE
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error

    def _write(self, name: str, write: Callable[[Path], Any]) -> None:
        path = self.path / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path) as partial:
                write(partial)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error}") from error
