"""What a broker can do, what it answers, and the limits on what it is sent."""

import os
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import pandas as pd

from maml_jax.errors import OrderError
from maml_jax.live.fills import Execution
from maml_jax.live.orders import Order, Side, to_decimal


class Outcome(NamedTuple):
    """What became of an order that was to be sent, or of a request to cancel one.

    Attributes:
        status: `confirmed`: the broker has it. `rejected`: the broker does not want it, for good.
            `refused`: it is certainly not at the broker, because of our limits or because the
            broker did not look at it (rate limit, clock, keys); it may be sent again.
            `unresolved`: nobody knows; ask by client id.
        client_id: of the order.
        broker_id: the broker's name of the order, if confirmed.
        reason: for people, unless confirmed.
    """

    status: Literal["confirmed", "rejected", "refused", "unresolved"]
    client_id: str
    broker_id: str = ""
    reason: str = ""


class Report(NamedTuple):
    """What a broker says of an order.

    Attributes:
        client_id: our name of it; empty if it was not ours.
        broker_id: the broker's name of it.
        asset: its symbol.
        side: `buy` or `sell`.
        quantity: ordered, in units.
        filled: in units. The executions may come later.
        status: `open`, `filled`, `rejected` or `cancelled`, the latter also if a part is filled.
        reason: for a rejection or a cancellation.
    """

    client_id: str
    broker_id: str
    asset: str
    side: Side
    quantity: Decimal
    filled: Decimal
    status: Literal["open", "filled", "rejected", "cancelled"]
    reason: str = ""


class Held(NamedTuple):
    """A position at a broker.

    Attributes:
        quantity: in units, negative if short, not 0.
        average: its average price, in quote currency per unit.
    """

    quantity: Decimal
    average: Decimal


class Broker(Protocol):
    """An account at which orders are executed: of paper, or of an exchange.

    All but `submit` and `cancel` only ask; they may be repeated, and raise `BrokerError` if there
    is no sensible answer. A broker has at most one order of each client id, ever.
    """

    def submit(self, order: Order) -> Outcome:
        """Send an order, once. A reply that does not come is `unresolved`, not an error."""
        ...

    def query(self, client_id: str) -> Report | None:
        """Return the state of an order; None if the broker has none of that name."""
        ...

    def cancel(self, client_id: str) -> Outcome:
        """Ask to cancel an order. Fills may come before that, and be heard of after it."""
        ...

    def open_orders(self) -> list[Report]:
        """Return all orders that may be filled, of whomever."""
        ...

    def positions(self) -> dict[str, Held]:
        """Return all positions by asset, without those of 0."""
        ...

    def executions(self, since: pd.Timestamp) -> list[Execution]:
        """Return all executions from a time on, ascending; some may come twice."""
        ...


class Limits(NamedTuple):
    """Limits on the orders that are sent. Reduce-only orders pass all but the last.

    There are no defaults but the last two: who sends orders says how much may go wrong.

    Attributes:
        notional: largest value of an order, in quote currency.
        orders_a_day: orders sent per day (UTC).
        daily_loss: loss since the first look of the day (UTC) after which nothing is opened that
            day, in quote currency: realised and open, after fees.
        kill_switch: a file; while it exists, only reduce-only orders are sent.
        faults: orders in a row that the broker did not confirm; then only reduce-only orders are
            sent until `OrderBook.clear_faults`.
        stale_after: no order is sent whose bar opened longer ago; None: any age.
    """

    notional: Decimal | float
    orders_a_day: int
    daily_loss: Decimal | float
    kill_switch: Path
    faults: int = 3
    stale_after: pd.Timedelta | None = None


class Day(NamedTuple):
    """What limits look at.

    Attributes:
        now: in UTC.
        orders: sent today.
        loss: since the first look of the day, in quote currency; negative for a profit.
        faults: in a row.
    """

    now: pd.Timestamp
    orders: int
    loss: Decimal
    faults: int


def find_refusal(order: Order, limits: Limits, day: Day, price: Decimal) -> str:
    """Say which limit forbids an order; nothing if none does.

    Args:
        order: to be sent.
        limits: that hold.
        day: until now.
        price: of the asset, in quote currency per unit.
    """
    if limits.stale_after is not None and day.now - order.bar > limits.stale_after:
        return (
            f"it is stale: its bar opened at {order.bar}, more than {limits.stale_after} ago"
            " (limit stale_after)"
        )
    if order.reduce_only:
        return ""
    if _is_there(limits.kill_switch):
        return f"the kill switch {limits.kill_switch} exists; remove it to trade"
    if day.faults >= limits.faults:
        return (
            f"the broker did not confirm the last {day.faults} orders (limit faults); look into it,"
            " then clear_faults"
        )
    if day.orders >= limits.orders_a_day:
        return f"{day.orders} orders were sent today (limit orders_a_day)"
    most_loss = to_decimal(limits.daily_loss, "limit daily_loss")
    if day.loss >= most_loss:
        return f"the loss of today is {day.loss:f} (limit daily_loss {most_loss:f})"
    # A limit order may be filled at its limit at worst, whatever the price is.
    worst = price if order.limit is None else max(price, order.limit)
    most = to_decimal(limits.notional, "limit notional")
    if order.quantity * worst > most:
        return f"its value is {order.quantity * worst:f} (limit notional {most:f})"
    return ""


def _is_there(file: Path) -> bool:
    """Say whether a file exists, or may exist where nobody can tell."""
    try:
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def to_prices(prices: Mapping[str, Decimal | float]) -> dict[str, Decimal]:
    """Return prices as exact numbers.

    Raises:
        OrderError: naming the asset, if one is not above 0.
    """
    exact = {asset: to_decimal(price, f"price of {asset}") for asset, price in prices.items()}
    for asset, price in exact.items():
        if price <= 0:
            raise OrderError(f"price of {asset}: {price} is not above 0")
    return exact
