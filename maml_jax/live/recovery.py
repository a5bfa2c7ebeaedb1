"""What the broker knows, brought into the book; an account that differs stops."""

from decimal import Decimal
from typing import NamedTuple

import pandas as pd

from maml_jax.errors import BrokerError, MismatchError
from maml_jax.live.broker import Broker, Held, Report
from maml_jax.live.fills import Execution
from maml_jax.live.order_book import OrderBook
from maml_jax.live.orders import OPEN, Order, Record, acknowledge, step

_OVERLAP = pd.Timedelta(hours=1)
"""Executions are asked for from so much earlier: clocks differ, and some are heard of late."""

_LOOKS = 5
"""How often to compare an account that changes meanwhile."""


class Resumed(NamedTuple):
    """What the broker said of the open orders of a book.

    Attributes:
        unsent: orders that are not at the broker and may be sent, under the same client id.
        lost: orders that the broker had and does not know any more.
    """

    unsent: list[Order]
    lost: list[Order]


def resume(book: OrderBook, broker: Broker) -> Resumed:
    """Ask once about each order whose state is open, and record what the broker says.

    An order that the broker does not know and never acknowledged becomes `new`. Sending it again
    makes no second order, even if the first request is still on its way: it has the same client
    id, and a broker has one order of each.

    Raises:
        BrokerError: if the broker does not answer.
        MismatchError: if it has another order of the same client id.
    """
    return _ask(book, broker, book.records(*OPEN))


def resolve(book: OrderBook, broker: Broker) -> Resumed:
    """Ask once about each order of which nobody knows whether the broker has it.

    As `resume`, for orders that were sent and not acknowledged, also if the broker did not know
    them when it was asked before: a request may arrive late.
    """
    doubtful = [r for r in book.records(*OPEN) if r.sent is not None and not r.broker_id]
    return _ask(book, broker, doubtful)


def take_report(book: OrderBook, report: Report) -> Record:
    """Record what the broker says of an order; its fills come as executions.

    Raises:
        MismatchError: if it is another order than ours of that name.
        OrderError: if the book says otherwise, such as that it was rejected.
    """

    def change(record: Record) -> Record:
        order = record.order
        ours = (order.asset, order.side, order.quantity)
        if ours != (report.asset, report.side, report.quantity):
            raise MismatchError(
                f"the broker has another order {order.client_id}: to {report.side}"
                f" {report.quantity:f} {report.asset}, where the book has {order}"
            )
        record = acknowledge(record, report.broker_id)
        record = record._replace(reported=max(record.reported, report.filled))
        if report.status == "rejected":
            return step(record, "reject", report.reason)
        if report.status == "cancelled" and record.status != "filled":
            return step(record, "cancel", report.reason)
        return record

    return book.update(report.client_id, change)


def sync(book: OrderBook, broker: Broker) -> list[Execution]:
    """Take the broker's executions into the book and return those that were not known.

    Executions of others, such as trades by hand, are left out; `check_account` finds what they
    did.
    """
    found = broker.executions(book.oldest_unseen() - _OVERLAP)
    ours = [e for e in found if e.client_id and book.find(e.client_id) is not None]
    return [execution for execution in ours if book.take_execution(execution)]


def check_account(book: OrderBook, broker: Broker, *, take_over: bool = False) -> Resumed:
    """Compare the account with the book, after all that the broker knows was taken into it.

    To be called before the first order is sent, and after each stop. Fails closed: what cannot be
    explained by our orders raises.

    Args:
        book: of orders.
        broker: whose account it is.
        take_over: make positions that differ those of the broker, and give up orders that it does
            not know any more. Orders of others that are open have to be cancelled at the broker.

    Returns:
        The orders that may be sent again.

    Raises:
        MismatchError: naming each asset, both quantities, and what to do.
        BrokerError: if the broker does not answer.
    """
    resumed = resume(book, broker)
    held = _settled_positions(book, broker)
    problems = _strange_orders(book, broker)
    waiting = [record for record in book.unsettled() if record.filled < record.reported]
    problems += [
        f"{record.order}: the broker reports {record.reported:f} filled, and executions of"
        f" {record.filled:f} alone; ask again in a while"
        for record in waiting
    ]
    if problems:
        raise MismatchError("; ".join(problems))
    differences = _differences(book, held)
    differences += [f"{order}: the broker had it and does not know it" for order in resumed.lost]
    if differences and not take_over:
        raise MismatchError(
            f"the account differs from {book.path}: {'; '.join(differences)}. Was there a trade"
            " by hand? Undo it at the broker, or take the broker's positions over (take_over)"
        )
    for order in resumed.lost:
        book.update(order.client_id, lambda r: step(r, "cancel", "given up: the broker lost it"))
    if differences:
        book.take_over(held, pd.Timestamp.now("UTC"))
    return resumed


def _ask(book: OrderBook, broker: Broker, records: list[Record]) -> Resumed:
    unsent, lost = [], []
    for record in records:
        report = broker.query(record.order.client_id)
        if report is not None:
            take_report(book, report)
        elif record.known:
            lost.append(record.order)
        else:
            book.update(
                record.order.client_id, lambda r: step(r, "refuse", "the broker does not know it")
            )
            unsent.append(record.order)
    return Resumed(unsent, lost)


def _settled_positions(book: OrderBook, broker: Broker) -> dict[str, Held]:
    """Return positions of a moment up to which all executions are in the book."""
    sync(book, broker)
    for _ in range(_LOOKS):
        held = broker.positions()
        if not sync(book, broker):
            return held
    raise BrokerError(
        f"the account changed during each of {_LOOKS} looks at it; cancel orders that are open"
    )


def _differences(book: OrderBook, held: dict[str, Held]) -> list[str]:
    positions = book.positions()
    differences = []
    for asset in sorted({*positions, *held}):
        ours = positions[asset].quantity if asset in positions else Decimal(0)
        theirs = held[asset].quantity if asset in held else Decimal(0)
        if ours != theirs:
            differences.append(f"{asset}: {ours:f} in the book, {theirs:f} at the broker")
    return differences


def _strange_orders(book: OrderBook, broker: Broker) -> list[str]:
    """Describe open orders at the broker that the book does not have as open."""
    problems = []
    for report in broker.open_orders():
        record = book.find(report.client_id) if report.client_id else None
        if record is not None and record.status in OPEN:
            continue
        state = "the book does not have" if record is None else f"the book has as {record.status}"
        problems.append(
            f"the broker has an open order to {report.side} {report.quantity:f} {report.asset}"
            f" (its id {report.broker_id}) that {state}; cancel it at the broker"
        )
    return problems
