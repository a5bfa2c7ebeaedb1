"""A market with a known answer whose assets come in classes: what is shared, and with whom."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from maml_jax.meta.linalg import solve_spd
from maml_jax.meta.types import Batch, Task
from maml_jax.worlds.known_answer import FEATURES, World, compute_signals, draw_unit_noise


@dataclass(frozen=True)
class Hierarchy:
    r"""How the tasks of a hierarchy come about: class, asset, time scale, or any other levels.

    $$f = c \sum_{k=1}^{3} z_k\, g(x \cdot b_k), \qquad z = \sum_{l=1}^{L} e_l, \qquad
      e_l \sim N(0, v_l I), \qquad \sum_l v_l = 1$$

    with the directions, link and noise of a `World`. The coefficients of a task are the sum of an
    effect for each level, the first of which it shares with its whole class. The support set of
    level $l$ shares the task's effects up to $l$: that of the class is rows of other assets of the
    class, that of the asset is rows of its other time scales, and the last is the task's own. The
    rows of a level come from `siblings`, equally many from each, and each sibling has effects of
    its own below $l$.

    Where all variance is the first level's the world is flat: all rows of all levels and of the
    query have one z.

    Attributes:
        world: link and noise. Its coefficients must not drift.
        variances: $v_l$, coarse to fine; they sum to 1.
        rows: support rows of each level.
        siblings: how many siblings the rows of each level but the last come from.

    Raises:
        ValueError: if the settings do not fit together.
    """

    world: World
    variances: tuple[float, ...] = (0.4, 0.4, 0.2)
    rows: tuple[int, ...] = (120, 40, 20)
    siblings: tuple[int, ...] = (6, 2)

    def __post_init__(self):
        levels = len(self.variances)
        if not levels:
            raise ValueError("variances must not be empty")
        if len(self.rows) != levels or len(self.siblings) != levels - 1:
            raise ValueError(
                f"with {levels} variances, rows needs {levels} entries and siblings {levels - 1}; "
                f"got {self.rows} and {self.siblings}"
            )
        if min(self.variances) < 0 or abs(sum(self.variances) - 1) > 1e-6:
            raise ValueError(f"variances must sum to 1 and none be negative, got {self.variances}")
        if self.rows[-1] < 1 or any(
            s < 1 or r < 1 or r % s for r, s in zip(self.rows[:-1], self.siblings, strict=True)
        ):
            raise ValueError(
                "every level needs rows, and each of its siblings equally many, got rows "
                f"{self.rows} and siblings {self.siblings}"
            )
        if self.world.drift != 1:
            raise ValueError(f"the effects of a hierarchy do not drift, got {self.world.drift}")


def hierarchy_sampler(
    hierarchy: Hierarchy, *, meta_batch: int, query: int = 20
) -> Callable[[Key[Array, ""]], Task]:
    """Make a sampler of tasks whose support rows are one `Batch`, laid out coarse to fine.

    Args:
        hierarchy: where tasks come from.
        meta_batch: tasks per draw.
        query: query rows of a task.

    Returns:
        A pure function `(key) -> Task`: x `[task, row, 10]`, y `[task, row, 1]`.
        `hierarchical_maml` takes it with `rows=hierarchy.rows`, any flat learner as it is.

    >>> import jax
    >>> sample = hierarchy_sampler(Hierarchy(World(snr=1.0)), meta_batch=3)
    >>> sample(jax.random.key(0)).support.x.shape
    (3, 180, 10)
    """

    def sample(key: Key[Array, ""]) -> Task:
        return hierarchy_tasks(hierarchy, key, tasks=meta_batch, query=query)[0]

    return sample


def hierarchy_tasks(
    hierarchy: Hierarchy, key: Key[Array, ""], *, tasks: int, query: int = 20
) -> tuple[Task, Task]:
    """Draw tasks together with their truth.

    Args:
        hierarchy: where tasks come from.
        key: decides everything but the hidden directions.
        tasks: how many.
        query: query rows of a task.

    Returns:
        The tasks, and the same tasks with the noiseless f in place of y. Support rows are laid out
        coarse to fine.

    Raises:
        ValueError: if a size is less than 1.
    """
    if min(tasks, query) < 1:
        raise ValueError(f"sizes must be at least 1, got {tasks=}, {query=}")
    x_key, z_key, noise_key = jax.random.split(key, 3)
    support = sum(hierarchy.rows)
    x = jax.random.normal(x_key, (tasks, support + query, FEATURES))
    z = _coefficients(hierarchy, z_key, tasks)
    z = jnp.concatenate([z, jnp.repeat(z[:, -1:], query, axis=1)], axis=1)
    f = jnp.sum(compute_signals(hierarchy.world, x) * z, axis=-1, keepdims=True)
    y = f + draw_unit_noise(hierarchy.world.noise, noise_key, f.shape) / hierarchy.world.snr**0.5

    def split(y):
        return Task(Batch(x[:, :support], y[:, :support]), Batch(x[:, support:], y[:, support:]))

    return split(y), split(f)


def by_level(hierarchy: Hierarchy, support: Batch) -> tuple[Batch, ...]:
    """Split support rows, `[row, ...]` or `[task, row, ...]`, into those of each level."""
    axis = support.x.ndim - 2
    cuts = list(accumulate(hierarchy.rows))[:-1]
    pieces = zip(*(jnp.split(leaf, cuts, axis=axis) for leaf in support[:2]), strict=True)
    return tuple(Batch(*piece) for piece in pieces)


def hierarchy_oracle(hierarchy: Hierarchy, task: Task) -> Float[Array, "query 1"]:
    r"""Predict one task's query rows as well as can be done.

    A Gaussian process that knows the directions, the link, the noise and the hierarchy, with the
    kernel

    $$k(i, j) = \phi(x_i) \cdot \phi(x_j) \sum_{l \text{ shared by } i \text{ and } j} v_l$$

    Rows of one sibling share all effects; others share those of the coarser one's level and above.
    Under Student's noise it is the best *linear* predictor only.

    Args:
        hierarchy: where the task was drawn.
        task: one task; y of the query is not looked at.

    Returns:
        The posterior mean of f.
    """
    world = hierarchy.world
    phi, queries = compute_signals(world, task.support.x), compute_signals(world, task.query.x)
    shared = jnp.asarray(_shared_variance(hierarchy), phi.dtype)
    noise = jnp.eye(len(phi), dtype=phi.dtype) / world.snr
    to_query = queries @ phi.T * shared[-1]  # query rows share what the last support row shares
    return to_query @ solve_spd(phi @ phi.T * shared + noise, task.support.y)


def _siblings(hierarchy: Hierarchy) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """Return the level of each support row, and its sibling counted through all levels."""
    levels = np.repeat(np.arange(len(hierarchy.rows)), hierarchy.rows)
    counts = (*hierarchy.siblings, 1)
    first = np.concatenate([[0], np.cumsum(counts)])
    siblings = [
        np.repeat(np.arange(count), rows // count) + begin
        for count, rows, begin in zip(counts, hierarchy.rows, first[:-1], strict=True)
    ]
    return levels, np.concatenate(siblings)


def _shared_variance(hierarchy: Hierarchy) -> Float[np.ndarray, "row row"]:
    """Return the variance of the effects that two support rows share."""
    levels, siblings = _siblings(hierarchy)
    down_to = np.cumsum(hierarchy.variances)
    across = down_to[np.minimum(levels[:, None], levels)]
    return np.where(siblings[:, None] == siblings, down_to[-1], across)


def _coefficients(hierarchy: Hierarchy, key, tasks: int) -> Float[Array, "task row 3"]:
    """Draw z of all support rows."""
    levels, siblings = _siblings(hierarchy)
    own_key, sibling_key = jax.random.split(key)
    deviations = jnp.sqrt(jnp.asarray(hierarchy.variances))[:, None]
    count = len(hierarchy.variances)
    own = deviations * jax.random.normal(own_key, (tasks, count, 3))
    others = deviations * jax.random.normal(sibling_key, (tasks, int(siblings[-1]) + 1, count, 3))
    is_shared = (np.arange(count) <= levels[:, None])[..., None]
    return jnp.where(is_shared, own[:, None], others[:, siblings]).sum(axis=-2)
