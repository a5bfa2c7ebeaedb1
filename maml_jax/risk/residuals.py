r"""From a forecast of volatility to one of the return: quantiles of what was left over.

With $\hat y$ the forecast of the log of volatility per bar over h bars, the return over these bars
is $R = z\, \sqrt h\, e^{\hat y}$. The quantiles of z are those of the training assets at a like
age, and an asset's own exceedances correct them as they come.

Both sides of z are taken together, since its sign is that of the years of training: prices that
rose then are no forecast that they will.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

AGES = (1, 2, 3, 5, 8, 13, 21, 40, 60, 125, 250)
"""The least age of each table of quantiles, in returns."""

SETTLED = 21
"""Age from which on each table is measured on many forecasts."""

LEVELS = np.concatenate(
    [[0.0005, 0.001, 0.0025], np.arange(1, 40) / 200, np.arange(20, 81, 5) / 100]
)
"""Levels of the quantiles in the lower half of the table; the upper half mirrors them."""


@lru_cache
def table_levels() -> Float[np.ndarray, " level"]:
    """Return the levels of the quantiles that are kept, from low to high."""
    low = np.unique(np.round(LEVELS[LEVELS <= 0.5], 6))
    return np.unique(np.round(np.concatenate([low, 1 - low]), 6))


class Residuals(NamedTuple):
    r"""What is left over of forecasts, by age; of one horizon.

    Attributes:
        z: quantiles of the return in units of its forecast volatility, `[age, level]`; symmetric.
        tail: mean of z below each quantile, `[age, level]`; of the upper half: above it.
        shift: half the logarithm of the mean of $e^{2 (y - \hat y)}$, `[age]`: from the mean of
            logarithms to the root of the mean variance.
        low, high: 5 and 95 % quantiles of $(y - \hat y)$ in units of its deviation, `[age]`.
    """

    z: Float[np.ndarray, "age level"]
    tail: Float[np.ndarray, "age level"]
    shift: Float[np.ndarray, " age"]
    low: Float[np.ndarray, " age"]
    high: Float[np.ndarray, " age"]


_MOST_CORRECTED = 4.0
"""Times by which a level is raised or lowered at most."""

_MOST = 3.0
"""Errors of the logarithm beyond this are taken for that: a jump of twenty times is one event."""


def measure_residuals(
    age: Int[np.ndarray, " n"],
    mean: Float[np.ndarray, " n"],
    std: Float[np.ndarray, " n"],
    outcome: Float[np.ndarray, " n"],
    total: Float[np.ndarray, " n"],
    horizon: int,
) -> Residuals:
    """Measure what forecasts of training assets left over.

    Each table is of the rows from its age to the next one's.

    Args:
        age: returns since the listing, of each forecast.
        mean: forecast of the log of volatility per bar.
        std: its deviation.
        outcome: what it came to.
        total: the return over the horizon.
        horizon: bars ahead.
    """
    levels = table_levels()
    half = levels > 0.5
    bounds = (*AGES, np.inf)
    z, tail, shift, low, high = [], [], [], [], []
    for first, end in zip(bounds[:-1], bounds[1:], strict=True):
        rows = (age >= first) & (age < end) & np.isfinite(outcome) & np.isfinite(total)
        own = total[rows] / (np.exp(mean[rows]) * np.sqrt(horizon))
        own = np.sort(np.concatenate([own, -own]))
        quantiles = np.quantile(own, levels)
        sums = np.concatenate([[0.0], np.cumsum(own)])
        below = np.searchsorted(own, quantiles, side="right")
        under = sums[below] / np.maximum(below, 1)
        over = (sums[-1] - sums[below]) / np.maximum(len(own) - below, 1)
        error = np.clip(outcome[rows] - mean[rows], -_MOST, _MOST)
        z.append(quantiles)
        tail.append(np.where(half, np.maximum(over, quantiles), np.minimum(under, quantiles)))
        shift.append(0.5 * np.log(np.mean(np.exp(2 * error))))
        bound = np.quantile(error / std[rows], [0.05, 0.95])
        low.append(bound[0])
        high.append(bound[1])
    return Residuals(*(np.asarray(each) for each in (z, tail, shift, low, high)))


def place_of_age(age: Int[np.ndarray, "*n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tables on both sides of an age, and the weight of the second.

    In between two tables values are interpolated in the logarithm of the age.
    """
    centres = np.log(np.asarray(AGES, float))
    at = np.log(np.maximum(age, 1))
    upper = np.clip(np.searchsorted(centres, at, side="right"), 1, len(AGES) - 1)
    lower = upper - 1
    share = np.clip((at - centres[lower]) / (centres[upper] - centres[lower]), 0.0, 1.0)
    return lower, upper, share


def at_age(values: Float[np.ndarray, " age"], age: Int[np.ndarray, "*n"]) -> np.ndarray:
    """Interpolate numbers by age."""
    lower, upper, share = place_of_age(age)
    return (1 - share) * values[lower] + share * values[upper]


def at_level(
    table: Float[np.ndarray, "age level"],
    age: Int[np.ndarray, "*n"],
    level: Float[np.ndarray, "*n"],
) -> np.ndarray:
    """Interpolate a table by age and level; levels beyond the table are its ends."""
    levels = table_levels()
    lower, upper, share = place_of_age(age)
    level = np.clip(level, levels[0], levels[-1])
    right = np.clip(np.searchsorted(levels, level, side="left"), 1, len(levels) - 1)
    left = right - 1
    part = (level - levels[left]) / (levels[right] - levels[left])
    near = (1 - part) * table[lower, left] + part * table[lower, right]
    far = (1 - part) * table[upper, left] + part * table[upper, right]
    return (1 - share) * near + share * far


def conformal_levels(
    z: Float[np.ndarray, "asset bar"],
    residuals: Residuals,
    age: Int[np.ndarray, "asset bar"],
    *,
    level: float,
    horizon: int,
    rate: float,
) -> Float[np.ndarray, "asset bar"]:
    r"""Correct the level of a quantile by an asset's own exceedances.

    $$a_{t+1} = a_t + \gamma\, (\alpha - 1\{z_{t-h+1}\ \text{beyond its quantile}\})$$

    an exceedance is known h bars after its forecast. Levels above a half are of the upper tail.

    Args:
        z: standardised returns over the horizon, by the bar of the forecast, `[asset, bar]`;
            NaN where unknown.
        residuals: tables of quantiles.
        age: of each asset at each bar.
        level: $\alpha$.
        horizon: $h$.
        rate: $\gamma / \alpha$.

    Returns:
        The level to read the table at, at each bar; within a quarter and four times $\alpha$.

    Reference:
        Gibbs, Candes (2021), Adaptive Conformal Inference Under Distribution Shift,
        arXiv:2106.00170, equation 2.
    """
    upper = level > 0.5
    alpha = 1 - level if upper else level
    sign = -1.0 if upper else 1.0
    own = np.full(len(z), alpha)
    hits = np.full(z.shape, np.nan)
    levels = np.empty(z.shape)
    for bar in range(z.shape[1]):
        if bar >= horizon:
            hit = hits[:, bar - horizon]
            step = np.where(np.isfinite(hit), rate * alpha * (alpha - hit), 0.0)
            own = np.clip(own + step, alpha / _MOST_CORRECTED, alpha * _MOST_CORRECTED)
        levels[:, bar] = 1 - own if upper else own
        bound = at_level(residuals.z, age[:, bar], levels[:, bar])
        beyond = sign * z[:, bar] < sign * bound
        hits[:, bar] = np.where(np.isfinite(z[:, bar]), beyond, np.nan)
    return levels
