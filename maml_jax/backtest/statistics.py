"""What the figures of a backtest are worth: intervals, tests, and probabilities of being luck."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from arch.bootstrap import SPA
from scipy import stats

from maml_jax.backtest.alpha import alpha_tests
from maml_jax.backtest.bootstrap import SAMPLES, block_length
from maml_jax.backtest.bootstrap import differences as differences
from maml_jax.backtest.bootstrap import intervals as intervals
from maml_jax.backtest.metrics import Returns
from maml_jax.backtest.overfitting import overfitting_probability as overfitting_probability

_EULER = 0.5772156649015329


def probabilistic_sharpe(returns: Returns, benchmark: float = 0.0) -> float:
    r"""Probability that the true Sharpe ratio exceeds a benchmark.

    $$\Phi\left(\frac{(\widehat{SR} - SR^*)\sqrt{n-1}}
      {\sqrt{1 - g_3 \widehat{SR} + \frac{g_4 - 1}{4} \widehat{SR}^2}}\right)$$

    with $g_3$ the skewness and $g_4$ the kurtosis (3 for a Gaussian) of the returns.

    Args:
        returns: net simple returns per bar.
        benchmark: $SR^*$, per bar, not annualised.

    Reference:
        Bailey and Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    r = np.asarray(returns, float)
    if len(r) < 4 or not np.isfinite(r).all() or (r == r[0]).all():
        return np.nan
    sharpe = r.mean() / r.std(ddof=1)
    skew, kurtosis = stats.skew(r), stats.kurtosis(r, fisher=False)
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
    luck = (1 - _EULER) * stats.norm.ppf(1 - 1 / trials)
    luck += _EULER * stats.norm.ppf(1 - 1 / (trials * np.e))
    return probabilistic_sharpe(returns, benchmark=float(np.sqrt(trial_variance) * luck))


def significance(
    net: pd.DataFrame,
    *,
    headline: str,
    methods: Sequence[str],
    baselines: Sequence[str],
    benchmark: str = "buy and hold",
    trials: int = 1,
    trial_variance: float = 0.0,
    bars_per_year: float,
    seed: int,
    samples: int = SAMPLES,
) -> pd.DataFrame:
    r"""Say what is significant, for the headline, the other methods and the baselines.

    The one test that a verdict stands on is that of the headline's alpha: `p_adjusted`, which is
    the test's probability after Sidak's $1 - (1 - p)^N$ for the best of N trials.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        headline: the method that is judged.
        methods: all that were tried, the headline among them or not.
        baselines: what a method is to beat.
        benchmark: to which alpha and beta refer, a column of `net`; without it they are NaN.
        trials: how many distinct methods and settings were tried on these bars.
        trial_variance: variance of their Sharpe ratios, per bar.
        bars_per_year: for everything annualised.
        seed: decides the samples.
        samples: of each bootstrap.

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
    if headline not in net.columns:
        raise KeyError(f"there are no returns of {headline!r}, only of {list(net.columns)}")
    if trials < 1:
        raise ValueError(f"there is at least one trial, got {trials}")
    tried = [name for name in net.columns if name in {headline, *methods}]
    alphas = alpha_tests(
        net, benchmark, seed=seed, samples=samples, trials=dict.fromkeys(tried, trials)
    )
    superior = superior_ability(net, tried, baselines, seed=seed, samples=samples)
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
        if (net[name] <= -1).any():  # the mean of what nobody lived to earn is no skill
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
) -> pd.Series:
    """Test, for each baseline, that none of the methods earns more in the mean.

    Hansen's test of superior predictive ability with losses that are negative returns, by a
    stationary bootstrap; of its three probabilities the consistent one.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        methods: columns, of which the best is looked for.
        baselines: columns.
        seed: decides the samples.
        samples: how many.

    Returns:
        The probability by baseline: small where a method beats it. 1 where no method differs from
        it, NaN where returns are not finite or of fewer than 20 bars.

    Reference:
        Hansen (2005), A Test for Superior Predictive Ability, JBES 23; computed by `arch`.
    """
    methods = [name for name in dict.fromkeys(methods) if np.isfinite(net[name]).all()]
    found = {}
    for baseline in dict.fromkeys(baselines):
        if baseline in methods or baseline not in net.columns:
            continue
        own = net[baseline].to_numpy(float)
        gains = net[methods].to_numpy(float) - own[:, None]
        found[baseline] = np.nan
        if not (np.isfinite(own).all() and methods and len(own) >= 20):
            continue
        gains = gains[:, np.ptp(gains, axis=0) > 1e-12 * np.abs(gains).max()]
        if not gains.shape[1]:
            found[baseline] = 1.0
            continue
        block = max(1, round(block_length(gains)))
        test = SPA(np.zeros(len(own)), -gains, block_size=block, reps=samples, seed=seed)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            test.compute()
        found[baseline] = float(test.pvalues["consistent"])
    return pd.Series(found, dtype=float).rename_axis("baseline")
