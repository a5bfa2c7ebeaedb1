r"""Value at risk and expected shortfall from past returns, as they are or filtered.

Both are lower quantiles with their sign: a value at risk of -0.05 at 1 % says that the log return
over the horizon falls below -5 % once in a hundred times, and the expected shortfall is the mean of
those returns.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maml_jax.backtest.baselines.volatility import GARCH_LEAST, RISKMETRICS
from maml_jax.backtest.baselines.young.classical import fit_garch_t, walk_garch_t
from maml_jax.backtest.baselines.young.rows import check_assets, check_returns
from maml_jax.features.volatility import FLOOR

LEVELS = (0.01, 0.025, 0.05)

_MEMORY = 2**21
"""Values sorted at once."""


class TailForecast(NamedTuple):
    """Lower quantiles of the log return over the horizon.

    Attributes:
        levels: probabilities.
        var: value at risk of each level.
        es: expected shortfall of each level.
    """

    levels: tuple[float, ...]
    var: Float[np.ndarray, "level asset time"]
    es: Float[np.ndarray, "level asset time"]


class Filter(NamedTuple):
    r"""How returns are divided by their volatility before they are drawn from.

    Attributes:
        kind: `ewma`, or `garch` with Student's t, which needs 250 returns.
        decay: of the exponential average, which begins with the mean square of the window.
        refit: bars of an asset from one fit of GARCH to the next.
        paths: drawn at each bar.
        seed: decides the draws, which are the same ones at all bars and assets.
        every: bars from one forecast of EWMA to the next, of the time axis.
    """

    kind: Literal["ewma", "garch"] = "ewma"
    decay: float = RISKMETRICS
    refit: int = 21
    paths: int = 4000
    seed: int = 0
    every: int = 1


RISKMETRICS_FILTER = Filter()
"""The exponential average of RiskMetrics."""


def empirical_tail(
    sample: Float[np.ndarray, "*row draw"], levels: Sequence[float]
) -> Float[np.ndarray, "2 level *row"]:
    r"""Value at risk and expected shortfall of an empirical distribution.

    $$q = x_{(k)}, \quad k = \lceil \alpha N \rceil, \qquad
      e = \frac{1}{\alpha N} \Bigl(\sum_{i<k} x_{(i)} + (\alpha N - k + 1)\, x_{(k)}\Bigr)$$

    Reference:
        Acerbi and Tasche (2002), On the coherence of expected shortfall.
    """
    count = sample.shape[-1]
    # A product such as 0.07 * 100 is a hair above 7.
    mass = np.asarray(levels, float) * count
    last = np.maximum(np.ceil(mass - 1e-9).astype(int), 1)
    most = int(last.max())
    lowest = np.sort(np.partition(sample, most - 1, axis=-1)[..., :most], axis=-1)
    sums = np.cumsum(lowest, axis=-1)
    var = np.stack([lowest[..., k - 1] for k in last])
    pairs = zip(last, mass, strict=True)
    es = np.stack([(sums[..., k - 1] - (k - m) * lowest[..., k - 1]) / m for k, m in pairs])
    return np.stack([var, np.minimum(es, var)])


def historical_simulation(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    window: int,
    levels: Sequence[float] = LEVELS,
    least: int = 20,
    targets: Sequence[int] | None = None,
) -> TailForecast:
    """Read the tail off the overlapping returns over the horizon in the last `window` returns.

    Args:
        returns: logarithmic, per bar; bars without one are passed over.
        horizon: bars over which returns are summed.
        window: returns that are known, as of an asset of that age; all where there are fewer.
        levels: probabilities of the lower tail.
        least: overlapping returns that a quantile is read off at least. Where a level times their
            number is below 1, value at risk is the least of them.
        targets: indices of the assets to forecast; default all.

    Returns:
        NaN where an asset has no bar, or too few returns.

    Raises:
        ValueError: if a number or an index is impossible.
    """
    r = check_returns(returns, horizon)
    chosen = _check_levels(levels)
    if window < horizon or least < 1:
        raise ValueError(
            f"a window holds the {horizon} bars of the horizon, and a quantile is read off at "
            f"least 1 return, got {window} and {least}"
        )
    result = np.full((2, len(chosen), *r.shape), np.nan)
    most = window - horizon + 1
    for asset in check_assets(targets, len(r)):
        own = np.flatnonzero(np.isfinite(r[asset]))
        if len(own) < horizon:
            continue
        ahead = np.lib.stride_tricks.sliding_window_view(r[asset, own], horizon).sum(axis=-1)
        at = own[horizon - 1 :]
        for stop in range(least, min(most, len(ahead) + 1)):  # the window is not full yet
            result[:, :, asset, at[stop - 1]] = empirical_tail(ahead[:stop], chosen)
        if most < least or len(ahead) < most:
            continue
        full = np.lib.stride_tricks.sliding_window_view(ahead, most)
        step = max(1, _MEMORY // most)
        for begin in range(0, len(full), step):
            piece = empirical_tail(full[begin : begin + step], chosen)
            bars = at[most - 1 + begin : most - 1 + begin + piece.shape[-1]]
            result[:, :, asset, bars] = piece
    return TailForecast(chosen, result[0], result[1])


def garch_t_tails(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    window: int,
    levels: Sequence[float] = LEVELS,
    refit: int = 21,
    first: int = 0,
    targets: Sequence[int] | None = None,
) -> TailForecast:
    r"""Read the tail off a Student's t whose variance a GARCH(1,1) expects over the horizon.

    $$q_\alpha = \sqrt{\textstyle\sum_k \sigma^2_{t+k}}\ \sqrt{\tfrac{\nu - 2}{\nu}}\
      t_\nu^{-1}(\alpha)$$

    with the fits of `garch_t`. For more than one bar ahead it is an approximation: a sum of such
    returns has lighter tails.

    Args:
        returns: logarithmic, per bar; bars without one are passed over.
        horizon: bars over which returns are summed.
        window: returns that are known, as of an asset of that age.
        levels: probabilities of the lower tail.
        refit: bars of the asset from one fit to the next.
        first: index of the first bar to forecast at.
        targets: indices of the assets to forecast; default all.

    Returns:
        NaN before `first`, where an asset has no bar or fewer returns than the window, below a
        window of 250, and where a fit failed.

    Raises:
        ValueError: if a number or an index is impossible.
    """
    chosen = _check_levels(levels)
    log_volatility, degrees = walk_garch_t(
        returns, horizon=horizon, ages=(window,), refit=refit, first=first, targets=targets
    )
    scale = np.sqrt(horizon) * np.exp(log_volatility[0])
    units = [student_tail(degrees[0], level) for level in chosen]
    var, es = (np.stack([scale * unit for unit in each]) for each in zip(*units, strict=True))
    return TailForecast(chosen, var, es)


def student_tail(
    degrees: Float[np.ndarray, "*n"], level: float
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n"]]:
    r"""Value at risk and expected shortfall of Student's t of variance 1.

    $$e = -\sqrt{\tfrac{\nu - 2}{\nu}}\ \frac{f_\nu(q)}{\alpha}\ \frac{\nu + q^2}{\nu - 1},
      \qquad q = t_\nu^{-1}(\alpha)$$

    Args:
        degrees: of freedom, above 2; infinite for the normal distribution.
        level: probability of the lower tail.

    Reference:
        McNeil, Frey, Embrechts (2005), Quantitative risk management, example 2.19.
    """
    from scipy import stats

    endless = np.isinf(degrees)
    nu = np.where(endless, 10.0, degrees)
    q = stats.t.ppf(level, nu)
    unit = np.sqrt((nu - 2) / nu)
    es = -unit * stats.t.pdf(q, nu) / level * (nu + q**2) / (nu - 1)
    normal = stats.norm.ppf(level)
    mean = -stats.norm.pdf(normal) / level
    return np.where(endless, normal, unit * q), np.where(endless, mean, es)


def filtered_historical_simulation(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    window: int,
    levels: Sequence[float] = LEVELS,
    least: int = 20,
    first: int = 0,
    targets: Sequence[int] | None = None,
    setting: Filter = RISKMETRICS_FILTER,
) -> TailForecast:
    r"""Draw standardised past returns into paths whose volatility starts from that of the bar.

    $$r^*_{t+k} = \sigma^*_{t+k}\, z^*_k, \qquad z_s = r_s / \sigma_s$$

    with $z^*$ drawn with replacement from the z of the window, and $\sigma^*$ updated along the
    path by the filter's own equation. The tail is that of the sum of h such returns.

    Args:
        returns: logarithmic, per bar; bars without one are passed over.
        horizon: $h$.
        window: returns that are known, as of an asset of that age; all where there are fewer.
        levels: probabilities of the lower tail.
        least: returns that are drawn from at least.
        first: index of the first bar to forecast at.
        targets: indices of the assets to forecast; default all.
        setting: the filter and the draws.

    Returns:
        NaN before `first`, where an asset has no bar or too few returns, and where a fit failed.

    Raises:
        ValueError: if a number or an index is impossible.

    Reference:
        Barone-Adesi, Giannopoulos, Vosper (1999), VaR without correlations for portfolios of
        derivative securities.
    """
    r = check_returns(returns, horizon)
    chosen = _check_levels(levels)
    _check_filter(setting, window, least)
    uniform = np.random.default_rng(setting.seed).random((setting.paths, horizon))
    result = np.full((2, len(chosen), *r.shape), np.nan)
    for asset in check_assets(targets, len(r)):
        own = np.flatnonzero(np.isfinite(r[asset]))
        known, begin = r[asset, own], int(np.searchsorted(own, first))
        if setting.kind == "ewma":
            bars = np.arange(max(begin, least - 1), len(known))
            bars = bars[(own[bars] - first) % setting.every == 0]
            made = _ewma_tails(known, bars, window, setting, uniform)
        else:
            made = _garch_tails(known, begin, window, least, setting, uniform)
        for bar, sums in made:
            result[:, :, asset, own[bar]] = empirical_tail(sums, chosen)
    return TailForecast(chosen, result[0], result[1])


def _ewma_tails(known, bars, window, setting: Filter, uniform):
    """Yield bars and the sums of their paths, filtered anew in each window."""
    decay = setting.decay
    for bar in bars:
        seen = known[max(bar + 1 - window, 0) : bar + 1]
        squares = seen**2
        variances = _average(squares, decay)
        z = seen / np.sqrt(variances[:-1])
        drawn = _draw(z, uniform)
        # The variance of a path is the first one times a factor that the draws decide.
        growth = np.cumprod(decay + (1 - decay) * drawn[:, :-1] ** 2, axis=1)
        sums = drawn[:, 0] + (np.sqrt(growth) * drawn[:, 1:]).sum(axis=1)
        yield bar, np.sqrt(variances[-1]) * sums


def _average(squares: Float[np.ndarray, " bar"], decay: float) -> Float[np.ndarray, " bar+1"]:
    """Exponential averages before each bar and after the last, from the mean of all squares."""
    from scipy.signal import lfilter

    start = max(squares.mean(), FLOOR**2)
    after, _ = lfilter([1 - decay], [1, -decay], squares, zi=[decay * start])
    return np.maximum(np.append(start, after), FLOOR**2)


def _garch_tails(known, begin, window, least, setting: Filter, uniform):
    """Yield bars and the sums of their paths, with parameters that rest between two fits."""
    for start in range(max(begin, least - 1, GARCH_LEAST - 1), len(known), setting.refit):
        early = max(start + setting.refit - window, 0)
        fit = fit_garch_t(known[early : start + 1])
        if fit is None:
            continue
        variances = fit.variances.tolist()
        for bar in range(start, min(start + setting.refit, len(known))):
            if bar > start:
                variances.append(fit.following(variances[-1], known[bar] ** 2))
            z = known[early : bar + 1] / np.sqrt(np.maximum(variances[:-1], FLOOR**2))
            drawn = _draw(z, uniform)
            variance = np.full(len(drawn), variances[-1])
            sums = np.zeros(len(drawn))
            for step in drawn.T:
                move = np.sqrt(variance) * step
                sums += move
                variance = fit.omega + fit.alpha * move**2 + fit.beta * variance
            yield bar, sums


def _draw(
    z: Float[np.ndarray, " bar"], uniform: Float[np.ndarray, "path step"]
) -> Float[np.ndarray, "path step"]:
    places: Int[np.ndarray, "path step"] = (uniform * len(z)).astype(int)
    return z[places]


def _check_levels(levels: Sequence[float]) -> tuple[float, ...]:
    chosen = tuple(float(level) for level in levels)
    if not chosen or not all(0 < level < 1 for level in chosen):
        raise ValueError(f"levels are probabilities between 0 and 1, not {chosen}")
    return chosen


def _check_filter(setting: Filter, window: int, least: int) -> None:
    if setting.kind not in ("ewma", "garch"):
        raise ValueError(f"a filter is 'ewma' or 'garch', not {setting.kind!r}")
    if not 0 < setting.decay < 1 or setting.paths < 1 or not 1 <= least <= window:
        raise ValueError(
            "a decay lies between 0 and 1, and there are at least 1 path and 1 return in the "
            f"window, got {setting.decay}, {setting.paths}, and {least} of {window}"
        )
    if setting.every < 1:
        raise ValueError(f"forecasts are at least 1 bar apart, not {setting.every}")
    if setting.kind == "garch" and (
        window < GARCH_LEAST or not 1 <= setting.refit < GARCH_LEAST // 2
    ):
        raise ValueError(
            f"garch needs a window of at least {GARCH_LEAST} and a fit every 1 to "
            f"{GARCH_LEAST // 2 - 1} bars, got {window} and {setting.refit}"
        )
