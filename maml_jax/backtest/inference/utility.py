"""What a forecast of volatility is worth to an investor who sizes positions by it."""

import numpy as np
from jaxtyping import Float


def realised_utility(
    forecast: Float[np.ndarray, "*values"],
    outcome: Float[np.ndarray, "*values"],
    *,
    sharpe_ratio: float = 0.4,
    risk_aversion: float = 2.0,
) -> Float[np.ndarray, "*values"]:
    r"""Utility in per cent of wealth a year of holding an asset at a constant volatility.

    $$U = 100 \left(\frac{SR^2}{\gamma} \frac{\sigma}{f}
      - \frac{SR^2}{2 \gamma} \frac{\sigma^2}{f^2}\right)$$

    Of an asset whose expected excess return is SR times its volatility, a mean-variance investor
    holds $SR / (\gamma f)$, a volatility of $SR / \gamma$ if the forecast f is right. Then the
    utility is the greatest there is, $SR^2 / 2 \gamma$: 4 % at a Sharpe ratio of 0.4 and a risk
    aversion of 2, of which the target is 20 %. It is 0 where the outcome is twice the forecast, and
    falls without bound beyond. The best constant for outcomes that vary is
    $E(\sigma^2) / E(\sigma)$, above the root of the mean variance.

    Args:
        forecast: log of the volatility forecast, $\ln f$.
        outcome: log of the realised volatility over the same bars, $\ln \sigma$.
        sharpe_ratio: SR, a year.
        risk_aversion: $\gamma$.

    Returns:
        Of each value; NaN where one is missing. Means of it compare forecasts.

    Raises:
        ValueError: if the Sharpe ratio or the risk aversion is not positive.

    Reference:
        Bollerslev, Hood, Huss, Pedersen (2018), Risk everywhere: modeling and managing volatility.

    >>> round(float(realised_utility(np.log([0.2]), np.log([0.2]))[0]), 6)
    4.0
    """
    if not (sharpe_ratio > 0 and risk_aversion > 0):
        raise ValueError(
            "the Sharpe ratio and the risk aversion are above 0, not "
            f"{sharpe_ratio} and {risk_aversion}"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what diverged has no utility left
        ratio = np.exp(np.asarray(outcome, float) - np.asarray(forecast, float))
        return 100 * sharpe_ratio**2 / risk_aversion * ratio * (1 - 0.5 * ratio)
