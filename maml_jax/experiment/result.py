"""The result of a run: a frozen record that saves, loads and shows itself."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from maml_jax.atomic import sync_names, write_atomically
from maml_jax.errors import ConfigError, RunError
from maml_jax.experiment import export
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import import_modules, load_config
from maml_jax.experiment.digests import (
    PAGE,
    SETTINGS,
    UNCHECKED,
    About,
    announce,
    record_page,
    require_settings,
    require_trained,
    settle,
    unchecked_note,
    verify,
    write_about,
)
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.experiment.learning.adapt import Adapted, Bars, adapt
from maml_jax.experiment.learning.checkpoint import (
    FOLDER,
    Checkpoint,
    fold_folder,
    has_digests,
    list_folds,
    load_checkpoints,
    load_folds,
    save_checkpoint,
)
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.parameters import export_parameters, import_parameters
from maml_jax.experiment.process import is_first_process, together, whole_folder
from maml_jax.experiment.reservation import require_parent, reserved
from maml_jax.experiment.stored import (
    HISTORY,
    METRICS,
    NOTES,
    notes_to_json,
    read_evaluation,
    read_history,
    read_notes,
    write_evaluation,
)
from maml_jax.listing import join_or_count
from maml_jax.notes import Note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ADAPTED = "adapted"
"""The folder of a run directory in which models adapted from it lie, each its own record."""


@dataclass(frozen=True, repr=False)
class Result:
    """What a run found.

    Attributes:
        config: the settings, with what was left open filled in.
        checkpoints: what each method learned; in the last fold, where there are several.
        history: one row per fold, method and meta-step.
        notes: what a reader must know, such as assets left out.
        evaluation: tables of the walk-forward; None where only training was done.
        folds: what each method learned in each fold; none where there is but one.
    """

    config: Config
    checkpoints: dict[str, Checkpoint]
    history: pd.DataFrame
    notes: tuple[Note, ...]
    evaluation: Evaluation | None = None
    folds: tuple[dict[str, Checkpoint], ...] = ()

    def __repr__(self) -> str:
        state = "trained" if self.evaluation is None else "walked forward"
        assets = join_or_count(self.config.data.test_assets or (), "assets")
        return f"Result({', '.join(self.checkpoints)}; {state}; {assets})"

    @property
    def stats(self) -> pd.DataFrame:
        """One column per strategy and baseline, one row per figure."""
        return self._require_evaluation().stats

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per strategy, asset and bar: prediction, position and target."""
        return self._require_evaluation().predictions

    @property
    def returns(self) -> pd.DataFrame:
        """Net return per bar, one column per strategy."""
        return self._require_evaluation().returns

    @property
    def gross(self) -> pd.DataFrame:
        """Return per bar before costs, one column per strategy."""
        return self._require_evaluation().gross

    @property
    def trades(self) -> pd.DataFrame:
        """One row per trade."""
        return self._require_evaluation().trades

    @property
    def assets(self) -> pd.DataFrame:
        """One row per strategy and asset traded alone."""
        return self._require_evaluation().assets

    @property
    def regimes(self) -> pd.DataFrame:
        """One row per strategy and regime of the market."""
        return self._require_evaluation().regimes

    def plot(self) -> "Figure":
        """Return the figure of the equity of all strategies."""
        from maml_jax.report.plots.returns import plot_equity

        return plot_equity(self.returns)

    def verdict(self) -> str:
        """Say in a few sentences what the headline method did and how sure that is."""
        from maml_jax.experiment.evaluation.verdict import verdict

        return verdict(self.config, self._require_evaluation())

    def report(self, path: str | Path) -> Path:
        """Write the tear sheet as one HTML file, and return its path."""
        from maml_jax.experiment.tear_sheet import write_tear_sheet

        evaluation = self._require_evaluation()
        page = write_tear_sheet(path, self.config, evaluation, self.history, self.notes)
        record_page(page)
        return page

    def orders(self, strategy: str | None = None) -> pd.DataFrame:
        """Return what a strategy orders, `[time, asset]`; see `maml_jax.experiment.export`."""
        return export.orders(self.config, self._require_evaluation(), strategy)

    def weights(self, strategy: str | None = None) -> pd.DataFrame:
        """Return what a strategy holds at each close, `[time, asset]`, as shares of the equity."""
        return export.weights(self._require_evaluation(), strategy)

    def to_stats(self, strategy: str | None = None) -> pd.Series:
        """Return figures under backtesting.py's names; see `maml_jax.experiment.export`."""
        return export.to_stats(self.config, self._require_evaluation(), strategy)

    def adapt(self, bars: Bars, *, method: str | None = None, steps: int | None = None) -> Adapted:
        """Adapt to a few bars of an asset; see `maml_jax.experiment.learning.adapt`.

        Args:
            bars: of one asset.
            method: which of the run's methods; default the first.
            steps: adaptation steps; default as in the walk-forward.
        """
        checkpoint = self._checkpoint(method)
        if steps is None and METHODS[checkpoint.method].takes_steps:
            steps = self.config.backtest.inner_steps
        return adapt(checkpoint, bars, steps=steps)

    def signal(self, bars: Any = None, **options: Any) -> pd.DataFrame:
        """Say what to hold now, and what is to be ordered; see `maml_jax.live.signal`.

        Args:
            bars: the latest; default what the run names, read anew.
            **options: `capital`, `holdings`, `method`, `now`.
        """
        live = import_module("maml_jax.live")  # a package above this one
        return live.signal(self, bars, **options)

    def export_parameters(self, path: str | Path, *, method: str | None = None) -> Path:
        """Write what a method learned as safetensors, each parameter under its own name.

        Args:
            path: the file, replaced if it is there.
            method: which of the run's methods; default the first.

        Raises:
            ConfigError: if there is no such method.
            RunError: if the file cannot be written.
        """
        return export_parameters(self._checkpoint(method), path)

    def with_parameters(self, path: str | Path, *, method: str | None = None) -> "Result":
        """Return the trained result with parameters of a method that a file holds; no evaluation.

        Args:
            path: safetensors that `export_parameters`, or another program, wrote.
            method: which of the run's methods; default the first.

        Raises:
            ConfigError: if there is no such method.
            RunError: if the file cannot be read, or holds other parameters; naming them.
        """
        checkpoint = import_parameters(self._checkpoint(method), path)
        changed = self.checkpoints | {checkpoint.method: checkpoint}
        folds = (*self.folds[:-1], changed) if self.folds else ()
        return replace(self, checkpoints=changed, folds=folds, evaluation=None)

    def _checkpoint(self, method: str | None) -> Checkpoint:
        name = method or next(iter(self.checkpoints))
        if name not in self.checkpoints:
            raise ConfigError(f"no method {name!r} in this run; there are {list(self.checkpoints)}")
        return self.checkpoints[name]

    def save(self, path: str | Path) -> Path:
        """Write the run directory; it appears whole or not at all.

        Raises:
            RunError: if the path exists already or cannot be written.
        """
        path = require_new(path)
        with reserved(path), together(f"saving {path}"), whole_folder(path) as folder:
            for checkpoint in self.checkpoints.values():
                save_checkpoint(folder, checkpoint)
            for number, fold in enumerate(self.folds):
                for checkpoint in fold.values():
                    save_checkpoint(fold_folder(folder, number), checkpoint)
            if is_first_process():
                _write_notes(folder, self)
                self.history.to_parquet(folder / HISTORY)
                if self.evaluation is not None:
                    _write_evaluation(folder, self)
                write_about(folder, self.config)
        return path

    def _require_evaluation(self) -> Evaluation:
        if self.evaluation is None:
            raise RunError("this run was trained but not backtested; call backtest on it")
        return self.evaluation


def load(path: str | Path, *, trust: bool = False, page: bool = True) -> Result:
    """Load a run directory whose files are all as they were written.

    Args:
        path: of the directory.
        trust: import the modules of features that its settings name, which runs their code.
            Otherwise no code of theirs is run: tables, pages and comparisons need none; features
            that they compute are unknown, unless you registered or imported them yourself.
        page: refuse a page (`report.html`) that is damaged or missing, too.

    Returns:
        The result. That of an earlier version, which kept no digests, says so in its notes.

    Raises:
        RunError: if it is none, or a file in it is damaged, missing or foreign, naming the file.
        ConfigError: if a module cannot be imported.
    """
    folder = Path(path)
    list_folds(folder)
    about = verify(folder, page=page, beside=(_ADAPTED,))
    if about is None and has_digests(folder):
        raise RunError(f"{folder}: about.json is missing; restore it from a copy, or run again")
    folds = load_folds(folder)
    checkpoints = folds[-1] if folds else load_checkpoints(folder)
    history, notes = read_history(folder), read_notes(folder)
    evaluation = read_evaluation(folder)
    if evaluation is not None and not {*checkpoints} <= {*evaluation.stats.columns}:
        raise RunError(f"{folder / METRICS}: lacks a method of the run")
    config = _read_settings(folder, about, evaluation)
    require_trained(folder, config, next(iter(checkpoints.values())).config, bool(folds))
    if about is None:
        notes = (
            (*notes, unchecked_note(folder)) if UNCHECKED not in {n.kind for n in notes} else notes
        )
    if trust:
        import_modules(config)
    return Result(config, checkpoints, history, notes, evaluation, folds)


def _read_settings(folder: Path, about: About | None, evaluation: Evaluation | None) -> Config:
    """Read the settings; those of the training, where writing a backtest was cut off."""
    source = folder / SETTINGS
    if about is not None and about.coming and evaluation is None:
        source = about.config
    try:
        config = load_config(source, trust=False)
    except ConfigError as error:
        name = "" if str(error).startswith(str(folder)) else f"{folder / SETTINGS}: "
        raise RunError(f"{name}{error}") from error
    if about is not None and not about.coming:
        require_settings(folder, about, config)
    return config


def add_fold(result: Result, path: str | Path) -> None:
    """Add what the last of a result's folds learned to the run directory of those before.

    Whatever ends the process meanwhile, the directory holds what was trained before.
    """
    folder, number = Path(path), len(result.folds) - 1
    place = fold_folder(folder, number)
    with reserved(path), together(f"adding fold {number} to {path}"):
        with whole_folder(place) as partial:
            for checkpoint in result.folds[-1].values():
                save_checkpoint(partial, checkpoint)
            if is_first_process():
                announce(folder, {place.relative_to(folder).as_posix(): partial})
        with whole_folder(folder / FOLDER, within=FOLDER, replace=True) as partial:
            for checkpoint in result.checkpoints.values():
                save_checkpoint(partial, checkpoint)
            if is_first_process():
                announce(folder, {FOLDER: partial / FOLDER})
        if is_first_process():
            with ExitStack() as written:
                names = (HISTORY, *_notes(result))
                files = {n: written.enter_context(write_atomically(folder / n)) for n in names}
                result.history.to_parquet(files[HISTORY])
                for name, text in _notes(result).items():
                    files[name].write_text(text, encoding="utf-8")
                announce(folder, files)
            settle(folder, result.config)


def add_evaluation(result: Result, path: str | Path) -> None:
    """Write the tables of a walk-forward into the run directory that holds its checkpoints.

    Raises:
        RunError: if the directory holds the tables of a walk-forward already.
    """
    with reserved(path), together(f"adding the evaluation to {path}"):
        if is_first_process():
            _add_evaluation(result, Path(path))


def _add_evaluation(result: Result, folder: Path) -> None:
    require_no_evaluation(folder)
    staging = folder / ".backtest"
    shutil.rmtree(staging, ignore_errors=True)  # of a call that was cut off
    with whole_folder(staging) as partial:
        _write_notes(partial, result)
        _write_evaluation(partial, result)
    last = (NOTES, SETTINGS, METRICS)
    files = sorted(staging.iterdir(), key=lambda file: (file.name in last, file.name == METRICS))
    try:
        announce(folder, {file.name: file for file in files})
        for file in files:
            os.replace(file, folder / file.name)
        sync_names(folder)
        settle(folder, result.config)
    except OSError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
    staging.rmdir()


def require_no_evaluation(path: str | Path) -> None:
    """Refuse a run directory that holds the tables of a walk-forward.

    Raises:
        RunError: naming the directory.
    """
    if (Path(path) / METRICS).exists():
        raise RunError(f"{path}: holds a backtest already; write to another directory")


def require_new(path: str | Path) -> Path:
    """Refuse an output directory that exists, or whose parent cannot hold it.

    Raises:
        RunError: naming the path.
    """
    path = Path(path)
    if os.path.lexists(path):  # a link that leads nowhere, too
        raise RunError(f"{path}: exists already; name an output directory that does not")
    require_parent(path)
    return path


def _notes(result: Result) -> dict[str, str]:
    return {SETTINGS: result.config.to_toml(), NOTES: notes_to_json(result.notes)}


def _write_notes(folder: Path, result: Result) -> None:
    for name, text in _notes(result).items():
        (folder / name).write_text(text, encoding="utf-8")


def _write_evaluation(folder: Path, result: Result) -> None:
    write_evaluation(folder, result._require_evaluation())
    result.report(folder / PAGE)
