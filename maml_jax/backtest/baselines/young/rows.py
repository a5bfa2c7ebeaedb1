r"""What is known of an asset n bars after its listing, as rows of a regression.

An age of n means that the last n returns of an asset are known and no earlier one. A bar long after
the listing is a row of every age: its history is cut, as if the asset had been listed n of its bars
before. A bar at which fewer than n returns are known has no row of that age.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from maml_jax.features.volatility import FLOOR, LEAST_SHARE, MONTH

LENGTHS = (1, 5, 22, 60, 250)
"""Bars over which an asset's own volatility is measured, or all that are known."""

MARKET_LENGTHS = (5, 22, 60)
"""Bars over which the volatility of the other assets is measured."""

AGE_FEATURES = 2
"""How many of the features, the last of them, are of the age alone."""

_MARKET_AT_LISTING = (0, 0, 1, 2, 2)
"""Which of the market's lengths stands in for an asset's own before its first return."""

_USUAL = float(np.log(0.01))


class History(NamedTuple):
    """Returns of many assets, laid out so that a history of any age can be looked up.

    Attributes:
        known: bars with a return.
        count: returns known at each bar's close.
        bar: index on the time axis of each asset's i-th return; -1 beyond the last.
        squares: sums of the first i squared returns of each asset.
        market: log volatility of the other donors, the mean of each over `MARKET_LENGTHS`.
        label: log volatility per bar over the next `horizon` bars; NaN where it is unknown.
        donors: indices of the assets whose rows are fitted on.
        horizon: bars ahead; a label of bar t is known at the close of bar t + horizon.
    """

    known: Bool[np.ndarray, "asset time"]
    count: Int[np.ndarray, "asset time"]
    bar: Int[np.ndarray, "asset time"]
    squares: Float[np.ndarray, "asset time+1"]
    market: Float[np.ndarray, "asset time length"]
    label: Float[np.ndarray, "asset time"]
    donors: Int[np.ndarray, " donor"]
    horizon: int


def make_history(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    donors: Sequence[int] | None = None,
) -> History:
    """Lay out returns for `own_volatility` and `find_features`.

    Args:
        returns: logarithmic, per bar; NaN where an asset has no bar.
        horizon: bars ahead.
        donors: indices of the assets to learn from, which are the market too; default all.

    Raises:
        ValueError: if the returns are no table, the horizon is below 1, there is no donor, or
            an asset is unknown.
    """
    r = check_returns(returns, horizon)
    assets, times = r.shape
    chosen = check_assets(donors, assets)
    if not len(chosen):
        raise ValueError("there is no donor to learn from")
    known = np.isfinite(r)
    count = known.cumsum(axis=1)
    bar = np.full(r.shape, -1)
    squares = np.zeros((assets, times + 1))
    for asset, present in enumerate(known):
        own = np.flatnonzero(present)
        bar[asset, : len(own)] = own
        squares[asset, 1 : len(own) + 1] = np.cumsum(r[asset, own] ** 2)
        squares[asset, len(own) + 1 :] = squares[asset, len(own)]
    empty = np.zeros((assets, times, len(MARKET_LENGTHS)))
    history = History(known, count, bar, squares, empty, empty[..., 0], chosen, horizon)
    return history._replace(market=_market(history), label=realised_ahead(r, horizon))


def check_returns(returns: np.ndarray, horizon: int) -> Float[np.ndarray, "asset time"]:
    """Return the returns in double precision.

    Raises:
        ValueError: if they are no table, one is infinite, or the horizon is below 1.
    """
    r = np.asarray(returns, float)
    if r.ndim != 2:
        raise ValueError(f"returns are laid out as [asset, time], not in {r.ndim} dimensions")
    if np.isinf(r).any():
        asset, time = np.argwhere(np.isinf(r))[0]
        raise ValueError(f"the return of asset {asset} at bar {time} is infinite")
    if horizon < 1:
        raise ValueError(f"a horizon has at least 1 bar, not {horizon}")
    return r


def check_assets(chosen: Sequence[int] | None, assets: int) -> Int[np.ndarray, " asset"]:
    """Return indices of assets, all of them by default.

    Raises:
        ValueError: if one is no asset or named twice.
    """
    if chosen is None:
        return np.arange(assets)
    numbers = np.asarray(chosen, int).reshape(-1)
    if len(np.unique(numbers)) < len(numbers) or not ((numbers >= 0) & (numbers < assets)).all():
        raise ValueError(f"assets are distinct indices from 0 to {assets - 1}, not {list(chosen)}")
    return numbers


def check_ages(ages: Sequence[int]) -> Int[np.ndarray, " age"]:
    """Return ages as an array.

    Raises:
        ValueError: if there is none, or they are negative or do not increase.
    """
    numbers = np.asarray(ages, int).reshape(-1)
    if not len(numbers) or numbers[0] < 0 or (np.diff(numbers) <= 0).any():
        raise ValueError(f"ages are increasing numbers of bars of at least 0, not {list(ages)}")
    return numbers


def realised_ahead(
    returns: Float[np.ndarray, "asset time"], horizon: int
) -> Float[np.ndarray, "asset time"]:
    r"""Log of the volatility per bar to come, $\ln \sqrt{\frac1h \sum_{k=1}^h r_{t+k}^2}$.

    NaN at the last h bars, where one of the returns is missing, and where none of them moves.
    """
    result = np.full(returns.shape, np.nan)
    if returns.shape[1] <= horizon:
        return result
    ahead = np.lib.stride_tricks.sliding_window_view(returns[:, 1:] ** 2, horizon, axis=1)
    mean = ahead.mean(axis=-1)
    result[:, : mean.shape[1]] = 0.5 * np.log(np.where(mean > 0, mean, np.nan))
    return result


def own_volatility(
    history: History,
    asset: ArrayLike,
    count: ArrayLike,
    age: ArrayLike,
    lengths: Sequence[int] = LENGTHS,
) -> Float[np.ndarray, "*row length"]:
    r"""Log of an asset's volatility per bar over its last min(n, k) returns.

    $$\ln \max\Bigl(\sqrt{\text{SMA}_{\min(n, k)}(r^2)},\
      \tfrac1{10} \sqrt{\text{SMA}_{\min(n, 22)}(r^2)},\ 10^{-6}\Bigr)$$

    Args:
        history: the returns.
        asset: indices of assets, `[*row]`; broadcast with the next two.
        count: returns of the asset up to the bar.
        age: $n$, how many of them are known.
        lengths: $k$.

    Returns:
        NaN where the age is 0 or the asset has fewer returns.
    """
    asset, count, age = (each[..., None] for each in np.broadcast_arrays(asset, count, age))
    used = np.minimum(age, np.asarray((*lengths, MONTH)))
    begin = history.squares[asset, np.maximum(count - used, 0)]
    total = np.maximum(history.squares[asset, count] - begin, 0.0)
    volatility = np.sqrt(total / np.maximum(used, 1))
    least = np.maximum(LEAST_SHARE * volatility[..., -1:], FLOOR)
    usable = (age > 0) & (age <= count)
    return np.where(usable, np.log(np.maximum(volatility[..., :-1], least)), np.nan)


def find_features(
    history: History,
    asset: ArrayLike,
    time: ArrayLike,
    age: ArrayLike,
) -> Float[np.ndarray, "*row feature"]:
    r"""Features of an asset whose last n returns are known.

    Its log volatilities over `LENGTHS` and the market's over `MARKET_LENGTHS`, written as
    differences from one length to the next, from the asset to the market, and of the market over
    60 bars to $\ln 0.01$: a regression on them is the same, and its columns are less collinear.
    Then $\ln (1 + n)$ and $1 / (1 + n)$. At an age of 0 the asset counts as the market.

    Args:
        history: the returns.
        asset: indices of assets, `[*row]`; broadcast with the next two.
        time: indices of bars.
        age: $n$, how many returns are known.

    Returns:
        NaN where the asset has no bar or fewer returns, or no other donor has a volatility.
    """
    asset, time, age = np.broadcast_arrays(asset, time, age)
    count, market = history.count[asset, time], history.market[asset, time]
    own = own_volatility(history, asset, count, age)
    own = np.where((age == 0)[..., None], market[..., _MARKET_AT_LISTING], own)
    levels = np.concatenate([own, market[..., ::-1]], axis=-1)
    steps = levels[..., :-1] - levels[..., 1:]
    # From the longest own length to the market's longest, on to its shortest.
    level = market[..., -1:] - _USUAL
    since = np.stack([np.log1p(age), 1 / (1 + age)], axis=-1)
    features = np.concatenate([steps, level, since], axis=-1)
    usable = history.known[asset, time] & (age <= count)
    return np.where(usable[..., None], features, np.nan)


def features_by_age(
    history: History, ages: Int[np.ndarray, " age"]
) -> Float[np.ndarray, "age asset time feature"]:
    """Features of every bar at several ages."""
    assets, times = history.known.shape
    return find_features(history, np.arange(assets)[:, None], np.arange(times), ages[:, None, None])


def known_labels(history: History) -> Float[np.ndarray, "asset time"]:
    """Labels at the bars that have a return, NaN elsewhere."""
    return np.where(history.known, history.label, np.nan)


def _market(history: History) -> Float[np.ndarray, "asset time length"]:
    """Mean over the donors with a bar, the asset itself left out; of the returns there are."""
    asset = np.arange(len(history.known))[:, None]
    count = history.count
    each = own_volatility(history, asset, count, count, MARKET_LENGTHS)
    counted = history.known & np.isin(asset, history.donors)
    each = np.where(counted[..., None], each, 0.0)
    others = (counted.sum(axis=0) - counted)[..., None]
    total = each.sum(axis=0) - each
    return np.where(others > 0, total / np.maximum(others, 1), np.nan)
