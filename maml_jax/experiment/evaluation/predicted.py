"""What one strategy predicts over the test span, and the walk-forward that makes it."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import walk_forward
from maml_jax.backtest.walk_forward.rolling import due_predictions
from maml_jax.experiment.learning.tasks import supports
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


def walked(
    prepared: Prepared,
    name: str,
    learner: MetaLearner,
    params: Params,
    *,
    steps: int | None = None,
    growing: bool | None = None,
) -> Predicted:
    """Walk forward over the test span as the settings describe it.

    Args:
        prepared: settings and panel.
        name: of the strategy, for the list of stages.
        learner: what adapts and predicts.
        params: its meta-parameters.
        steps: adaptation steps; None as the learner was made.
        growing: adapt on all rows so far; default as the settings say.
    """
    config = prepared.config
    growing = config.backtest.window == "growing" if growing is None else growing
    with stage(f"walk-forward {name}"):
        result = walk_forward(
            learner,
            params,
            prepared.panel,
            **span_of(prepared),
            **({} if growing else supports(prepared)),
            steps=steps,
            length=config.model.length,
            growing=growing,
            chunk=config.backtest.chunk,
            devices=config.backtest.devices,
        )
    return restored(prepared, result)


def restored(prepared: Prepared, result: Any) -> Predicted:
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


def span_of(prepared: Prepared) -> dict[str, Any]:
    """Return where to predict and on how many rows to adapt, as arguments of `walk_forward`."""
    return {
        "window": prepared.config.task.support,
        "first": prepared.test_first,
        "last": prepared.test_last,
        "assets": prepared.test_assets,
    }


def where_due(prepared: Prepared) -> np.ndarray:
    """Say where learners predict, `[asset, time]`: a row is usable and its support is there."""
    return due_predictions(
        prepared.panel,
        **span_of(prepared),
        **supports(prepared),
        length=prepared.config.model.length,
    )
