"""Prices that orders are filled at, and the bars at which what was decided becomes an order."""

from collections.abc import Mapping
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from maml_jax.backtest.positions import patience_at
from maml_jax.errors import ConfigError, DataError, ShapeError
from maml_jax.features.targets import Fill

COLUMNS = ("open", "high", "low", "close")


class Market(NamedTuple):
    """Prices of many assets on one index, `[time, asset]`, float64.

    An asset has a bar where its close is a finite number. All four tables have the same index and
    the same columns, in the same order.

    Attributes:
        open: NaN where the asset has no bar or its bars have no opens.
        high: NaN where the asset has no bar or its bars have no highs; stops need them, and lows.
        low: NaN where the asset has no bar or its bars have no lows.
        close: NaN where the asset has no bar.
    """

    open: pd.DataFrame
    high: pd.DataFrame
    low: pd.DataFrame
    close: pd.DataFrame


def make_market(bars: Mapping[str, pd.DataFrame], index: pd.DatetimeIndex | None = None) -> Market:
    """Lay the bars of many assets out on one index.

    Args:
        bars: for each asset, bars in normal form; `close` alone is allowed.
        index: bars that are wanted, ascending; those outside of it are left out. Default: all bars
            of all assets.

    Raises:
        DataError: if there is no asset, an asset has no closes, or a time stands twice.
    """
    if not bars:
        raise DataError("a market needs at least one asset, got none")
    for asset, table in bars.items():
        if "close" not in table.columns:
            raise DataError(f"{asset}: bars need column 'close', there are {list(table.columns)}")
        if table.index.has_duplicates:
            twice = table.index[table.index.duplicated()][0]
            raise DataError(f"{asset}: two bars at {twice}; keep one of them")
    if index is None:
        index = pd.DatetimeIndex(sorted(set().union(*(table.index for table in bars.values()))))
    if not index.is_unique or not index.is_monotonic_increasing:
        raise DataError("the index of a market must be ascending, each time once")

    def lay_out(column: str) -> pd.DataFrame:
        missing = pd.Series(np.nan, index, dtype="float64")
        return pd.DataFrame(
            {
                asset: table[column].astype("float64").reindex(index)
                if column in table.columns
                else missing
                for asset, table in bars.items()
            },
            index=index,
        )

    return Market(*(lay_out(column) for column in COLUMNS))


def require_fill(fill: str) -> None:
    """Refuse a fill that there is not.

    Raises:
        ConfigError: naming those that there are.
    """
    if fill not in get_args(Fill):
        raise ConfigError(f"fill must be one of {get_args(Fill)}, got {fill!r}")


def has_ended(market: Market) -> pd.DataFrame:
    """Find where assets are taken to have ended: no bar for 30 days, or 6 bars if that is longer.

    Only the past decides: an asset that comes back has ended in between.

    Returns:
        Booleans, `[time, asset]`; False before an asset's first bar.
    """
    index = market.close.index
    times = pd.DatetimeIndex(index).to_series()
    patience = patience_at(pd.DatetimeIndex(index)).to_numpy()[:, None]
    seconds = (times - times.min()).dt.total_seconds().to_numpy()
    last = _last_bar(np.isfinite(market.close.to_numpy(float)))
    silent = (last >= 0) & (seconds[:, None] - seconds[last] > patience)
    return pd.DataFrame(silent, index=index, columns=market.close.columns)


def _last_bar(known: Bool[np.ndarray, "time asset"]) -> Int[np.ndarray, "time asset"]:
    """Return the index of each asset's latest bar at each time; -1 before its first."""
    rows = np.where(known, np.arange(len(known))[:, None], -1)
    return np.maximum.accumulate(rows, axis=0) if len(rows) else rows


def place_orders(
    decisions: pd.DataFrame, market: Market, fill: Fill, *, ended: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Move wanted weights from the bars that decided them to the bars in which they are executed.

    A decision taken at the close of an asset's bar is executed in the asset's next bar, or with
    `fill="close"` at that close itself. Bars are the asset's own.

        bar         1     2     -     4     5
        decided    +1     0    (no   -1     0
        next_*      0    +1     bar)  0    -1     order standing at the bar

    Args:
        decisions: wanted weights, `[time, asset]`; where an asset has a bar and no decision stands,
            it is to be flat. Decisions where an asset has no bar are not executed.
        market: the bars.
        fill: `next_open`, `next_close` or `close`.
        ended: as `has_ended` finds it in the market, where that is known already.

    Returns:
        Wanted weights at the index and columns of the market; NaN where an asset has no bar and
        nothing can be done, 0 where it has ended (see `has_ended`).

    Raises:
        ShapeError: if an asset of the market has no column of decisions, or a weight is infinite.
        ConfigError: if there is no such fill.
    """
    require_fill(fill)
    close = market.close
    missing = [asset for asset in close.columns if asset not in decisions.columns]
    if missing:
        raise ShapeError(f"no decisions for {missing}; give each asset of the market a column")
    if np.isinf(decisions.to_numpy(float)).any():
        raise ShapeError("decisions must not be infinite; use 0 where nothing is wanted")
    known = np.isfinite(close.to_numpy(float))
    wanted = np.nan_to_num(decisions.reindex(close.index)[list(close.columns)].to_numpy(float))
    if fill != "close" and len(close):
        # The decision of the asset's bar before; nothing was decided before its first.
        before = np.vstack([np.full((1, known.shape[1]), -1), _last_bar(known)[:-1]])
        wanted = np.where(before < 0, 0.0, np.take_along_axis(wanted, np.maximum(before, 0), 0))
    gone = (has_ended(market) if ended is None else ended).to_numpy(bool)
    orders = np.where(gone, 0.0, np.where(known, wanted, np.nan))
    return pd.DataFrame(orders, index=close.index, columns=close.columns)
