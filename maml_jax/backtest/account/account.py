"""An account that trades: money, units that drift with their prices, stops, limits and costs."""

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jax import Array

from maml_jax.backtest.account.execution import (
    Execution,
    compute_returns,
    largest_batch,
    lay_out_market,
    make_numbers,
    make_rules,
    validate_execution,
)
from maml_jax.backtest.account.orders import Market
from maml_jax.backtest.account.scan import scan_account, scan_alone
from maml_jax.backtest.account.state import OF_ASSETS, Bars, Record, Rules
from maml_jax.backtest.account.trades import attribute_result, list_fills, list_trades
from maml_jax.errors import ShapeError
from maml_jax.features.targets import Fill


class Account(NamedTuple):
    """What became of an account.

    Attributes:
        equity: money at each close, `[time]`; before the first bar it was the capital.
        net: return per bar after costs, `[time]`.
        gross: `net` + `costs`.
        costs: fees, slippage and borrowing, as share of the equity one bar before.
        turnover: value traded as share of the equity before the trades, `[time]`; a flip from +1
            to -1 counts 2.
        weights: signed value over equity at each close, `[time, asset]`.
        asset_net: each asset's contribution to `net`, `[time, asset]`.
        trades: one row per trade, as `trades.list_trades` returns them.
    """

    equity: pd.Series
    net: pd.Series
    gross: pd.Series
    costs: pd.Series
    turnover: pd.Series
    weights: pd.DataFrame
    asset_net: pd.DataFrame
    trades: pd.DataFrame


def trade(
    orders: pd.DataFrame,
    market: Market,
    *,
    fill: Fill,
    execution: Execution = Execution(),  # noqa: B008 - immutable
    capital: float = 10_000.0,
) -> Account:
    r"""Trade one strategy's orders.

    In each bar, in this order: with `fill="next_open"` orders are filled at the open; stops of what
    is held are checked between high and low; with the other fills orders are filled at the
    close; all is marked at the close.

    An order asks for $w\,E / p$ units, with $E$ the equity at the prices of the fill, before costs.
    Between orders units stay and weights drift. See "Conventions" in `docs/backtest.md`.

    Args:
        orders: wanted weights at the bars of their execution, as `place_orders` returns them,
            `[time, asset]`; NaN where nothing is to be done. An order where no price is known waits
            for the asset's next bar.
        market: prices at the same index and columns.
        fill: `next_open` fills at opens, `next_close` and `close` at closes.
        execution: costs and bounds.
        capital: money before the first bar, positive.

    Raises:
        ShapeError: if orders and market differ in index or columns, or an order is infinite.
        DataError: if the bars lack opens, highs or lows that are needed.
        ConfigError: if a number of `execution` or the capital is impossible.
    """
    return trade_all({"": orders}, market, fill=fill, execution=execution, capital=capital)[""]


def trade_all(
    orders: Mapping[Any, pd.DataFrame],
    market: Market,
    *,
    fill: Fill,
    execution: Execution = Execution(),  # noqa: B008 - immutable
    capital: float = 10_000.0,
) -> dict[Any, Account]:
    """Trade several strategies' orders, each in an account of its own, as `trade` does one.

    One compiled scan takes them side by side.

    Args:
        orders: by strategy, wanted weights as for `trade`.
        market: prices at the same index and columns.
        fill: at which price of a bar orders are filled.
        execution: costs and bounds.
        capital: money of each account before the first bar.

    Raises:
        ShapeError, DataError, ConfigError: as `trade`.
    """
    terms = _Terms(fill, execution, capital)
    bars = _lay_out(orders, market, terms)
    rules = make_rules(execution, fill, bars, detail=True)
    names, together = list(orders), largest_batch(bars.mark.size)
    accounts = {}
    for first in range(0, len(names), together):
        part = names[first : first + together]
        wanted = np.stack([orders[name].to_numpy(np.float64) for name in part], axis=-1)
        kept = _scan(scan_account, wanted, bars, rules, terms)
        for number, name in enumerate(part):
            one = jax.tree.map(itemgetter(number), kept)
            accounts[name] = _account(one, bars, market, terms)
    return accounts


def trade_alone(
    orders: Mapping[Any, pd.DataFrame],
    market: Market,
    *,
    fill: Fill,
    execution: Execution = Execution(),  # noqa: B008 - immutable
    capital: float = 10_000.0,
) -> Iterator[tuple[Any, dict[Any, Account]]]:
    """Trade every asset alone, with the whole capital, as `trade` does the asset's own column.

    Time and memory grow with the number of assets, not with its square: an account looks at its
    own column, and some assets at a time are traded side by side.

    Args:
        orders: by strategy, `[time, asset]`: weights of an account that holds this asset alone.
        market: prices at the same index and columns.
        fill: at which price of a bar orders are filled.
        execution: costs and bounds.
        capital: money of each account before the first bar.

    Yields:
        For each asset, in the order of the market's columns, its name and the account of each
        strategy. Nothing is kept of the assets before.

    Raises:
        ShapeError, DataError, ConfigError: as `trade`, when the first asset is asked for.
    """
    terms = _Terms(fill, execution, capital)
    bars = _lay_out(orders, market, terms)
    assets, names = market.close.columns, list(orders)
    if not names:
        return
    rules = make_rules(execution, fill, bars, detail=True)  # of all assets: one program
    size = len(bars.mark) * _power_of_two(len(names))
    together = min(_power_of_two(len(assets)), largest_batch(size))
    for first in range(0, len(assets), together):
        part = np.arange(first, first + together).clip(max=len(assets) - 1)
        own = _columns(bars, part)
        wanted = np.stack([orders[n].iloc[:, part].to_numpy(np.float64) for n in names], axis=-1)
        kept = _scan(scan_alone, wanted, own, rules, terms)
        for column, asset in enumerate(assets[first : first + together]):
            alone = Market(*(table.iloc[:, [first + column]] for table in market))
            bar = _columns(bars, [first + column])
            accounts = {
                name: _account(_one_account(kept, number, column), bar, alone, terms)
                for number, name in enumerate(names)
            }
            yield asset, accounts


class _Terms(NamedTuple):
    """On what terms all accounts of a call trade."""

    fill: Fill
    execution: Execution
    capital: float


def _lay_out(orders: Mapping[Any, pd.DataFrame], market: Market, terms: _Terms) -> Bars:
    """Check what is given, and lay the market out for the scan."""
    validate_execution(terms.execution, terms.capital)
    for name, table in orders.items():
        if not (
            table.index.equals(market.close.index) and table.columns.equals(market.close.columns)
        ):
            raise ShapeError(
                f"orders {name} {table.shape} and market {market.close.shape} must have the same "
                "index and columns; place_orders gives both the same"
            )
    return lay_out_market(market, terms.fill, terms.execution)


def _scan(
    scan: Callable[..., Record], orders: np.ndarray, bars: Bars, rules: Rules, terms: _Terms
) -> Record:
    """Run a scan in double precision.

    Args:
        scan: `scan_account` or `scan_alone`.
        orders: `[time, asset, strategy]`.
        bars: the market.
        rules: what is compiled in.
        terms: as the accounts trade.

    Returns:
        Arrays with a leading axis of strategies.
    """
    if np.isinf(orders).any():
        raise ShapeError("orders must not be infinite; use NaN for no order")
    numbers = make_numbers(terms.execution)
    length, _, count = orders.shape
    room = _round_up(length) - length
    # Few numbers of strategies are compiled as well: powers of two.
    more = _power_of_two(count) - count
    with jax.enable_x64(True):
        kept = scan(
            rules,
            numbers,
            _lengthen(bars, room),
            np.pad(orders, ((0, room), (0, 0), (0, more)), constant_values=np.nan),
            np.float64(terms.capital),
        )

    def strategies_first(values: Array) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(np.asarray(values)[:length, ..., :count], -1, 0))

    return jax.tree.map(strategies_first, kept)


def _power_of_two(count: int) -> int:
    """Round up to a power of two."""
    return 1 << max(count - 1, 0).bit_length()


def _columns(bars: Bars, assets: np.ndarray | list[int]) -> Bars:
    """Return what the market shows of some assets."""
    return jax.tree.map(lambda values: values[:, assets], bars)


def _one_account(kept: Record, strategy: int, asset: int) -> Record:
    """Return what is recorded of one strategy's account of one asset."""
    own = {
        name: values[strategy][:, [asset] if name in OF_ASSETS else asset]
        for name, values in kept._asdict().items()
        if values is not None
    }
    return Record(**own)


def _round_up(count: int) -> int:
    """Round up to eight steps between powers of two, so that few lengths are compiled."""
    grain = max(1, 2 ** (max(count, 1).bit_length() - 4))
    return -(-count // grain) * grain


def _lengthen(bars: Bars, room: int) -> Bars:
    """Add bars in which nothing can be done."""
    longer = jax.tree.map(lambda values: np.pad(values, ((0, room), (0, 0)), mode="edge"), bars)
    return longer._replace(inverse=np.pad(bars.inverse, ((0, room), (0, 0))))


def _account(record: Record, bars: Bars, market: Market, terms: _Terms) -> Account:
    index, assets = market.close.index, market.close.columns
    net, costs = compute_returns(record.equity, record.costs, terms.capital)
    fills = list_fills(record, bars, at_open=terms.fill == "next_open")
    before = np.concatenate([[terms.capital], record.equity[:-1]])
    shares = attribute_result(record, bars, fills) / np.where(before > 0, before, 1.0)[:, None]
    # At the bar that takes all, assets share the loss that there is.
    whole = shares.sum(axis=1)
    over = (record.equity <= 0) & (whole < -1)
    shares *= np.where(over, -1 / np.where(over, whole, 1.0), 1.0)[:, None]
    left = np.where(record.equity > 0, record.equity, np.inf)

    def series(values: np.ndarray, name: str) -> pd.Series:
        return pd.Series(values, index, name=name)

    return Account(
        equity=series(record.equity, "equity"),
        net=series(net, "net"),
        gross=series(net + costs, "gross"),
        costs=series(costs, "costs"),
        turnover=series(record.turnover, "turnover"),
        weights=pd.DataFrame(record.units * bars.mark / left[:, None], index, assets),
        asset_net=pd.DataFrame(shares, index, assets),
        trades=list_trades(record, bars, fills, market),
    )
