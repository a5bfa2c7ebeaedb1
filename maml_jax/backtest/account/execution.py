"""What trading costs and which bounds it keeps, and the market as the scan over bars reads it."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from maml_jax.backtest.account.orders import Market, has_ended, require_fill
from maml_jax.backtest.account.state import Bars, Numbers, Rules
from maml_jax.errors import ConfigError, DataError, ShapeError
from maml_jax.features.targets import Fill
from maml_jax.parallel.machine import usable_memory

_STOPS = ("stop_loss", "take_profit", "trailing_stop")

Rebalance = Literal["changes", "always"]


class Execution(NamedTuple):
    """What trading costs and which bounds it keeps.

    Attributes:
        fee: share of the value traded.
        slippage: share of the price, against the trader.
        range_slippage: share of the filled bar's high - low, added to it.
        borrow: annual rate on the value of shorts and on borrowed (negative) cash; a bar is charged
            for the days since the bar before, of 365.
        stop_loss: share of the entry price; None for no stop.
        take_profit: share of the entry price; None for none. Filled at its price, no slippage.
        trailing_stop: share below the highest high since entry (above the lowest low for shorts),
            of the bars before; None for no stop.
        band: an order that would change an asset's weight by less is not sent, except to close; as
            a share of the asset's equal part of the equity, 1 / number of assets.
        max_turnover: of a bar's orders together, in sum |change of weight|; all are scaled and the
            rest stays wanted. None for no limit.
        max_gross: of longs and shorts together, as share of the equity: orders that enlarge
            positions are scaled. None for no limit.
        rebalance: trade where the wanted weight changes (and let weights drift between), or towards
            it at every bar (`always`).
    """

    fee: float = 0.001
    slippage: float = 0.0005
    range_slippage: float = 0.0
    borrow: float = 0.0
    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None
    band: float = 0.0
    max_turnover: float | None = None
    max_gross: float | None = None
    rebalance: Rebalance = "changes"


_NUMBERS = 2**21
"""Of each kind that a scan keeps, at most: some 400 MB with all that is made of them."""

_BYTES_OF_A_NUMBER = 2**11
"""Of the memory that may be planned with: the kinds that are kept, their copies, and room."""


def largest_batch(size: int) -> int:
    """Return how many strategies of a size, or assets, a scan takes at a time: a power of two.

    Args:
        size: numbers of each kind that are kept of one: bars times assets, or times strategies.
    """
    fitting = min(_NUMBERS, usable_memory() // _BYTES_OF_A_NUMBER) // max(size, 1)
    return 1 << max(fitting.bit_length() - 1, 0)


def validate_execution(execution: Execution, capital: float) -> None:
    """Refuse numbers that cannot be.

    Raises:
        ConfigError: naming the first one.
    """
    shares = {"fee": 1.0, "slippage": 1.0, "range_slippage": np.inf, "borrow": np.inf}
    shares["band"] = np.inf
    for name, most in shares.items():
        value = getattr(execution, name)
        if not 0 <= value < most:
            share = "; a share: 0.05 is 5 %" if most == 1 and value >= 1 else ""
            raise ConfigError(
                f"{name} must lie at or above 0 and below {most:g}, got {value}{share}"
            )
    bounds = {"stop_loss": np.inf, "take_profit": np.inf, "trailing_stop": 1.0}
    bounds |= {"max_turnover": np.inf, "max_gross": np.inf}
    for name, most in bounds.items():
        value = getattr(execution, name)
        if value is not None and not 0 < value < most:
            raise ConfigError(
                f"{name} must lie above 0 and below {most:g}, or be None for none, got {value}"
            )
    if not 0 < capital < np.inf:
        raise ConfigError(f"capital must be a positive number, got {capital}")
    if execution.rebalance not in get_args(Rebalance):
        raise ConfigError(
            f"rebalance must be one of {get_args(Rebalance)}, got {execution.rebalance!r}"
        )


def make_rules(execution: Execution, fill: Fill, bars: Bars, *, detail: bool) -> Rules:
    """Return what is compiled into the scan."""
    return Rules(
        at_open=fill == "next_open",
        always=execution.rebalance == "always",
        stop_loss=execution.stop_loss is not None,
        take_profit=execution.take_profit is not None,
        trailing_stop=execution.trailing_stop is not None,
        band=execution.band > 0,
        max_turnover=execution.max_turnover is not None,
        max_gross=execution.max_gross is not None,
        borrow=execution.borrow > 0,
        gaps=not (bars.inverse > 0).all(),
        detail=detail,
    )


def make_numbers(execution: Execution) -> Numbers:
    """Return the sizes of the rules; 0 where there is none."""
    return Numbers(
        *(
            np.float64(value or 0.0)
            for value in (
                execution.fee,
                execution.slippage,
                execution.borrow,
                execution.stop_loss,
                execution.take_profit,
                execution.trailing_stop,
                execution.band,
                execution.max_turnover,
                execution.max_gross,
            )
        )
    )


def _read_prices(market: Market) -> dict[str, np.ndarray]:
    """Return the four prices as arrays, NaN where one is missing or the asset has no bar."""
    prices = {name: np.array(table, np.float64) for name, table in market._asdict().items()}
    for values in prices.values():
        values[~np.isfinite(values)] = np.nan
    there = np.isfinite(prices["close"])
    return {name: np.where(there, values, np.nan) for name, values in prices.items()}


def lay_out_market(market: Market, fill: Fill, execution: Execution) -> Bars:
    """Lay the market out for the scan: prices that are always there, and what a unit costs.

    Where an asset has ended, what is held can be closed at the last price that was known.

    Raises:
        DataError: if bars lack the opens that orders are filled at, or the highs and lows between
            which stops are checked.
        ShapeError: if the prices have different timestamps or assets.
        ConfigError: if there is no such fill.
    """
    require_fill(fill)
    for name, table in market._asdict().items():
        same = table.index.equals(market.close.index)
        if not same or not table.columns.equals(market.close.columns):
            raise ShapeError(
                f"{name} and close have different timestamps or assets; see make_market"
            )
    prices = _read_prices(market)
    at_open = fill == "next_open"
    needed = {"open": "fill 'next_open'"} if at_open else {}
    if execution.range_slippage > 0 or any(getattr(execution, name) for name in _STOPS):
        needed |= dict.fromkeys(("high", "low"), "stops and range slippage")
    for name, by_what in needed.items():
        absent = np.isnan(prices[name]).all(axis=0) & ~np.isnan(prices["close"]).all(axis=0)
        if absent.any():
            asset = market.close.columns[int(absent.argmax())]
            raise DataError(
                f"{asset}: {by_what} need column {name!r}, which its bars do not have; "
                "use fill 'next_close' without them"
            )
    mark = _carry_forward(prices["close"])
    before = np.vstack([np.zeros_like(mark[:1]), mark[:-1]])
    spread = np.nan_to_num(execution.range_slippage * (prices["high"] - prices["low"]))
    spread = np.maximum(spread, 0.0)
    price = prices["open"] if at_open else prices["close"]
    gone = has_ended(market).to_numpy(bool)
    price = np.where(gone, before, price)
    able = price > 0
    inverse = np.divide(1.0, price, out=np.zeros_like(price), where=able)
    price = np.where(np.isnan(price), before if at_open else mark, price)
    buy, sell = _unit_costs(price, spread, execution)
    mark_buy, mark_sell = _unit_costs(mark, spread, execution)
    return Bars(
        price=price,
        inverse=inverse,
        buy=buy,
        sell=sell,
        mark=mark,
        before=before,
        mark_buy=mark_buy,
        mark_sell=mark_sell,
        open=prices["open"],
        high=prices["high"],
        low=prices["low"],
        spread=spread,
        gone=gone,
        years=_elapsed_years(market) if execution.borrow > 0 else None,
    )


def _elapsed_years(market: Market) -> np.ndarray:
    """Return the years of 365 days since the bar before, `[time, asset]`; 0 at the first."""
    days = pd.DatetimeIndex(market.close.index).to_series().diff() / pd.Timedelta(days=1)
    years = days.fillna(0.0).to_numpy(float) / 365
    return np.broadcast_to(years[:, None], market.close.shape)


def compute_returns(
    equity: np.ndarray, costs: np.ndarray, capital: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return net returns and costs as shares of the equity one bar before.

    Once nothing is left both are 0; a return is -1 at worst.

    Args:
        equity: money at each close, `[..., time]`.
        costs: money paid in each bar, `[..., time]`.
        capital: money before the first bar.
    """
    before = np.concatenate([np.full_like(equity[..., :1], capital), equity[..., :-1]], axis=-1)
    alive = before > 0
    safe = np.where(alive, before, 1.0)
    net = np.where(alive, np.maximum(equity / safe - 1, -1.0), 0.0)
    return net, np.where(alive, costs / safe, 0.0)


def _carry_forward(values: np.ndarray) -> np.ndarray:
    """Return the last known value of each column, 0 before the first."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.nan_to_num(np.take_along_axis(values, np.maximum.accumulate(rows), axis=0))


def _unit_costs(
    price: np.ndarray, spread: np.ndarray, execution: Execution
) -> tuple[np.ndarray, np.ndarray]:
    """Return what buying and what selling a unit costs; a seller gets at least nothing."""
    slip = execution.slippage * np.abs(price) + spread
    buy = slip + execution.fee * np.abs(price + slip)
    slip = np.minimum(slip, np.abs(price))
    return buy, slip + execution.fee * np.abs(price - slip)
