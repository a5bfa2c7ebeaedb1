r"""Forecasts at every bar of a Bayesian head that is adapted to the last rows before each.

The numbers are those of `alpaca` with `heteroscedastic=True` and a `mean_function`, in NumPy: a
forecast of today must not wait for a compiler.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from maml_jax.parallel.machine import cores

SUPPORT = 250
"""Most rows of a support set."""

MOST_LOG_RATIO = 3.0
"""Bound on the logarithm of a row's noise, in units of the common one, as of `alpaca`."""


class Rows(NamedTuple):
    """Rows of one history, in the order of time.

    Attributes:
        x: inputs, `[bar, input]`, standardised.
        y: outcomes, `[bar]`, standardised; NaN where unknown.
    """

    x: Float[np.ndarray, "bar input"]
    y: Float[np.ndarray, " bar"]


def forecast_rows(
    members: Sequence[Mapping[str, np.ndarray]],
    histories: Sequence[Rows],
    horizon: int,
    last: int | None = None,
) -> list[tuple[Float[np.ndarray, " bar"], Float[np.ndarray, " bar"]]]:
    """Forecast every row of histories from the last rows whose outcomes were complete at it.

    Args:
        members: parameters of each network of an ensemble, by name.
        histories: rows.
        horizon: bars after which an outcome is complete.
        last: of each history, how many of the last rows to forecast; default all.

    Returns:
        Of each history, mean and deviation of the members' mixture, standardised, `[bar]`; NaN at
        rows that are not forecast.
    """

    def forecast(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        begin = 0 if last is None else max(0, len(rows.x) - last)
        each = [_forecast(member, rows, horizon, begin) for member in members]
        means, stds = (np.stack(values) for values in zip(*each, strict=True))
        return means.mean(axis=0), np.sqrt((stds**2).mean(axis=0) + means.var(axis=0))

    # One thread for each history is faster than several for each small product.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(forecast, histories))


def _forecast(
    member: Mapping[str, np.ndarray], rows: Rows, horizon: int, begin: int
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast the rows of one history from a row on with one member.

    What a row adds to a posterior does not depend on the others, so that the posterior of a window
    is the prior and a sum over its rows. The sums of a stretch of windows are that of the first and
    what enters and leaves from one to the next; each stretch is summed afresh, so that no rounding
    builds up.
    """
    x = rows.x.astype(np.float32)
    phi = _network(member, "features", x)
    phi = np.concatenate([phi, np.ones_like(phi[:, :1])], axis=1)
    base = _network(member, "mean_function", x)[:, 0]
    ratio = MOST_LOG_RATIO * np.tanh(phi @ member["noise_slope"] / MOST_LOG_RATIO)
    prior, factor = _prior(member)
    known = np.isfinite(rows.y)
    count = np.where(known, np.exp(-2 * ratio), 0.0)
    error = np.where(known, rows.y - base, 0.0)
    late, late_error, late_count = (_shift(each, horizon) for each in (phi, error, count))
    mean, std = np.full(len(x), np.nan), np.full(len(x), np.nan)
    noise = float(np.exp(10 * member["tenth_log_noise"][0]))
    own = phi.astype(float)
    right = np.concatenate([late, late_error[:, None]], axis=1).astype(float)
    left = (late_count[:, None] * late).astype(float)
    for first in range(begin, len(x), SUPPORT):
        asked = slice(first, min(first + SUPPORT, len(x)))
        sums = _window_sums(left, right, asked)
        read = own[asked]
        information = np.stack([prior + sums[:, :, -1], read], axis=-1)
        solved = np.linalg.solve(factor + sums[:, :, :-1], information)
        mean[asked] = base[asked] + np.einsum("bf,bf->b", read, solved[..., 0])
        variance = np.exp(2 * ratio[asked]) + np.einsum("bf,bf->b", read, solved[..., 1])
        std[asked] = noise * np.sqrt(variance)
    return mean, std


def _window_sums(left: np.ndarray, right: np.ndarray, asked: slice) -> np.ndarray:
    """Sum outer products over the `SUPPORT` rows up to each asked one, `[row, i, j]`."""
    sums = left[asked, :, None] * right[asked, None]
    before = slice(max(0, asked.start + 1 - SUPPORT), asked.start)
    sums[0] += left[before].T @ right[before]
    gone = slice(max(0, asked.start - SUPPORT + 1), max(0, asked.stop - SUPPORT))
    count = gone.stop - gone.start
    sums[len(sums) - count :] -= left[gone, :, None] * right[gone, None]
    return np.cumsum(sums, axis=0, out=sums)


def _network(member: Mapping[str, np.ndarray], part: str, x: np.ndarray) -> np.ndarray:
    """Apply a multilayer perceptron with tanh between its layers."""
    layers = _count(member, part)
    for layer in range(layers):
        name = f"{part}/layers/{layer}"
        x = x @ member[f"{name}/kernel"] + member[f"{name}/bias"]
        x = np.tanh(x) if layer < layers - 1 else x
    return x


def _count(names: Iterable[str], part: str) -> int:
    return sum(name.startswith(f"{part}/layers/") and name.endswith("/kernel") for name in names)


def _prior(member: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the information and the precision of the prior."""
    lower = np.tril(member["factor"].astype(float), -1)
    lower += np.diag(np.exp(np.diag(member["factor"]).astype(float)))
    precision = lower @ lower.T
    return precision @ member["mean"][:, 0].astype(float), precision


def _shift(values: np.ndarray, bars: int) -> np.ndarray:
    late = np.zeros_like(values)
    late[bars:] = values[: max(len(values) - bars, 0)]
    return late
