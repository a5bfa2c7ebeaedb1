"""Training of one row of a table, with its time taken, and its comparison with an oracle."""

import math
import time
from typing import Any, NamedTuple

import optax
from jaxtyping import Array, Float, Key

from benchmarks.reproduce.progress import Advance
from maml_jax.meta import MetaLearner, MetaState, Prediction, Task, evaluate, training
from maml_jax.meta.scan import Sampler
from maml_jax.meta.steps import MAX_GRAD_NORM
from maml_jax.meta.types import Params
from maml_jax.worlds.known_answer import information_coefficient

STEPS_PER_CALL = 2000
"""Meta-steps between two moves of a progress bar."""


class Trained(NamedTuple):
    """The outcome of a training.

    Attributes:
        state: after the last meta-step.
        seconds: how long it took, with the compilation if there was one.
        loss: mean query loss of the last tenth of the meta-steps of the last call.
    """

    state: MetaState
    seconds: float
    loss: float

    def record(self) -> dict[str, float]:
        """Return what a result holds of it."""
        return {"seconds": self.seconds, "training_loss": self.loss}


def train(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    key: Key[Array, ""],
    *,
    steps: int,
    max_grad_norm: float | None = MAX_GRAD_NORM,
    advance: Advance = lambda steps: None,
) -> Trained:
    """Meta-train, and time it.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        sampler: draws meta-batches.
        key: as for `fit`.
        steps: meta-steps in total, at least 1.
        max_grad_norm: as for `fit`.
        advance: is called after some meta-steps each.

    Raises:
        TrainingError: if a loss or a gradient is not finite.
    """
    start = time.perf_counter()
    options = {"steps": steps, "every": STEPS_PER_CALL, "max_grad_norm": max_grad_norm}
    state, loss = None, math.nan
    for progress in training(learner, optimizer, sampler, key, **options):
        state, losses = progress.state, progress.history.loss
        loss = float(losses[-max(1, len(losses) // 10) :].mean())
        advance(len(losses))
    assert state is not None
    return Trained(state, time.perf_counter() - start, loss)


def take_mean(prediction: Any) -> Array:
    """Return the mean of a `Prediction`, anything else as it is."""
    return prediction.mean if isinstance(prediction, Prediction) else prediction


def predict_means(learner: MetaLearner, params: Params, tasks: Task) -> Float[Array, "task row 1"]:
    """Adapt to every task and predict the means of its query set."""
    return evaluate(learner, params, tasks, {"mean": _keep_mean})["mean"]


def _keep_mean(y_hat, y):
    del y
    return take_mean(y_hat)


def compare_with_oracle(
    predicted: Float[Array, "task row 1"],
    best: Float[Array, "task row 1"],
    truth: Float[Array, "task row 1"],
) -> dict[str, float]:
    """Return the correlation of predictions with the truth, and its share of the oracle's."""
    ic, oracle_ic = (float(information_coefficient(each, truth)) for each in (predicted, best))
    return {"ic": ic, "oracle_ic": oracle_ic, "share": ic / oracle_ic}
