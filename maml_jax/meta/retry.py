"""Meta-steps that go on without a bad task, at no cost where there is none."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from maml_jax.errors import TrainingError
from maml_jax.meta.scan import Drawn, Given, take_steps
from maml_jax.meta.steps import MetaInfo, MetaState
from maml_jax.meta.types import MetaLearner, Task


def retry_steps(
    learner: MetaLearner,
    optimizer: optax.GradientTransformation,
    source: Drawn | Given,
    shapes: Task,
    steps: int,
    state: MetaState,
    **how: Any,
) -> tuple[MetaState, MetaInfo]:
    """Take meta-steps as with `on_bad="raise"`, and from a bad one on as with "skip".

    Programs that skip have an operation more for each task, and round differently. Here they run
    from the first bad step to the end of the call alone, one step at a time, so that one program
    serves wherever that step is.

    Args:
        learner: the algorithm.
        optimizer: the outer optimizer.
        source: where tasks come from.
        shapes: of the tasks of one step.
        steps: how many to take.
        state: where to go on from.
        **how: of `take_steps`, without `on_bad`.
    """
    first = int(state.step)
    try:
        return take_steps(learner, optimizer, source, shapes, steps, state, **how)
    except TrainingError as error:
        state, histories = error.state, [error.history]
    state = state._replace(step=jnp.full_like(state.step, first + len(histories[0].loss)))
    for number in range(len(histories[0].loss), steps):
        each = source
        if isinstance(source, Given):
            each = Given(jax.tree.map(lambda leaf, n=number: leaf[n : n + 1], source.tasks))
        taken = take_steps(learner, optimizer, each, shapes, 1, state, on_bad="skip", **how)
        state, history = taken
        histories.append(history)
    return state, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *histories)
