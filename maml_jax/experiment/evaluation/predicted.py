"""What one strategy predicts over the test span, and the walk-forward that makes it."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import Supports, walk_forward
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.timing import stage
from maml_jax.meta import MetaLearner, Prediction
from maml_jax.meta.types import Params


class Predicted(NamedTuple):
    """What one strategy predicts over the test span, `[time, asset]`.

    Attributes:
        mean: in the target's own units: volatilities over the horizon, a direction, or the log of
            the volatility per bar; NaN where there is none.
        std: likewise; None where the learner has none.
    """

    mean: pd.DataFrame
    std: pd.DataFrame | None = None


def predict_test_span(
    prepared: Prepared,
    supports: Supports,
    name: str,
    learner: MetaLearner,
    params: Params,
    *,
    steps: int | None = None,
) -> Predicted:
    """Walk forward over the test span as the settings describe it.

    Args:
        prepared: settings and panel.
        supports: of the test span, as `find_test_supports` finds them.
        name: of the strategy, for the list of stages.
        learner: what adapts and predicts.
        params: its meta-parameters.
        steps: adaptation steps; None as the learner was made.
    """
    config = prepared.config
    with stage(f"walk-forward {name}"):
        result = walk_forward(
            learner,
            params,
            prepared.panel,
            supports,
            steps=steps,
            chunk=config.backtest.chunk,
            devices=config.backtest.devices,
        )
    return restore(prepared, result)


def restore(prepared: Prepared, result: Any) -> Predicted:
    """Lay out predictions `[asset, time]` in the target's own units."""
    scaler = prepared.scaler
    if not isinstance(result, Prediction):
        return Predicted(on_test_span(prepared, scaler.restore_target(result)))
    return Predicted(
        on_test_span(prepared, scaler.restore_target(result.mean)),
        on_test_span(prepared, result.std * scaler.target_std),
    )


def on_test_span(prepared: Prepared, values: Any) -> pd.DataFrame:
    """Turn `[asset, time]` into a table of the test assets over the test span."""
    panel = prepared.panel
    table = pd.DataFrame(
        np.asarray(values, np.float64).T, index=panel.timestamps, columns=list(panel.assets)
    )
    span = slice(prepared.test_first, prepared.test_last + 1)
    return table.iloc[span].loc[:, prepared.test_assets]
