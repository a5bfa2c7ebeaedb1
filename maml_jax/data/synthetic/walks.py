"""Markets of one kind of noise throughout: the random walk, the trend and changing volatility."""

import numpy as np
from numpy.typing import ArrayLike

from maml_jax.data.synthetic.market import Market, Simulated


def random_walk_bars(
    count: int, *, drift: ArrayLike = 0.0, volatility: ArrayLike = 0.01, **market
) -> Simulated:
    r"""Simulate prices that nobody can predict.

    $$\log P_t = \log P_{t-1} + \mu + \sigma\, \epsilon_t$$

    Args:
        count: bars of each asset.
        drift: $\mu$, mean log return per bar; one number, or one per asset.
        volatility: $\sigma$, standard deviation of the log return per bar; likewise.
        **market: the other settings of a `Market`.

    Returns:
        Bars, and as truth the expected log return of the next bar.

    Raises:
        ValueError: if a setting is impossible.

    >>> bars, truth = random_walk_bars(100, assets=["BTC", "ETH"], correlation=0.8, interval="1h")
    >>> list(bars), bars["BTC"].shape, truth.shape
    (['BTC', 'ETH'], (100, 5), (100, 2))
    """
    return trend_bars(count, drift=drift, volatility=volatility, **market)


def trend_bars(
    count: int,
    *,
    drift: ArrayLike = 0.0005,
    volatility: ArrayLike = 0.01,
    momentum: ArrayLike = 0.0,
    **market,
) -> Simulated:
    r"""Simulate prices that drift, and returns that continue or revert.

    $$r_t - \mu = \rho\, (r_{t-1} - \mu) + \sqrt{1 - \rho^2}\, \sigma\, \epsilon_t$$

    The first return is of the stationary distribution, of mean $\mu$ and deviation $\sigma$.

    Args:
        count: bars of each asset.
        drift: $\mu$, mean log return per bar; one number, or one per asset.
        volatility: $\sigma$, standard deviation of the log return per bar; likewise.
        momentum: $\rho$ in (-1, 1), correlation of a return with the next one; likewise.
        **market: the other settings of a `Market`.

    Returns:
        Bars, and as truth the log return of the next bar that is expected at each bar's close.

    Raises:
        ValueError: if a setting is impossible.
    """
    from scipy.signal import lfilter  # half a second to import

    setting = Market(count, **market)
    mu = setting.per_asset("drift", drift)
    sigma = setting.per_asset("volatility", volatility, least=0)
    rho = setting.per_asset("momentum", momentum, above=-1, below=1)
    noise, _ = setting.noise()
    deviation = sigma * np.sqrt(1 - rho**2)
    shocks = deviation * noise
    shocks[:, :1] = sigma * noise[:, :1]
    excess = np.stack(
        [lfilter([1.0], [1.0, -r], row) for r, row in zip(rho[:, 0], shocks, strict=True)]
    )
    returns = mu + excess
    spread = np.broadcast_to(deviation, returns.shape)
    return Simulated(setting.bars(returns, spread, sigma), setting.table(mu + rho * excess))


def garch_bars(
    count: int,
    *,
    drift: ArrayLike = 0.0,
    volatility: ArrayLike = 0.01,
    alpha: ArrayLike = 0.08,
    beta: ArrayLike = 0.9,
    degrees: float | None = 6.0,
    **market,
) -> Simulated:
    r"""Simulate prices whose volatility comes in clusters, by GARCH(1, 1).

    $$r_t = \mu + \sigma_t\, \epsilon_t, \qquad
      \sigma_{t+1}^2 =
        (1 - \alpha - \beta)\, \sigma^2 + \alpha\, (r_t - \mu)^2 + \beta\, \sigma_t^2$$

    with $\epsilon$ Student's t scaled to variance 1. The first bar has the mean variance
    $\sigma^2$. Time is a loop over all assets at once, a microsecond or two a bar.

    Args:
        count: bars of each asset.
        drift: $\mu$, mean log return per bar; one number, or one per asset.
        volatility: $\sigma$, standard deviation of the log return per bar over all time; likewise.
        alpha: share of the last squared return in the next variance; likewise.
        beta: share of the last variance in the next; alpha + beta must stay below 1.
        degrees: of freedom of the noise, above 2; None for Gaussian noise.
        **market: the other settings of a `Market`.

    Returns:
        Bars, and as truth the standard deviation of the next bar's log return as it is known at
        each bar's close.

    Raises:
        ValueError: if a setting is impossible or the variance has no mean.

    References:
        Bollerslev, "Generalized autoregressive conditional heteroskedasticity" (1986), Journal of
        Econometrics 31.
    """
    setting = Market(count, **market)
    mu = setting.per_asset("drift", drift)
    sigma = setting.per_asset("volatility", volatility, least=0)
    a = setting.per_asset("alpha", alpha, least=0)
    b = setting.per_asset("beta", beta, least=0)
    if not (a + b < 1).all():
        raise ValueError(
            f"alpha + beta must be below 1 for volatility to have a mean, got {alpha} and {beta}"
        )
    noise, scale = setting.noise(degrees)
    # The next variance is linear in the last, by a factor that the noise decides.
    factors = np.ascontiguousarray((a * noise**2 + b).T)
    constant = ((1 - a - b) * sigma**2)[:, 0]
    variances = np.empty((count + 1, len(noise)))
    variances[0] = sigma[:, 0] ** 2
    for factor, last, following in zip(factors, variances[:-1], variances[1:], strict=True):
        np.multiply(factor, last, out=following)
        following += constant
    deviation = np.sqrt(variances.T)
    now, following = deviation[:, :-1], deviation[:, 1:]
    return Simulated(setting.bars(mu + now * noise, now * scale, sigma), setting.table(following))
