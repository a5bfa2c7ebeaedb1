"""Logs of meta-training: one row of numbers for each progress."""

import csv
import io
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from maml_jax.atomic import write_atomically
from maml_jax.errors import RunError
from maml_jax.meta.training import TrainingProgress
from maml_jax.parallel.placement import to_numpy


def progress_record(progress: TrainingProgress) -> dict[str, float]:
    """Return what a progress says, in numbers.

    Args:
        progress: as `training` yields it.

    Returns:
        `step`; `loss` and `grad_norm`, means over the steps since the last progress, without those
        that were skipped whole; `skipped`, how many tasks were in them; `seconds` that they took;
        `train_<name>`, means of the metrics of `fit`; `validation_<name>`, as validated.
    """
    history = progress.history
    record = {
        "step": float(progress.step),
        "loss": _mean(history.loss),
        "grad_norm": _mean(history.grad_norm),
        "skipped": float(to_numpy(history.skipped).sum()),
        "seconds": progress.seconds,
    }
    record |= {f"train_{name}": _mean(values) for name, values in history.metrics.items()}
    return record | {f"validation_{name}": each for name, each in progress.validation.items()}


def _mean(values: Any) -> float:
    values = to_numpy(values).astype(float)
    finite = np.isfinite(values)
    return float(values[finite].mean()) if finite.any() else float("nan")


class CSVLogger:
    """Appends a row to a CSV file for each progress.

    A training that goes on leaves the file that an undisturbed one would: rows of its first step
    and of later ones are removed first, those before are kept.

    >>> import jax, optax, tempfile
    >>> from pathlib import Path
    >>> from maml_jax import CSVLogger, maml, training
    >>> from maml_jax.models import mlp
    >>> from maml_jax.worlds.sinusoid import sinusoid_sampler
    >>> learner, sampler = maml(mlp((8, 1))), sinusoid_sampler(meta_batch=4, shots=5)
    >>> path = Path(tempfile.mkdtemp()) / "log.csv"
    >>> log = CSVLogger(path)
    >>> settings = {"steps": 4, "every": 2}
    >>> for progress in training(learner, optax.adam(1e-3), sampler, jax.random.key(0), **settings):
    ...     log(progress)
    >>> path.read_text().splitlines()[0]
    'step,loss,grad_norm,skipped,seconds'
    """

    def __init__(self, path: str | os.PathLike):
        """Name the file; it is written with the first progress."""
        self.path = Path(path)
        self._names: list[str] | None = None

    def __call__(self, progress: TrainingProgress) -> None:
        """Write the row of a progress.

        Raises:
            RunError: if the file has other columns, or cannot be written.
        """
        record = progress_record(progress)
        try:
            if self._names is None:
                self._begin(record)
            if self._names != list(record):
                raise RunError(
                    f"{self.path}: has the columns {self._names}, and this progress {list(record)}"
                )
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_line([_text(name, value) for name, value in record.items()]))
        except RunError:
            raise
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error}") from error

    def _begin(self, record: dict[str, float]) -> None:
        """Keep the rows of a file that come before this one."""
        names, rows = list(record), []
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]  # a process may have ended within a row
            table = list(csv.reader(io.StringIO(whole)))
            if table and table[0] != names:
                raise RunError(f"{self.path}: has the columns {table[0]}, and this log {names}")
            rows = [row for row in table[1:] if float(row[0]) < record["step"]]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(self.path) as partial:
            partial.write_text("".join(map(_line, [names, *rows])), encoding="utf-8", newline="")
        self._names = names


def _line(cells: list[str]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow(cells)
    return file.getvalue()


def _text(name: str, value: float) -> str:
    return str(int(value)) if name in ("step", "skipped") else repr(float(value))


class TensorBoardLogger:
    """Writes each progress for TensorBoard; needs the package tensorboardX.

    Where a training goes on, what an earlier process wrote of later steps is hidden.
    """

    def __init__(self, folder: str | os.PathLike):
        """Name the folder.

        Raises:
            RunError: if tensorboardX is not installed.
        """
        self.folder = Path(folder)
        self._package = _tensorboard()
        self._writer: Any = None

    def __call__(self, progress: TrainingProgress) -> None:
        """Write the numbers of a progress."""
        record = progress_record(progress)
        step = progress.step
        if self._writer is None:
            self._writer = self._package.SummaryWriter(str(self.folder), purge_step=step)
        for name, value in record.items():
            if name != "step":
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard() -> Any:
    try:
        return import_module("tensorboardX")
    except ImportError as error:
        raise RunError(
            f"logs for TensorBoard need the package tensorboardX ({error}): "
            "pip install 'maml-jax[tensorboard]'"
        ) from error
