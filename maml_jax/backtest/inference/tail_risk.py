r"""Whether outcomes exceed forecasts of value at risk as often, and as irregularly, as they should.

Forecasts are quantiles of the return with its sign: at `level` 0.05 `var` is the 5 % quantile,
mostly negative, and an outcome below it is an exceedance; at 0.95 it is the 95 % quantile, and one
above it is. Tests take one series, NaN where something is absent, and leave such times out, so that
the next known outcome follows.

Outcomes must not overlap: those over h bars at successive bars share h - 1 of them, exceedances
then come in runs even where forecasts are perfect, and every test here rejects too often. `thin`
leaves every h-th.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from maml_jax.backtest.inference._tails import (
    check_draws,
    known_times,
    monte_carlo_p_value,
    tail_of,
)
from maml_jax.backtest.inference.exceedance_counts import exceedances

Series = Float[np.ndarray, " time"]
Hits = Bool[np.ndarray, "draw time"]

_NEGLIGIBLE = 1e-10
"""Share of the largest eigenvalue below which a combination of regressors counts as constant."""


class CoverageTest(NamedTuple):
    """A test of forecasts of value at risk.

    Attributes:
        statistic: large where the forecasts are wrong.
        p_value: by simulation of exceedances under the null hypothesis, ties broken at random; of
            the right size however few exceedances there are. With few of them many samples have
            the same statistic, and another seed gives another p-value.
        chi_square_p_value: of the limit distribution; unreliable with fewer than about 20
            exceedances expected.
        exceedances: how many outcomes lay beyond the forecast.
        count: how many outcomes were judged.
    """

    statistic: float
    p_value: float
    chi_square_p_value: float
    exceedances: int
    count: int


def kupiec(
    y: Series, var: Series, level: float, *, draws: int = 999, seed: int = 0
) -> CoverageTest:
    r"""Test whether exceedances are as frequent as they should be (proportion of failures).

    $$\text{LR}_{uc} = 2 \ln \frac{\hat\pi^x (1 - \hat\pi)^{n - x}}{\alpha^x (1 - \alpha)^{n - x}},
      \qquad \hat\pi = x / n$$

    with x exceedances among n outcomes, compared with as many independent trials of probability
    $\alpha$; in the limit chi-square with 1 degree of freedom.

    Args:
        y: outcomes that do not overlap.
        var: forecasts of the quantile at `level`.
        level: of the quantile; $\alpha$ is the probability of its tail, 1 - level above 0.5.
        draws: of the simulation.
        seed: of the simulation.

    Raises:
        ValueError: if shapes differ, nothing is known, the level is not between 0 and 1, or there
            are fewer than 19 draws.

    Reference:
        Kupiec (1995), Techniques for verifying the accuracy of risk measurement models.
    """
    hits, rate = _hits(y, var, level)
    check_draws(draws)
    generator = np.random.default_rng(seed)
    count, found = len(hits), int(hits.sum())
    statistics = _coverage_ratio(
        np.append(found, generator.binomial(count, rate, draws)), count, rate
    )
    return _result(statistics, generator, 1, hits)


def christoffersen_independence(
    y: Series, var: Series, level: float, *, draws: int = 999, seed: int = 0
) -> CoverageTest:
    r"""Test whether an exceedance is as likely after an exceedance as after none.

    $$\text{LR}_{ind} = 2 \ln \frac{(1 - \hat\pi_0)^{n_{00}} \hat\pi_0^{n_{01}}
      (1 - \hat\pi_1)^{n_{10}} \hat\pi_1^{n_{11}}}
      {(1 - \hat\pi)^{n_{00} + n_{10}} \hat\pi^{n_{01} + n_{11}}}$$

    with $n_{ij}$ times that j follows i (1 an exceedance) and $\hat\pi_i = n_{i1} / (n_{i0} +
    n_{i1})$; in the limit chi-square with 1 degree of freedom. Simulated are the same exceedances
    in random order, so that their number, right or wrong, plays no part.

    Args:
        y: outcomes that do not overlap.
        var: forecasts of the quantile at `level`.
        level: of the quantile; above 0.5 outcomes above it are exceedances, else those below it.
        draws: of the simulation.
        seed: of the simulation.

    Returns:
        NaN for statistic and p-values where no outcome, or each, is an exceedance.

    Raises:
        ValueError: if shapes differ, fewer than two times are known, the level is not between 0
            and 1, or there are fewer than 19 draws.

    Reference:
        Christoffersen (1998), Evaluating interval forecasts.
    """
    hits, _ = _hits(y, var, level, least=2)
    check_draws(draws)
    if hits.all() or not hits.any():
        return CoverageTest(np.nan, np.nan, np.nan, int(hits.sum()), len(hits))
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(hits, (draws, 1)), axis=1)
    return _result(_independence_ratio(np.vstack([hits, shuffled])), generator, 1, hits)


def conditional_coverage(
    y: Series, var: Series, level: float, *, draws: int = 999, seed: int = 0
) -> CoverageTest:
    r"""Test frequency and independence of exceedances at once.

    $$\text{LR}_{cc} = \text{LR}_{uc} + \text{LR}_{ind}$$

    both from the second outcome on, where each has one before it; compared with independent trials
    of probability $\alpha$, in the limit chi-square with 2 degrees of freedom.

    Args:
        y: outcomes that do not overlap.
        var: forecasts of the quantile at `level`.
        level: of the quantile; $\alpha$ is the probability of its tail, 1 - level above 0.5.
        draws: of the simulation.
        seed: of the simulation.

    Raises:
        ValueError: if shapes differ, fewer than two times are known, the level is not between 0
            and 1, or there are fewer than 19 draws.

    Reference:
        Christoffersen (1998), Evaluating interval forecasts.
    """
    hits, rate = _hits(y, var, level, least=2)
    check_draws(draws)
    generator = np.random.default_rng(seed)
    drawn = np.vstack([hits, generator.random((draws, len(hits))) < rate])
    coverage = _coverage_ratio(drawn[:, 1:].sum(axis=1), len(hits) - 1, rate)
    return _result(coverage + _independence_ratio(drawn), generator, 2, hits)


def dynamic_quantile(
    y: Series, var: Series, level: float, *, lags: int = 4, draws: int = 999, seed: int = 0
) -> CoverageTest:
    r"""Test whether past exceedances or the forecast itself predict exceedances.

    $$\text{DQ} = \frac{h' X (X' X)^{-1} X' h}{\alpha (1 - \alpha)}, \qquad h_t = I_t - \alpha$$

    the regression of the exceedances $I_t$, less their probability, on a constant, the last `lags`
    of them and the forecast; in the limit chi-square with as many degrees of freedom as X has
    columns that are not combinations of others. Simulated are independent trials of probability
    $\alpha$ with the forecasts held fixed: exact where these do not react to past exceedances, and
    close where they do, as those of GARCH.

    Args:
        y: outcomes that do not overlap.
        var: forecasts of the quantile at `level`.
        level: of the quantile; $\alpha$ is the probability of its tail, 1 - level above 0.5.
        lags: how many past exceedances.
        draws: of the simulation.
        seed: of the simulation.

    Raises:
        ValueError: if shapes differ, fewer than 2 (lags + 2) times are known, `lags` is negative,
            the level is not between 0 and 1, or there are fewer than 19 draws.

    Reference:
        Engle, Manganelli (2004), CAViaR, section 5, its test out of sample.
    """
    if lags < 0:
        raise ValueError(f"lags must not be negative, got {lags}")
    hits, rate = _hits(y, var, level, least=2 * (lags + 2))
    check_draws(draws)
    forecast = np.asarray(var, float)[known_times(y=y, var=var)][lags:]
    scaled = forecast - forecast.mean()
    deviation = scaled.std()
    # A forecast that never moves is the constant once more.
    moves = deviation > 1e-12 * np.abs(forecast).max()
    scaled = scaled / deviation if moves else np.zeros_like(scaled)
    generator = np.random.default_rng(seed)
    drawn = np.vstack([hits, generator.random((draws, len(hits))) < rate])
    statistics, ranks = _projection(drawn, scaled, rate, lags)
    return _result(statistics, generator, int(ranks[0]), hits)


def _hits(
    y: Series, var: Series, level: float, *, least: int = 1
) -> tuple[Bool[np.ndarray, " time"], float]:
    """Return which known outcomes are exceedances, and the probability that they should have."""
    rate, _ = tail_of(level)
    known = known_times(y=y, var=var)
    hits = exceedances(y, var, level)[known] == 1
    if len(hits) < least:
        raise ValueError(
            f"the test needs {least} outcomes with forecasts, and there are {len(hits)}"
        )
    return hits, rate


def _result(
    statistics: Float[np.ndarray, " draw"],
    generator: np.random.Generator,
    freedom: int,
    hits: Hits,
) -> CoverageTest:
    """Compare the first statistic, the one observed, with the others."""
    from scipy.special import chdtrc

    observed = float(statistics[0])
    return CoverageTest(
        observed,
        monte_carlo_p_value(observed, statistics[1:], generator),
        float(chdtrc(freedom, observed)),
        int(hits.sum()),
        len(hits),
    )


def _coverage_ratio(found: np.ndarray, count: int, rate: float) -> np.ndarray:
    from scipy.special import xlogy

    nominal = xlogy(found, rate) + xlogy(count - found, 1 - rate)
    return np.maximum(2 * (_likelihood(found, count) - nominal), 0.0)


def _independence_ratio(hits: Hits) -> np.ndarray:
    before, after = hits[..., :-1], hits[..., 1:]
    first, second, both = (part.sum(axis=-1) for part in (before, after, before & after))
    count = before.shape[-1]
    apart = _likelihood(both, first) + _likelihood(second - both, count - first)
    return np.maximum(2 * (apart - _likelihood(second, count)), 0.0)


def _likelihood(found: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """Log-likelihood of trials whose probability is the share found; 0 of no trials."""
    from scipy.special import xlogy

    share = found / np.maximum(count, 1)
    return xlogy(found, share) + xlogy(count - found, 1 - share)


def _projection(
    hits: Bool[np.ndarray, "draw time"], forecast: Series, rate: float, lags: int
) -> tuple[Float[np.ndarray, " draw"], np.ndarray]:
    """Return DQ of every draw and the rank of its regressors.

    Sums of products of marks are counts, so that no regressor is laid out; the forecast has mean 0.
    """
    draws, times = hits.shape
    count = times - lags
    windows = [hits[:, lags - lag : times - lag] for lag in range(lags + 1)]
    gram = np.zeros((draws, lags + 3, lags + 3))
    for row, one in enumerate(windows):
        gram[:, row, -1] = one @ forecast
        gram[:, row, -2] = np.count_nonzero(one, axis=1)
        for column in range(row, lags + 1):
            gram[:, row, column] = np.count_nonzero(one & windows[column], axis=1)
    gram[:, -2, -2], gram[:, -1, -1] = count, forecast @ forecast
    gram = np.triu(gram) + np.triu(gram, 1).swapaxes(1, 2)
    target = gram[:, 0, 1:] - rate * gram[:, -2, 1:]
    sizes, directions = np.linalg.eigh(gram[:, 1:, 1:])
    kept = sizes > _NEGLIGIBLE * sizes[:, -1:]
    along = np.einsum("dij,di->dj", directions, target) ** 2
    explained = np.where(kept, along / np.where(kept, sizes, 1.0), 0.0).sum(axis=1)
    return explained / (rate * (1 - rate)), kept.sum(axis=1)
