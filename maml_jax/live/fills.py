"""Executions, and the positions that they make."""

from decimal import Decimal
from typing import NamedTuple

import pandas as pd

from maml_jax.live.orders import Side


class Execution(NamedTuple):
    """A trade at the broker.

    Attributes:
        execution_id: the broker's name of it; one that comes twice counts once.
        client_id: of the order; empty for an order that was not ours.
        broker_id: the broker's name of the order.
        asset: its symbol.
        side: of the order.
        quantity: in units, above 0.
        price: in quote currency per unit.
        fee: in quote currency, negative for a rebate.
        time: in UTC, by the clock of the broker.
    """

    execution_id: str
    client_id: str
    broker_id: str
    asset: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    time: pd.Timestamp


class Position(NamedTuple):
    """What is held of an asset, and what trading it brought.

    Attributes:
        quantity: in units, negative if short.
        cost: of what is held: quantity times average price, in quote currency; negative if short.
        profit: realised by closing, before fees and funding, in quote currency.
        fees: in quote currency.
    """

    quantity: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    profit: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)

    @property
    def average(self) -> Decimal | None:
        """Average price of what is held; None without a position."""
        return self.cost / self.quantity if self.quantity else None

    def equity(self, price: Decimal) -> Decimal:
        """What trading brought by now: realised, plus open at `price`, less fees."""
        return self.profit + self.quantity * price - self.cost - self.fees


def fill_position(position: Position, execution: Execution) -> Position:
    r"""Add an execution at average cost.

    What is closed realises, with $q_c$ the closed quantity, signed as the position, and $\bar p$
    its average price,

    $$q_c (p - \bar p).$$

    What opens or enlarges a position adds to its cost; what crosses 0 closes all and opens the
    rest at the price of the execution.
    """
    quantity = execution.quantity if execution.side == "buy" else -execution.quantity
    fees = position.fees + execution.fee
    held = position.quantity
    if held * quantity >= 0:  # opens or enlarges
        cost = position.cost + quantity * execution.price
        return Position(held + quantity, cost, position.profit, fees)
    closed = held if abs(quantity) >= abs(held) else -quantity
    released = position.cost if closed == held else position.cost * closed / held
    opened = quantity + closed
    return Position(
        held + quantity,
        position.cost - released + opened * execution.price,
        position.profit + closed * execution.price - released,
        fees,
    )
