"""Meta-parameters on disk, with the settings, scaling and features that they belong to."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from absl import logging as absl_logging

from maml_jax.errors import RunError, mask_values
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.train import initial_params, make_learner
from maml_jax.experiment.preparation.prepare import Fitted
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.experiment.process import is_first_process, together
from maml_jax.features import MarkovParameters, Scaler
from maml_jax.features.scaling import scaler_from_dict, scaler_to_dict
from maml_jax.meta.checkpoints import require_room, storage_reason
from maml_jax.meta.types import Params
from maml_jax.parallel.placement import everywhere

FOLDER = "checkpoints"
FOLDS = "folds"
_FORMAT = 1


class Checkpoint(NamedTuple):
    """What a method learned and what it needs to be used.

    Attributes:
        method: which of the settings' methods.
        config: the settings as resolved at training, feature names included.
        scaler: the scaling of the features, and of the target where it has one.
        params: the meta-parameters.
        interval: time between the bars that it was trained on.
        chain: the Markov chain of its regimes; None without one.
        spans: the spans of its fold, where it is one of several.
    """

    method: str
    config: Config
    scaler: Scaler
    params: Params
    interval: pd.Timedelta
    chain: MarkovParameters | None = None
    spans: Spans | None = None

    @property
    def fitted(self) -> Fitted:
        """What `prepare` needs of it, to make a panel of other bars."""
        return Fitted(self.scaler, self.chain)


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to `run/checkpoints/<method>/`; every process must take part.

    Raises:
        RunError: if the parameters cannot be written.
    """
    folder = Path(run).absolute() / FOLDER / checkpoint.method
    with together(f"checkpoint {checkpoint.method}"):
        if is_first_process():
            folder.mkdir(parents=True)
    write_params(folder / "params", checkpoint.params)
    if not is_first_process():
        return
    record = {
        "format": _FORMAT,
        "method": checkpoint.method,
        "parameters": digests(checkpoint.params),
        "config": mask_values(checkpoint.config.model_dump(mode="json")),
        "scaler": scaler_to_dict(checkpoint.scaler),
        "interval": checkpoint.interval.isoformat(),
        "chain": None if checkpoint.chain is None else checkpoint.chain.to_dict(),
        "spans": None if checkpoint.spans is None else checkpoint.spans.to_dict(),
    }
    (folder / "about.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def load_checkpoints(run: Path) -> dict[str, Checkpoint]:
    """Read all checkpoints of a run, in the order of the settings' methods.

    Raises:
        RunError: if the folder is not a run, or holds no readable checkpoint; naming the file.
    """
    folds = load_folds(run)
    if folds:  # the last one's are those at the usual place, unless writing them was cut off
        return folds[-1]
    folder = Path(run).absolute() / FOLDER
    if not folder.is_dir():
        raise RunError(f"{run}: no run directory with checkpoints")
    found = [_load(path.parent) for path in sorted(folder.glob("*/about.json"))]
    if not found:
        raise RunError(f"{folder}: holds no checkpoint")
    by_method = {checkpoint.method: checkpoint for checkpoint in found}
    methods = found[0].config.learner.methods
    missing = [method for method in methods if method not in by_method]
    if missing:
        raise RunError(f"{folder}: the checkpoints of {missing} are missing")
    return {method: by_method[method] for method in methods}


def load_alone(folder: Path) -> Checkpoint:
    """Read the one checkpoint of a folder, whatever methods its settings name beside it.

    Raises:
        RunError: if there is not one, or it cannot be read.
    """
    found = [path.parent for path in (Path(folder) / FOLDER).glob("*/about.json")]
    if len(found) != 1:
        raise RunError(f"{folder}: holds {len(found)} checkpoints instead of one")
    return _load(found[0])


def fold_folder(run: Path, number: int) -> Path:
    """Return the folder of a fold, in which its checkpoints lie as in a run directory."""
    return Path(run) / FOLDS / f"{number:02d}"


def load_folds(run: Path) -> tuple[dict[str, Checkpoint], ...]:
    """Read the checkpoints of every fold of a run that has several; none of one that has not.

    Raises:
        RunError: if one cannot be read, naming the file, or a fold is missing among others.
    """
    return tuple(load_checkpoints(folder) for folder in list_folds(run))


def list_folds(run: Path) -> list[Path]:
    """Return the folders of the folds of a run that has several; none of one that has not.

    Raises:
        RunError: if one is missing among others.
    """
    folders = sorted((Path(run) / FOLDS).glob("[0-9]*"))
    wanted = [fold_folder(run, number) for number in range(len(folders))]
    missing = [each for each in wanted if not each.is_dir()]
    if missing:
        raise RunError(f"{missing[0]}: the checkpoints of this fold are missing")
    return wanted


def has_digests(run: Path) -> bool:
    """Say whether a checkpoint of a run keeps digests, as those of earlier versions do not."""
    for about in Path(run).glob(f"{FOLDER}/*/about.json"):
        with suppress(OSError, ValueError, TypeError):
            return "parameters" in json.loads(about.read_bytes())
    return False


def _load(folder: Path) -> Checkpoint:
    about = folder / "about.json"
    try:
        record = json.loads(about.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise RunError(
                f"{about}: was written in format {record['format']}; this version reads format "
                f"{_FORMAT}; retrain, or use the version that wrote it"
            )
        config, method = load_config(record["config"], trust=False), record["method"]
        if method != folder.name:
            raise ValueError(f"it is of the method {method!r}")
        scaler = scaler_from_dict(record["scaler"])
        learner = make_learner(config, method)
        shapes = jax.eval_shape(lambda: initial_params(config, learner, len(scaler.mean)))
        params = read_params(folder / "params", shapes, record.get("parameters"))
        interval = pd.Timedelta(record["interval"])
        if not isinstance(record["interval"], str) or not interval > pd.Timedelta(0):
            raise ValueError(f"interval {record['interval']!r} is no time between bars")
        chain = record.get("chain")
        chain = None if chain is None else MarkovParameters.from_dict(chain)
        spans = record.get("spans")
        spans = None if spans is None else Spans.from_dict(spans)
    except RunError:
        raise
    except Exception as error:  # orbax and its storage raise types of their own
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"{folder}: not a readable checkpoint: {reason}") from error
    return Checkpoint(method, config, scaler, params, interval, chain, spans)


def write_params(folder: Path, params: Params) -> None:
    """Write parameters to a folder; every process must take part.

    Raises:
        RunError: if it cannot be written.
    """
    _quiet()
    try:
        if is_first_process():
            require_room(folder.parent, jax.tree.leaves(params))
        with ocp.StandardCheckpointer() as writer:
            writer.save(folder, params)
    except Exception as error:  # orbax and its storage raise types of their own
        raise RunError(f"{folder}: cannot be written: {storage_reason(error)}") from error


def read_params(folder: Path, shapes: Params, recorded: Any) -> Params:
    """Read parameters, and compare them with their digests.

    Args:
        folder: where they are.
        shapes: like them, but for the values.
        recorded: what `digests` said of them; None where an earlier version wrote them.

    Raises:
        RunError: naming the parameter that is another one, or not finite.
    """
    _quiet()
    lying = everywhere()  # not as they lay where they were saved, on other devices perhaps
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lying), shapes
    )
    with ocp.StandardCheckpointer() as reader:
        params = reader.restore(folder, wanted)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(np.asarray(leaf)).all():
            key = jax.tree_util.keystr(path)
            raise RunError(f"{folder}: parameter {key} holds a value that is not finite; run again")
    if recorded is not None:
        found = digests(params)
        for key in {**recorded, **found}:
            if found.get(key) != recorded.get(key):
                raise RunError(
                    f"{folder}: parameter {key} is not the one that was saved "
                    f"({_describe(recorded.get(key))} then, {_describe(found.get(key))} here); "
                    "restore the directory from a copy, or run again"
                )
    if jax.process_count() == 1:  # free to be used beside arrays on any device
        params = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), params)
    return params


def digests(params: Params) -> dict[str, str]:
    """Return type, shape and SHA-256 of each parameter, by its path in the tree."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        shape = ",".join(map(str, array.shape))
        seen = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        found[jax.tree_util.keystr(path)] = f"{array.dtype}[{shape}] {seen}"
    return found


def _describe(digest: str | None) -> str:
    """Return the type, the shape and the first digits of a digest."""
    return "none" if digest is None else digest[: digest.find(" ") + 9]


def _quiet() -> None:
    """Keep the checkpoint library silent: of what fails it prints stacks, and then raises it."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("absl").setLevel(logging.CRITICAL)
