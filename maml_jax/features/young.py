r"""Volatility features that begin with the first return of a young asset.

$r_t = \ln (c_t / c_{t-1})$, and n is the age: the number of returns since the asset's first bar.
Each window is cut to what there is, $k \wedge n$ returns, so that the warm-up is one bar for every
window. **Values depend on where the series begins**: that is their point, and a model that reads
them reads the age beside them.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.features.feature import MARKET_MOVE, Feature
from maml_jax.features.volatility import FLOOR, LEAST_SHARE, MONTH, log_return

WINDOWS = (1, 5, 22, 60, 250)
"""Returns over which an asset's own volatility is measured."""

DOWNSIDE_WINDOWS = (22, 250)
RANGE_WINDOWS = (5, 22)
MARKET_WINDOWS = (5, 22, 60)

PREFIX = "young_"


def trailing_mean(values: Any, window: int, xp: Any = np) -> Any:
    r"""Mean of the last $k \wedge n$ values at each age n.

    Args:
        values: since the listing, `[*lead, age]`; that of age 0 is not known and does not count.
        window: $k$.
        xp: `numpy`, or `jax.numpy` for arrays of a device.

    Returns:
        `[*lead, age]`; 0 at age 0; NaN where one of the values is.
    """
    age = xp.arange(values.shape[-1])

    def last(numbers: Any) -> Any:
        sums = xp.cumsum(xp.where(age > 0, numbers, 0.0), -1)
        return sums - xp.where(age >= window, xp.take(sums, xp.maximum(age - window, 0), -1), 0.0)

    mean = xp.maximum(last(xp.nan_to_num(values)), 0.0) / xp.clip(age, 1, window)
    if xp is np and not np.isnan(values[..., 1:]).any():
        return mean
    return xp.where(last(xp.isnan(values)) > 0, xp.nan, mean)


def log_root(mean: Any, month: Any, xp: Any = np) -> Any:
    r"""Return $\ln \max(\sqrt{m},\ \tfrac1{10} \sqrt{m_{22}},\ 10^{-6})$.

    Args:
        mean: $m$, a mean of squares.
        month: $m_{22}$, the mean of squared returns over up to 22 bars.
        xp: as for `trailing_mean`.
    """
    return xp.log(xp.maximum(xp.sqrt(mean), xp.maximum(LEAST_SHARE * xp.sqrt(month), FLOOR)))


def own_columns(returns: Any, xp: Any = np) -> Any:
    r"""Compute log volatilities of an asset at each age.

    $$\ln \sqrt{\tfrac1{k \wedge n} \textstyle\sum_{i < k \wedge n} r_{t-i}^2}$$

    for each of `WINDOWS`, then the same of falls, $\min(r, 0)^2$, for each of `DOWNSIDE_WINDOWS`;
    never below a tenth of the volatility over up to 22 returns, nor below $10^{-6}$.

    Args:
        returns: logarithmic, since the listing, `[*lead, age]`; that of age 0 is not looked at.
        xp: as for `trailing_mean`.

    Returns:
        `[*lead, age, column]`; those of age 0 mean nothing.
    """
    squares, falls = returns**2, xp.minimum(returns, 0.0) ** 2
    month = trailing_mean(squares, MONTH, xp)
    own = [log_root(trailing_mean(squares, k, xp), month, xp) for k in WINDOWS]
    down = [log_root(trailing_mean(falls, k, xp), month, xp) for k in DOWNSIDE_WINDOWS]
    return xp.stack([*own, *down], -1)  # noqa: PD013


OWN_NAMES = (
    *(f"{PREFIX}volatility_{k}" for k in WINDOWS),
    *(f"{PREFIX}downside_{k}" for k in DOWNSIDE_WINDOWS),
)
"""Names of `own_columns`."""


def young_market(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Logarithm of the mean absolute return of all assets over the last $k \wedge n$ bars.

    As `market_volatility`, from the asset's first return on.
    """
    moves = trailing_mean(bars[MARKET_MOVE].to_numpy(float), window)
    return _from_second(np.log(np.maximum(moves, FLOOR)), bars)


def log_age(bars: pd.DataFrame) -> pd.Series:
    r"""Logarithm of one more than the number of returns so far, $\ln (1 + n)$. No warm-up."""
    return pd.Series(np.log1p(np.arange(len(bars))), index=bars.index)


def inverse_age(bars: pd.DataFrame) -> pd.Series:
    """Return $1 / (1 + n)$, which falls fast in the first bars and is level later. No warm-up."""
    return pd.Series(1 / (1.0 + np.arange(len(bars))), index=bars.index)


def young_features() -> dict[str, Feature]:
    """Return the features of an asset's own closes and its age, by name."""
    own = [_own(name, column) for column, name in enumerate(OWN_NAMES)]
    ages = [
        Feature(f"{PREFIX}{function.__name__}", function, 0, (), start_invariant=False)
        for function in (log_age, inverse_age)
    ]
    return {feature.name: feature for feature in (*own, *ages)}


def young_market_features() -> dict[str, Feature]:
    """Return the features of all assets together, by name."""
    features = [
        Feature(
            f"{PREFIX}market_{k}", partial(young_market, window=k), 1, (MARKET_MOVE,),
            start_invariant=False,
        )
        for k in MARKET_WINDOWS
    ]  # fmt: skip
    return {feature.name: feature for feature in features}


def young_range_features() -> dict[str, Feature]:
    """Return the features of highs and lows, by name."""
    features = [
        Feature(
            f"{PREFIX}range_{k}", partial(young_range, window=k), 1, ("high", "low", "close"),
            start_invariant=False,
        )
        for k in RANGE_WINDOWS
    ]  # fmt: skip
    return {feature.name: feature for feature in features}


def young_range(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Logarithm of Parkinson's volatility per bar over the last $k \wedge n$ bars.

    $$\ln \sqrt{\tfrac1{k \wedge n} \textstyle\sum \ln^2 (h / l) / (4 \ln 2)}$$

    With the floors of `own_columns`. Warm-up: 1 bar; the range of the first bar is left out, as its
    return is.

    Reference:
        Parkinson (1980), The Extreme Value Method for Estimating the Variance of the Rate of
        Return.
    """
    squares = np.log((bars["high"] / bars["low"]).to_numpy(float)) ** 2 / (4 * np.log(2))
    month = trailing_mean(log_return(bars).to_numpy(float) ** 2, MONTH)
    return _from_second(log_root(trailing_mean(squares, window), month), bars)


def _own(name: str, column: int) -> Feature:
    def compute(bars: pd.DataFrame) -> pd.Series:
        return _from_second(own_columns(log_return(bars).to_numpy(float))[:, column], bars)

    return Feature(name, compute, 1, start_invariant=False)


def _from_second(values: np.ndarray, bars: pd.DataFrame) -> pd.Series:
    """Put values on the index of bars; the first has no return."""
    return pd.Series(values, bars.index).where(np.arange(len(bars)) > 0)
