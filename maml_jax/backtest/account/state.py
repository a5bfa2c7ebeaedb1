"""What the scan over bars reads, carries from bar to bar, and records."""

from typing import Any, NamedTuple

STOP_LOSS, TAKE_PROFIT, TRAILING_STOP = 1, 2, 3
"""Why a stop was filled; 0 where none was."""


class Rules(NamedTuple):
    """What is compiled in; what is off costs nothing.

    Attributes:
        at_open: orders are filled at the open, before stops are checked; else at the close.
        always: trade towards the wanted weight at every bar; else where it changes.
        stop_loss: positions are closed at a loss of a share of their entry price.
        take_profit: positions are closed at a gain of a share of their entry price.
        trailing_stop: positions are closed at a share below their best price.
        band: orders that would change a weight by little are dropped.
        max_turnover: what a bar's orders trade is limited.
        max_gross: longs and shorts together are limited.
        borrow: shorts and negative cash cost an annual rate.
        gaps: there are bars in which no order can be filled; orders wait there, and what has ended
            is closed.
        detail: record what happened to each asset; else the account's totals alone.
    """

    at_open: bool
    always: bool
    stop_loss: bool
    take_profit: bool
    trailing_stop: bool
    band: bool
    max_turnover: bool
    max_gross: bool
    borrow: bool
    gaps: bool
    detail: bool

    @property
    def stops(self) -> bool:
        """Whether anything is checked between high and low."""
        return self.stop_loss or self.take_profit or self.trailing_stop


class Numbers(NamedTuple):
    """The sizes of the rules, scalars; 0 where a rule is off.

    Attributes:
        fee: of stops, as share of the value traded; what orders cost stands in `Bars`.
        slippage: of stops, as share of the price.
        borrow: annual rate.
        stop_loss: share of the entry price.
        take_profit: share of the entry price.
        trailing_stop: share of the best price since entry.
        band: smallest change of weight that is sent, as a share of the asset's equal part.
        max_turnover: largest sum of changes of weight in a bar.
        max_gross: largest sum of sizes of weights.
    """

    fee: Any
    slippage: Any
    borrow: Any
    stop_loss: Any
    take_profit: Any
    trailing_stop: Any
    band: Any
    max_turnover: Any
    max_gross: Any


class Bars(NamedTuple):
    """What the market shows, the same for all strategies, `[time, asset]`.

    Attributes:
        price: what an order is filled at before slippage; the last known price where there is none.
        inverse: 1 / price; 0 where no order can be filled.
        buy: cost of buying a unit at `price`: slippage and fee.
        sell: cost of selling a unit at `price`.
        mark: close, or the last known one; 0 before the first.
        before: `mark` one bar earlier.
        mark_buy: cost of buying a unit at `mark`.
        mark_sell: cost of selling a unit at `mark`.
        open: first price of the bar; NaN where there is none.
        high: highest price of the bar; NaN where there is none.
        low: lowest price of the bar; NaN where there is none.
        spread: slippage of a stop that goes by the bar's range, in money for each unit.
        gone: whether the asset has ended.
        years: time since the bar before, in years of 365 days; None where borrowing is free.
    """

    price: Any
    inverse: Any
    buy: Any
    sell: Any
    mark: Any
    before: Any
    mark_buy: Any
    mark_sell: Any
    open: Any
    high: Any
    low: Any
    spread: Any
    gone: Any
    years: Any = None


class Held(NamedTuple):
    """What goes from bar to bar; arrays `[asset, strategy]` or `[strategy]`, None where not needed.

    Attributes:
        cash: money, `[strategy]`.
        units: signed numbers of units.
        alive: whether the account still trades, `[strategy]`.
        equity: money at the close before, `[strategy]`.
        wanted: the weight that was wanted last.
        pending: whether a part of it waits for the turnover that is allowed.
        entry: average price at which what is held was bought or sold, before slippage.
        best: highest price since entry for longs, lowest for shorts.
        stopped: side of the last position that a stop has closed, 0 once another is wanted.
        waiting: an order for which there was no price yet, NaN for none.
    """

    cash: Any
    units: Any
    alive: Any
    equity: Any
    wanted: Any
    pending: Any
    entry: Any
    best: Any
    stopped: Any
    waiting: Any


class Record(NamedTuple):
    """What the scan records of each bar, `[time, strategy]` and `[time, asset, strategy]`.

    Attributes:
        equity: money at the close.
        costs: money, of all kinds.
        turnover: value traded, as share of the equity before.
        exposure: value of what is held at the close, longs and shorts added, over equity.
        value: equity at the prices of the orders, before they are filled.
        ordered: units after orders were filled.
        order_cost: money.
        stop_kind: why a stop was filled, 0 where none was.
        stop_price: before slippage.
        stop_cost: money.
        borrow_cost: money.
        ruin_cost: money, of closing all.
        units: at the close.
    """

    equity: Any
    costs: Any
    turnover: Any
    exposure: Any
    value: Any = None
    ordered: Any = None
    order_cost: Any = None
    stop_kind: Any = None
    stop_price: Any = None
    stop_cost: Any = None
    borrow_cost: Any = None
    ruin_cost: Any = None
    units: Any = None


OF_ASSETS = ("ordered", "order_cost", "stop_kind", "stop_price", "stop_cost", "borrow_cost",
             "ruin_cost", "units")  # fmt: skip
"""What is recorded of each asset; the rest is of the whole account."""
