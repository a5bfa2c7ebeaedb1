"""What tests of runs that are cut off share: small settings, and what must not differ."""

import hashlib
from pathlib import Path

import numpy as np
from folded import OPEN, ROLLING

from maml_jax.experiment import load
from maml_jax.meta.parameters import name_parameters

SETTINGS = {
    **OPEN,
    "folds": ROLLING | {"test_size": 60},
    "learner": {"methods": ["maml", "ridge"], "inner_steps": 2},
    "training": {
        "steps": 6,
        "meta_batch": 4,
        "checkpoint_every": 2,
        "validation": 0.3,
        "patience": 2,
    },
    "backtest": {"baselines": [], "bars_per_year": 365, "samples": 20},
}
"""Two folds of two methods, of three checkpoints each at the most."""


def digest(run: Path) -> dict[str, str]:
    """Return a digest of every table, settings file and parameter of a complete run."""
    found = {}
    tables = (*run.glob("*.parquet"), *run.glob("*.json"), run / "config.toml")
    for path in sorted({*tables} - {run / "about.json"}):  # orbax writes the time into its files
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    result = load(run)
    for number, fold in enumerate([*result.folds, result.checkpoints]):
        for method, checkpoint in fold.items():
            for name, values in name_parameters(checkpoint.params).items():
                seen = hashlib.sha256(np.asarray(values).tobytes()).hexdigest()
                found[f"{number}/{method}/{name}"] = seen
    return found


def left(folder: Path) -> list[str]:
    """List what lies in a folder beside complete runs and the ledger of trials."""
    names = (path.name for path in folder.iterdir())
    return sorted(name for name in names if "partial" in name)
