"""Adapting a trained learner to a few bars of an asset, and predicting with it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.data import as_bars, require_same_interval
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.checkpoint import Checkpoint
from maml_jax.experiment.learn import make_learner
from maml_jax.experiment.methods import METHODS
from maml_jax.experiment.prepare import (
    Before,
    before_first_row,
    choose_features,
    target_of,
)
from maml_jax.experiment.reading import reading_options
from maml_jax.features import compute_features, reads_cross_section
from maml_jax.features.targets import learned_target
from maml_jax.meta import Batch, Prediction
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
        result = learner.predict(self.params, jnp.asarray(rows.inputs, jnp.float32))
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


def adapt(checkpoint: Checkpoint, bars: Bars, *, steps: int | None = None) -> Adapted:
    """Adapt to the latest complete labels of an asset.

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
    support = rows.table.iloc[labelled]
    x = jnp.asarray(rows.inputs[labelled], jnp.float32)
    y = jnp.asarray(support[["target"]].to_numpy(), jnp.float32)
    if steps is None and METHODS[checkpoint.method].takes_steps:
        steps = config.backtest.inner_steps
    learner = make_learner(config, checkpoint.method)
    params = learner.adapt(checkpoint.params, Batch(x, y), steps=steps)
    return Adapted(checkpoint, rows.asset, params, support)


class _Rows(NamedTuple):
    """What a model can read of an asset.

    Attributes:
        asset: its name.
        bars: how many bars it has.
        table: features and `target` of each row that can be read; NaN where the target is unknown.
        inputs: what the model reads there, `[row, feature]` or `[row, bar, feature]`.
        before: what must stand before the first row.
    """

    asset: str
    bars: int
    table: pd.DataFrame
    inputs: np.ndarray
    before: Before


def _rows(checkpoint: Checkpoint, bars: Bars) -> _Rows:
    """Compute features and target as meta-training did, where it would have had a row."""
    config = checkpoint.config
    frames = as_bars(bars, **reading_options(config))
    if len(frames) != 1:
        raise ConfigError(f"give the bars of one asset, not of {len(frames)}: {list(frames)}")
    asset, frame = next(iter(frames.items()))
    require_same_interval({asset: frame}, checkpoint.interval)
    features, target = choose_features(config, frames), target_of(config)
    if together := reads_cross_section(features):
        raise DataError(
            f"{asset}: this learner reads {together}, features that compare several assets, and "
            "cannot be used on the bars of one alone; backtest it on all of them, or train one on "
            "other 'features.names'"
        )
    table = checkpoint.scaler.transform(compute_features(frame, features, asset=asset))
    values, scale = learned_target(frame, target, checkpoint.scaler, asset=asset)
    table = table.where(scale.notna(), axis="index").dropna()
    inputs = _inputs(table.to_numpy(), config.model.length)
    table = table.iloc[len(table) - len(inputs) :]
    table = table.assign(target=values.reindex(table.index))
    return _Rows(asset, len(frame), table, inputs, before_first_row(config, features))


def _inputs(values: np.ndarray, length: int | None) -> np.ndarray:
    """Return the rows, or the sequences that end with those that have enough before them."""
    if length is None:
        return values
    if len(values) < length:
        return np.empty((0, length, values.shape[1]))
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, length, axis=0), -1, 1)
