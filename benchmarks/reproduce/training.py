"""Training of one row of a table, with its time taken."""

import math
import time
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Key

from benchmarks.reproduce.progress import Advance
from maml_jax.meta import MetaLearner, Prediction, fit
from maml_jax.meta.training import Sampler
from maml_jax.meta.types import Params

STEPS_PER_CALL = 2000
"""Meta-steps between two moves of a progress bar."""


class Trained(NamedTuple):
    """What a training came to.

    Attributes:
        params: the meta-parameters.
        seconds: how long it took, with the compilation if there was one.
        loss: mean query loss of the last tenth of the meta-steps of the last call.
    """

    params: Params
    seconds: float
    loss: float


def train(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    sampler: Sampler,
    key: Key[Array, ""],
    *,
    steps: int,
    max_grad_norm: float | None,
    advance: Advance,
) -> Trained:
    """Meta-train in several calls, which equals one.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        sampler: draws meta-batches.
        key: as for `fit`.
        steps: meta-steps in all.
        max_grad_norm: as for `fit`.
        advance: is told of the meta-steps after each call.

    Raises:
        TrainingError: if a loss or a gradient is not finite.
    """
    start = time.perf_counter()
    # Calls of one length need one program.
    length = math.ceil(steps / math.ceil(steps / STEPS_PER_CALL))
    sampler = jax.tree_util.Partial(sampler)
    state, done, loss = None, 0, math.nan
    while done < steps:
        count = min(length, steps - done)
        state, history = fit(
            learner,
            optimizer,
            sampler,
            key,
            steps=count,
            state=state,
            max_grad_norm=max_grad_norm,
        )
        loss = float(history.loss[-max(1, count // 10) :].mean())
        done += count
        advance(count)
    assert state is not None
    return Trained(state.params, time.perf_counter() - start, loss)


def point(prediction: Any) -> Array:
    """Return the mean of a `Prediction`, anything else as it is."""
    return prediction.mean if isinstance(prediction, Prediction) else prediction
