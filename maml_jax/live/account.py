"""The account of a strategy, gone on with from what it held: the rules of the backtest's own."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax.backtest import Market, make_market, place_orders
from maml_jax.backtest.account.execution import lay_out_market, make_numbers, make_rules
from maml_jax.backtest.account.scan import begin, go_on
from maml_jax.backtest.account.state import Bars, Held, Rules
from maml_jax.backtest.account.trades import REASONS, Fills, list_fills
from maml_jax.experiment.evaluation.accounts import execution_of
from maml_jax.live.strategy import Strategy

FILLS = ("time", "asset", "units", "price", "cost", "reason")
"""Columns of a table of fills."""


class Traded(NamedTuple):
    """What an account did in some bars.

    Attributes:
        held: what it holds after the last of them.
        equity: money at each close, `[time]`.
        fills: one row each: `time`, `asset`, `units` (bought; sold if negative), `price` (before
            slippage), `cost` (money: fees and slippage), `reason` as of trades.
    """

    held: Held
    equity: pd.Series
    fills: pd.DataFrame


def open_account(strategy: Strategy, capital: float) -> Held:
    """Return an account in cash."""
    with jax.enable_x64(True):
        held = begin(_rules(strategy), (len(strategy.assets), 1), jnp.asarray(capital))
        return jax.tree.map(np.asarray, held)


def market_of(
    strategy: Strategy, bars: Mapping[str, pd.DataFrame], index: pd.DatetimeIndex
) -> Market:
    """Lay out the prices of the strategy's assets at some times; those without bars have none."""
    nothing = pd.DataFrame({"close": np.zeros(0)}, index[:0])
    return make_market({asset: bars.get(asset, nothing) for asset in strategy.assets}, index)


def orders_of(
    strategy: Strategy, decided: pd.DataFrame, market: Market, missed: pd.DatetimeIndex
) -> pd.DataFrame:
    """Move decisions to the bars in which they are executed, as a backtest does.

    At bars that were missed nothing was decided: what was wanted before stands.

    Args:
        strategy: that decided.
        decided: wanted weights, `[time, asset]`.
        market: at the same times.
        missed: times at which nothing was decided.
    """
    fill = strategy.config.target.fill
    orders = place_orders(decided, market, fill)
    if not len(missed):
        return orders
    at = pd.DataFrame(0.0, decided.index, decided.columns)
    at.loc[missed] = 1.0
    return orders.where(place_orders(at, market, fill) != 1.0)


def trade_on(
    strategy: Strategy, held: Held, market: Market, orders: pd.DataFrame, first: int
) -> Traded:
    """Trade the bars from one on.

    Args:
        strategy: whose costs and bounds hold.
        held: before that bar.
        market: since the account was opened.
        orders: at the same times.
        first: place of the first bar that was not yet traded.
    """
    execution, fill = execution_of(strategy.config), strategy.config.target.fill
    whole = lay_out_market(market, fill, execution)
    bars: Bars = jax.tree.map(lambda values: values[first:], whole)
    wanted = orders.to_numpy(np.float64)[first:, :, None]
    with jax.enable_x64(True):
        after, record = go_on(_rules(strategy), make_numbers(execution), held, bars, wanted)
        after, record = jax.tree.map(np.asarray, (after, record))
    one = jax.tree.map(lambda values: values[..., 0], record)
    index = market.close.index[first:]
    fills = list_fills(one, bars, at_open=fill == "next_open", units=np.asarray(held.units)[:, 0])
    return Traded(after, pd.Series(one.equity, index, name="equity"), _table(fills, market, index))


def fill_at_once(
    strategy: Strategy,
    held: Held,
    able: np.ndarray,
    price: np.ndarray,
    orders: np.ndarray,
) -> np.ndarray:
    """Return the units after orders that are filled at some prices, without costs.

    The account's own bounds apply: band, turnover, gross.

    Args:
        strategy: whose bounds hold.
        held: before.
        able: prices at which orders can be filled, `[asset]`; 0 where none can.
        price: of each asset.
        orders: wanted weights; NaN for none.
    """
    execution = execution_of(strategy.config)
    nothing, unknown = np.zeros((1, len(price))), np.full((1, len(price)), np.nan)
    row = price[None]
    bars = Bars(
        price=row,
        inverse=np.divide(1.0, able, out=np.zeros(len(able)), where=able > 0)[None],
        buy=nothing,
        sell=nothing,
        mark=row,
        before=row,
        mark_buy=nothing,
        mark_sell=nothing,
        open=unknown,
        high=unknown,
        low=unknown,
        spread=nothing,
        gone=np.zeros((1, len(price)), bool),
        years=nothing if execution.borrow > 0 else None,
    )
    with jax.enable_x64(True):
        wanted = np.asarray(orders, np.float64)[None, :, None]
        _, record = go_on(_rules(strategy), make_numbers(execution), held, bars, wanted)
        return np.asarray(record.ordered)[0, :, 0]


def _rules(strategy: Strategy) -> Rules:
    """Return the rules of the settings; assets may always lack a bar."""
    execution = execution_of(strategy.config)
    price = np.zeros((1, 1))  # no order can be filled at it
    bars = Bars(*[price] * len(Bars._fields))
    return make_rules(execution, strategy.config.target.fill, bars, detail=True)


def _table(fills: list[Fills], market: Market, index: pd.Index) -> pd.DataFrame:
    """List fills in the order in which they were made."""
    parts = []
    for place, each in enumerate(fills):
        time, asset = np.nonzero(each.after != each.before)
        parts.append(
            pd.DataFrame(
                {
                    "time": index[time],
                    "asset": market.close.columns[asset],
                    "units": (each.after - each.before)[time, asset],
                    "price": each.price[time, asset],
                    "cost": each.cost[time, asset],
                    "reason": np.asarray(REASONS)[each.reason[time, asset]],
                    "place": place,
                }
            )
        )
    table = pd.concat(parts).sort_values(["time", "place"], kind="stable")
    return table[list(FILLS)].reset_index(drop=True)
