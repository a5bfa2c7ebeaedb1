"""What every strategy predicts: methods, variants that go on learning, and baselines."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pandas as pd

from maml_jax.backtest import OnlineTraining, Supports, Updates, walk_online
from maml_jax.backtest.strategy_names import FROM_SCRATCH, NO_ADAPTATION, online_name
from maml_jax.experiment.evaluation.baselines import baseline_forecasts
from maml_jax.experiment.evaluation.predicted import Predicted, predict_test_span, restore
from maml_jax.experiment.learning.methods import METHODS
from maml_jax.experiment.learning.tasks import find_test_supports, online_windows
from maml_jax.experiment.learning.train import initial_params, make_learner, outer_optimizer
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.timing import stage
from maml_jax.meta import MetaState
from maml_jax.meta.types import Params
from maml_jax.notes import Note

_SEED = 1
"""Folded into the seed of a run for the tasks of online updates."""


class Forecasts(NamedTuple):
    """What all strategies predict.

    Attributes:
        predicted: by strategy.
        notes: what a reader must know.
    """

    predicted: dict[str, Predicted]
    notes: tuple[Note, ...] = ()


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
    learner = make_learner(config, headline)
    untrained = initial_params(config, learner, len(panel.feature_names))
    # Where a head is fitted in closed form only a prior can do without its support set.
    prior, supports = learner.update is not None, find_test_supports(prepared)

    def predict(name, method, params, steps=config.backtest.inner_steps, supports=supports):
        return predict_test_span(
            *(prepared, supports, name, make_learner(config, method), params),
            steps=steps if METHODS[method].takes_steps or supports.growing else None,
        )

    predicted = {method: predict(method, method, params) for method, params in trained.items()}
    if prior or METHODS[headline].takes_steps:
        predicted[NO_ADAPTATION] = predict(
            *(NO_ADAPTATION, headline, trained[headline], 0),
            supports=find_test_supports(prepared, growing=True) if prior else supports,
        )
    predicted[FROM_SCRATCH] = predict(FROM_SCRATCH, headline, untrained)
    online, notes = _predict_online(prepared, supports, trained, headline)
    others, left_out = baseline_forecasts(prepared, supports)
    return Forecasts({**predicted, **online, **others}, (*notes, *left_out))


def _predict_online(
    prepared: Prepared,
    supports: Supports,
    trained: Mapping[str, Params],
    headline: str,
) -> tuple[dict[str, Predicted], tuple[Note, ...]]:
    """Walk forward with the variants that go on learning."""
    predicted, notes = {}, []
    for variant in prepared.config.online.variants:
        name = online_name(headline, variant)
        with stage(f"walk-forward {name}"):
            predicted[name], failed = predict_variant(
                prepared, supports, trained, headline, variant
            )
        if failed.any():
            first = failed.index[failed > 0][0]
            text = (
                f"{name}: {failed.sum()} meta-steps had a non-finite loss and were skipped "
                f"(first: {first})."
            )
            notes.append(Note("not finite", text))
    return predicted, tuple(notes)


def predict_variant(
    prepared: Prepared,
    supports: Supports,
    trained: Mapping[str, Params],
    headline: str,
    variant: str,
) -> tuple[Predicted, pd.Series]:
    """Walk forward over the test span with a method that goes on learning.

    Args:
        prepared: settings and panel.
        supports: of the test span.
        trained: meta-parameters of each method.
        headline: the method.
        variant: "online" follows it from where it was trained, "retrained" begins anew every so
            often, "incremental" fine-tunes joint training.

    Returns:
        What it predicts, and how many meta-steps failed by the first bar of each block.
    """
    config, settings = prepared.config, prepared.config.online
    steps = config.backtest.inner_steps if METHODS[headline].takes_steps else None
    method, optimizer = headline, optax.adam(settings.learning_rate)
    updates = Updates(settings.every, settings.steps, settings.meta_batch, settings.recent)
    if variant == "retrained":
        learner = make_learner(config, headline)
        params = initial_params(config, learner, len(prepared.panel.feature_names))
        optimizer = outer_optimizer(config.training)
        updates = Updates(
            settings.retrain_every, config.training.steps, config.training.meta_batch, restart=True
        )
    elif variant == "incremental":
        method, steps = "joint_training", 0
        params = trained[method]
    else:
        params = trained[headline]
    result = walk_online(
        make_learner(config, method),
        MetaState(params, optimizer.init(params), jnp.zeros((), jnp.int32)),
        prepared.panel,
        supports,
        OnlineTraining(optimizer, online_windows(prepared), updates, config.training.max_grad_norm),
        jax.random.fold_in(jax.random.key(config.seed), _SEED),
        steps=steps,
        chunk=config.backtest.chunk,
        devices=config.backtest.devices,
    )
    failed = pd.Series(result.failed, prepared.panel.timestamps[result.bars])
    return restore(prepared, result.predictions), failed
