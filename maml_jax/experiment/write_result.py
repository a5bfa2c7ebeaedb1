"""Writing a run directory step by step, whatever was written of it before."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from maml_jax.atomic import find_unfinished, remove
from maml_jax.errors import RunError
from maml_jax.experiment.digests import announce
from maml_jax.experiment.learning.checkpoint import FOLDS, fold_folder
from maml_jax.experiment.process import is_first_process, together
from maml_jax.experiment.result import Result, add_evaluation, add_fold
from maml_jax.experiment.timing import stage

_log = logging.getLogger("maml_jax")


def write_trained(result: Result, out: Path) -> None:
    """Bring a run directory up to what was trained so far.

    Raises:
        RunError: if it cannot be written.
    """
    if not out.exists():
        result.save(out)
    for number in range(_count_folds(out), len(result.folds)):
        upto = result.folds[: number + 1]
        add_fold(replace(result, folds=upto, checkpoints=upto[-1]), out)


def try_write_trained(result: Result, out: Path) -> None:
    """Do the same; where it cannot be written log a warning, since it is tried again later."""
    try:
        with stage("writing checkpoints"):
            write_trained(result, out)
    except RunError as error:
        _log.warning("the trained model is not written yet, the run goes on: %s", error)


def write_evaluated(result: Result, out: Path) -> None:
    """Bring a run directory up to a result with the tables of its walk-forward.

    Raises:
        RunError: if it cannot be written; with the result.
    """
    with attach(result):
        write_trained(replace(result, evaluation=None), out)
        add_evaluation(result, out)


@contextmanager
def attach(result: Result) -> Iterator[None]:
    """Let errors of writing carry the result that could not be written."""
    try:
        yield
    except RunError as error:
        error.result = error.result or result
        raise


def tidy(out: Path) -> None:
    """Remove what a process that was killed left half-written in a run directory.

    The last fold, which may have been added in part, is removed too, to be added again.
    """
    with together(f"tidying {out}"):
        if not is_first_process() or not out.exists():
            return
        count = _count_folds(out)
        if count > 1 and not is_evaluated(out):
            last = fold_folder(out, count - 1)
            announce(out, {last.relative_to(out).as_posix(): last.with_name(".none")})
            remove(last)
        remove(out / ".backtest")
        for path in (*find_unfinished(out), *find_unfinished(out / FOLDS)):
            remove(path)


def is_evaluated(out: Path) -> bool:
    """Say whether a run directory holds the tables of a walk-forward."""
    return (out / "metrics.json").exists()


def _count_folds(out: Path) -> int:
    return len([*(out / FOLDS).glob("[0-9]*")])
