"""What a method learned as one file of safetensors, which other frameworks and languages read."""

import json
from pathlib import Path

from maml_jax.atomic import write_atomically
from maml_jax.errors import RunError
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.meta.parameters import (
    fill_parameters,
    name_parameters,
    pack_arrays,
    unpack_arrays,
)


def export_parameters(checkpoint: Checkpoint, path: str | Path) -> Path:
    """Write the meta-parameters of a checkpoint under their names, such as `layers/0/kernel`.

    The key `about` of the metadata holds the method, the seed, and names, means and deviations of
    the features, as JSON. The same checkpoint gives the same bytes.

    Raises:
        RunError: if the file cannot be written.
    """
    path, scaler = Path(path), checkpoint.scaler
    about = {
        "method": checkpoint.method,
        "seed": checkpoint.config.seed,
        "features": [str(name) for name in scaler.mean.index],
        "mean": [float(value) for value in scaler.mean],
        "std": [float(value) for value in scaler.std],
    }
    content = pack_arrays(name_parameters(checkpoint.params), json.dumps(about))
    try:
        with write_atomically(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}") from error
    return path


def import_parameters(checkpoint: Checkpoint, path: str | Path) -> Checkpoint:
    """Return a checkpoint with the meta-parameters of a file; all else stays.

    Raises:
        RunError: if the file cannot be read, or a parameter is missing, unknown, or of another
            shape or type; naming it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
    params = fill_parameters(unpack_arrays(content, path), checkpoint.params, path)
    return checkpoint._replace(params=params)
