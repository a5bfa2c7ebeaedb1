r"""Whether expected shortfall is forecast well: tests against simulation, and losses to compare by.

Forecasts are signed as returns are: at `level` 0.05 `var` is the 5 % quantile and `es` the mean of
outcomes below it, both mostly negative; at 0.95 they are those of the upper tail. NaN marks what is
absent.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from maml_jax.backtest.inference._tails import (
    check_draws,
    check_shapes,
    known_times,
    monte_carlo_p_value,
    tail_of,
)

Series = Float[np.ndarray, " time"]
Quantiles = Callable[[np.ndarray], np.ndarray]

_DEPTH = 30.0
"""Tail means are integrated down to exp(-30) of the tail's probability: beyond lie 1e-13 of it."""


class ShortfallTest(NamedTuple):
    """A one-sided test of forecasts of expected shortfall.

    Attributes:
        statistic: 0 is expected of right forecasts, and less where they are too mild.
        p_value: chance of a statistic as low if the null hypothesis is true; near 1 where
            forecasts are too severe.
        critical_value: forecasts are rejected at 5 % where the statistic lies below.
    """

    statistic: float
    p_value: float
    critical_value: float


class AcerbiSzekely(NamedTuple):
    """The two tests of Acerbi and Szekely; see `acerbi_szekely`.

    Attributes:
        z1: of how deep exceedances are, given that there are some.
        z2: of how deep and how many they are.
        exceedances: how many outcomes lay beyond `var`.
        count: how many outcomes were judged.
    """

    z1: ShortfallTest
    z2: ShortfallTest
    exceedances: int
    count: int


def acerbi_szekely(
    y: Series,
    var: Series,
    es: Series,
    level: float,
    null: Float[np.ndarray, "draw time"] | Quantiles,
    *,
    draws: int = 999,
    seed: int = 0,
) -> AcerbiSzekely:
    r"""Test forecasts of expected shortfall against outcomes simulated from what was forecast.

    $$Z_1 = 1 - \frac1N \sum_t I_t \frac{y_t}{\text{ES}_t}, \qquad
      Z_2 = 1 - \frac{1}{T \alpha} \sum_t I_t \frac{y_t}{\text{ES}_t}$$

    with $I_t$ marking the N exceedances among T outcomes. $Z_1$ judges ES where VaR is right,
    $Z_2$ both at once: too many exceedances, or too deep ones, make it negative.

    Args:
        y: outcomes that do not overlap.
        var: forecasts of the quantile at `level`.
        es: forecasts of the mean beyond it, negative for a lower and positive for an upper tail.
        level: of the quantile; $\alpha$ is the probability of its tail, 1 - level above 0.5.
        null: outcomes drawn from the forecast distributions, independent over draws; or the
            quantile function of their common shape, such as `scipy.stats.t(5).ppf`, whose location
            and scale at each time are those that give `var` and `es`.
        draws: of the simulation, where `null` is a quantile function.
        seed: of the simulation, and of breaking ties at random.

    Returns:
        $Z_1$ is NaN where there is no exceedance.

    Raises:
        ValueError: if shapes differ, nothing is known, ES has the wrong sign or lies inside VaR,
            the level is not between 0 and 1, there are fewer than 19 draws, draws lack an outcome
            that was judged, or the quantile function does not rise in the tail.

    Reference:
        Acerbi, Szekely (2014), Back-testing expected shortfall, Risk 27, tests 1 and 2.
    """
    rate, side = tail_of(level)
    known = known_times(y=y, var=var, es=es)
    y, var, es = (side * np.asarray(values, float)[known] for values in (y, var, es))
    _check_sign(es, side)
    if (es > var).any():
        raise ValueError(
            "an expected shortfall lies beyond its value at risk, and "
            f"{int((es > var).sum())} of {len(es)} do not"
        )
    generator = np.random.default_rng(seed)
    if callable(null):
        check_draws(draws)
        found, total = _simulate(null, var, es, rate, side, draws, generator)
    else:
        found, total = _count(side * _judged(null, known), var, es)
    observed = _count(y[None], var, es)
    found, total = np.append(observed[0], found), np.append(observed[1], total)
    some = found > 0
    z1 = 1 - total[some] / found[some]
    z2 = 1 - total / (len(y) * rate)
    nothing = ShortfallTest(np.nan, np.nan, np.nan)
    return AcerbiSzekely(
        _lower_tailed(z1, generator) if some[0] and len(z1) > 1 else nothing,
        _lower_tailed(z2, generator),
        int(found[0]),
        len(y),
    )


def pinball_loss(y: np.ndarray, var: np.ndarray, level: float) -> np.ndarray:
    r"""Loss of a forecast of the quantile at `level`, least on average for the true one.

    $$L = (1_{y < v} - \alpha)(v - y)$$

    with $\alpha$ the level, of either tail; in units of the return. Also called tick loss.

    Args:
        y: outcomes, of any shape.
        var: $v$, of the same shape.
        level: of the quantile.

    Returns:
        Of that shape, NaN where either is absent.

    Raises:
        ValueError: if shapes differ or the level is not between 0 and 1.
    """
    check_shapes(y=y, var=var)
    tail_of(level)
    error = np.subtract(y, var)
    return np.maximum(level * error, (level - 1) * error)


def fz0_loss(y: np.ndarray, var: np.ndarray, es: np.ndarray, level: float) -> np.ndarray:
    r"""Loss of a pair of VaR and ES, least on average for the true pair.

    $$L = -\frac{1_{y \le v} (v - y)}{\alpha e} + \frac ve + \ln(-e) - 1$$

    for $e < 0$; of the upper tail, that of the pair and outcome with their signs changed. No loss
    is least for ES alone. Differences between forecasts do not depend on the unit of returns.

    Args:
        y: outcomes, of any shape.
        var: $v$, of the same shape.
        es: $e$, of the same shape; negative for a lower and positive for an upper tail.
        level: of the quantile; $\alpha$ is the probability of its tail, 1 - level above 0.5.

    Returns:
        Of that shape, NaN where one of them is absent.

    Raises:
        ValueError: if shapes differ, ES has the wrong sign, or the level is not between 0 and 1.

    Reference:
        Patton, Ziegel, Chen (2019), Dynamic semiparametric models for expected shortfall (and
        value-at-risk), equation 6; Fissler, Ziegel (2016), Higher order elicitability.
    """
    check_shapes(y=y, var=var, es=es)
    rate, side = tail_of(level)
    y, v, e = (side * np.asarray(values, float) for values in (y, var, es))
    _check_sign(e, side)
    return (v - np.maximum(v - y, 0.0) / rate) / e + np.log(-e) - 1


def _check_sign(es: np.ndarray, side: int) -> None:
    """Require tail means, those of an upper tail with their sign changed, to be negative."""
    wrong = es >= 0
    if wrong.any():
        tail, sign = ("lower", "negative") if side > 0 else ("upper", "positive")
        raise ValueError(
            f"expected shortfall of the {tail} tail is {sign}, in the sign of returns; "
            f"{int(wrong.sum())} of {wrong.size} are not, such as {side * es[wrong].flat[0]:g}"
        )


def _judged(null: Float[np.ndarray, "draw time"], known: np.ndarray) -> np.ndarray:
    drawn = np.asarray(null, float)
    if drawn.ndim != 2 or drawn.shape[1] != len(known):
        raise ValueError(
            f"simulated outcomes have shape [draw, {len(known)}], one a time, not {drawn.shape}"
        )
    check_draws(len(drawn))
    if not np.isfinite(drawn[:, known]).all():
        raise ValueError("simulated outcomes must be finite wherever an outcome is judged")
    return drawn[:, known]


def _count(
    y: Float[np.ndarray, "draw time"], var: Series, es: Series
) -> tuple[np.ndarray, np.ndarray]:
    """Return exceedances of each draw, and the sum of their ratios to ES."""
    rows, times = np.nonzero(y < var)
    return _sums(rows, y[rows, times] / es[times], len(y))


def _simulate(
    quantiles: Quantiles,
    var: Series,
    es: Series,
    rate: float,
    side: int,
    draws: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what `_count` returns from distributions of one shape; only tails are evaluated."""

    def lower(u: np.ndarray) -> np.ndarray:
        return np.asarray(quantiles(u) if side > 0 else -quantiles(1 - u), float)

    quantile = float(lower(np.array([rate]))[0])
    nodes, weights = np.polynomial.legendre.leggauss(200)
    depth = 0.5 * _DEPTH * (nodes + 1)
    mean = 0.5 * _DEPTH * float(weights @ (lower(rate * np.exp(-depth)) * np.exp(-depth)))
    if not quantile - mean > 0:
        raise ValueError(
            f"the quantile function must rise in the tail and have a mean there; its value is "
            f"{quantile:g} at the edge and its mean beyond is {mean:g}"
        )
    uniform = generator.random((draws, len(var)))
    rows, times = np.nonzero(uniform < rate)
    scale = (var - es) / (quantile - mean)
    beyond = scale[times] * (lower(uniform[rows, times]) - quantile)
    return _sums(rows, (var[times] + beyond) / es[times], draws)


def _sums(rows: np.ndarray, ratio: np.ndarray, draws: int) -> tuple[np.ndarray, np.ndarray]:
    return np.bincount(rows, minlength=draws), np.bincount(rows, ratio, minlength=draws)


def _lower_tailed(statistics: np.ndarray, generator: np.random.Generator) -> ShortfallTest:
    """Compare the first statistic, the one observed, with the others."""
    observed, simulated = float(statistics[0]), statistics[1:]
    return ShortfallTest(
        observed,
        monte_carlo_p_value(-observed, -simulated, generator),
        float(np.quantile(simulated, 0.05)),
    )
