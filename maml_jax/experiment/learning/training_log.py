"""What is logged while a method is meta-trained."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maml_jax.errors import RunError
from maml_jax.experiment.config.learning import TrainingConfig
from maml_jax.experiment.learning.training_folder import TrainingFolder
from maml_jax.experiment.process import is_first_process
from maml_jax.meta import CSVLogger, TensorBoardLogger, TrainingProgress, progress_record

FIELDS = "fields"
"""Name of the attribute of a log record that holds its numbers, for logs that programs read."""

_log = logging.getLogger("maml_jax")


@contextmanager
def training_log(
    method: str, settings: TrainingConfig, folder: TrainingFolder | None
) -> Iterator[Callable[[TrainingProgress], None]]:
    """Give a function that logs a progress: as a line, and as rows where there is a folder.

    Rows that cannot be written are left out, with one warning.
    """
    loggers: list[Callable[[TrainingProgress], None]] = []
    board = None
    if folder is not None and is_first_process():
        loggers.append(CSVLogger(folder.log))
        if settings.tensorboard:
            board = TensorBoardLogger(folder.tensorboard)
            loggers.append(board)

    def log(progress: TrainingProgress) -> None:
        record = progress_record(progress)
        _log.info(
            "meta-training %s: step %d of %d, loss %.4f%s",
            *(method, progress.step, settings.steps, record["loss"], _validated(record)),
            extra={FIELDS: {"method": method, **record}},
        )
        for each in [*loggers]:
            try:
                each(progress)
            except (RunError, OSError) as error:
                loggers.remove(each)
                _log.warning("no more rows are logged, training goes on: %s", error)

    try:
        yield log
    finally:
        if board is not None:
            board.close()


def _validated(record: dict[str, float]) -> str:
    loss = record.get("validation_loss")
    return "" if loss is None else f", validation loss {loss:.4f}"
