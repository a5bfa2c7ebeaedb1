"""Sinusoids to regress: the toy problem on which meta-learners are compared in the literature."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from maml_jax.meta.types import Batch, Task

REACH = 5.0
"""Inputs lie in [-REACH, REACH]."""


def sinusoid_sampler(
    *,
    meta_batch: int,
    shots: int,
    query: int | None = None,
    amplitude: tuple[float, float] = (0.1, 5.0),
    phase: tuple[float, float] = (0.0, np.pi),
) -> Callable[[Key[Array, ""]], Task]:
    r"""Make a sampler of sinusoids, one a task, seen at random x.

    $$y = A \sin(x - p), \qquad x \sim U[-5, 5]$$

    Papers and their code differ: some write $x + p$ (over a whole turn the same distribution, over
    half a turn another), let the phase go to $2\pi$, or the amplitude to 0.5 only. Errors can be
    compared only within one form.

    Args:
        meta_batch: tasks per draw.
        shots: support examples of a task.
        query: query examples of a task; as many as `shots` by default.
        amplitude: bounds of A, uniform.
        phase: bounds of p in radians, uniform.

    Returns:
        A pure function `(key) -> Task`: x and y `[task, row, 1]`.

    Raises:
        ValueError: if a size is less than 1.

    Reference:
        Finn, Abbeel, Levine (2017), arXiv:1703.03400, section 5.1.

    >>> import jax
    >>> tasks = sinusoid_sampler(meta_batch=3, shots=5)(jax.random.key(0))
    >>> tasks.support.x.shape
    (3, 5, 1)
    """
    query = shots if query is None else query
    _require_positive(meta_batch=meta_batch, shots=shots, query=query)

    def sample(key: Key[Array, ""]) -> Task:
        curve_key, x_key = jax.random.split(key)
        a, p = _curves(curve_key, meta_batch, amplitude, phase)
        shape = (meta_batch, shots + query, 1)
        x = jax.random.uniform(x_key, shape, minval=-REACH, maxval=REACH)
        y = a * jnp.sin(x - p)
        return Task(Batch(x[:, :shots], y[:, :shots]), Batch(x[:, shots:], y[:, shots:]))

    return sample


def sinusoid_grid_sampler(
    *,
    meta_batch: int,
    points: int = 50,
    query: int | None = None,
    amplitude: tuple[float, float] = (0.1, 5.0),
    phase: tuple[float, float] = (0.0, 2 * np.pi),
) -> Callable[[Key[Array, ""]], Task]:
    r"""Make a sampler of sinusoids in the form of Reptile, each seen on a grid of x.

    $$y = A \sin(x + p)$$

    The support set holds the whole grid on [-5, 5], its ends included, in an order that is random
    for each task, so that successive slices of it are the minibatches of an inner loop without
    repetition.

    Args:
        meta_batch: tasks per draw.
        points: support examples of a task.
        query: query examples of a task, at random x; as many as `points` by default.
        amplitude: bounds of A, uniform.
        phase: bounds of p in radians, uniform.

    Returns:
        A pure function `(key) -> Task`: x and y `[task, row, 1]`.

    Raises:
        ValueError: if a size is less than 1.

    Reference:
        Nichol, Achiam, Schulman (2018), On First-Order Meta-Learning Algorithms, arXiv:1803.02999.
    """
    query = points if query is None else query
    _require_positive(meta_batch=meta_batch, points=points, query=query)

    def sample(key: Key[Array, ""]) -> Task:
        curve_key, order_key, x_key = jax.random.split(key, 3)
        a, p = _curves(curve_key, meta_batch, amplitude, phase)
        grid = jnp.linspace(-REACH, REACH, points)[:, None]
        order_keys = jax.random.split(order_key, meta_batch)
        support = jax.vmap(lambda key: jax.random.permutation(key, grid))(order_keys)
        shape = (meta_batch, query, 1)
        queries = jax.random.uniform(x_key, shape, minval=-REACH, maxval=REACH)
        support, query_rows = (Batch(x, a * jnp.sin(x + p)) for x in (support, queries))
        return Task(support, query_rows)

    return sample


def _curves(key, count, amplitude, phase):
    amplitude_key, phase_key = jax.random.split(key)
    shape = (count, 1, 1)
    a = jax.random.uniform(amplitude_key, shape, minval=amplitude[0], maxval=amplitude[1])
    return a, jax.random.uniform(phase_key, shape, minval=phase[0], maxval=phase[1])


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
