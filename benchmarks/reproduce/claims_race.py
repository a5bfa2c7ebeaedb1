"""Adaptation against training from scratch, on the same support sets."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from benchmarks.reproduce.training import take_mean
from maml_jax.meta import MetaLearner, evaluate
from maml_jax.meta.inner_loop import inner_step
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.types import ModelLike, Params, Task
from maml_jax.parallel import map_tasks

SCRATCH_RATES: dict[str, tuple[float, ...]] = {
    "sgd": (0.003, 0.01, 0.03),
    "adam": (0.001, 0.003, 0.01),
}
"""What training from scratch may choose from, with the untrained network as it is, and minus its
untrained output ("from 0")."""

SCRATCH_STEPS = 200
"""Steps of training from scratch."""

STEPS = 5
"""Steps of adaptation that the claim is about."""

_TIMED = 3
_TRANSFORMS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "sgd": optax.identity,
    "adam": optax.scale_by_adam,
}


class Race(NamedTuple):
    """Query errors of one network from two starts.

    Attributes:
        start: of the meta-learned start, before adaptation, `[task]`.
        adapted: after `STEPS` steps, `[task]`.
        scratch: of the untrained network after 0, 1, ... steps, for each way to train it,
            `[way, task, step]`.
        ways: names of these ways.
        zero: of predicting nothing, `[task]`.
        adapting: seconds that adapting to one task takes.
        step: seconds that one step from scratch takes.
    """

    start: Float[np.ndarray, " task"]
    adapted: Float[np.ndarray, " task"]
    scratch: Float[np.ndarray, "way task step"]
    ways: tuple[str, ...]
    zero: Float[np.ndarray, " task"]
    adapting: float
    step: float


def run_race(
    learner: MetaLearner,
    params: Params,
    model: ModelLike,
    untrained: Params,
    tasks: Task,
    *,
    steps: int = SCRATCH_STEPS,
) -> Race:
    """Adapt, and train from scratch, on the same support sets; judge both on the same query sets.

    Args:
        learner: adapts by steps.
        params: its meta-parameters.
        model: the network that is trained from scratch.
        untrained: its parameters at the beginning.
        tasks: with a leading task axis; a query may hold the noiseless truth as its y.
        steps: how many steps from scratch.
    """
    start, adapted = (
        np.asarray(evaluate(learner, params, tasks, METRICS, steps=steps)["error"], float)
        for steps in (0, STEPS)
    )
    curves, ways = [], []
    for kind, rates in SCRATCH_RATES.items():
        curve = _curve(model, kind, steps)
        for rate in rates:
            for centred in (0.0, 1.0):
                shared = (untrained, jnp.float32(rate), jnp.float32(centred))
                curves.append(np.asarray(map_tasks(curve, tasks, *shared), float))
                ways.append(f"{kind} {rate:g}{' from 0' if centred else ''}")
    adapting, scratch = (
        _seconds(_adapting(learner, STEPS), tasks, params),
        _seconds(_train_only(model, steps), tasks, untrained),
    )
    return Race(
        start,
        adapted,
        np.stack(curves),
        tuple(ways),
        np.asarray(jnp.mean(tasks.query.y**2, axis=(1, 2)), float),
        adapting,
        scratch / steps,
    )


def summarise_race(race: Race) -> dict[str, Any]:
    """Reduce a race to what the claim is judged by, erring in favour of training from scratch.

    Its way and its number of steps are those with the least error on the query sets themselves.
    `steps_to_reach` is the first step at which the mean error over all tasks, of whichever way,
    is at most that of the adapted learner; None if there is none. `reached` is the share of
    tasks whose own error comes as low at any step of any way.
    """
    errors = np.where(np.isfinite(race.scratch), race.scratch, np.inf)
    mean = errors.mean(axis=1)
    way, step = np.unravel_index(mean.argmin(), mean.shape)
    low = np.any(mean <= race.adapted.mean(), axis=0)
    per_task = np.any(errors <= race.adapted[:, None], axis=0)
    came = np.any(per_task, axis=1)
    own = np.where(came, per_task.argmax(axis=1), np.inf)
    to_reach = int(low.argmax()) if low.any() else None
    median = float(np.median(own))
    needed = race.scratch.shape[2] - 1 if to_reach is None else to_reach
    return {
        "start": float(race.start.mean()),
        "adapted": float(race.adapted.mean()),
        "zero": float(race.zero.mean()),
        "scratch": float(mean[way, step]),
        "scratch_way": race.ways[way],
        "scratch_step": int(step),
        "steps_to_reach": to_reach,
        "ratio": needed / STEPS,
        "reached": float(came.mean()),
        "median_steps": median if math.isfinite(median) else None,
        "adapting_ms": 1e3 * race.adapting,
        "scratch_ms": 1e3 * race.step * needed,
        "time_ratio": race.step * needed / race.adapting,
        "gain": float((race.start - race.adapted).mean()),
        "gain_half": 1.96 * float((race.start - race.adapted).std(ddof=1)) / len(race.start) ** 0.5,
    }


def _take_error(prediction, y):
    return _error(take_mean(prediction), y)


METRICS = {"error": _take_error}


def _error(prediction: Array, y: Array) -> Array:
    return jnp.mean((prediction - y) ** 2)


def _optimizer(kind: str, rate) -> optax.GradientTransformation:
    return optax.chain(_TRANSFORMS[kind](), optax.scale(-rate))


def _curve(model: ModelLike, kind: str, steps: int):
    """Make the function that trains from scratch on one task: its query error after every step."""

    def curve(task, untrained, rate, centred):
        def predict(params, x):
            return model.apply(params, x) - centred * model.apply(untrained, x)

        def objective(params, support):
            return mean_squared_error(predict(params, support.x), support.y)

        optimizer = _optimizer(kind, rate)
        step = inner_step(objective, optimizer, task.support)

        def measure(carry, _):
            return step(carry, None)[0], _error(predict(carry[0], task.query.x), task.query.y)

        carry = (untrained, optimizer.init(untrained))
        return jax.lax.scan(measure, carry, None, length=steps + 1)[1]

    return curve


def _train_only(model: ModelLike, steps: int):
    """Make the function that trains from scratch on one task, and measures nothing."""

    def train(task, untrained):
        optimizer = _optimizer("sgd", 0.01)

        def objective(params, support):
            return mean_squared_error(model.apply(params, support.x), support.y)

        step = inner_step(objective, optimizer, task.support)
        carry = (untrained, optimizer.init(untrained))
        return jax.lax.scan(step, carry, None, length=steps, unroll=5)[0][0]

    return train


def _adapting(learner: MetaLearner, steps: int):
    return lambda task, params: learner.adapt(params, task.support, steps=steps)


def _seconds(function, tasks: Task, params: Params) -> float:
    """Time one task of many; the best of some calls, without what the first one compiles."""
    taken = []
    for _ in range(1 + _TIMED):
        start = time.perf_counter()
        jax.block_until_ready(map_tasks(function, tasks, params))
        taken.append(time.perf_counter() - start)
    return min(taken[1:]) / len(tasks.support.x)
