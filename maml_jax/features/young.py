r"""Volatility features that begin with the first return of a young asset.

$r_t = \ln (c_t / c_{t-1})$, and n is the age: the number of returns since the asset's first bar.
Each window is cut to what there is, $k \wedge n$ returns, so that the warm-up is one bar for every
window. **Values depend on where the series begins**: that is their point, and a model that reads
them reads the age beside them.
"""

from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from maml_jax.features.feature import MARKET_MOVE, Feature
from maml_jax.features.volatility import FLOOR, LEAST_SHARE, MONTH, log_return

WINDOWS = (1, 5, 22, 60, 250)
"""Returns over which an asset's own volatility is measured."""

DOWNSIDE_WINDOWS = (22, 250)
RANGE_WINDOWS = (5, 22)
MARKET_WINDOWS = (5, 22, 60)

PREFIX = "young_"


class Running:
    """Means over the last returns of a series that is cut at its beginning, at any bar.

    Sums are kept from the first bar on, so that each mean costs one subtraction.

    Args:
        values: of each bar, `[bar]`; NaN counts as 0.
    """

    def __init__(self, values: Float[np.ndarray, " bar"]):
        self._sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values, nan=0.0))])

    def mean(
        self, starts: Int[np.ndarray, " n"], bars: Int[np.ndarray, " n"], window: int
    ) -> Float[np.ndarray, " n"]:
        """Return the means over the last `window` returns up to a bar, of those since a start.

        Args:
            starts: index of the first bar of the cut series; its own return is not known to it.
            bars: index of the bar at which the mean is taken.
            window: $k$.

        Returns:
            NaN where there is no return yet.
        """
        first = np.maximum(starts + 1, bars + 1 - window)
        count = bars + 1 - first
        total = np.maximum(self._sums[bars + 1] - self._sums[np.minimum(first, bars + 1)], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def log_root(
    mean: Float[np.ndarray, "..."], month: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    r"""Return $\ln \max(\sqrt{m},\ \tfrac1{10} \sqrt{m_{22}},\ 10^{-6})$, NaN where unknown.

    Args:
        mean: $m$, a mean of squares.
        month: $m_{22}$, the mean of squared returns over up to 22 bars.
    """
    least = np.maximum(LEAST_SHARE * np.sqrt(month), FLOOR)
    return np.log(np.maximum(np.sqrt(mean), least))


def own_columns(
    returns: Float[np.ndarray, " bar"],
    starts: Int[np.ndarray, " n"],
    bars: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "n column"]:
    r"""Compute log volatilities of an asset at bars, as if it had been listed at others.

    $$\ln \sqrt{\tfrac1{k \wedge n} \textstyle\sum_{i < k \wedge n} r_{t-i}^2}$$

    for each of `WINDOWS`, then the same of falls, $\min(r, 0)^2$, for each of `DOWNSIDE_WINDOWS`;
    never below a tenth of the volatility over up to 22 returns, nor below $10^{-6}$.

    Args:
        returns: logarithmic, `[bar]`; NaN where there is none.
        starts: index of the bar at which it was listed, for each row.
        bars: index of the bar at which the row is read; not before its start.

    Returns:
        NaN in rows of age 0.
    """
    squares, falls = Running(returns**2), Running(np.minimum(returns, 0.0) ** 2)
    month = squares.mean(starts, bars, MONTH)
    own = [log_root(squares.mean(starts, bars, k), month) for k in WINDOWS]
    down = [log_root(falls.mean(starts, bars, k), month) for k in DOWNSIDE_WINDOWS]
    return np.stack([*own, *down], axis=-1)


OWN_NAMES = (
    *(f"{PREFIX}volatility_{k}" for k in WINDOWS),
    *(f"{PREFIX}downside_{k}" for k in DOWNSIDE_WINDOWS),
)
"""Names of `own_columns`."""


def young_market(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Logarithm of the mean absolute return of all assets over the last $k \wedge n$ bars.

    As `market_volatility`, from the asset's first return on.
    """
    last = np.arange(len(bars))
    moves = Running(bars[MARKET_MOVE].to_numpy(float)).mean(0 * last, last, window)
    return pd.Series(np.log(np.maximum(moves, FLOOR)), bars.index)


def log_age(bars: pd.DataFrame) -> pd.Series:
    """Logarithm of one more than the number of returns so far, $\\ln (1 + n)$. No warm-up."""
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
        Parkinson (1980), The Extreme Value Method for Estimating the Variance of the Rate of Return.
    """
    squares = np.log(bars["high"] / bars["low"]).to_numpy(float) ** 2 / (4 * np.log(2))
    last = np.arange(len(bars))
    first = np.zeros(len(bars), int)
    month = Running(log_return(bars).to_numpy(float) ** 2).mean(first, last, MONTH)
    return pd.Series(log_root(Running(squares).mean(first, last, window), month), bars.index)


def _own(name: str, column: int) -> Feature:
    def compute(bars: pd.DataFrame) -> np.ndarray:
        last = np.arange(len(bars))
        returns = log_return(bars).to_numpy(float)
        return own_columns(returns, np.zeros(len(bars), int), last)[:, column]

    return Feature(name, compute, 1, start_invariant=False)
