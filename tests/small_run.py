"""A result as small as one may be, made without training, for tests of what is kept on disk."""

import jax
import numpy as np
import pandas as pd
from made_up_run import run_tables
from market import SMALL

from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.learning.train import initial_params, make_learner
from maml_jax.experiment.result import Result
from maml_jax.features import Scaler
from maml_jax.notes import Note

NAMES = ["return_1", "rsi"]
STRATEGIES = ("maml", "no adaptation", "buy and hold")
SETTINGS = {
    **SMALL,
    "features": {**SMALL["features"], "names": NAMES},
    "learner": {"methods": ["maml"], "inner_steps": 2},
}


def small_result(**changes) -> Result:
    """Return what a run of one method might have found; its parameters are untrained."""
    config = load_config(SETTINGS, changes)
    params = initial_params(config, make_learner(config, "maml"), len(NAMES))
    params = jax.tree.map(np.asarray, params)
    scaler = Scaler(pd.Series([0.001, 50.0], NAMES), pd.Series([0.02, 12.5], NAMES))
    interval = pd.Timedelta("1D")
    checkpoint = Checkpoint("maml", config, scaler, params, interval)
    notes = (Note("gap", "A1: 2 bars are missing."),)
    tables = run_tables(60, 2, STRATEGIES)
    return Result(config, {"maml": checkpoint}, tables.history, notes, evaluation_of(tables))


def evaluation_of(tables) -> Evaluation:
    own = {name: getattr(tables, name) for name in Evaluation._fields if hasattr(tables, name)}
    weights = tables.predictions[["timestamp", "strategy", "asset"]].assign(order=0.5, weight=0.25)
    significance = tables.significance.rename_axis("strategy")
    adaptation = tables.adaptation[["maml"]].rename_axis("steps")
    predictions = tables.predictions.assign(position=np.sign(tables.predictions["prediction"]))
    more = {"predictions": predictions, "weights": weights}
    more |= {"significance": significance, "adaptation": adaptation}
    return Evaluation(**{**own, **more})


def same_results(first: Result, second: Result) -> bool:
    """Say whether two results are equal in every number and word."""
    pairs = zip(first.checkpoints.items(), second.checkpoints.items(), strict=True)
    for (name, own), (other_name, other) in pairs:
        leaves = zip(jax.tree.leaves(own.params), jax.tree.leaves(other.params), strict=True)
        if name != other_name or not all(np.array_equal(a, b) for a, b in leaves):
            return False
        if own.config != other.config or own.interval != other.interval:
            return False
        if not own.scaler.mean.equals(other.scaler.mean):
            return False
    if (first.config, first.notes) != (second.config, second.notes):
        return False
    tables = [first.history, *_tables(first.evaluation)]
    others = [second.history, *_tables(second.evaluation)]
    return all(a.equals(b) for a, b in zip(tables, others, strict=True))


def _tables(evaluation) -> list[pd.DataFrame]:
    return [each for each in evaluation or () if isinstance(each, pd.DataFrame)]
