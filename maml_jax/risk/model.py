"""A trained model of risk: a Bayesian head, and what its forecasts left over in training."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import ConfigError, RunError
from maml_jax.meta.parameters import SEPARATOR, pack_arrays, unpack_arrays
from maml_jax.risk.histories import INPUTS, Scaling
from maml_jax.risk.residuals import AGES, Residuals, table_levels

PRETRAINED = Path(__file__).parents[1] / "pretrained"
"""Weights that ship."""

CARD, WEIGHTS = "card.json", "weights.safetensors"


class RiskModel(NamedTuple):
    """What a forecast of risk needs.

    Attributes:
        name: of the weights.
        interval: length of the bars that it knows.
        network: widths of the feature network.
        mean_network: widths of the network whose output the head corrects, but for its last.
        heteroscedastic: whether the noise depends on the input.
        members: meta-parameters of each member of an ensemble, by name: those of `alpaca`.
        scaling: of inputs and target.
        residuals: by horizon in bars.
        rate: of the conformal correction, as a share of the level.
        card: what it was trained on and what was measured.
    """

    name: str
    interval: pd.Timedelta
    network: tuple[int, ...]
    mean_network: tuple[int, ...]
    heteroscedastic: bool
    members: tuple[Mapping[str, np.ndarray], ...]
    scaling: Scaling
    residuals: Mapping[int, Residuals]
    rate: float
    card: Mapping[str, Any]

    @property
    def horizons(self) -> tuple[int, ...]:
        """The horizons of which residuals are known, in bars."""
        return tuple(sorted(self.residuals))


def save_model(model: RiskModel, folder: Path) -> None:
    """Write weights and card; the same model gives the same bytes.

    Args:
        model: to write.
        folder: is made where it is not there.
    """
    arrays = {}
    for number, member in enumerate(model.members):
        arrays |= {f"member{number}{SEPARATOR}{name}": value for name, value in member.items()}
    for horizon, residuals in model.residuals.items():
        arrays |= {
            f"residuals{horizon}{SEPARATOR}{name}": np.asarray(value, np.float32)
            for name, value in residuals._asdict().items()
        }
    arrays |= {
        f"scaling{SEPARATOR}{name}": np.asarray(value, np.float32)
        for name, value in model.scaling._asdict().items()
    }
    content = pack_arrays({name: np.atleast_1d(values) for name, values in arrays.items()})
    card = {
        "name": model.name,
        "interval_minutes": model.interval / pd.Timedelta(minutes=1),
        "network": list(model.network),
        "mean_network": list(model.mean_network),
        "heteroscedastic": model.heteroscedastic,
        "members": len(model.members),
        "inputs": list(INPUTS),
        "ages": list(AGES),
        "levels": table_levels().tolist(),
        "horizons": list(model.horizons),
        "rate": model.rate,
        **model.card,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_model(name: str | Path) -> RiskModel:
    """Read weights that ship, by name, or from a folder that `save_model` wrote.

    Raises:
        ConfigError: if there is no such model.
        RunError: if its files are damaged.
    """
    folder = PRETRAINED / name if isinstance(name, str) else name
    if not (folder / CARD).is_file() and Path(name).is_dir():
        folder = Path(name)
    if not (folder / CARD).is_file():
        raise ConfigError(
            f"model {str(name)!r}: no such weights; there are {', '.join(pretrained_names())}, "
            f"or name a folder that holds {CARD} and {WEIGHTS}, or a run directory"
        )
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        content = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise RunError(
                f"{folder / WEIGHTS}: its digest is not the one of {CARD}: it is damaged"
            )
        return _from_arrays(card, unpack_arrays(content, folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: no model of risk can be read from it: {error}") from error


def pretrained_names() -> list[str]:
    """Return the names of the weights that ship."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CARD}"))


def _from_arrays(card: dict[str, Any], arrays: dict[str, np.ndarray]) -> RiskModel:
    if card["inputs"] != list(INPUTS) or card["ages"] != list(AGES):
        raise ValueError("its inputs or ages are those of another version")
    network = tuple(int(width) for width in card["network"])
    mean_network = tuple(int(width) for width in card["mean_network"])
    members = tuple(_member(arrays, number) for number in range(card["members"]))
    residuals = {
        int(horizon): Residuals(
            *(arrays[f"residuals{horizon}{SEPARATOR}{name}"] for name in Residuals._fields)
        )
        for horizon in card["horizons"]
    }
    x_mean, x_std, y_mean, y_std = (arrays[f"scaling{SEPARATOR}{name}"] for name in Scaling._fields)
    scaling = Scaling(x_mean, x_std, float(y_mean.item()), float(y_std.item()))
    return RiskModel(
        card["name"],
        pd.Timedelta(minutes=card["interval_minutes"]),
        network,
        mean_network,
        bool(card["heteroscedastic"]),
        members,
        scaling,
        residuals,
        float(card["rate"]),
        card,
    )


def _member(arrays: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    start = f"member{number}{SEPARATOR}"
    found = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
    wrong = [name for name, values in found.items() if not np.isfinite(values).all()]
    if wrong or not found:
        raise ValueError(f"member {number}: {wrong or 'all'} of its parameters are no numbers")
    return found
