"""Meta-training of a whole run: every method in every fold."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from maml_jax import interrupts
from maml_jax.data import bar_interval
from maml_jax.errors import TrainingError
from maml_jax.experiment.folds.prepare import Folds
from maml_jax.experiment.learning.bad_tasks import SKIPPED
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.train import VALIDATION, train_method
from maml_jax.experiment.result import Result
from maml_jax.experiment.timing import stage
from maml_jax.experiment.working_directory import WorkingDirectory
from maml_jax.experiment.write_result import try_write_trained
from maml_jax.notes import Note

CUT_OFF = "cut off"
"""The kind of the note on folds that were not trained."""

OF_TRAINING = (CUT_OFF, SKIPPED, VALIDATION)
"""Kinds of notes that training gives and a backtest keeps."""


def train_folds(folds: Folds, work: WorkingDirectory | None) -> Result:
    """Meta-train every method in every fold, and keep what is trained as soon as it is.

    Args:
        folds: of the run.
        work: its working directory; None keeps nothing.

    Raises:
        Interrupted: after a checkpoint, where a signal asked for it.
        TrainingError: naming the fold, where there are several.
    """
    several = folds.config.folds.several()
    done: tuple[dict[str, Checkpoint], ...] = ()
    histories, notes, result = [], [], None
    for number, part in enumerate(folds.parts):
        fold = f", fold {number} of {len(folds.parts)}" if several else ""
        interval = bar_interval(next(iter(part.bars.values())))
        checkpoints = {}
        for method in folds.config.learner.methods:
            title = f"meta-training {method}{fold}"
            folder = None
            if work is not None:
                folder = work.training(number, method, title, several)
            with stage(title), _name_fold(fold, result, None if work is None else work.out):
                trained = train_method(part, method, folder)
            interrupts.check()
            checkpoints[method] = Checkpoint(
                *(method, part.config, part.scaler, trained.params, interval, part.chain),
                spans=part.spans if several else None,
            )
            history = trained.history.reset_index()
            history.insert(0, "method", method)
            histories.append(history.assign(fold=number))
            mark = f"Fold {number}: " if several else ""
            notes += [note._replace(text=f"{mark}{note.text}") for note in trained.notes]
        done = (*done, checkpoints)
        left = len(folds.parts) - len(done)
        result = Result(
            config=folds.config,
            checkpoints=checkpoints,
            history=pd.concat(histories, ignore_index=True),
            notes=(
                *folds.notes,
                *notes,
                *([_cut_off(len(done), len(folds.parts))] if left else []),
            ),
            folds=done if several else (),
        )
        if work is not None:
            try_write_trained(result, work.out)
    assert result is not None
    if work is not None and work.holds_something():
        work.keep("the trained model")
    return result


def _cut_off(done: int, folds: int) -> Note:
    text = f"Meta-training was interrupted after {done} of {folds} folds"
    return Note(CUT_OFF, f"{text}; the last trained model is used for all later test bars.")


@contextmanager
def _name_fold(fold: str, before: Result | None, out: str | Path | None) -> Iterator[None]:
    """Say in which fold training failed, and where the folds before it are."""
    try:
        yield
    except TrainingError as error:
        if not fold:
            raise
        kept = f"; the folds before are in {out}" if before is not None and out else ""
        raise TrainingError(
            f"{fold.removeprefix(', ')}: {error}{kept}", step=error.step, tasks=error.tasks
        ) from error
