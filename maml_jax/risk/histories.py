r"""What is known of young assets at each bar: columns of a model's input, and what came after.

A row belongs to an asset, to a bar at which it is read and to a bar at which the asset was listed,
or is imagined to have been. n, the age, counts the returns between them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from maml_jax.features.volatility import FLOOR, MONTH
from maml_jax.features.young import MARKET_WINDOWS, OWN_NAMES, log_root, own_columns, trailing_mean

INPUTS = (
    *OWN_NAMES,
    *(f"market_volatility_{k}" for k in MARKET_WINDOWS),
    "log_age",
    "inverse_age",
    "alone",
    "log_horizon",
)
"""Columns of a model's input."""

_OWN_OF_MARKET = (1, 2, 3)
"""The own columns that stand for the market's, by window, where an asset is alone."""

_MARKET_OF_OWN = (0, 0, 1, 2, 2, 1, 2)
"""The market's columns that stand for the own ones, where there is no return yet."""

_SEASONED = 5
"""Returns from which on an asset counts as one of the others."""

_KEPT = 5
"""Bars for which what others did last is kept, where they have none of their own."""

_LEAST_AHEAD, _USUAL = 0.1, 60
"""The least outcome, as a share of the volatility of so many last returns."""


CLIP = 4.0
"""Inputs beyond so many deviations are taken for that: another market may lie anywhere."""


class Scaling(NamedTuple):
    """Means and deviations of inputs, `[input]`, and of the target, numbers."""

    x_mean: Float[np.ndarray, " input"]
    x_std: Float[np.ndarray, " input"]
    y_mean: float
    y_std: float

    def x(self, inputs: Any, xp: Any = np) -> Any:
        """Standardise and clip inputs; what is unknown becomes the mean."""
        scaled = xp.clip((inputs - self.x_mean) / self.x_std, -CLIP, CLIP)
        return xp.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def y(self, log_volatility: np.ndarray) -> np.ndarray:
        """Standardise log volatilities."""
        return (log_volatility - self.y_mean) / self.y_std


class Histories(NamedTuple):
    """The returns of several assets, and the volatility of each among the others.

    Attributes:
        assets: names.
        times: of the bars of each asset.
        returns: logarithmic, of each asset, `[bar]`; NaN at the first.
        timeline: all times.
        levels: log volatility of each asset over `MARKET_WINDOWS`, `[time, asset, window]`; NaN
            where it has none.
        total: their sum over all assets that have one, `[time, window]`.
        count: how many these are, `[time]`.
    """

    assets: tuple[str, ...]
    times: tuple[pd.DatetimeIndex, ...]
    returns: tuple[Float[np.ndarray, " bar"], ...]
    timeline: pd.DatetimeIndex
    levels: Float[np.ndarray, "time asset window"]
    total: Float[np.ndarray, "time window"]
    count: Int[np.ndarray, " time"]


def make_histories(bars: Mapping[str, pd.DataFrame]) -> Histories:
    """Lay out the returns of several assets.

    Args:
        bars: in normal form, by asset; rows without a close are left out.
    """
    closes = [frame["close"].to_numpy(float) for frame in bars.values()]
    there = [~np.isnan(close) for close in closes]
    times = tuple(
        pd.DatetimeIndex(frame.index if own.all() else frame.index[own])
        for frame, own in zip(bars.values(), there, strict=True)
    )
    returns = tuple(_log_returns(close[own]) for close, own in zip(closes, there, strict=True))
    timeline = times[0]
    for each in times[1:]:
        timeline = timeline.union(each)
    levels = np.full((len(timeline), len(times), len(MARKET_WINDOWS)), np.nan)
    for number, (own, r) in enumerate(zip(times, returns, strict=True)):
        known = _levels(r)
        if len(own) < len(timeline):
            filled = pd.DataFrame(known, own).reindex(timeline, method="ffill", limit=_KEPT)
            known = filled.to_numpy()
        levels[:, number] = known
    total = np.nansum(levels, axis=1)
    count = np.isfinite(levels).all(axis=-1).sum(axis=1)
    return Histories(tuple(bars), times, returns, timeline, levels, total, count)


def _log_returns(close: Float[np.ndarray, " bar"]) -> Float[np.ndarray, " bar"]:
    r"""Return $\ln (c_t / c_{t-1})$; NaN at the first."""
    return np.concatenate([[np.nan], np.log(close[1:] / close[:-1])])


def _levels(returns: Float[np.ndarray, " bar"]) -> Float[np.ndarray, "bar window"]:
    """Log volatilities of an asset as one of the others; NaN where it is new, or did not move."""
    squares, last = returns**2, np.arange(len(returns))
    found = np.stack([trailing_mean(squares, k) for k in MARKET_WINDOWS], axis=-1)
    month = trailing_mean(squares, MONTH)
    seasoned = (last >= _SEASONED) & (np.sqrt(month) > FLOOR)
    return np.where(seasoned[:, None], log_root(found, month[:, None]), np.nan)


def others_volatility(
    histories: Histories,
    asset: int,
    others: Sequence[int] | None = None,
    *,
    bars: Int[np.ndarray, "*n"] | None = None,
) -> tuple[Float[np.ndarray, "*n window"], Int[np.ndarray, "*n"]]:
    """Return the mean log volatility of the others at bars of an asset, and their number.

    Args:
        histories: of all.
        asset: its number.
        others: numbers of those that count; default all but itself.
        bars: index of each bar; default all.

    Returns:
        NaN where there are none.
    """
    at = histories.timeline.get_indexer(histories.times[asset])
    wanted = at if bars is None else at[bars]
    if others is None:
        own = histories.levels[wanted, asset]
        there = np.isfinite(own).all(axis=-1)
        total = histories.total[wanted] - np.where(there[..., None], own, 0.0)
        count = histories.count[wanted] - there
    else:
        chosen = [number for number in others if number != asset]
        times, places = np.unique(wanted, return_inverse=True)
        levels = histories.levels[times][:, chosen]
        places = places.reshape(wanted.shape)
        total = np.nansum(levels, axis=1)[places]
        count = np.isfinite(levels).all(axis=-1).sum(axis=1)[places]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(count[..., None] > 0, total / count[..., None], np.nan)
    return mean, count


def input_columns(
    own: Any, market: Any, age: Any, others: Any, log_horizon: Any, xp: Any = np
) -> Any:
    """Put the columns of a model's input together.

    Where an asset is alone its own volatility stands for the market's, and before its first return
    the market's for its own; the age and the number of others say so.

    Args:
        own: as `own_columns` gives them, `[*n, column]`.
        market: as `others_volatility` gives it, `[*n, window]`; of any value without others.
        age: returns since the listing, `[*n]`.
        others: how many assets the market is, `[*n]`.
        log_horizon: logarithm of the bars ahead, a number.
        xp: `numpy`, or `jax.numpy` for arrays of a device.

    Returns:
        `[*n, input]` in the order of `INPUTS`; NaN at age 0 of an asset that is alone.
    """
    alone, new = (others == 0)[..., None], (age == 0)[..., None]
    from_own = xp.where(new, xp.nan, own[..., np.array(_OWN_OF_MARKET)])
    market = xp.where(alone, from_own, market)
    own = xp.where(new, market[..., np.array(_MARKET_OF_OWN)], own)
    rest = (xp.log1p(age), 1 / (1.0 + age), 1 / (1.0 + others), xp.full(age.shape, log_horizon))
    return xp.concatenate([own, market, xp.stack(rest, -1)], -1)  # noqa: PD013


def outcome(
    returns: Float[np.ndarray, " bar"], horizon: int
) -> tuple[Float[np.ndarray, " bar"], Float[np.ndarray, " bar"]]:
    r"""Return what came after each bar: the log of realised volatility per bar, and the return.

    $$y_t = \ln \sqrt{\tfrac1h \textstyle\sum_{i=1}^h r_{t+i}^2}, \qquad
      R_t = \textstyle\sum_{i=1}^h r_{t+i}$$

    y is never below a tenth of the volatility of the last 60 returns: one return of nearly nothing
    is no measure of it.

    Args:
        returns: logarithmic, `[bar]`.
        horizon: $h$.

    Returns:
        NaN where fewer than h bars came.
    """
    bars = len(returns)
    ahead = np.full(bars, np.nan)
    total = np.full(bars, np.nan)
    if bars > horizon:
        last = np.arange(bars - horizon)
        squares = returns**2
        mean = sliding_window_view(squares, horizon)[1:].mean(axis=-1)
        least = _LEAST_AHEAD * np.sqrt(trailing_mean(squares, _USUAL)[last])
        ahead[last] = np.log(np.maximum(np.sqrt(mean), np.maximum(least, FLOOR)))
        sums = np.concatenate([[0.0], np.cumsum(np.nan_to_num(returns))])
        total[: bars - horizon] = sums[last + horizon + 1] - sums[last + 1]
    return ahead, total


def young_inputs(
    histories: Histories,
    asset: int,
    starts: Int[np.ndarray, " n"],
    ages: Int[np.ndarray, " m"],
    *,
    horizon: int,
    others: Sequence[int] | None = None,
) -> Float[np.ndarray, "n m input"]:
    """Compute the inputs of an asset at several ages, for several bars of listing.

    Args:
        histories: of all.
        asset: its number.
        starts: index of each bar at which it is imagined to be listed.
        ages: returns since then, rising; none may lie after the last bar.
        horizon: bars ahead.
        others: as for `others_volatility`.
    """
    since = histories.returns[asset][starts[:, None] + np.arange(ages[-1] + 1)]
    own = own_columns(since)[:, ages]
    bars = starts[:, None] + ages
    market, count = others_volatility(histories, asset, others, bars=bars)
    age = np.broadcast_to(ages, bars.shape)
    return input_columns(own, market, age, count, np.log(horizon))
