"""What a Sharpe ratio is worth: its probability of being real."""

import numpy as np
from scipy import stats

from maml_jax.backtest.metrics import Returns

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
    if len(r) < 4 or (r == r[0]).all():
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
