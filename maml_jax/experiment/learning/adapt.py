"""Adapting a trained learner to a few bars of an asset, and predicting with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.data import as_bars, require_same_interval
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.learning.adapted import Kept, load_kept, save_kept
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.train import initial_params, make_learner
from maml_jax.experiment.preparation.bars import reading_options
from maml_jax.experiment.preparation.requirements import (
    Before,
    before_first_row,
    choose_features,
    target_of,
)
from maml_jax.experiment.preparation.series import follows_rules
from maml_jax.features import compute_features, reads_cross_section
from maml_jax.features.targets import compute_scaled_target
from maml_jax.listing import quote_names
from maml_jax.meta import Batch, MetaLearner, Prediction
from maml_jax.meta.types import Params

Bars = pd.DataFrame | pd.Series | Mapping[str, pd.DataFrame]


class Adapted(NamedTuple):
    """A learner adapted to one asset.

    Attributes:
        checkpoint: what was adapted.
        asset: its name.
        params: the adapted parameters.
        support: the rows adapted on: features and `target` as the learner met them, both
            standardised, on their timestamps.
    """

    checkpoint: Checkpoint
    asset: str
    params: Params
    support: pd.DataFrame

    def __repr__(self) -> str:
        return f"Adapted({self.checkpoint.method} to {self.asset}, {len(self.support)} rows)"

    def predict(self, bars: Bars) -> pd.Series | pd.DataFrame:
        """Predict at every bar that has features; a sequence model, where it has enough of them.

        Args:
            bars: of the asset, in any layout that `maml_jax.data.to_bars` reads.

        Returns:
            The predicted target by timestamp: the return over the horizon in trailing volatilities,
            its direction, or the log of the volatility per bar over the horizon, as the settings
            say. A Series, or a DataFrame of `mean` and `std` where the learner has both.

        Raises:
            DataError: if the bars will not do, or are no more than the warm-up.
        """
        rows = _rows(self.checkpoint, bars)
        table = rows.table
        if table.empty:
            raise DataError(
                f"{rows.asset}: a prediction needs at least {rows.before.bars + 1} bars "
                f"({rows.before.terms} + 1), and there are {rows.bars}"
            )
        learner = make_learner(self.checkpoint.config, self.checkpoint.method)
        result = _predict(learner, self.params, rows.inputs)
        if isinstance(result, Prediction):
            scaler = self.checkpoint.scaler
            columns = {
                "mean": scaler.restore_target(result.mean),
                "std": result.std * scaler.target_std,
            }
            flat = {k: np.asarray(v, float).reshape(len(table)) for k, v in columns.items()}
            return pd.DataFrame(flat, index=table.index)
        values = self.checkpoint.scaler.restore_target(np.asarray(result, float))
        values = values.reshape(len(table))
        return pd.Series(values, index=table.index, name="prediction")

    def save(self, path: str | Path) -> Path:
        """Write the adapted parameters to a folder of their own, for `load_adapted`.

        The folder appears whole or not at all. The checkpoint that was adapted is in it, as a run
        directory holds it.

        Raises:
            RunError: if the path exists already or cannot be written.
        """
        return save_kept(path, Kept(*self))


def load_adapted(path: str | Path) -> Adapted:
    """Load what `Adapted.save` wrote; it predicts the same numbers.

    Raises:
        RunError: if there is nothing adapted, or it cannot be read.
    """
    return Adapted(*load_kept(path))


def adapt(checkpoint: Checkpoint, bars: Bars, *, steps: int | None = None) -> Adapted:
    """Adapt to the latest complete labels of an asset.

    They are the asset's own, whatever support sets its walk-forward was made with: bars of other
    assets are not at hand.

    Args:
        checkpoint: a trained method.
        bars: of one asset, in any layout that `maml_jax.data.to_bars` reads.
        steps: adaptation steps; default as in its walk-forward.

    Returns:
        The adapted learner; it used the last `task.support` labelled rows, or as many as there are;
        all of them where the windows of its walk-forward grow.

    Raises:
        DataError: if the bars will not do, or hold no row with a complete label; the message says
            how many bars are needed.
    """
    rows = _rows(checkpoint, bars)
    config, delay = checkpoint.config, target_of(checkpoint.config).label_delay
    labelled = np.flatnonzero(rows.table["target"].notna())
    if config.backtest.window == "rolling":
        labelled = labelled[-config.task.support :]
    if not len(labelled):
        raise DataError(
            f"{rows.asset}: adapting needs at least {rows.before.bars + delay + 1} bars "
            f"({rows.before.terms} + label delay {delay} + 1), and there are {rows.bars}"
        )
    batch = _batch(rows, labelled)
    if steps is None and METHODS[checkpoint.method].takes_steps:
        steps = config.backtest.inner_steps
    learner = make_learner(config, checkpoint.method)
    params = _adapted(learner, checkpoint, checkpoint.params, batch, steps)
    return Adapted(checkpoint, rows.asset, params, rows.table.iloc[labelled])


def adaptation_table(
    checkpoint: Checkpoint, bars: Bars, *, steps: int | None = None
) -> pd.DataFrame:
    """Judge adapting to an asset on its last labelled rows, against training from scratch.

    The query set is the last `task.query` labelled rows. The support set is the `task.support` rows
    before whose labels are complete at the first of them, less the embargo, as in meta-training.

    Args:
        checkpoint: a trained method.
        bars: of one asset, in any layout that `maml_jax.data.to_bars` reads.
        steps: the most adaptation steps; default as in its walk-forward. None for methods that take
            none.

    Returns:
        One row per number of steps, 0 to `steps`; of methods that take none, the rows `before`
        (the prior; NaN where there is none that predicts) and `after`. Columns: the mean squared
        error of the query rows in units of the target, and the correlation of prediction and
        target, of the meta-learned start (`error`, `correlation`) and of the untrained network of
        the same seed, adapted alike (`scratch_error`, `scratch_correlation`). Its `attrs` hold
        `asset`, `method`, and as `support` and `query` the first bar, the last bar and the number
        of rows.

    Raises:
        ConfigError: if the method cannot take so many steps.
        DataError: if the bars will not do, or are too few; the message says how many are needed.
    """
    rows, config = _rows(checkpoint, bars), checkpoint.config
    learner, takes = make_learner(config, checkpoint.method), METHODS[checkpoint.method].takes_steps
    if steps is not None and not takes:
        raise ConfigError(f"--steps: {checkpoint.method} fits its support set without steps")
    if steps is not None and steps < 0:
        raise ConfigError(f"--steps: must not be negative, got {steps}")
    support, query = _parted(checkpoint, rows)
    batch, asked = _batch(rows, support), rows.inputs[query]
    restore = checkpoint.scaler.restore_target
    truth = np.asarray(restore(rows.table["target"].to_numpy()[query]), float)

    def judge(params: Any) -> list[float]:
        if params is None:
            return [np.nan, np.nan]
        result = _predict(learner, params, asked)
        mean = result.mean if isinstance(result, Prediction) else result
        predicted = np.asarray(restore(np.asarray(mean, float)), float).reshape(-1)
        varies = predicted.std() > 0 and truth.std() > 0
        correlation = np.corrcoef(predicted, truth)[0, 1] if varies else np.nan
        return [float(np.mean((predicted - truth) ** 2)), float(correlation)]

    untrained = initial_params(config, learner, len(checkpoint.scaler.mean))
    if takes:
        most = _steps_of(checkpoint) if steps is None else steps
        counts = {count: (batch, count) for count in range(most + 1)}
    else:
        nothing = Batch(batch.x[:0], batch.y[:0]) if learner.update is not None else None
        counts = {"before": (nothing, None), "after": (batch, None)}
    table = {
        name: [
            figure
            for start in (checkpoint.params, untrained)
            for figure in judge(
                None if given is None else _adapted(learner, checkpoint, start, given, count)
            )
        ]
        for name, (given, count) in counts.items()
    }
    columns = ["error", "correlation", "scratch_error", "scratch_correlation"]
    judged = pd.DataFrame.from_dict(table, orient="index", columns=columns)
    judged = judged.rename_axis("steps" if takes else "adaptation")
    times = rows.table.index
    judged.attrs = {
        "asset": rows.asset,
        "method": checkpoint.method,
        **{
            name: (times[part[0]], times[part[-1]], len(part))
            for name, part in (("support", support), ("query", query))
        },
    }
    return judged


def _parted(checkpoint: Checkpoint, rows: "_Rows") -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the support and of the query rows, purged of each other."""
    config, delay = checkpoint.config, target_of(checkpoint.config).label_delay
    task, labelled = config.task, np.flatnonzero(rows.table["target"].notna())
    query = labelled[-task.query :]
    support = labelled[: -task.query]
    if len(query):
        support = support[rows.place[support] + delay <= rows.place[query[0]]]
    support = support[: len(support) - task.embargo]
    if config.backtest.window == "rolling":
        support = support[-task.support :]
    if len(query) < task.query or len(support) < task.support:
        gap = delay + task.embargo - 1
        needed = rows.before.bars + task.support + gap + task.query + delay
        raise DataError(
            f"{rows.asset}: judging adaptation needs at least {needed} bars ({rows.before.terms} + "
            f"support {task.support} + gap {gap} + query {task.query} + label delay {delay}), and "
            f"there are {rows.bars}, of which {len(labelled)} give a row with a label"
        )
    return support, query


def _steps_of(checkpoint: Checkpoint) -> int:
    """Return the steps of the walk-forward, or those of training, or the usual ones."""
    given = (checkpoint.config.backtest.inner_steps, checkpoint.config.learner.inner_steps)
    usual = METHODS[checkpoint.method].usual_steps
    return next((steps for steps in given if steps is not None), usual)


def _batch(rows: "_Rows", places: np.ndarray) -> Batch:
    y = rows.table[["target"]].to_numpy()[places]
    return Batch(jnp.asarray(rows.inputs[places], jnp.float32), jnp.asarray(y, jnp.float32))


def _predict(learner: MetaLearner, params: Params, inputs: np.ndarray) -> Any:
    return learner.predict(params, jnp.asarray(inputs, jnp.float32))


def _adapted(learner, checkpoint: Checkpoint, start: Params, batch: Batch, steps) -> Params:
    try:
        return learner.adapt(start, batch, steps=steps)
    except ValueError as error:
        if steps is None:
            raise
        raise ConfigError(f"{steps} steps of {checkpoint.method}: {error}") from error


class _Rows(NamedTuple):
    """What a model can read of an asset.

    Attributes:
        asset: its name.
        bars: how many bars it has.
        table: features and `target` of each row that can be read; NaN where the target is unknown.
        place: of each row among the bars of the asset.
        inputs: what the model reads there, `[row, feature]` or `[row, bar, feature]`.
        before: what must stand before the first row.
    """

    asset: str
    bars: int
    table: pd.DataFrame
    place: np.ndarray
    inputs: np.ndarray
    before: Before


def _rows(checkpoint: Checkpoint, bars: Bars) -> _Rows:
    """Compute features and target as meta-training did, where it would have had a row."""
    config = checkpoint.config
    frames = as_bars(bars, **reading_options(config))
    if len(frames) != 1:
        raise ConfigError(
            f"give the bars of one asset, not of {len(frames)}: {quote_names(frames)}"
        )
    asset, frame = next(iter(frames.items()))
    require_same_interval({asset: frame}, checkpoint.interval)
    if follows_rules(config):
        raise DataError(
            f"{asset}: this learner predicts what following a rule pays, not what a price does; "
            "backtest it on these bars instead of adapting it to them"
        )
    features, target = choose_features(config, frames), target_of(config)
    if together := reads_cross_section(features):
        raise DataError(
            f"{asset}: this learner reads {together}, features that compare several assets, and "
            "cannot be used on the bars of one alone; backtest it on all of them, or train one on "
            "other 'features.names'"
        )
    table = checkpoint.scaler.transform(compute_features(frame, features, asset=asset))
    values, scale = compute_scaled_target(frame, target, checkpoint.scaler, asset=asset)
    table = table.where(scale.notna(), axis="index").dropna()
    inputs = _inputs(table.to_numpy(), config.model.length)
    table = table.iloc[len(table) - len(inputs) :]
    table = table.assign(target=values.reindex(table.index))
    place = np.asarray(frame.index.get_indexer(table.index))
    return _Rows(asset, len(frame), table, place, inputs, before_first_row(config, features))


def _inputs(values: np.ndarray, length: int | None) -> np.ndarray:
    """Return the rows, or the sequences that end with those that have enough before them."""
    if length is None:
        return values
    if len(values) < length:
        return np.empty((0, length, values.shape[1]))
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, length, axis=0), -1, 1)
