"""The fills of an account, what each asset brought by them, and the trades that they make."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.account.orders import Market
from maml_jax.backtest.account.state import (
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
    Bars,
    Record,
)

REASONS = ("order", "stop loss", "take profit", "trailing stop", "end", "ruin")
"""Why a trade was closed: an order, one of the stops, the asset's or the bars' end, or nothing left
in the account."""

_REASON = pd.CategoricalDtype(pd.Index(REASONS))
_KINDS = {"side": "int64", "bars": "int64", "reason": _REASON, "open": "bool"}
"""Types of columns that hold other than floats, where there is no trade to infer them from."""
_END, _RUIN = REASONS.index("end"), REASONS.index("ruin")
assert (STOP_LOSS, TAKE_PROFIT, TRAILING_STOP) == (1, 2, 3)


COLUMNS = ("asset", "side", "entry", "exit", "bars", "gross", "net", "result", "cost", "reason",
           "open", "entry_price", "exit_price")  # fmt: skip


class Fills(NamedTuple):
    """What changed what is held, in the order in which it did within a bar; arrays `[time, asset]`.

    Attributes:
        before: units before.
        after: units after.
        price: of the fill, before slippage.
        cost: money.
        reason: index in `REASONS`.
    """

    before: np.ndarray
    after: np.ndarray
    price: np.ndarray
    cost: np.ndarray
    reason: np.ndarray


def list_fills(
    record: Record, bars: Bars, *, at_open: bool, units: np.ndarray | None = None
) -> list[Fills]:
    """Return the fills of one strategy's bars: borrowing, orders, stops and ruin.

    Args:
        record: of the scan, in detail, without the axis of strategies.
        bars: what it read.
        at_open: whether orders come before stops.
        units: held before the first bar, `[asset]`; default none.
    """
    nothing = np.zeros_like(bars.mark)
    start = np.vstack([nothing[:1] if units is None else units[None], record.units[:-1]])
    fills = []

    def add(before, after, price, cost, reason) -> np.ndarray:
        fills.append(Fills(before, after, price, cost, np.broadcast_to(reason, before.shape)))
        return after

    def order(before: np.ndarray) -> np.ndarray:
        reason = np.where(bars.gone, _END, 0)
        return add(before, record.ordered, bars.price, record.order_cost, reason)

    held = start
    if record.borrow_cost is not None:
        add(held, held, nothing, record.borrow_cost, 0)
    if at_open:
        held = order(held)
    if record.stop_kind is not None:
        stopped = record.stop_kind > 0
        after = np.where(stopped, 0.0, held)
        held = add(held, after, record.stop_price, record.stop_cost, record.stop_kind)
    if not at_open:
        held = order(held)
    if record.ruin_cost is not None:
        add(held, record.units, bars.mark, record.ruin_cost, _RUIN)
    return fills


def attribute_result(record: Record, bars: Bars, fills: list[Fills]) -> np.ndarray:
    """Return the money that each asset brought in each bar, after its costs, `[time, asset]`."""
    value = record.units * bars.mark
    start = np.vstack([np.zeros_like(value[:1]), record.units[:-1]]) * bars.before
    spent = sum((each.after - each.before) * each.price + each.cost for each in fills)
    return value - start - spent


def list_trades(record: Record, bars: Bars, fills: list[Fills], market: Market) -> pd.DataFrame:
    """List the trades: from flat to flat, or to the other side, in one asset.

    Several fills of one trade enter by their average price.

    Returns:
        One row per trade, in order of entry: `asset`, `side` (+1 or -1), `entry` and `exit` (times
        of the bars of the fills; where `open`, the asset's last bar), `bars` (of the asset, between
        the two), `gross` and `net` (result before and after costs over the equity at entry),
        `result` (money, before costs), `cost` (money: fees, slippage, borrowing), `reason` (see
        `REASONS`), `open` (not closed at the end, marked at the last price), `entry_price` and
        `exit_price` (averages, before slippage).
    """
    index, assets = market.close.index, market.close.columns
    event = _events(fills)
    opens = (event.before == 0) & (event.after != 0)
    names = pd.CategoricalDtype(assets)
    if not opens.any():
        kinds = {**_KINDS, "asset": names, "entry": index.dtype, "exit": index.dtype}
        return pd.DataFrame({c: pd.Series([], dtype=kinds.get(c, "float64")) for c in COLUMNS})
    trade = np.cumsum(opens) - 1
    count = int(trade[-1]) + 1
    change = event.after - event.before
    grows = np.abs(event.after) > np.abs(event.before)

    def add_up(values: np.ndarray) -> np.ndarray:
        return np.bincount(trade, values, count)

    begin = np.flatnonzero(opens)
    asset, entry = event.asset[begin], event.time[begin]
    last = np.append(begin[1:], len(trade)) - 1
    is_open = event.after[last] != 0
    known = np.isfinite(market.close.to_numpy(float))
    own = np.cumsum(known, axis=0)
    final = len(index) - 1 - np.argmax(known[::-1], axis=0)
    exit_ = np.where(is_open, final[asset], event.time[last])
    left = np.where(is_open, event.after[last], 0.0)
    mark = bars.mark[-1][asset]
    result = left * mark - add_up(change * event.price)
    cost = add_up(event.cost)
    equity = record.value[entry]
    bought = add_up(np.where(grows, np.abs(change), 0.0))
    given = add_up(np.where(grows, 0.0, np.abs(change))) + np.abs(left)
    entry_price = add_up(np.where(grows, np.abs(change) * event.price, 0.0)) / bought
    sold = add_up(np.where(grows, 0.0, np.abs(change) * event.price)) + np.abs(left) * mark
    reasons = np.where(is_open, _END, event.reason[last])
    order = np.lexsort([asset, entry])
    table: dict[str, Any] = {
        "asset": pd.Categorical.from_codes(asset, dtype=names),
        "side": np.sign(event.after[begin]).astype("int64"),
        "entry": index[entry],
        "exit": index[exit_],
        "bars": own[exit_, asset] - own[entry, asset],
        "gross": result / equity,
        "net": (result - cost) / equity,
        "result": result,
        "cost": cost,
        "reason": pd.Categorical.from_codes(reasons, dtype=_REASON),
        "open": is_open,
        "entry_price": entry_price,
        "exit_price": sold / given,
    }
    return pd.DataFrame({name: values[order] for name, values in table.items()})


class _Events(NamedTuple):
    """Fills one after another, asset by asset; those that flip a position are two."""

    asset: np.ndarray
    time: np.ndarray
    before: np.ndarray
    after: np.ndarray
    price: np.ndarray
    cost: np.ndarray
    reason: np.ndarray


def _events(fills: list[Fills]) -> _Events:
    parts = []
    for slot, each in enumerate(fills):
        time, asset = at = np.nonzero((each.before != each.after) | (each.cost != 0))
        parts.append((asset, time, np.full(len(time), slot), *(values[at] for values in each)))
    asset, time, slot, *values = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort([slot, time, asset])
    asset, time = asset[order], time[order]
    before, after, price, cost, reason = (each[order] for each in values)
    flips = before * after < 0
    twice = np.repeat(np.arange(len(flips)), 1 + flips)
    second = np.append(False, twice[1:] == twice[:-1])
    first = np.append(second[1:], False)
    share = np.abs(before) / np.where(flips, np.abs(after - before), 1.0)
    share = np.where(first, share[twice], np.where(second, 1 - share[twice], 1.0))
    return _Events(
        asset[twice],
        time[twice],
        np.where(second, 0.0, before[twice]),
        np.where(first, 0.0, after[twice]),
        price[twice],
        cost[twice] * share,
        reason[twice],
    )
