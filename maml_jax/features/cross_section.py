r"""Features of an asset among others: its rank, its beta, the market's return.

What other assets did is added to an asset's bars as columns (`add_cross_section`), so that these
features are functions of one table of bars like all others. $r_t$ is the return over one bar and
$m_t$ the mean of those of all assets.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from maml_jax.features.feature import (
    MARKET_COLUMNS,
    MARKET_MOVE,
    MARKET_RETURN,
    RETURN_RANK,
    Feature,
)
from maml_jax.features.technical import return_over
from maml_jax.features.volatility import log_return
from maml_jax.features.windows import rolling_covariance

_RESTING = 1e-6
"""A deviation of the market below this share of the asset's is a rounding error."""


def add_cross_section(bars: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    r"""Add columns to each asset's bars: what all assets did in the same bar.

    Three columns: `market_return`, the mean of the returns $r_t$ of all assets that have one at
    that time; `return_rank`, the place of the asset's own among them,

    $$2\, \frac{\text{rank}(r_t) - 1}{k - 1} - 1,$$

    -1 for the lowest of k and 1 for the highest; ties share the mean of their ranks; 0 where an
    asset is alone; and `market_move`, the mean of the sizes of their logarithmic returns. An
    asset's return is from its own last bar, so that its first bar has none. No later bar changes a
    value; a cut of earlier bars does, where an asset begins or misses bars, by one return.

    Args:
        bars: in normal form, by asset; all of the market.

    Returns:
        The bars with these columns added, NaN where unknown.
    """
    # In order of their names: the same assets make the same sums.
    returns = pd.DataFrame({name: return_over(bars[name], 1) for name in sorted(bars)}).sort_index()
    known = returns.notna()
    market = returns.mean(axis="columns")
    moves = pd.DataFrame({name: log_return(bars[name]).abs() for name in sorted(bars)}).sort_index()
    move = moves.mean(axis="columns")
    others = known.sum(axis="columns") - 1
    rank = (2 * (returns.rank(axis="columns") - 1)).div(others.where(others > 0), axis="index") - 1
    rank = rank.mask(known.mul(others == 0, axis="index"), 0.0)
    return {
        name: frame.assign(
            **{
                MARKET_RETURN: market.reindex(frame.index),
                RETURN_RANK: rank[name].reindex(frame.index),
                MARKET_MOVE: move.reindex(frame.index),
            }
        )
        for name, frame in bars.items()
    }


def reads_cross_section(features: Sequence[Feature]) -> list[str]:
    """Return the names of the features that need `add_cross_section`."""
    return [feature.name for feature in features if {*feature.columns} & {*MARKET_COLUMNS}]


def beta(bars: pd.DataFrame, window: int) -> pd.Series:
    r"""Slope of the last n returns on the market's, $\text{cov}_n(r, m)_t / \text{var}_n(m)_t$.

    TA-Lib's BETA, with the mean of all assets as the index. 1 where the market does not move: the
    average beta. Warm-up: n bars.
    """
    own, market = return_over(bars, 1), bars[MARKET_RETURN]
    variance = rolling_covariance(market, market, window)
    slope = rolling_covariance(own, market, window) / variance
    resting = variance <= _RESTING**2 * rolling_covariance(own, own, window)
    return slope.mask(resting, 1.0)


def cross_section_features(*, window: int = 20) -> dict[str, Feature]:
    """Return the features of an asset among others, by name.

    Args:
        window: bars of the beta.
    """
    features = [
        Feature("market_return", lambda b: b[MARKET_RETURN], 1, (MARKET_RETURN,)),
        Feature("return_rank", lambda b: b[RETURN_RANK], 1, (RETURN_RANK,)),
        Feature("beta", lambda b: beta(b, window), window, ("close", MARKET_RETURN)),
    ]
    return {feature.name: feature for feature in features}
