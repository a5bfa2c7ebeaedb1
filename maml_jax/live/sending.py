"""The one path on which orders are sent."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import pandas as pd

from maml_jax.errors import BrokerError, OrderError
from maml_jax.live.broker import Broker, Day, Limits, Outcome, find_refusal, to_prices
from maml_jax.live.order_book import OrderBook
from maml_jax.live.orders import OPEN, Order, Record, Step, acknowledge, step
from maml_jax.live.recovery import resolve, take_report

_STEPS: dict[str, Step] = {"rejected": "reject", "refused": "refuse", "unresolved": "lose"}
"""What an outcome does to an order, unless it is confirmed."""


def send_orders(
    book: OrderBook,
    broker: Broker,
    orders: Iterable[Order],
    limits: Limits,
    prices: Mapping[str, Decimal | float],
    *,
    now: pd.Timestamp | None = None,
) -> list[Outcome]:
    """Send orders, each at most once, however often this is called.

    Orders that are unresolved are asked about first. Then, for each order: limits are checked, it
    is recorded, marked as sent, sent, and what the broker says is recorded. One that was sent
    before is not sent again; its outcome is that of the book. An order is refused while another
    of its asset may be filled, or if it was decided at another position than that of the book: call
    `check_account` before deciding.

    Args:
        book: of the account.
        broker: to send to.
        orders: of the decisions of a bar.
        limits: what they must not exceed.
        prices: of the assets that are ordered or held, in quote currency per unit.
        now: in UTC; default: the clock.

    Returns:
        What became of each, in order.

    Raises:
        OrderError: if a price is missing or impossible; nothing was sent.
        BrokerError: if the broker does not answer what is asked about unresolved orders, or has
            others of their names (`MismatchError`); nothing was sent.
    """
    orders = list(orders)
    moment = pd.Timestamp.now("UTC") if now is None else now.tz_convert("UTC")
    exact = to_prices(prices)
    held = {asset for asset, position in book.positions().items() if position.quantity}
    missing = sorted(({order.asset for order in orders} | held) - exact.keys())
    if missing:
        raise OrderError(f"prices of {', '.join(missing)} are missing: limits need them")
    resolve(book, broker)
    return [_send(book, broker, order, limits, exact, moment) for order in orders]


def cancel_order(book: OrderBook, broker: Broker, client_id: str) -> Outcome:
    """Ask the broker to cancel an order and record what it says of it then.

    Fills that come later count. An order that the broker does not have is cancelled in the book
    alone.

    Returns:
        `confirmed` if nothing of it is open any more.

    Raises:
        OrderError: if the book does not have it.
        BrokerError: if it may have arrived late, and the broker does not answer.
    """
    record = book.find(client_id)
    if record is None:
        raise OrderError(f"{book.path}: there is no order {client_id}")
    if record.status == "new" and (record.sent is None or broker.query(client_id) is None):
        book.update(client_id, lambda r: step(r, "cancel", "given up"))
        return Outcome("confirmed", client_id)
    if record.status not in OPEN:
        return Outcome("confirmed", client_id, record.broker_id)
    outcome = broker.cancel(client_id)
    try:
        report = broker.query(client_id)
    except BrokerError as error:
        return Outcome("unresolved", client_id, record.broker_id, str(error))
    if report is None:
        return Outcome("unresolved", client_id, record.broker_id, "the broker does not know it")
    if take_report(book, report).status in OPEN and report.status == "open":
        status = "unresolved" if outcome.status == "confirmed" else outcome.status
        return Outcome(status, client_id, report.broker_id, outcome.reason or "still open")
    return Outcome("confirmed", client_id, report.broker_id)


def _send(
    book: OrderBook,
    broker: Broker,
    order: Order,
    limits: Limits,
    prices: Mapping[str, Decimal],
    now: pd.Timestamp,
) -> Outcome:
    known = book.find(order.client_id)
    if known is not None and known.status != "new":
        return _recorded_outcome(known)
    if known is not None and known.sent is not None:  # what is on its way may yet arrive
        order = known.order
    refusal = _find_conflict(book, order) or find_refusal(
        order, limits, _look(book, prices, now), prices[order.asset]
    )
    if refusal:
        return Outcome("refused", order.client_id, reason=f"{order} is not sent: {refusal}")
    book.add(order)
    book.update(order.client_id, lambda r: step(r, "send")._replace(sent=now))
    return _take_outcome(book, order, broker.submit(order))


def _take_outcome(book: OrderBook, order: Order, outcome: Outcome) -> Outcome:
    def change(record: Record) -> Record:
        if outcome.status == "confirmed":
            return acknowledge(record, outcome.broker_id)
        return step(record, _STEPS[outcome.status], outcome.reason)

    book.update(order.client_id, change)
    if outcome.status != "confirmed":
        book.count_fault()
    elif book.faults() and not order.reduce_only:
        book.clear_faults()
    return outcome


def _recorded_outcome(record: Record) -> Outcome:
    """Say what became of an order that was sent before."""
    client_id = record.order.client_id
    if record.status == "rejected":
        return Outcome("rejected", client_id, record.broker_id, record.reason)
    if record.known:
        return Outcome("confirmed", client_id, record.broker_id)
    if record.status == "cancelled":
        return Outcome("rejected", client_id, reason=record.reason)
    return Outcome("unresolved", client_id, reason=record.reason or "the broker was not asked yet")


def _find_conflict(book: OrderBook, order: Order) -> str:
    """Say what in the book forbids an order: another position, an open order of its asset."""
    positions = book.positions()
    held = positions[order.asset].quantity if order.asset in positions else Decimal(0)
    if order.held not in (None, held):
        return f"it was decided at a position of {order.held:f}, which is {held:f}; decide again"
    if order.reduce_only:
        return "" if held * order.sign < 0 else f"{held:f} {order.asset} cannot be reduced"
    for record in book.unsettled():
        if record.order.asset == order.asset and record.status != "new":
            return (
                f"of {record.order}, which is {record.status}, more may be filled; cancel it or"
                " ask again (check_account)"
            )
    return ""


def _look(book: OrderBook, prices: Mapping[str, Decimal], now: pd.Timestamp) -> Day:
    positions = book.positions()
    equity = sum(
        (p.equity(prices.get(asset, Decimal(0))) for asset, p in positions.items()), Decimal(0)
    )
    loss = book.first_equity(now, equity) - equity
    return Day(now, book.orders_sent(now), loss, book.faults())
