"""Walk-forward in which meta-training goes on: follow the meta-leader."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from maml_jax.backtest.walk_forward.rolling import prediction_at
from maml_jax.backtest.walk_forward.supports import Supports
from maml_jax.meta.steps import (
    MAX_GRAD_NORM,
    MetaState,
    guarded_meta_step,
    plan_meta_step,
)
from maml_jax.meta.types import MetaLearner
from maml_jax.parallel.map import map_tasks, plan_tasks
from maml_jax.parallel.placement import bring_back, put_on_mesh, to_numpy
from maml_jax.tasks.families import Windows
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.rows import pad
from maml_jax.tasks.sampler import MarketSampler, market_sampler


class Updates(NamedTuple):
    """When meta-parameters are updated, and how much is learned.

    Attributes:
        every: bars between two updates.
        steps: meta-steps of an update.
        meta_batch: tasks of a meta-step.
        recent: tasks are drawn from windows that were completed in the last so many bars; None:
            from all so far, which is following the meta-leader.
        restart: begin each update from the first state, so that it is a training from scratch
            on what is known by then; otherwise it goes on from the last one.
    """

    every: int = 21
    steps: int = 5
    meta_batch: int = 16
    recent: int | None = None
    restart: bool = False


class OnlineTraining(NamedTuple):
    """How meta-training goes on while predictions are made.

    Attributes:
        optimizer: the outer optimizer.
        windows: tasks to learn from, of any family of the panel, over its whole span.
        updates: when and how much is learned.
        max_grad_norm: bound on the norm of the meta-gradient; None: no bound.
    """

    optimizer: optax.GradientTransformation
    windows: Windows
    updates: Updates = Updates()
    max_grad_norm: float | None = MAX_GRAD_NORM


class Online(NamedTuple):
    """What an online walk-forward found.

    Attributes:
        predictions: as `walk_forward` returns them.
        state: after the last update.
        loss: mean query loss over each update's meta-steps, before each; NaN where nothing was
            complete yet to learn from, `[update]`.
        failed: meta-steps of each update whose loss or gradient was not finite, and which were not
            taken, `[update]`.
        bars: index of the bar before whose prediction each update was made, `[update]`.
    """

    predictions: Any
    state: MetaState
    loss: Float[np.ndarray, " update"]
    failed: Int[np.ndarray, " update"]
    bars: Int[np.ndarray, " update"]


def walk_online(
    learner: MetaLearner,
    state: MetaState,
    panel: Panel,
    supports: Supports,
    training: OnlineTraining,
    key: Key[Array, ""],
    *,
    steps: int | None = None,
    chunk: int | None = None,
    devices: int | None = None,
) -> Online:
    r"""Walk forward, and every few bars update the meta-parameters from what is complete by then.

    $$\theta_{b+1} = \theta_b + u\Bigl(\nabla_\theta \sum_{i \in W_b} L_i(\theta)\Bigr)
      \text{ (repeated)}$$

    with $W_b$ the windows whose last query label was complete before the first bar of block b. The
    predictions of a block adapt $\theta_b$ at each bar, as `walk_forward` does. Blocks are one scan
    on the device.

    Args:
        learner: the algorithm.
        state: meta-parameters, trained on labels complete before bar `supports.first`, and the
            state of the outer optimizer.
        panel: the bars.
        supports: where to predict and what to adapt on, as `find_supports` found it in this panel.
        training: how meta-training goes on.
        key: decides which tasks are drawn.
        steps: adaptation steps of a prediction; default as the learner was made.
        chunk: how many predictions, and tasks, are vectorised together.
        devices: over how many devices they are spread.

    Returns:
        Predictions, the last state, and what the updates saw. A meta-step whose loss or gradient is
        not finite is not taken.

    Raises:
        ValueError: if a number of the updates is below 1, supports grow, or supports and windows
            read sequences of different lengths.

    Reference:
        Finn, Rajeswaran, Kakade, Levine (2019), Online Meta-Learning, arXiv:1902.08438,
        algorithm 1; with a fixed number of meta-steps an update.
    """
    _require_possible(supports, training)
    windows, updates = training.windows, training.updates
    begins = np.arange(supports.first, max(supports.stop, supports.first + 1), updates.every)
    layout, fewest = supports.layout, supports.fewest
    sampler = market_sampler(
        panel, windows, meta_batch=updates.meta_batch, fewest=fewest, forget=layout.forget
    )
    blocks = _blocks(sampler, windows, supports, begins, updates)
    tables = sampler, supports.table(panel)
    tasks = jax.eval_shape(sampler, key)
    options: Any = {"chunk": chunk, "devices": devices}
    learning = plan_meta_step(learner, state, tasks, repeats=len(begins) * updates.steps, **options)
    predicting = plan_tasks(
        *(prediction_at, (learner, supports.layout, steps, supports.rows.length)),
        *(blocks.requests[0], state.params, tables[1]),
        **options,
    )
    mesh = learning.schedule.mesh or predicting.schedule.mesh
    static = (
        *(learning, predicting, training.optimizer),
        *(updates.steps, updates.restart, training.max_grad_norm),
    )
    state, results = _walk(static, *put_on_mesh(mesh, state, tables, blocks, key))
    state, (loss, failed, predicted) = bring_back(mesh, state), to_numpy(results)
    # Predictions stand block by block; put them in the order in which supports list them.
    block, slot = assign_blocks(supports, begins)
    found = jax.tree.map(lambda leaf: supports.lay_out(leaf[block, slot]), predicted)
    count = len(begins)
    return Online(found, state, loss[:count], failed[:count], begins)


def _require_possible(supports: Supports, training: OnlineTraining) -> None:
    updates = training.updates
    sizes = updates.every, updates.steps, updates.meta_batch
    if min(sizes) < 1 or (updates.recent is not None and updates.recent < 1):
        raise ValueError(f"the numbers of updates must be at least 1, got {updates}")
    if supports.growing:
        raise ValueError("walk_online adapts on the last rows; find supports with growing=False")
    lengths = supports.rows.length, training.windows.rows.length
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"supports read sequences of length {lengths[0]}, the windows of tasks {lengths[1]}"
        )


class _Blocks(NamedTuple):
    """What happens in each block: what can be learned from, and what is to be predicted.

    Attributes:
        start: first window of each group that may be drawn, `[block, group]`.
        size: how many there are, `[block, group]`.
        upto: sum of the weights of the groups that have any, up to each one, `[block, group]`.
        requests: the predictions, `[block, request, index]`.
        count: how many there are, `[block]`.
        real: 1 of a block, 0 of padding.
    """

    start: Int[np.ndarray, "block group"]
    size: Int[np.ndarray, "block group"]
    upto: Float[np.ndarray, "block group"]
    requests: Int[np.ndarray, "block request index"]
    count: Int[np.ndarray, " block"]
    real: Int[np.ndarray, " block"]


def _blocks(
    sampler: MarketSampler,
    windows: Windows,
    supports: Supports,
    begins: Int[np.ndarray, " block"],
    updates: Updates,
) -> _Blocks:
    groups = np.unique(windows.group, return_inverse=True)[1]
    bars = supports.due.shape[1] + 1
    keys = groups.astype(np.int64) * bars + windows.known
    group_keys = np.arange(int(groups.max()) + 1) * bars

    def upto(time: Int[np.ndarray, " block"]) -> Int[np.ndarray, "block group"]:
        """Find the index past the last window of each group that was complete before a bar."""
        return np.searchsorted(keys, group_keys + np.maximum(time, 0)[:, None])

    stop = upto(begins)
    start = np.searchsorted(keys, group_keys)[None] + 0 * stop
    if updates.recent is not None:
        start = np.maximum(start, upto(begins - updates.recent))
    room = sampler.group_start.shape[0]
    wide = np.zeros((2, len(begins), room), np.int32)
    wide[:, :, : len(group_keys)] = start, stop - start
    weight = np.zeros((len(begins), room), np.float32)
    weight[:, : len(group_keys)] = _weights(windows, stop > start)
    block, slot = assign_blocks(supports, begins)
    rows = supports.requests()
    count = np.bincount(block, minlength=len(begins)).astype(np.int32)
    most = len(pad(np.zeros(max(1, count.max()))))
    requests = np.zeros((len(begins), most, rows.shape[1]))
    requests[block, slot] = rows
    real = np.ones(len(begins), np.int32)
    parts = (
        wide[0],
        wide[1],
        np.cumsum(weight, axis=1, dtype=np.float32),
        requests.astype(np.int32),
        count,
        real,
    )
    return _Blocks(*(pad(part, least=1) for part in parts))


def _weights(
    windows: Windows, there: Bool[np.ndarray, "block group"]
) -> Float[np.ndarray, "block group"]:
    """Weigh the groups that are there in each block; those to come take nothing of a family's."""
    if windows.weight is None:
        return there.astype(float)
    family = np.zeros(there.shape[1], int) if windows.family is None else windows.family
    weight = np.where(there, windows.weight, 0.0)
    for number in np.unique(family):
        own = family == number
        found = weight[:, own].sum(axis=1, keepdims=True)
        share = windows.weight[own].sum() / np.where(found > 0, found, 1.0)
        weight[:, own] = weight[:, own] * share
    return weight


def assign_blocks(
    supports: Supports, begins: Int[np.ndarray, " block"]
) -> tuple[Int[np.ndarray, " request"], Int[np.ndarray, " request"]]:
    """Return the block that each prediction falls into, and its number within the block."""
    block = np.searchsorted(begins, np.nonzero(supports.due)[1], side="right") - 1
    order = np.argsort(block, kind="stable")
    slot = np.empty(len(block), int)
    slot[order] = np.arange(len(block)) - np.searchsorted(block[order], block[order])
    return block, slot


@partial(jax.jit, static_argnums=0)
def _walk(static, state, tables, blocks, key):
    learning, predicting, optimizer, steps, restart, max_grad_norm = static
    sampler, table = tables
    first = state

    def update(state, number, block):
        known = sampler._replace(group_start=block.start, group_size=block.size, upto=block.upto)

        def step(index, carry):
            state, loss, failed = carry
            tasks = known(jax.random.fold_in(jax.random.fold_in(key, number), index))
            state, info, good = guarded_meta_step(learning, optimizer, max_grad_norm, state, tasks)
            return state, loss + info.loss / steps, failed + ~good

        begun = first if restart else state
        turns = jnp.where((block.real > 0) & (known.upto[-1] > 0), steps, 0)
        start = (begun, jnp.zeros(()), jnp.zeros((), jnp.int32))
        new, loss, failed = lax.fori_loop(0, turns, step, start)
        new = jax.tree.map(partial(jnp.where, block.real > 0), new, state)
        return new, jnp.where(turns > 0, loss, jnp.nan), failed  # pyright: ignore[reportOperatorIssue]

    def walk(state, numbered):
        number, block = numbered
        state, loss, failed = update(state, number, block)
        predicted = map_tasks(predicting, block.requests, state.params, table, count=block.count)
        return state, (loss, failed, predicted)

    return lax.scan(walk, state, (jnp.arange(len(blocks.real)), blocks))
