"""Adapting a trained learner to a few bars of an asset, and predicting with it."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.data import as_bars
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.checkpoint import Checkpoint
from maml_jax.experiment.learn import make_learner
from maml_jax.experiment.prepare import choose_features, target_of
from maml_jax.features import compute_features, compute_target, longest_warm_up
from maml_jax.meta import Batch, Prediction
from maml_jax.meta.types import Params

Bars = pd.DataFrame | pd.Series | Mapping[str, pd.DataFrame]


class Adapted(NamedTuple):
    """A learner adapted to one asset.

    Attributes:
        checkpoint: what was adapted.
        asset: its name.
        params: the adapted parameters.
        support: the rows adapted on: features and `target`, on their timestamps.
    """

    checkpoint: Checkpoint
    asset: str
    params: Params
    support: pd.DataFrame

    def predict(self, bars: Bars) -> pd.Series | pd.DataFrame:
        """Predict at every bar that has features.

        Args:
            bars: of the asset, in any layout that `maml_jax.data.to_bars` reads.

        Returns:
            The predicted target (return over the horizon, in trailing volatilities) by timestamp:
            a Series, or a DataFrame of `mean` and `std` where the learner has both.

        Raises:
            DataError: if the bars will not do, or are no more than the warm-up.
        """
        name, frame = _one_asset(bars)
        table = _features(self.checkpoint, name, frame).dropna()
        if table.empty:
            warm_up = longest_warm_up(choose_features(self.checkpoint.config, {name: frame}))
            raise DataError(
                f"{name}: a prediction needs at least {warm_up + 1} bars (warm-up {warm_up} + 1), "
                f"and there are {len(frame)}"
            )
        learner = make_learner(self.checkpoint.config, self.checkpoint.method)
        result = learner.predict(self.params, jnp.asarray(table.to_numpy(), jnp.float32))
        if isinstance(result, Prediction):
            columns = {"mean": result.mean, "std": result.std}
            flat = {k: np.asarray(v, float).reshape(len(table)) for k, v in columns.items()}
            return pd.DataFrame(flat, index=table.index)
        values = np.asarray(result, float).reshape(len(table))
        return pd.Series(values, index=table.index, name="prediction")


def adapt(checkpoint: Checkpoint, bars: Bars, *, steps: int | None = None) -> Adapted:
    """Adapt to the latest complete labels of an asset.

    Args:
        checkpoint: a trained method.
        bars: of one asset, in any layout that `maml_jax.data.to_bars` reads.
        steps: adaptation steps; default as in its walk-forward.

    Returns:
        The adapted learner; it used the last `task.support` labelled rows, or as many as there are.

    Raises:
        DataError: if the bars will not do, or hold no row with a complete label; the message says
            how many bars are needed.
    """
    name, frame = _one_asset(bars)
    config = checkpoint.config
    target = target_of(config)
    table = _features(checkpoint, name, frame)
    values, _ = compute_target(frame, target, asset=name)
    rows = table.assign(target=values).dropna().tail(config.task.support)
    if rows.empty:
        features = choose_features(config, {name: frame})
        warm_up = max(longest_warm_up(features), target.volatility_window)
        raise DataError(
            f"{name}: adapting needs at least {warm_up + target.label_delay + 1} bars (warm-up "
            f"{warm_up} + label delay {target.label_delay} + 1), and there are {len(frame)}"
        )
    x = jnp.asarray(rows.drop(columns="target").to_numpy(), jnp.float32)
    y = jnp.asarray(rows[["target"]].to_numpy(), jnp.float32)
    steps = config.backtest.inner_steps if steps is None else steps
    learner = make_learner(config, checkpoint.method)
    params = jax.jit(lambda p, s: learner.adapt(p, s, steps=steps))(checkpoint.params, Batch(x, y))
    return Adapted(checkpoint, name, params, rows)


def _one_asset(bars: Bars) -> tuple[str, pd.DataFrame]:
    frames = as_bars(bars)
    if len(frames) != 1:
        raise ConfigError(f"give the bars of one asset, not of {len(frames)}: {list(frames)}")
    return next(iter(frames.items()))


def _features(checkpoint: Checkpoint, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    features = choose_features(checkpoint.config, {name: frame})
    return checkpoint.scaler.transform(compute_features(frame, features, asset=name))
