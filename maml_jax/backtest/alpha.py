"""What a strategy earned beyond its share of a benchmark, and whether luck would earn as much."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.backtest.bootstrap import SAMPLES, block_length, draws

SIZE = 0.05
"""The test's size: a strategy without alpha is called significant so often."""

MOST_SAMPLES = 50_000
FEW = 10

_NIL = 1e-18
"""A variance smaller than this share of another comes of rounding."""


class Alpha(NamedTuple):
    r"""Mean return beyond a share of the benchmark's; see `alpha_tests`.

    Attributes:
        value: $\hat\alpha$ per bar.
        low: lower end of the interval of level 1 - 2 `SIZE`, per bar; above 0 where `p_value` is
            below `SIZE`, and only there.
        high: its upper end.
        beta: $\hat\beta$.
        p_value: one-sided, of $\alpha \le 0$.
    """

    value: float
    low: float
    high: float
    beta: float
    p_value: float


_UNKNOWN = Alpha(np.nan, np.nan, np.nan, np.nan, np.nan)


def alpha_tests(
    net: pd.DataFrame,
    benchmark: str,
    *,
    seed: int,
    samples: int = SAMPLES,
    trials: Mapping[str, int] | None = None,
) -> dict[str, Alpha]:
    r"""Test whether strategies earn more than their share of the benchmark.

    $$r_t = \alpha + \beta b_t + e_t, \qquad H_0: \alpha \le 0, \qquad
      T = \hat\alpha / \widehat{se}(\hat\alpha)$$

    by least squares, against $T^* = (\hat\alpha^* - \hat\alpha) / \widehat{se}{}^*$ of samples of a
    stationary bootstrap of the pairs $(r_t, b_t)$, in each of which the standard error is
    estimated anew. That is what makes the test hold its size where returns have heavy tails and
    volatility clusters.

    The standard error is of Newey and West with weights that fall linearly over a block, on a
    circle: the mean square of sums over as many neighbours. A sample of which no statistic can be
    computed counts as one beyond $T$.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        benchmark: its column.
        seed: decides the samples.
        samples: how many.
        trials: how often each strategy was tried. A probability must be told more finely the more
            trials it has to answer for: where fewer than ten samples lie beyond $T$, up to 50,000
            are drawn.

    Returns:
        For each strategy but the benchmark. NaN where the data do not determine it: fewer than 20
        bars, returns that are not finite, a benchmark that does not move, a strategy that is a
        multiple of it (its alpha and beta are told) or holds nothing.

    Raises:
        ValueError: if there is no sample to draw.

    Reference:
        Politis, Romano (1994), JASA 89; Goncalves, Vogelsang (2011), Block Bootstrap HAC Robust
        Tests, Econometric Theory 27; Newey, West (1987), Econometrica 55, equation 5.
    """
    if samples < 1:
        raise ValueError(f"a bootstrap needs at least one sample, got {samples}")
    names = [name for name in net.columns if name != benchmark]
    found = dict.fromkeys(names, _UNKNOWN)
    if benchmark not in net.columns:
        return found
    x = net[benchmark].to_numpy(float)
    block = block_length(net[names].to_numpy(float)) if names else 1.0
    own: dict[str, tuple] = {}
    for name in names:
        y = net[name].to_numpy(float)
        if len(y) < 20 or not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0:
            continue
        value, beta, error = (each[0] for each in _regress(y[None], x[None], block))
        found[name] = Alpha(float(value), np.nan, np.nan, float(beta), np.nan)
        if error > 0:
            own[name] = (y, value, beta, error)
    drawn = _statistics(own, x, block, samples, seed)
    for name, (y, value, beta, error) in own.items():
        tried = (trials or {}).get(name, 1)
        wanted = min(40 * tried, MOST_SAMPLES) if tried > 1 else samples
        statistics = drawn[name]
        if wanted > samples and (statistics >= value / error).sum() < FEW:
            only = {name: (y, value, beta, error)}
            statistics = _statistics(only, x, block, wanted, seed)[name]
        found[name] = _judged(value, beta, error, statistics)
    return found


def _judged(value: float, beta: float, error: float, statistics: np.ndarray) -> Alpha:
    number = len(statistics)
    p_value = (1 + (statistics >= value / error).sum()) / (number + 1)
    # The interval holds 0 exactly where the probability is at least the size; few samples bound
    # nothing.
    beyond = int(np.ceil(SIZE * (number + 1))) - 2
    ordered = np.sort(statistics)
    ends = (ordered[-1 - beyond], ordered[beyond]) if beyond >= 0 else (np.inf, np.inf)
    low, high = (value - each * error if np.isfinite(each) else np.nan for each in ends)
    return Alpha(*(float(each) for each in (value, low, high, beta, p_value)))


def _statistics(own, x, block, samples, seed) -> dict[str, Float[np.ndarray, " sample"]]:
    parts: dict[str, list] = {name: [] for name in own}
    if own:
        for bars in draws(len(x), samples, block, np.random.default_rng(seed)):
            drawn_x = np.take(x, bars)
            for name, (y, value, _, _) in own.items():
                drawn, _, errors = _regress(np.take(y, bars), drawn_x, block)
                with np.errstate(all="ignore"):
                    statistic = np.where(errors > 0, (drawn - value) / errors, np.inf)
                parts[name].append(np.where(np.isnan(statistic), np.inf, statistic))
    return {name: np.concatenate(each) for name, each in parts.items()}


def _regress(
    y: Float[np.ndarray, "sample bar"], x: Float[np.ndarray, "sample bar"], block: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regress each row of y on that of x: intercept, slope, and the intercept's standard error."""
    number = y.shape[1]
    mean_x, mean_y = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    x, y = x - mean_x, y - mean_y
    square_x, square_y = np.mean(x * x, axis=1, keepdims=True), np.mean(y * y, axis=1)
    with np.errstate(all="ignore"):
        slope = np.mean(x * y, axis=1, keepdims=True) / square_x
        rest = y - slope * x
        moves = rest * (1 - x * (mean_x / square_x))
        error = np.sqrt(_long_run_variance(moves, block) / number)
        nil = np.mean(rest * rest, axis=1) <= _NIL * (square_y + mean_y[:, 0] ** 2)
        nil |= square_x[:, 0] <= _NIL * mean_x[:, 0] ** 2
    return (mean_y - slope * mean_x)[:, 0], slope[:, 0], np.where(nil, 0.0, error)


def _long_run_variance(values: Float[np.ndarray, "sample bar"], block: float) -> np.ndarray:
    """Return the mean square of sums over neighbours on a circle, by neighbour."""
    width = int(min(max(round(block), 1), values.shape[1]))
    sums = np.cumsum(np.concatenate([values, values[:, :width]], axis=1), axis=1)
    sums = sums[:, width:] - sums[:, :-width]
    return np.mean(sums * sums, axis=1) / width
