"""Meta-training as the settings describe it, with progress and errors that a person can use."""

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from maml_jax import interrupts, watchdog
from maml_jax.errors import RunError, TrainingError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.learning import LearnerConfig, ModelConfig, TrainingConfig
from maml_jax.experiment.learning.bad_tasks import (
    TaskPlaces,
    describe_skipped,
    note_skipped,
    require_few,
)
from maml_jax.experiment.learning.methods import learner_of
from maml_jax.experiment.learning.tasks import training_windows, validation_windows
from maml_jax.experiment.learning.training_folder import TrainingFolder
from maml_jax.experiment.learning.training_log import training_log
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.meta import Batch, MetaInfo, MetaLearner, Prediction, TrainingProgress, training
from maml_jax.meta.types import Params
from maml_jax.notes import Note
from maml_jax.parallel.placement import to_numpy
from maml_jax.tasks import MarketSampler, Windows, market_sampler
from maml_jax.terminal import ProgressBars

VALIDATION_TASKS = 256
"""Tasks that are validated on, drawn once from those of the last part of the training span."""

VALIDATION = "validation"
"""The kind of the note on which parameters are kept."""

_log = logging.getLogger("maml_jax")


def make_learner(config: Config, method: str) -> MetaLearner:
    """Return the learner that the settings describe; the same one for the same settings.

    Compiled programs belong to a learner, so a second run in one process compiles nothing again.
    """
    return _learner(config.model, config.learner, method)


@lru_cache(maxsize=32)
def _learner(model: ModelConfig, settings: LearnerConfig, method: str) -> MetaLearner:
    return learner_of(model, settings, method)


@lru_cache(maxsize=32)
def outer_optimizer(settings: TrainingConfig) -> optax.GradientTransformation:
    """Return the outer optimizer that the settings describe; the same one for the same ones."""
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        return optax.adam(optax.cosine_decay_schedule(rate, settings.steps, alpha=0.01))
    return optax.adam(rate)


def initial_params(config: Config, learner: MetaLearner, features: int) -> Params:
    """Return the meta-parameters of an untrained network, those that `meta_train` begins with."""
    init_key, _ = jax.random.split(jax.random.key(config.seed))
    length = config.model.length
    bars = () if length is None else (length,)
    return learner.init(init_key, jnp.zeros((1, *bars, features)))


def predicts_deviation(config: Config, method: str) -> bool:
    """Say whether a method predicts a standard deviation beside the mean."""
    learner, bars = make_learner(config, method), config.model.length
    x = jnp.zeros((2, *(() if bars is None else (bars,)), 1))

    def predict(key):
        params = learner.init(key, x)
        return learner.predict(learner.adapt(params, Batch(x, jnp.zeros((2, 1)))), x)

    return isinstance(jax.eval_shape(predict, jax.random.key(0)), Prediction)


class Trained(NamedTuple):
    """What meta-training a method gave.

    Attributes:
        params: the meta-parameters; the best ones on validation, where there is any.
        history: one row per meta-step: mean query `loss`, `grad_norm` before clipping, mean support
            loss before and after adaptation, how many tasks were `skipped`; with validation
            `validation_loss`, NaN at steps without.
        notes: what a reader must know.
    """

    params: Params
    history: pd.DataFrame
    notes: tuple[Note, ...]


def meta_train(prepared: Prepared, method: str) -> tuple[Params, pd.DataFrame]:
    """Meta-train one method; arguments and errors as for `train_method`, without its notes."""
    return train_method(prepared, method)[:2]


def train_method(prepared: Prepared, method: str, folder: TrainingFolder | None = None) -> Trained:
    """Meta-train one method, or go on with a training that was cut off.

    Every method of a run begins with the same weights and meets the same tasks. A task whose loss
    or gradient is not finite is skipped.

    Args:
        prepared: settings and panel.
        method: one of the settings' methods.
        folder: keeps checkpoints and the history; None keeps none.

    Raises:
        ConfigError: if validation leaves no room for a window.
        DataError: if a task family has no room for a window.
        Interrupted: after a checkpoint, where a signal asked for it.
        TrainingError: if most tasks are not finite, naming the step, the asset and the dates of a
            task.
    """
    config = prepared.config
    if folder is not None:
        learner, features = make_learner(config, method), prepared.panel.features.shape[-1]
        done = folder.finished(
            lambda: jax.eval_shape(lambda: initial_params(config, learner, features))
        )
        if done is not None:
            return _trained(config, method, *done)
    params, table = _train(prepared, method, folder)
    if folder is not None:
        try:
            folder.finish(params, table)
        except RunError as error:  # what was trained is not lost by that
            _log.warning("%s: cannot be kept for a later start: %s", method, error)
    return _trained(config, method, params, table)


def _trained(config: Config, method: str, params: Params, table: pd.DataFrame) -> Trained:
    notes = note_skipped(table, config.training.meta_batch, method)
    if "validation_loss" in table:
        losses = table["validation_loss"].to_numpy(float)
        found = bool(np.isfinite(losses).any())
        best = int(np.nanargmin(losses)) if found else len(losses) - 1
        kept = f"{method}: parameters of step {best + 1} are kept"
        loss = f" (validation loss {losses[best]:.4f})" if found else ""
        ended = f"meta-training ended at step {len(table)} of {config.training.steps}"
        notes.append(Note(VALIDATION, f"{kept}{loss}; {ended}."))
    history = table.drop(columns="bad").reset_index(drop=True).rename_axis("step")
    return Trained(params, history, tuple(notes))


def _train(
    prepared: Prepared, method: str, folder: TrainingFolder | None
) -> tuple[Params, pd.DataFrame]:
    config, settings = prepared.config, prepared.config.training
    windows, key = training_windows(prepared), jax.random.key(config.seed)
    sampler = _sampler(prepared, windows, settings.meta_batch)
    tested = validation_windows(prepared)
    places = TaskPlaces(prepared, windows, sampler, key)
    progress, table = None, None
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        checkpoints = None
        if folder is not None:
            checkpoints = stack.enter_context(folder.checkpoints(key))
            options = {"checkpoints": checkpoints, "resume": True}
        log = stack.enter_context(training_log(method, settings, folder))
        advance = stack.enter_context(_progress(f"meta-training {method}", settings.steps))
        calls = training(
            make_learner(config, method),
            outer_optimizer(settings),
            sampler,
            key,
            steps=settings.steps,
            every=settings.checkpoint_every,
            validate=None if tested is None else _sampler(prepared, tested, VALIDATION_TASKS),
            patience=settings.patience,
            donate=True,
            retry=True,
            max_grad_norm=settings.max_grad_norm,
            chunk=settings.chunk,
            devices=settings.devices,
            **options,
        )
        for progress in calls:
            history = to_numpy(progress.history)
            new = _table(history, progress, places)
            first = progress.step - len(new)
            if table is None and folder is not None:
                table = folder.table(first)
            table = new if table is None else pd.concat([table, new], ignore_index=True)
            advance(len(new), settings.meta_batch, float(new["loss"].mean()))
            log(progress)
            try:
                ended = progress.step == settings.steps
                require_few(table, settings.meta_batch, method, history, ended)
            except TrainingError as error:
                if checkpoints is not None:
                    checkpoints.wait()
                    checkpoints.remove_after(error.step)
                raise
            if checkpoints is not None and folder is not None:
                checkpoints.first = partial(folder.write_table, table)
            if progress.step < settings.steps:
                interrupts.check()
    assert progress is not None and table is not None
    best = progress.state if progress.best is None else progress.best.state
    return best.params, table


def _sampler(prepared: Prepared, windows: Windows, tasks: int) -> MarketSampler:
    task = prepared.config.task
    return market_sampler(
        prepared.panel, windows, meta_batch=tasks, fewest=task.min_support, forget=task.forget
    )


def _table(history: MetaInfo, progress: TrainingProgress, places: TaskPlaces) -> pd.DataFrame:
    info, first = history.task_info, progress.step - len(history.loss)
    columns = {
        "loss": history.loss,
        "grad_norm": history.grad_norm,
        "support_loss_before": info.support_loss_before.mean(axis=1),
        "support_loss_after": info.support_loss_after.mean(axis=1),
        "skipped": history.skipped,
        "bad": pd.array(describe_skipped(history, places, first), dtype="str"),
    }
    if progress.validation:
        columns["validation_loss"] = np.full(len(history.loss), np.nan)
        columns["validation_loss"][-1] = progress.validation["loss"]
    return pd.DataFrame(columns)


class _progress:
    """A progress bar on the terminal; nothing where standard error is not a terminal."""

    def __init__(self, title: str, steps: int):
        self.bar = ProgressBars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]:,.0f} tasks/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self.task = self.bar.add_task(title, total=steps, loss="...", rate=0.0)

    def __enter__(self) -> Callable[[int, int, float], None]:
        self.bar.start()
        return self._advance

    def __exit__(self, *exc):
        self.bar.stop()

    def _advance(self, steps: int, meta_batch: int, loss: float) -> None:
        watchdog.progress()  # an accelerator may compute while the processor is idle
        self.bar.update(self.task, advance=steps, loss=f"{loss:.4f}")
        task = self.bar.tasks[0]
        self.bar.update(self.task, rate=task.completed * meta_batch / max(task.elapsed or 0, 1e-9))
