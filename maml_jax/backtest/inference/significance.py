"""What the figures of a backtest are worth: intervals, tests, and probabilities of being luck."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.fft import irfft, next_fast_len, rfft

from maml_jax.backtest.inference.alpha import alpha_tests
from maml_jax.backtest.inference.bootstrap import SAMPLES, Resampled, resample
from maml_jax.backtest.metrics import Returns
from maml_jax.backtest.strategy_names import BUY_AND_HOLD

_EULER = 0.5772156649015329


def probabilistic_sharpe(returns: Returns, benchmark: float = 0.0) -> float:
    r"""Probability that the true Sharpe ratio exceeds a benchmark.

    $$\Phi\left(\frac{(\widehat{SR} - SR^*)\sqrt{n-1}}
      {\sqrt{1 - g_3 \widehat{SR} + \frac{g_4 - 1}{4} \widehat{SR}^2}}\right)$$

    with $g_3$ the skewness and $g_4$ the kurtosis (3 for a Gaussian) of the returns.

    Args:
        returns: net simple returns per bar; NaN is skipped.
        benchmark: $SR^*$, per bar, not annualised.

    Reference:
        Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    from scipy import stats

    r = np.asarray(returns, float)
    r = r[~np.isnan(r)]
    if len(r) < 4 or not np.isfinite(r).all() or (r == r[0]).all():
        return np.nan
    sharpe = r.mean() / r.std(ddof=1)
    off = r - r.mean()
    square = np.mean(off**2)
    skew, kurtosis = np.mean(off**3) / square**1.5, np.mean(off**4) / square**2
    variance = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if variance <= 0:
        return np.nan
    return float(stats.norm.cdf((sharpe - benchmark) * np.sqrt(len(r) - 1) / np.sqrt(variance)))


def deflated_sharpe(returns: Returns, *, trials: int, trial_variance: float) -> float:
    r"""Probability that the Sharpe ratio is real although the best of several trials was picked.

    The probabilistic Sharpe ratio against the best that luck would show,

    $$SR^* = \sqrt{V}\left((1-\gamma)\,\Phi^{-1}(1 - \tfrac1N)
      + \gamma\,\Phi^{-1}(1 - \tfrac{1}{N e})\right), \quad \gamma = 0.5772$$

    Args:
        returns: net simple returns per bar of the strategy that was picked.
        trials: $N$, how many were tried.
        trial_variance: $V$, the variance of their Sharpe ratios, per bar.

    Raises:
        ValueError: if `trials` is below 1 or the variance negative.

    Reference:
        Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio.
    """
    if trials < 1 or trial_variance < 0:
        raise ValueError("deflated_sharpe needs at least one trial and a variance of at least 0")
    if trials == 1:
        return probabilistic_sharpe(returns)
    from scipy import stats

    luck = (1 - _EULER) * stats.norm.ppf(1 - 1 / trials)
    luck += _EULER * stats.norm.ppf(1 - 1 / (trials * np.e))
    return probabilistic_sharpe(returns, benchmark=float(np.sqrt(trial_variance) * luck))


class Roles(NamedTuple):
    """Which strategies are judged, and what they are judged against.

    Attributes:
        headline: the method that is judged.
        methods: all that were tried, the headline among them or not.
        baselines: what a method is to beat.
        benchmark: to which alpha and beta refer.
    """

    headline: str
    methods: Sequence[str]
    baselines: Sequence[str]
    benchmark: str = BUY_AND_HOLD


def assess_significance(
    net: pd.DataFrame,
    roles: Roles,
    *,
    bars_per_year: float,
    seed: int,
    trials: int = 1,
    trial_variance: float = 0.0,
    samples: int = SAMPLES,
    resampled: Resampled | None = None,
) -> pd.DataFrame:
    r"""Test what is significant, for the headline, the other methods and the baselines.

    The one test that a verdict stands on is that of the headline's alpha: `p_adjusted`, which is
    the test's probability after Sidak's $1 - (1 - p)^N$ for the best of N trials.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        roles: columns of `net` that are judged, and those they are judged against; without its
            benchmark alpha and beta are NaN.
        bars_per_year: for everything annualised.
        seed: decides the samples.
        trials: how many distinct methods and settings were tried on these bars.
        trial_variance: variance of their Sharpe ratios, per bar.
        samples: of each bootstrap.
        resampled: samples of `net`, where they are drawn already.

    Returns:
        One row per strategy, `strategy` the index: `alpha [%]` (per year, see `alpha_tests`), its
        interval `alpha low [%]` and `alpha high [%]` of 90 %, which is above 0 where the one-sided
        test at 5 % rejects; `beta`, `p_value`; for methods `trials`, `p_adjusted` and
        `deflated_sharpe`; `probabilistic_sharpe`; `spa_p`: for a baseline, the probability of
        Hansen's test that no method earns more than it; for the headline, the largest of them.
        NaN where something is not defined. A strategy that lost all of its capital is never
        significant: its probabilities are 1, its Sharpe ratios' are 0.

    Raises:
        KeyError: if the headline is not in `net`.
        ValueError: if there is less than one trial, or no sample.
    """
    headline = roles.headline
    if headline not in net.columns:
        raise KeyError(f"there are no returns of {headline!r}, only of {list(net.columns)}")
    if trials < 1:
        raise ValueError(f"there is at least one trial, got {trials}")
    tried = [name for name in net.columns if name in {headline, *roles.methods}]
    alphas = alpha_tests(
        net, roles.benchmark, seed=seed, samples=samples, trials=dict.fromkeys(tried, trials)
    )
    superior = superior_ability(
        net, tried, roles.baselines, seed=seed, samples=samples, resampled=resampled
    )
    rows = {}
    for name in net.columns:
        row = dict.fromkeys(_COLUMNS, np.nan)
        if name in alphas:
            alpha, year = alphas[name], 100 * bars_per_year
            row["alpha [%]"], row["beta"] = year * alpha.value, alpha.beta
            row["alpha low [%]"], row["alpha high [%]"] = year * alpha.low, year * alpha.high
            row["p_value"] = alpha.p_value
        row["probabilistic_sharpe"] = probabilistic_sharpe(net[name])
        if name in tried:
            row["trials"] = trials
            with np.errstate(divide="ignore"):  # a probability of 1
                row["p_adjusted"] = -np.expm1(trials * np.log1p(-row["p_value"]))
            row["deflated_sharpe"] = deflated_sharpe(
                net[name], trials=trials, trial_variance=np.nan_to_num(trial_variance)
            )
        row["spa_p"] = superior.max() if name == headline else superior.get(name, np.nan)
        if (net[name] <= -1).any():  # a mean that nobody survived to earn is not skill
            row |= dict.fromkeys(("alpha low [%]", "alpha high [%]", "spa_p"), np.nan)
            row["p_value"] = 1.0
            row["probabilistic_sharpe"] = 0.0
            if name in tried:
                row["p_adjusted"], row["deflated_sharpe"] = 1.0, 0.0
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS)).astype(float)
    return table.rename_axis("strategy")


_COLUMNS = (
    "alpha [%]",
    "alpha low [%]",
    "alpha high [%]",
    "beta",
    "p_value",
    "trials",
    "p_adjusted",
    "probabilistic_sharpe",
    "deflated_sharpe",
    "spa_p",
)


def superior_ability(
    net: pd.DataFrame,
    methods: Sequence[str],
    baselines: Sequence[str],
    *,
    seed: int,
    samples: int = SAMPLES,
    resampled: Resampled | None = None,
) -> pd.Series:
    r"""Test, for each baseline, that none of the methods earns more in the mean.

    Hansen's test of superior predictive ability, of its three probabilities the consistent one.
    With $\bar d_k$ the mean gain of method k on the baseline and $\bar d_k^*$ that of a sample,

    $$p = P\Bigl(\max_k (\bar d_k^* - \mu_k) > \max_k \bar d_k\Bigr), \qquad
      \mu_k = \bar d_k \, 1\Bigl\{\bar d_k \ge -\sqrt{2 \ln \ln n \; \omega_k^2 / n}\Bigr\}$$

    Samples are those of a stationary bootstrap of all strategies together, the same for every
    baseline.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        methods: columns; the best of them is tested.
        baselines: columns.
        seed: decides the samples.
        samples: how many.
        resampled: samples of `net`, where they are drawn already.

    Returns:
        The probability by baseline: small where a method beats it. 1 where no method differs from
        it, NaN where returns are not finite or of fewer than 20 bars.

    Reference:
        Hansen (2005), A Test for Superior Predictive Ability, JBES 23, section 3.
    """
    known = {name for name in net.columns if np.isfinite(net[name].to_numpy(float)).all()}
    methods = [name for name in dict.fromkeys(methods) if name in known]
    wanted = [n for n in dict.fromkeys(baselines) if n not in methods and n in net.columns]
    found = dict.fromkeys(wanted, np.nan)
    if methods and len(net) >= 20 and wanted:
        drawn = resampled or resample(net, 1.0, seed=seed, samples=samples)
        assert drawn is not None
        for baseline in wanted:
            if baseline in known:
                found[baseline] = _superior(net, methods, baseline, drawn)
    return pd.Series(found, dtype=float).rename_axis("baseline")


def _superior(net: pd.DataFrame, methods: list[str], baseline: str, drawn: Resampled) -> float:
    gains = net[methods].to_numpy(float) - net[[baseline]].to_numpy(float)
    moves = np.ptp(gains, axis=0) > 1e-12 * np.abs(gains).max()
    if not moves.any():
        return 1.0
    gains = gains[:, moves]
    columns = [drawn.strategies.index(name) for name in [*np.array(methods)[moves], baseline]]
    means = drawn.drawn["Mean Return (Ann.) [%]"][:, columns] / (100 * drawn.bars_per_year)
    sampled = means[:, :-1] - means[:, -1:]
    mean, length = gains.mean(axis=0), len(gains)
    variance = long_run_variance(gains, drawn.block)
    near = mean >= -np.sqrt(2 * np.log(np.log(length)) * np.maximum(variance, 0) / length)
    return float(np.mean((sampled - np.where(near, mean, 0.0)).max(axis=1) > mean.max()))


def long_run_variance(
    values: Float[np.ndarray, "bar column"], block: float
) -> Float[np.ndarray, " column"]:
    r"""Return the variance of $\sqrt n$ times the mean of a stationary bootstrap's samples.

    $$\omega^2 = \hat\gamma_0 + 2 \sum_{i=1}^{n-1} \Bigl(\tfrac{n-i}{n} q^i
      + \tfrac{i}{n} q^{n-i}\Bigr) \hat\gamma_i, \qquad q = 1 - 1/\text{block}$$

    with $\hat\gamma_i$ the autocovariance at lag i, all of them by one Fourier transform.

    Args:
        values: per bar.
        block: mean length of a block, >= 1.

    Reference:
        Politis, Romano (1994), The Stationary Bootstrap, JASA 89, lemma 1.
    """
    length = len(values)
    off = values - values.mean(axis=0)
    padded = next_fast_len(2 * length, real=True)
    spectrum = np.asarray(rfft(off, padded, axis=0))
    covariance = np.asarray(irfft(np.abs(spectrum) ** 2, padded, axis=0))[:length] / length
    lag, keeps = np.arange(length), 1 - 1 / block
    weight = (1 - lag / length) * keeps**lag + lag / length * keeps ** (length - lag)
    weight[1:] *= 2
    weight[0] = 1
    return weight @ covariance
