"""What baselines predict: momentum, ridge regression, trees; of a volatility, its models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.backtest import Supports
from maml_jax.backtest.baselines.ridge import ridge_regression
from maml_jax.backtest.baselines.simple import boosted_trees, past_return
from maml_jax.backtest.baselines.volatility import (
    HAR,
    align_to_panel,
    ewma_volatility,
    pooled_regression,
    remove_mean_error,
)
from maml_jax.backtest.strategy_names import EWMA, MOMENTUM, POOLED_HAR, RIDGE, TRAILING, TREES
from maml_jax.experiment.config.backtest import NEED_DEVIATION
from maml_jax.experiment.evaluation.predicted import Predicted, on_test_span, predict_test_span
from maml_jax.experiment.preparation.prepare import Prepared, fitting_panel
from maml_jax.experiment.preparation.requirements import target_of
from maml_jax.experiment.timing import stage
from maml_jax.features import compute_target
from maml_jax.features.targets import trailing_volatility
from maml_jax.notes import Note


def baseline_forecasts(
    prepared: Prepared, supports: Supports
) -> tuple[dict[str, Predicted], tuple[Note, ...]]:
    """Predict as the baselines of the settings do, at the bars where learners do.

    Rules that size positions by a predicted deviation get one: of ridge its own; of momentum and
    trees that of a target of order one, 1.

    Args:
        prepared: settings, bars and panel.
        supports: of the test span, as learners adapt on them.

    Returns:
        What each predicts, and what a reader must know: what was left out, and why.

    Raises:
        ConfigError: if trees are asked for and scikit-learn is not installed.
    """
    config, wanted = prepared.config, prepared.config.backtest.baselines
    found, notes = volatility_baselines(prepared), []
    if "ridge" in wanted:
        found[RIDGE] = _ridge(prepared, supports)
    if "momentum" in wanted:
        if config.target.kind == "volatility":
            text = f"Baseline {MOMENTUM} left out: a volatility forecast has no direction."
            notes.append(Note("baselines", text))
        else:
            found[MOMENTUM] = _momentum(prepared, supports)
    if "trees" in wanted:
        trees = _trees(prepared, supports)
        if trees is None:
            text = f"Baseline {TREES} left out: there are no bars of meta-training to fit it on."
            notes.append(Note("baselines", text))
        else:
            found[TREES] = trees
    return found, tuple(notes)


def _ridge(prepared: Prepared, supports: Supports) -> Predicted:
    """Walk forward with ridge regression, on the support sets that the first method adapts on."""
    learner = ridge_regression()
    start = learner.init(
        jax.random.key(0), jnp.zeros((1, len(prepared.panel.feature_names)), jnp.float32)
    )
    predicted = predict_test_span(prepared, supports, RIDGE, learner, start)
    if prepared.config.position_rule() in NEED_DEVIATION:
        return predicted
    return Predicted(predicted.mean)


def _momentum(prepared: Prepared, supports: Supports) -> Predicted:
    config, target = prepared.config, target_of(prepared.config)
    forecasts = {}
    for asset in prepared.test_assets:
        bars = prepared.bars[asset]
        forecasts[asset] = past_return(
            bars,
            compute_target(bars, target, asset=asset)[1],
            window=config.backtest.momentum_window or config.features.window,
            horizon=target.horizon,
            side=prepared.sides.get(asset),
        )
        if target.kind == "direction":
            forecasts[asset] = pd.Series(np.sign(forecasts[asset]), index=bars.index)
    return _keep_due(prepared, supports, align_to_panel(prepared.panel, forecasts))


def _trees(prepared: Prepared, supports: Supports) -> Predicted | None:
    with stage(f"fitting {TREES}"):
        values = boosted_trees(
            fitting_panel(prepared),
            train_assets=prepared.train_assets,
            train_first=prepared.train_first,
            train_last=prepared.train_last,
            seed=prepared.config.seed,
        )
    if values is None:
        return None
    return _keep_due(prepared, supports, prepared.scaler.restore_target(values))


def _keep_due(prepared: Prepared, supports: Supports, values: np.ndarray) -> Predicted:
    """Keep forecasts at the bars where learners predict, with a deviation where it is needed."""
    mean = on_test_span(prepared, np.where(supports.due, values, np.nan))
    if prepared.config.position_rule() in NEED_DEVIATION:
        return Predicted(mean, mean.notna().astype("float64").where(mean.notna()))
    return Predicted(mean)


def volatility_baselines(prepared: Prepared) -> dict[str, Predicted]:
    """Forecast volatility as others do, where it is what is predicted.

    Trailing volatility and EWMA forecast the root of a mean of squares; where the bars of
    meta-training are there, the distance to the mean of logarithms is taken away.
    """
    target, panel, scaler = target_of(prepared.config), prepared.panel, prepared.scaler
    if target.kind != "volatility":
        return {}
    bars = prepared.bars
    trailing = {asset: trailing_volatility(frame, target) for asset, frame in bars.items()}
    logs = {a: pd.Series(np.log(each.where(each > 0))) for a, each in trailing.items()}
    found = {TRAILING: align_to_panel(panel, logs)}
    if target.estimator == "close":
        found[EWMA] = align_to_panel(panel, {a: ewma_volatility(b) for a, b in bars.items()})
    train: dict[str, Any] = {
        "train_assets": prepared.train_assets,
        "train_first": prepared.train_first,
        "train_last": prepared.train_last,
    }
    taught = fitting_panel(prepared)
    rows = [panel.assets.index(asset) for asset in prepared.train_assets]
    ends = np.asarray(taught.label_end)[rows, max(prepared.train_first, 0) :]
    if (ends <= prepared.train_last).any():
        found = {
            name: scaler.restore_target(
                remove_mean_error(scaler.transform_target(values), taught, **train)
            )
            for name, values in found.items()
        }
        if {*HAR} <= {*panel.feature_names}:
            found[POOLED_HAR] = scaler.restore_target(
                pooled_regression(taught, **train, features=HAR)
            )
    return {name: Predicted(on_test_span(prepared, values)) for name, values in found.items()}
