"""Returns of a few assets with a common and an own volatility, and the naive rows of the past."""

import math

import numpy as np

HORIZON = 3


def young_returns(assets=5, times=420, *, seed=0, gaps=True):
    """Returns whose log volatility has a common and an own part, each of an autoregression."""
    rng = np.random.default_rng(seed)
    moves = rng.standard_normal((assets + 1, times)) * 0.15
    for t in range(1, times):
        moves[:, t] += 0.95 * moves[:, t - 1]
    level = -4.5 + 0.3 * rng.standard_normal((assets, 1))
    returns = np.exp(level + moves[:-1] + moves[-1]) * rng.standard_normal((assets, times))
    if gaps:
        returns[1, :60] = np.nan
        returns[2, 200:207] = np.nan
        returns[3, 300] = np.nan
    return returns


def naive_label(returns, asset, t, horizon=HORIZON):
    ahead = returns[asset, t + 1 : t + 1 + horizon]
    if len(ahead) < horizon or not np.isfinite(returns[asset, t]):
        return math.nan
    return 0.5 * math.log(sum(r * r for r in ahead) / horizon)


def naive_volatility(known, length):
    def over(k):
        return math.sqrt(np.mean(known[-k:] ** 2))

    return math.log(max(over(length), 0.1 * over(22), 1e-6))


def returns_until(returns, asset, t):
    known = returns[asset, : t + 1]
    return known[np.isfinite(known)]


def naive_row(returns, donors, asset, t, age):
    """Own log volatilities, the market's, ln(1 + n) and 1 / (1 + n), as they are; or None."""
    known = returns_until(returns, asset, t)
    if not np.isfinite(returns[asset, t]) or len(known) < age:
        return None
    others = [
        returns_until(returns, d, t) for d in donors if d != asset and np.isfinite(returns[d, t])
    ]
    market = [np.mean([naive_volatility(r, length) for r in others]) for length in (5, 22, 60)]
    if age:
        own = [naive_volatility(known[-age:], length) for length in (1, 5, 22, 60, 250)]
    else:
        own = [market[0], market[0], market[1], market[2], market[2]]
    return np.array([*own, *market, math.log(1 + age), 1 / (1 + age)])


def weighted_fit(rows, labels, weights):
    """Constant and slopes by the pseudo-inverse."""
    root = np.sqrt(np.asarray(weights))[:, None]
    columns = np.c_[np.ones(len(rows)), np.asarray(rows)]
    return np.linalg.lstsq(root * columns, root[:, 0] * np.asarray(labels), rcond=1e-10)[0]
