"""What every strategy predicts: methods, variants that go on learning, and baselines."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from maml_jax.backtest import Updates, walk_forward, walk_online
from maml_jax.backtest.volatility_baselines import (
    HAR,
    ewma_volatility,
    on_timeline,
    pooled_regression,
    shifted,
)
from maml_jax.experiment.families import online_windows, supports
from maml_jax.experiment.learn import initial_params, make_learner, outer_optimizer
from maml_jax.experiment.methods import METHODS
from maml_jax.experiment.needs import target_of
from maml_jax.experiment.prepare import Prepared
from maml_jax.experiment.stages import stage
from maml_jax.features.ohlc import garman_klass
from maml_jax.features.volatility import realised_volatility
from maml_jax.meta import MetaState, Prediction
from maml_jax.meta.types import Params

NO_ADAPTATION = "no adaptation"
FROM_SCRATCH = "from scratch"
INCREMENTAL = "incremental"
TRAILING = "trailing volatility"
POOLED_HAR = "har"
EWMA = "ewma"

_SEED = 1
"""Folded into the seed of a run for the tasks of online updates."""


class Predicted(NamedTuple):
    """What one strategy predicts over the test span, `[time, asset]`.

    Attributes:
        mean: in the target's own units: volatilities over the horizon, a direction, or the log of
            the volatility per bar; NaN where there is none.
        std: likewise; None where the learner has none.
    """

    mean: pd.DataFrame
    std: pd.DataFrame | None = None


class Forecasts(NamedTuple):
    """What all strategies predict.

    Attributes:
        predicted: by strategy.
        notes: what a reader must know.
    """

    predicted: dict[str, Predicted]
    notes: tuple[str, ...] = ()


def predict_all(prepared: Prepared, trained: Mapping[str, Params]) -> Forecasts:
    """Walk forward with every trained method, its online variants, and the baselines.

    Args:
        prepared: settings and panel.
        trained: meta-parameters of each method; variants and baselines are those of the first.

    Returns:
        What each strategy predicts. The unadapted start is left out where the first method has none
        that predicts.
    """
    config, panel = prepared.config, prepared.panel
    headline = next(iter(trained))
    growing = config.backtest.window == "growing"

    def predict(name, method, params, steps=config.backtest.inner_steps, growing=growing):
        with stage(f"walk-forward {name}"):
            result = walk_forward(
                make_learner(config, method),
                params,
                panel,
                **_span(prepared),
                **({} if growing else supports(prepared)),
                steps=steps if METHODS[method].takes_steps or growing else None,
                length=config.model.length,
                growing=growing,
                chunk=config.backtest.chunk,
                devices=config.backtest.devices,
            )
        return restored(prepared, result)

    learner = make_learner(config, headline)
    untrained = initial_params(config, learner, len(panel.feature_names))
    predicted = {method: predict(method, method, params) for method, params in trained.items()}
    # Where a head is fitted in closed form only a prior can do without its support set.
    prior = learner.update is not None
    if prior or METHODS[headline].takes_steps:
        predicted[NO_ADAPTATION] = predict(
            NO_ADAPTATION, headline, trained[headline], steps=0, growing=prior
        )
    predicted[FROM_SCRATCH] = predict(FROM_SCRATCH, headline, untrained)
    online, notes = _online(prepared, trained, headline, untrained)
    return Forecasts({**predicted, **online, **_volatility_baselines(prepared)}, notes)


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


def _span(prepared: Prepared) -> dict[str, Any]:
    return {
        "window": prepared.config.task.support,
        "first": prepared.test_first,
        "last": prepared.test_last,
        "assets": prepared.test_assets,
    }


def _online(
    prepared: Prepared, trained: Mapping[str, Params], headline: str, untrained: Params
) -> tuple[dict[str, Predicted], tuple[str, ...]]:
    """Walk forward with the variants that go on learning."""
    config, settings = prepared.config, prepared.config.online
    if not settings.variants:
        return {}, ()
    windows = online_windows(prepared)
    follow = Updates(settings.every, settings.steps, settings.meta_batch, settings.recent)
    anew = Updates(
        settings.retrain_every, config.training.steps, config.training.meta_batch, restart=True
    )
    gentle = optax.adam(settings.learning_rate)
    steps = config.backtest.inner_steps if METHODS[headline].takes_steps else None
    # Name, method, meta-parameters to begin with, optimizer, updates, adaptation steps.
    variants: dict[str, Callable[[], tuple]] = {
        "online": lambda: (
            f"{headline} online",
            headline,
            trained[headline],
            gentle,
            follow,
            steps,
        ),
        "retrained": lambda: (
            f"{headline} retrained",
            headline,
            untrained,
            outer_optimizer(config.training),
            anew,
            steps,
        ),
        "incremental": lambda: (
            INCREMENTAL,
            "joint_training",
            trained["joint_training"],
            gentle,
            follow,
            0,
        ),
    }
    predicted, notes = {}, []
    for variant in settings.variants:
        name, method, params, optimizer, updates, adapt_steps = variants[variant]()
        state = MetaState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
        with stage(f"walk-forward {name}"):
            result = walk_online(
                make_learner(config, method),
                optimizer,
                state,
                prepared.panel,
                windows,
                key=jax.random.fold_in(jax.random.key(config.seed), _SEED),
                updates=updates,
                steps=adapt_steps,
                **_span(prepared),
                **supports(prepared),
                max_grad_norm=config.training.max_grad_norm,
                chunk=config.backtest.chunk,
                devices=config.backtest.devices,
            )
        predicted[name] = restored(prepared, result.predictions)
        if result.failed.any():
            first = prepared.panel.timestamps[result.bars[np.argmax(result.failed > 0)]]
            notes.append(
                f"{name}: {result.failed.sum()} meta-steps had a loss that is not finite and were "
                f"not taken, the first of them at {first}."
            )
    return predicted, tuple(notes)


def _volatility_baselines(prepared: Prepared) -> dict[str, Predicted]:
    """Forecast volatility as others do, where it is what is predicted.

    Trailing volatility and EWMA forecast the root of a mean of squares; where the bars of
    meta-training are there, the distance to the mean of logarithms is taken away.
    """
    target, panel, scaler = target_of(prepared.config), prepared.panel, prepared.scaler
    if target.kind != "volatility":
        return {}
    window, bars = target.volatility_window, prepared.bars
    of_window = garman_klass if target.estimator == "garman_klass" else realised_volatility
    trailing = {asset: of_window(frame, window) for asset, frame in bars.items()}
    logs = {a: pd.Series(np.log(each.where(each > 0))) for a, each in trailing.items()}
    found = {TRAILING: on_timeline(panel, logs)}
    if target.estimator == "close":
        found[EWMA] = on_timeline(panel, {a: ewma_volatility(b) for a, b in bars.items()})
    train: dict[str, Any] = {
        "train_assets": prepared.train_assets,
        "train_first": prepared.train_first,
        "train_last": prepared.train_last,
    }
    rows = [panel.assets.index(asset) for asset in prepared.train_assets]
    ends = np.asarray(panel.label_end)[rows, max(prepared.train_first, 0) :]
    if (ends <= prepared.train_last).any():
        found = {
            name: scaler.restore_target(shifted(scaler.transform_target(values), panel, **train))
            for name, values in found.items()
        }
        if {*HAR} <= {*panel.feature_names}:
            found[POOLED_HAR] = scaler.restore_target(
                pooled_regression(panel, **train, features=HAR)
            )
    return {name: Predicted(on_test_span(prepared, values)) for name, values in found.items()}
