"""A market with a known answer: noise as in markets, and a best possible prediction to compare to.

Real returns hide the truth in noise. Here the truth is drawn, hence what can be learned from a few
rows is known too: an oracle that knows everything but the task's own coefficients sets the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from maml_jax.meta.linalg import solve_spd
from maml_jax.meta.types import Batch, Scalar, Task

FEATURES = 10
"""Inputs, all standard normal and independent."""

LINKS: dict[str, Callable] = {
    "tanh": lambda u, length, numpy: numpy.tanh(u),
    "softsign": lambda u, length, numpy: u / (1 + numpy.abs(u)),
    # Of mean 0 and variance 2 for each direction.
    "quadratic": lambda u, length, numpy: (u / length) ** 2 - 1,
    "step": lambda u, length, numpy: numpy.sign(u),
}
"""g of u = x . b, given the length of b and the module to compute with."""

NOISES = ("gaussian", "student_t")


@dataclass(frozen=True)
class World:
    r"""How the returns of a market with a known answer come about.

    $$y_t = f_t + \epsilon_t, \qquad f_t = c \sum_{k=1}^{3} z_{k,t}\, g(x_t \cdot b_k), \qquad
      \mathrm{Var}\, \epsilon = 1 / \mathrm{snr}$$

    The hidden directions $b_k$ are the same in all tasks (and all worlds); the coefficients $z$
    are standard normal and a task's own. For the link tanh $c = 1.5 / \sqrt{3}$; for every other
    link $c$ is such that Var f is the same, `signal_variance()`, so that a signal-to-noise ratio
    means the same everywhere.

    Attributes:
        snr: inverse variance of the noise.
        link: g. `tanh`; `softsign` u / (1 + |u|); `quadratic` u^2, centred; `step` sign(u).
        noise: `gaussian`, or `student_t` with four degrees of freedom.
        drift: correlation of a coefficient from one row to the next; 1 keeps it through the task.
            All query rows are at the time right after the last support row.

    Raises:
        ValueError: if a setting is unknown or impossible.
    """

    snr: float
    link: str = "tanh"
    noise: str = "gaussian"
    drift: float = 1.0

    def __post_init__(self):
        if not self.snr > 0:
            raise ValueError(f"snr must be positive, got {self.snr}")
        if not 0 <= self.drift <= 1:
            raise ValueError(f"drift must lie in [0, 1], got {self.drift}")
        for name, known in (("link", tuple(LINKS)), ("noise", NOISES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")


def known_answer_sampler(
    world: World, *, meta_batch: int, support: int = 20, query: int = 20
) -> Callable[[Key[Array, ""]], Task]:
    """Make a sampler of tasks of one world.

    Args:
        world: where returns come from.
        meta_batch: tasks per draw.
        support: support rows of a task.
        query: query rows of a task.

    Returns:
        A pure function `(key) -> Task`: x `[task, row, 10]`, y `[task, row, 1]`.

    >>> import jax
    >>> sample = known_answer_sampler(World(snr=0.1), meta_batch=3)
    >>> sample(jax.random.key(0)).query.x.shape
    (3, 20, 10)
    """

    def sample(key: Key[Array, ""]) -> Task:
        return known_answer_tasks(world, key, tasks=meta_batch, support=support, query=query)[0]

    return sample


def known_answer_tasks(
    world: World, key: Key[Array, ""], *, tasks: int, support: int = 20, query: int = 20
) -> tuple[Task, Task]:
    """Draw tasks together with their truth.

    Args:
        world: where returns come from.
        key: decides everything but the hidden directions.
        tasks: how many.
        support: support rows of a task.
        query: query rows of a task.

    Returns:
        The tasks, and the same tasks with the noiseless f in place of y.

    Raises:
        ValueError: if a size is less than 1.
    """
    if min(tasks, support, query) < 1:
        raise ValueError(f"sizes must be at least 1, got {tasks=}, {support=}, {query=}")
    x_key, z_key, noise_key = jax.random.split(key, 3)
    rows = support + query
    x = jax.random.normal(x_key, (tasks, rows, FEATURES))
    fresh = jax.random.normal(z_key, (tasks, support + 1, 3))
    z = jnp.asarray(_memory(world.drift, support + 1), fresh.dtype) @ fresh
    z = jnp.concatenate([z, jnp.repeat(z[:, -1:], query - 1, axis=1)], axis=1)
    f = jnp.sum(compute_signals(world, x) * z, axis=-1, keepdims=True)
    y = f + draw_unit_noise(world.noise, noise_key, f.shape) / world.snr**0.5

    def split(y):
        return Task(Batch(x[:, :support], y[:, :support]), Batch(x[:, support:], y[:, support:]))

    return split(y), split(f)


def oracle(world: World, task: Task) -> Float[Array, "query 1"]:
    r"""Predict one task's query rows as well as can be done.

    Bayesian regression that knows the directions, the link, the signal-to-noise ratio and the
    drift: a Gaussian process with the kernel

    $$k((x, s), (x', t)) = \phi(x) \cdot \phi(x')\, \rho^{|s - t|}, \qquad
      \phi_k(x) = c\, g(x \cdot b_k)$$

    which for $\rho = 1$ is Bayesian linear regression on $\phi$. Under Student's noise it is the
    best *linear* predictor only: what is best of all weighs outliers less.

    Args:
        world: where the task was drawn.
        task: one task; y of the query is not looked at.

    Returns:
        The posterior mean of f.
    """
    phi, queries = compute_signals(world, task.support.x), compute_signals(world, task.query.x)
    count = phi.shape[0]
    ages = np.arange(count, 0, -1)  # rows from a support row to the query
    apart = np.abs(ages[:, None] - ages)
    kernel = phi @ phi.T * jnp.asarray(world.drift**apart, phi.dtype)
    to_query = queries @ phi.T * jnp.asarray(world.drift**ages, phi.dtype)
    noise = jnp.eye(count, dtype=phi.dtype) / world.snr
    return to_query @ solve_spd(kernel + noise, task.support.y)


def information_coefficient(
    prediction: Float[Array, "task row 1"], truth: Float[Array, "task row 1"]
) -> Scalar:
    """Correlate predictions with the truth within each task, and average over tasks.

    A constant prediction has no correlation with anything and counts as 0; one that is not finite
    makes the average NaN.
    """
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (prediction, truth))
    norm = jnp.sqrt(jnp.sum(a**2, axis=1) * jnp.sum(b**2, axis=1))
    covariance = jnp.sum(a * b, axis=1)
    return jnp.mean(jnp.where(norm == 0, 0, covariance / jnp.where(norm == 0, 1, norm)))


def signal_variance() -> float:
    r"""Return Var f, the same in all worlds: $1.5^2 / 3 \sum_k E \tanh^2(x \cdot b_k)$."""
    return 0.75 * float(_powers("tanh").sum())


@cache
def _directions() -> np.ndarray:
    """The hidden directions `[feature, direction]`, of a key of their own."""
    with jax.ensure_compile_time_eval():
        return np.asarray(jax.random.normal(jax.random.key(123), (FEATURES, 3)) / FEATURES**0.5)


def compute_signals(world: World, x: Array) -> Array:
    """Return phi: c g(x . b_k), `[..., 3]`."""
    scale = (signal_variance() / _powers(world.link).sum()) ** 0.5
    directions = jnp.asarray(_directions(), x.dtype)
    return scale * LINKS[world.link](x @ directions, _lengths(), jnp)


def _lengths() -> np.ndarray:
    return np.linalg.norm(_directions(), axis=0)


@cache
def _powers(link: str) -> np.ndarray:
    """E g(x . b_k)^2 for each direction, by Gauss-Hermite quadrature: x . b is normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    u = nodes[:, None] * _lengths().astype(float)
    return weights / weights.sum() @ LINKS[link](u, _lengths(), np) ** 2


def _memory(drift: float, count: int) -> np.ndarray:
    """The lower triangle that turns independent normals into a stationary AR(1), `[time, time]`."""
    lag = np.subtract.outer(np.arange(count), np.arange(count))
    innovations = np.where(np.arange(count) == 0, 1.0, (1 - drift**2) ** 0.5)
    return np.where(lag >= 0, drift ** np.maximum(lag, 0) * innovations, 0.0)


def draw_unit_noise(noise: str, key: Key[Array, ""], shape: tuple[int, ...]) -> Array:
    """Draw noise of mean 0 and variance 1, one of `NOISES`."""
    if noise == "gaussian":
        return jax.random.normal(key, shape)
    normal_key, scale_key = jax.random.split(key)
    # Student's t of 4 degrees of freedom is normal / sqrt(G / 2) with G of the gamma distribution
    # of shape 2, the sum of two exponentials; its variance is 2.
    gamma = jax.random.exponential(scale_key, (2, *shape)).sum(axis=0)
    return jax.random.normal(normal_key, shape) / jnp.sqrt(gamma)
