"""Meta-training as the settings describe it, with progress and errors that a person can use."""

import sys
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from maml_jax import watchdog
from maml_jax.errors import TrainingError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.learning import LearnerConfig, ModelConfig, TrainingConfig
from maml_jax.experiment.learning.methods import learner_of
from maml_jax.experiment.learning.tasks import training_windows
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.listing import join_names
from maml_jax.meta import Batch, MetaInfo, MetaLearner, Prediction, training
from maml_jax.meta.scan import step_key
from maml_jax.meta.types import Params
from maml_jax.parallel.placement import to_numpy
from maml_jax.tasks import MarketSampler, Windows, market_sampler
from maml_jax.terminal import ProgressBars

_LONGEST_CALL = 100
"""Meta-steps between two moves of the progress bar."""


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


def meta_train(prepared: Prepared, method: str) -> tuple[Params, pd.DataFrame]:
    """Meta-train one method.

    Every method of a run begins with the same weights and meets the same tasks.

    Args:
        prepared: settings and panel.
        method: one of the settings' methods.

    Returns:
        The meta-parameters, and one row per meta-step: mean query `loss`, `grad_norm` before
        clipping, mean support loss before and after adaptation.

    Raises:
        DataError: if a task family has no room for a window.
        TrainingError: if a loss is not finite, naming the step, the asset and the dates of the
            task.
    """
    config, settings = prepared.config, prepared.config.training
    learner = make_learner(config, method)
    windows = training_windows(prepared)
    sampler = market_sampler(
        prepared.panel,
        windows,
        meta_batch=settings.meta_batch,
        fewest=config.task.min_support,
        forget=config.task.forget,
    )
    optimizer = outer_optimizer(settings)
    key = jax.random.key(config.seed)
    calls = training(
        learner,
        optimizer,
        sampler,
        key,
        steps=settings.steps,
        every=_LONGEST_CALL,
        donate=True,
        max_grad_norm=settings.max_grad_norm,
        chunk=settings.chunk,
        devices=settings.devices,
    )
    progress, tables = None, []
    with _progress(f"meta-training {method}", settings.steps) as advance:
        try:
            for progress in calls:
                tables.append(_table(to_numpy(progress.history)))
                advance(len(tables[-1]), settings.meta_batch, float(tables[-1]["loss"].mean()))
        except TrainingError as error:
            raise _locate(error, prepared, windows, sampler, key, method) from None
    assert progress is not None
    return progress.state.params, pd.concat(tables, ignore_index=True).rename_axis("step")


def _table(history: MetaInfo) -> pd.DataFrame:
    info = history.task_info
    return pd.DataFrame(
        {
            "loss": history.loss,
            "grad_norm": history.grad_norm,
            "support_loss_before": info.support_loss_before.mean(axis=1),
            "support_loss_after": info.support_loss_after.mean(axis=1),
        }
    )


def _locate(
    error, prepared: Prepared, windows: Windows, sampler: MarketSampler, key, method
) -> TrainingError:
    """Say which assets and dates the tasks of a training error were cut from."""
    drawn = sampler.draw(step_key(key, error.step)).tolist()
    panel, rows, places = prepared.panel, windows.rows, []
    for task in error.tasks[:3]:
        number = np.append(windows.support_rows(drawn[task]), windows.query_rows(drawn[task]))
        asset = np.searchsorted(rows.first, number, side="right") - 1
        time = rows.time[asset, number - rows.first[asset]]
        names = join_names(panel.assets[each] for each in np.unique(asset))
        places.append(f"{names} {panel.timestamps[time.min()]} to {panel.timestamps[time.max()]}")
    where = f" [task: {'; '.join(places)}]" if places else ""
    return TrainingError(f"{method}: {error}{where}", step=error.step, tasks=error.tasks)


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
