"""Adapting a trained learner to a few bars of an asset, and predicting with it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from maml_jax.data import as_bars, require_same_interval
from maml_jax.errors import ConfigError, DataError, RunError
from maml_jax.experiment.config.loading import import_modules
from maml_jax.experiment.digests import require_settings, verify, write_about
from maml_jax.experiment.learning.checkpoint import (
    Checkpoint,
    digests,
    has_digests,
    load_alone,
    read_params,
    save_checkpoint,
    write_params,
)
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.train import make_learner
from maml_jax.experiment.preparation.bars import reading_options
from maml_jax.experiment.preparation.requirements import (
    Before,
    before_first_row,
    choose_features,
    target_of,
)
from maml_jax.experiment.preparation.series import follows_rules
from maml_jax.experiment.process import is_first_process, whole_folder
from maml_jax.experiment.reservation import reserved
from maml_jax.features import compute_features, reads_cross_section
from maml_jax.features.targets import compute_scaled_target
from maml_jax.listing import quote_names
from maml_jax.meta import Batch, MetaLearner, Prediction
from maml_jax.meta.types import Params
from maml_jax.tasks import Layout

_FORMAT = 1
_ABOUT, _SUPPORT, _PARAMS = "adapted.json", "support.parquet", "adapted"

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
        rows = read_rows(self.checkpoint, bars)
        table = rows.table
        if table.empty:
            raise DataError(
                f"{rows.asset}: a prediction needs at least {rows.before.bars + 1} bars "
                f"({rows.before.terms} + 1), and there are {rows.bars}"
            )
        learner = make_learner(self.checkpoint.config, self.checkpoint.method)
        result = predict_rows(learner, self.params, rows.inputs)
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

        The folder appears whole or not at all. It holds `checkpoints/<method>/`, what was adapted,
        as a run does; `adapted/`, the adapted parameters, by orbax; `support.parquet`,
        `adapted.json`, and `about.json` with digests of all.

        Raises:
            RunError: if the path exists already or cannot be written.
        """
        path = Path(path)
        if os.path.lexists(path):
            raise RunError(f"{path}: exists already; name an output directory that does not")
        with reserved(path), whole_folder(path.absolute()) as partial:
            save_checkpoint(partial, self.checkpoint)
            write_params(partial / _PARAMS, self.params)
            if is_first_process():
                self.support.to_parquet(partial / _SUPPORT)
                record = {"format": _FORMAT, "asset": self.asset}
                record["parameters"] = digests(self.params)
                (partial / _ABOUT).write_text(json.dumps(record, indent=2), encoding="utf-8")
                write_about(partial, self.checkpoint.config)
        return path


def load_adapted(path: str | Path, *, trust: bool = False) -> Adapted:
    """Load what `Adapted.save` wrote; it predicts the same numbers.

    Args:
        path: of the folder.
        trust: import the modules of features that its settings name, which runs their code.

    Raises:
        RunError: if the folder holds no adapted parameters, or a file in it is damaged, missing or
            foreign.
    """
    folder = Path(path).absolute()
    if not (folder / _ABOUT).is_file():
        raise RunError(f"{path}: holds no adapted parameters")
    about = verify(folder)
    if about is None and has_digests(folder):
        raise RunError(f"{path}: about.json is missing; restore it from a copy, or adapt again")
    checkpoint = load_alone(folder)
    if about is not None:
        require_settings(folder, about, checkpoint.config)
    try:
        record = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise RunError(
                f"{path}: was written in format {record['format']}; this version reads format "
                f"{_FORMAT}; retrain, or use the version that wrote it"
            )
        if not isinstance(record["asset"], str):
            raise ValueError(f"asset {record['asset']!r} is not a name")
        support = pd.read_parquet(folder / _SUPPORT)
        if "target" not in support or not all(map(is_numeric_dtype, support.dtypes)):
            raise ValueError(f"{_SUPPORT} does not hold numbers and a target")
        shapes = _shapes(checkpoint, len(support))
        params = read_params(folder / _PARAMS, shapes, record.get("parameters"))
    except RunError:
        raise
    except Exception as error:  # orbax and its storage raise types of their own
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"{path}: adapted parameters cannot be read: {reason}") from error
    if trust:
        import_modules(checkpoint.config)
    return Adapted(checkpoint, record["asset"], params, support)


def _shapes(checkpoint: Checkpoint, rows: int) -> Params:
    """Return the shapes of parameters that were adapted to so many rows."""
    config, features = checkpoint.config, len(checkpoint.scaler.mean)
    bars = () if config.model.length is None else (config.model.length,)
    support = Batch(jnp.zeros((rows, *bars, features)), jnp.zeros((rows, 1)))
    learner = make_learner(config, checkpoint.method)
    return jax.eval_shape(learner.adapt, checkpoint.params, support)


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
    rows = read_rows(checkpoint, bars)
    config, delay = checkpoint.config, target_of(checkpoint.config).label_delay
    labelled = np.flatnonzero(rows.table["target"].notna())
    if config.backtest.window == "rolling":
        labelled = labelled[-config.task.support :]
    if not len(labelled):
        raise DataError(
            f"{rows.asset}: adapting needs at least {rows.before.bars + delay + 1} bars "
            f"({rows.before.terms} + label delay {delay} + 1), and there are {rows.bars}"
        )
    batch = batch_of(rows, labelled, config.task.forget)
    if steps is None and METHODS[checkpoint.method].takes_steps:
        steps = config.backtest.inner_steps
    learner = make_learner(config, checkpoint.method)
    params = adapt_params(learner, checkpoint, checkpoint.params, batch, steps)
    return Adapted(checkpoint, rows.asset, params, rows.table.iloc[labelled])


def batch_of(rows: "Rows", places: np.ndarray, forget: float) -> Batch:
    """Return some rows as a support set, older ones with less weight where `forget` is below 1."""
    y = rows.table[["target"]].to_numpy()[places]
    weight = Layout((len(places),), forget=forget).weights(())
    return Batch(jnp.asarray(rows.inputs[places], jnp.float32), jnp.asarray(y, jnp.float32), weight)


def predict_rows(learner: MetaLearner, params: Params, inputs: np.ndarray) -> Any:
    """Predict at rows, `[row, feature]` or `[row, bar, feature]`."""
    return learner.predict(params, jnp.asarray(inputs, jnp.float32))


def adapt_params(
    learner: MetaLearner, checkpoint: Checkpoint, start: Params, batch: Batch, steps: int | None
) -> Params:
    """Adapt a start to a support set.

    Raises:
        ConfigError: if the method cannot take so many steps.
    """
    try:
        return learner.adapt(start, batch, steps=steps)
    except ValueError as error:
        if steps is None:
            raise
        raise ConfigError(f"{steps} steps of {checkpoint.method}: {error}") from error


class Rows(NamedTuple):
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


def read_rows(checkpoint: Checkpoint, bars: Bars) -> Rows:
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
    return Rows(asset, len(frame), table, place, inputs, before_first_row(config, features))


def _inputs(values: np.ndarray, length: int | None) -> np.ndarray:
    """Return the rows, or the sequences that end with those that have enough before them."""
    if length is None:
        return values
    if len(values) < length:
        return np.empty((0, length, values.shape[1]))
    return np.moveaxis(np.lib.stride_tricks.sliding_window_view(values, length, axis=0), -1, 1)
