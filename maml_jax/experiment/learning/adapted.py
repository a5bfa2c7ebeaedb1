"""Adapted parameters on disk, with the checkpoint that they come from."""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd

from maml_jax.atomic import remove_on_exit
from maml_jax.errors import RunError
from maml_jax.experiment.learning.checkpoint import Checkpoint, load_checkpoints, save_checkpoint
from maml_jax.experiment.learning.train import make_learner
from maml_jax.meta import Batch
from maml_jax.meta.types import Params
from maml_jax.parallel.placement import everywhere

_FORMAT = 1
_ABOUT, _SUPPORT, _PARAMS = "adapted.json", "support.parquet", "adapted"


class Kept(NamedTuple):
    """What is kept of a learner adapted to one asset.

    Attributes:
        checkpoint: what was adapted.
        asset: its name.
        params: the adapted parameters.
        support: the rows adapted on.
    """

    checkpoint: Checkpoint
    asset: str
    params: Params
    support: pd.DataFrame


def save_kept(path: str | Path, kept: Kept) -> Path:
    """Write a folder that appears whole or not at all.

    It holds `checkpoints/<method>/` as a run does, `adapted/` (the adapted parameters, by orbax),
    `support.parquet` and `adapted.json`.

    Raises:
        RunError: if the path exists already or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise RunError(f"{path}: exists already; name an output directory that does not")
    partial = path.absolute().with_name(f".{path.name}.partial-{os.getpid()}")
    with remove_on_exit(partial):
        try:
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was cut off
            partial.mkdir(parents=True)
            save_checkpoint(partial, _alone(kept.checkpoint))
            with ocp.StandardCheckpointer() as writer:
                writer.save(partial / _PARAMS, kept.params)
            kept.support.to_parquet(partial / _SUPPORT)
            record = {"format": _FORMAT, "asset": kept.asset}
            (partial / _ABOUT).write_text(json.dumps(record, indent=2), encoding="utf-8")
            os.rename(partial, path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def load_kept(path: str | Path) -> Kept:
    """Read what `save_kept` wrote.

    Raises:
        RunError: if the folder holds no adapted parameters, or a file in it cannot be read.
    """
    folder = Path(path).absolute()
    if not (folder / _ABOUT).is_file():
        raise RunError(f"{path}: holds no adapted parameters")
    (checkpoint,) = load_checkpoints(folder).values()
    try:
        record = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise RunError(f"{path}: format {record['format']} is not the one known, {_FORMAT}")
        support = pd.read_parquet(folder / _SUPPORT)
        lying = everywhere()  # not as they lay where they were saved, on other devices perhaps
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lying),
            _shapes(checkpoint, len(support)),
        )
        with ocp.StandardCheckpointer() as reader:
            params = reader.restore(folder / _PARAMS, wanted)
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), params)
    except RunError:
        raise
    except Exception as error:  # orbax and its storage raise types of their own
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"{path}: adapted parameters cannot be read: {reason}") from error
    return Kept(checkpoint, str(record["asset"]), params, support)


def _alone(checkpoint: Checkpoint) -> Checkpoint:
    """Let the settings name the method of the checkpoint alone."""
    config = checkpoint.config
    learner = config.learner.model_copy(update={"methods": (checkpoint.method,)})
    return checkpoint._replace(config=config.model_copy(update={"learner": learner}))


def _shapes(checkpoint: Checkpoint, rows: int) -> Params:
    """Return the shapes of parameters that were adapted to so many rows."""
    config, features = checkpoint.config, len(checkpoint.scaler.mean)
    bars = () if config.model.length is None else (config.model.length,)
    support = Batch(jnp.zeros((rows, *bars, features)), jnp.zeros((rows, 1)))
    learner = make_learner(config, checkpoint.method)
    return jax.eval_shape(learner.adapt, checkpoint.params, support)
