"""What a strategy earned beyond its share of a benchmark, and whether luck would earn as much."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.backtest.inference.bootstrap import SAMPLES, block_length
from maml_jax.parallel.machine import one_blas_thread

SIZE = 0.05
"""The test's size: a strategy without alpha is called significant so often."""

FEWEST_BARS = 20
MOST_SAMPLES = 50_000

_TOGETHER = 2_000_000
"""Signs drawn together."""

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


@one_blas_thread()
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

    by least squares, against $T^*$ of samples in which the residuals under $\alpha = 0$ keep their
    bars and sizes while each block of neighbouring bars has all of its signs flipped or none (a
    wild bootstrap of blocks, studentised, with the null imposed). Standard errors are those of
    sums over blocks.

    Volatility that clusters, tails and rare trades stay where they were in every sample, which is
    why the test holds its size on short series where resampled blocks do not. It cannot know of
    losses that have not happened: returns that are steady but for rare disasters pass too often.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        benchmark: its column.
        seed: decides the samples.
        samples: how many.
        trials: how often each strategy was tried. The more trials a probability has to answer for,
            the finer it must be: at least forty samples a trial are drawn, up to 50,000.

    Returns:
        For each strategy but the benchmark. NaN where the data do not determine it: fewer than 20
        bars, returns that are not finite, a benchmark that does not move, a strategy that is a
        multiple of it (its alpha and beta are returned) or holds nothing.

    Raises:
        ValueError: if there is no sample to draw.

    Reference:
        Cameron, Gelbach, Miller (2008), Bootstrap-Based Improvements for Inference with Clustered
        Errors, Review of Economics and Statistics 90, section III; Shao (2010), The Dependent Wild
        Bootstrap, JASA 105.
    """
    if samples < 1:
        raise ValueError(f"a bootstrap needs at least one sample, got {samples}")
    names = [name for name in net.columns if name != benchmark]
    found = dict.fromkeys(names, _UNKNOWN)
    if benchmark not in net.columns or len(net) < FEWEST_BARS:
        return found
    x = net[benchmark].to_numpy(float)
    if not np.isfinite(x).all() or np.var(x) <= _NIL * np.mean(x) ** 2:
        return found
    for name in names:
        y = net[name].to_numpy(float)
        if np.isfinite(y).all():
            tried = (trials or {}).get(name, 1)
            wanted = max(samples, min(40 * tried, MOST_SAMPLES)) if tried > 1 else samples
            found[name] = _test_one(y, x, wanted, np.random.default_rng(seed))
    return found


def _test_one(
    y: Float[np.ndarray, " bar"], x: Float[np.ndarray, " bar"], samples: int, rng
) -> Alpha:
    value, beta = regress(y, x)
    rest = y - value - beta * x
    if np.mean(rest**2) <= _NIL * np.mean(y**2):  # nothing but a multiple, or nothing at all
        return _UNKNOWN._replace(value=value, beta=beta)
    error, statistics = _bootstrap_null(y, x, rest, samples, rng)
    statistic = value / error
    # Where no sign is flipped the statistic itself comes out, but for rounding.
    beyond = np.sum(statistics >= statistic - 1e-9 * abs(statistic))
    p_value = (1 + beyond) / (samples + 1)
    # The interval holds 0 exactly where the probability is at least the size; few samples bound
    # nothing.
    rank = int(np.ceil(SIZE * (samples + 1))) - 2
    if rank < 0:
        return Alpha(value, np.nan, np.nan, beta, float(p_value))
    ordered = np.sort(statistics)
    # As far beyond the other end for `high`; ends at the statistic itself count as beyond it.
    low = value - (ordered[-1 - rank] + 1e-9 * abs(statistic)) * error
    high = value - ordered[rank] * error
    return Alpha(value, float(low), float(high), beta, float(p_value))


def regress(y: Float[np.ndarray, " bar"], x: Float[np.ndarray, " bar"]) -> tuple[float, float]:
    """Return intercept and slope of the line through y by x; NaN where x does not move."""
    if len(x) < 2 or not np.var(x) > _NIL * np.mean(x) ** 2:
        return np.nan, np.nan
    moved = x - x.mean()
    beta = float(moved @ y / (moved @ moved))
    return float(y.mean() - beta * x.mean()), beta


def _bootstrap_null(y, x, rest, samples, rng) -> tuple[float, Float[np.ndarray, " sample"]]:
    r"""Return the standard error of alpha, and studentised alphas of samples that have none.

    With $h_t$ the weight of bar t in $n \hat\alpha$, the score of a block is the sum of
    $h_t e_t$ over its bars. Flipping a block's residuals flips what it adds to $\hat\alpha$ and
    $\hat\beta$, by which the scores of the sample are found without computing its bars.
    """
    number = len(y)
    blocks = max(round(number / block_length(y[:, None])), 2)
    first = np.linspace(0, number, blocks + 1).round().astype(int)[:-1]
    moved = x - x.mean()
    square = np.mean(moved**2)
    weight = 1 - moved * (x.mean() / square)

    def sums(values):
        return np.add.reduceat(values, first)

    null = y - x * (x @ y / (x @ x))
    scores, slopes = sums(weight * null), sums(moved * null) / (number * square)
    weights, products = sums(weight), sums(weight * x)
    error = np.sqrt(np.sum(sums(weight * rest) ** 2)) / number
    together, found = max(1, _TOGETHER // blocks), []
    for start in range(0, samples, together):
        signs = rng.choice([-1.0, 1.0], (min(together, samples - start), blocks))
        alphas, betas = signs @ scores / number, signs @ slopes
        drawn = signs * scores - alphas[:, None] * weights - betas[:, None] * products
        with np.errstate(all="ignore"):
            statistic = alphas / (np.sqrt(np.sum(drawn**2, axis=1)) / number)
        # A sample of which no statistic can be computed speaks against significance.
        found.append(np.where(np.isnan(statistic), np.inf, statistic))
    return float(error), np.concatenate(found)
