"""The result of a run: a frozen record that saves, loads and shows itself."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from maml_jax.atomic import write_atomically
from maml_jax.errors import ConfigError, RunError
from maml_jax.experiment import export
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.experiment.learning.adapt import Adapted, Bars, adapt
from maml_jax.experiment.learning.checkpoint import (
    FOLDER,
    Checkpoint,
    fold_folder,
    load_checkpoints,
    load_folds,
    save_checkpoint,
)
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.parameters import export_parameters, import_parameters
from maml_jax.experiment.process import is_first_process, together, whole_folder
from maml_jax.listing import join_or_count
from maml_jax.notes import Note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLES = ("predictions", "returns", "gross", "trades", "assets", "regimes")
_FURTHER = (
    "turnover",
    "exposure",
    "weights",
    "adaptation",
    "intervals",
    "differences",
    "significance",
)
"""Tables that directories written by earlier versions lack."""


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

        return write_tear_sheet(
            path, self.config, self._require_evaluation(), self.history, self.notes
        )

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
        with together(f"saving {path}"), whole_folder(path) as folder:
            for checkpoint in self.checkpoints.values():
                save_checkpoint(folder, checkpoint)
            for number, fold in enumerate(self.folds):
                for checkpoint in fold.values():
                    save_checkpoint(fold_folder(folder, number), checkpoint)
            if is_first_process():
                _write_about(folder, self)
                self.history.to_parquet(folder / "history.parquet")
                if self.evaluation is not None:
                    _write_evaluation(folder, self)
        return path

    def _require_evaluation(self) -> Evaluation:
        if self.evaluation is None:
            raise RunError("this run was trained but not backtested; call backtest on it")
        return self.evaluation


def load(path: str | Path) -> Result:
    """Load a run directory.

    Raises:
        RunError: if it is none, or a file in it cannot be read.
    """
    folder = Path(path)
    folds = load_folds(folder)
    checkpoints = folds[-1] if folds else load_checkpoints(folder)
    try:
        history = pd.read_parquet(folder / "history.parquet")
        notes = _notes_from_json((folder / "notes.json").read_text(encoding="utf-8"))
        evaluation = None
        if (folder / "metrics.json").exists():
            tables: dict[str, Any] = {
                name: pd.read_parquet(folder / f"{name}.parquet")
                for name in (*_TABLES, *_FURTHER)
                if name not in ("regimes", *_FURTHER) or (folder / f"{name}.parquet").exists()
            }
            tables.setdefault("regimes", pd.DataFrame())  # of a run without any
            chosen = folder / "overfitting.json"
            if chosen.exists():
                tables["overfitting"] = json.loads(chosen.read_text(encoding="utf-8"))
            stats = _stats_from_json((folder / "metrics.json").read_text(encoding="utf-8"))
            evaluation = Evaluation(stats=stats, **tables)
            if not {*checkpoints} <= {*stats.columns}:
                raise ValueError("metrics.json lacks a method of the run")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise RunError(f"{folder}: cannot be read as a run directory: {error}") from error
    config = load_config(folder / "config.toml")
    return Result(config, checkpoints, history, notes, evaluation, folds)


def add_fold(result: Result, path: str | Path) -> None:
    """Add what the last of a result's folds learned to the run directory of those before.

    Whatever ends the process meanwhile, the directory holds what was trained before.
    """
    folder, number = Path(path), len(result.folds) - 1
    with together(f"adding fold {number} to {path}"):
        with whole_folder(fold_folder(folder, number)) as partial:
            for checkpoint in result.folds[-1].values():
                save_checkpoint(partial, checkpoint)
        with whole_folder(folder / FOLDER, within=FOLDER, replace=True) as partial:
            for checkpoint in result.checkpoints.values():
                save_checkpoint(partial, checkpoint)
        if is_first_process():
            with write_atomically(folder / "history.parquet") as file:
                result.history.to_parquet(file)
            for name, text in _about(result).items():
                with write_atomically(folder / name) as file:
                    file.write_text(text, encoding="utf-8")


def add_evaluation(result: Result, path: str | Path) -> None:
    """Write the tables of a walk-forward into the run directory that holds its checkpoints.

    Raises:
        RunError: if the directory holds the tables of a walk-forward already.
    """
    with together(f"adding the evaluation to {path}"):
        if is_first_process():
            _add_evaluation(result, Path(path))


def _add_evaluation(result: Result, folder: Path) -> None:
    require_no_evaluation(folder)
    staging = folder / ".backtest"
    shutil.rmtree(staging, ignore_errors=True)  # of a call that was cut off
    with whole_folder(staging) as partial:
        _write_about(partial, result)
        _write_evaluation(partial, result)
    for file in sorted(staging.iterdir(), key=lambda file: file.name == "metrics.json"):
        os.replace(file, folder / file.name)
    staging.rmdir()


def require_no_evaluation(path: str | Path) -> None:
    """Refuse a run directory that holds the tables of a walk-forward.

    Raises:
        RunError: naming the directory.
    """
    if (Path(path) / "metrics.json").exists():
        raise RunError(f"{path}: holds a backtest already; write to another directory")


def require_new(path: str | Path) -> Path:
    """Refuse an output directory that exists, or whose parent cannot hold it.

    Raises:
        RunError: naming the path.
    """
    path = Path(path)
    if path.exists():
        raise RunError(f"{path}: exists already; name an output directory that does not")
    parent = next(each for each in path.absolute().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise RunError(f"{path}: cannot be made, {parent} is not a writable folder")
    return path


def _about(result: Result) -> dict[str, str]:
    notes = json.dumps([note._asdict() for note in result.notes], indent=2)
    return {"config.toml": result.config.to_toml(), "notes.json": notes}


def _write_about(folder: Path, result: Result) -> None:
    for name, text in _about(result).items():
        (folder / name).write_text(text, encoding="utf-8")


def _write_evaluation(folder: Path, result: Result) -> None:
    evaluation = result._require_evaluation()
    for name in (*_TABLES, *_FURTHER):
        getattr(evaluation, name).to_parquet(folder / f"{name}.parquet")
    chosen = json.dumps(_without_nan(dict(evaluation.overfitting)), indent=2, allow_nan=False)
    (folder / "overfitting.json").write_text(chosen, encoding="utf-8")
    result.report(folder / "report.html")
    (folder / "metrics.json").write_text(_stats_to_json(evaluation.stats), encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """Return what JSON can hold: None where a number is not finite."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _notes_from_json(text: str) -> tuple[Note, ...]:
    entries = json.loads(text)
    # Earlier versions wrote texts alone.
    return tuple(Note("", each) if isinstance(each, str) else Note(**each) for each in entries)


def _stats_to_json(stats: pd.DataFrame) -> str:
    def plain(value):
        if value is pd.NaT:  # such as how long trades lasted, where there are none
            return None
        if isinstance(value, pd.Timestamp | pd.Timedelta):
            return value.isoformat()
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    record = {name: {k: plain(v) for k, v in stats[name].items()} for name in stats.columns}
    return json.dumps(record, indent=2, allow_nan=False)


def _stats_from_json(text: str) -> pd.DataFrame:
    def rich(key, value):
        if key in ("Start", "End"):
            return pd.Timestamp(value)
        if key.endswith("Duration"):
            return pd.Timedelta(value)
        return float("nan") if value is None else value

    record = json.loads(text)
    columns = {
        name: pd.Series({k: rich(k, v) for k, v in figures.items()}, dtype=object)
        for name, figures in record.items()
    }
    return pd.DataFrame(columns)
