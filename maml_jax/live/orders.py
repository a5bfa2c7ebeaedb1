"""Orders, and the states of one between the decision and its last fill."""

import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple, get_args

import pandas as pd

from maml_jax.errors import OrderError

Side = Literal["buy", "sell"]
Status = Literal["new", "sent", "unresolved", "filled", "rejected", "cancelled"]

OPEN: tuple[Status, ...] = ("new", "sent", "unresolved")
"""States that a broker may still change."""

Step = Literal["send", "acknowledge", "lose", "refuse", "reject", "cancel", "fill"]

_STEPS: dict[Step, dict[Status, Status]] = {
    "send": {"new": "sent"},
    "acknowledge": {
        "new": "sent", "sent": "sent", "unresolved": "sent", "filled": "filled",
        "cancelled": "cancelled",
    },
    "lose": {"sent": "unresolved", "unresolved": "unresolved", "filled": "filled"},
    "refuse": {"new": "new", "sent": "new", "unresolved": "new"},
    "reject": {"sent": "rejected", "unresolved": "rejected", "rejected": "rejected"},
    "cancel": {
        "new": "cancelled", "sent": "cancelled", "unresolved": "cancelled",
        "cancelled": "cancelled",
    },
    "fill": {"new": "sent", "sent": "sent", "unresolved": "sent", "cancelled": "cancelled"},
}  # fmt: skip
"""Where each step leads. All others are illegal: a state that is missing here raises.

What the broker has or fills is believed whatever the book thought, unless it was rejected.
"""


@dataclass(frozen=True)
class Order:
    """An order for what one decision wants.

    Attributes:
        client_id: our name of it, see `order_id`; the broker refuses a second order of that name.
        asset: its symbol at the broker.
        bar: opening time of the bar that was decided on, in UTC.
        side: `buy` or `sell`.
        quantity: in units of the asset, above 0.
        reduce_only: it may only bring the position closer to 0.
        limit: the worst price to accept, in quote currency per unit; None: at market.
        held: position that was decided at, in units: if it is another when the order is to be
            sent, it is not. None: any.

    Raises:
        OrderError: if one of them is impossible.
    """

    client_id: str
    asset: str
    bar: pd.Timestamp
    side: Side
    quantity: Decimal
    reduce_only: bool = False
    limit: Decimal | None = None
    held: Decimal | None = None

    def __post_init__(self):
        if not self.client_id or not self.asset:
            raise OrderError("an order needs a client id and an asset")
        if self.side not in get_args(Side):
            raise OrderError(f"order for {self.asset}: side {self.side!r} is not buy or sell")
        quantity = to_decimal(self.quantity, f"order for {self.asset}: quantity")
        if quantity <= 0:
            raise OrderError(f"order for {self.asset}: quantity {quantity} is not above 0")
        object.__setattr__(self, "quantity", quantity)
        object.__setattr__(self, "bar", _utc(self.bar))
        if self.limit is not None:
            limit = to_decimal(self.limit, f"order for {self.asset}: limit")
            if limit <= 0:
                raise OrderError(f"order for {self.asset}: limit {limit} is not above 0")
            object.__setattr__(self, "limit", limit)

    @property
    def sign(self) -> int:
        """1 to buy, -1 to sell."""
        return 1 if self.side == "buy" else -1

    def __str__(self) -> str:
        return f"{self.side} {self.quantity:f} {self.asset} (order {self.client_id})"


class Record(NamedTuple):
    """What is known of an order.

    Attributes:
        order: as it was decided.
        status: see `Status`. `sent`: it is at the broker, or on its way there.
        broker_id: the broker's name of it; empty until the broker acknowledged it.
        filled: quantity that executions brought.
        value: sum of price times quantity of these executions, in quote currency.
        reported: quantity filled according to the broker; its executions may come later.
        reason: why it is in its state, if something went wrong.
        sent: when it was last sent, in UTC.
    """

    order: Order
    status: Status = "new"
    broker_id: str = ""
    filled: Decimal = Decimal(0)
    value: Decimal = Decimal(0)
    reported: Decimal = Decimal(0)
    reason: str = ""
    sent: pd.Timestamp | None = None

    @property
    def average(self) -> Decimal | None:
        """Average price of the fills; None without any."""
        return self.value / self.filled if self.filled else None

    @property
    def known(self) -> bool:
        """Whether the broker was heard to have it."""
        return bool(self.broker_id) or self.filled > 0

    @property
    def settled(self) -> bool:
        """Whether nothing about it is left to learn."""
        return self.status not in OPEN and self.filled >= self.reported


def step(record: Record, name: Step, reason: str = "") -> Record:
    """Take an order to its next state.

    Args:
        record: of the order.
        name: `send`: it goes out. `acknowledge`: the broker has it. `lose`: nobody knows whether
            the broker has it. `refuse`: the broker certainly has it not, and it may be sent again.
            `reject`: the broker does not want it. `cancel`: what is not filled will not be; fills
            may still come. `fill` is for `fill_order`.
        reason: for the record.

    Raises:
        OrderError: if the state does not allow that step.
    """
    after = _STEPS[name].get(record.status)
    if after is None or name == "refuse" and record.known or name == "reject" and record.filled:
        known = "" if not record.known else f", of which {record.filled:f} are filled"
        raise OrderError(
            f"{record.order}: cannot {name} what is {record.status}{known}"
            + (f" ({reason})" if reason else "")
        )
    return record._replace(status=after, reason=reason)


def acknowledge(record: Record, broker_id: str) -> Record:
    """Record that the broker has an order.

    Raises:
        OrderError: if the state does not allow it, or the broker gave it another id before.
    """
    if not broker_id:
        raise OrderError(f"{record.order}: acknowledged without an id of the broker")
    if record.broker_id not in ("", broker_id):
        raise OrderError(
            f"{record.order}: the broker called it {record.broker_id} and now {broker_id}"
        )
    return step(record, "acknowledge", record.reason)._replace(broker_id=broker_id)


def fill_order(record: Record, quantity: Decimal, price: Decimal) -> Record:
    """Add an execution; the caller counts each execution once.

    An order is `filled` with its last unit, also if it was cancelled meanwhile.

    Args:
        record: of the order.
        quantity: in units, above 0.
        price: in quote currency per unit.

    Raises:
        OrderError: if the state does not allow it, or more is filled than was ordered.
    """
    after = step(record, "fill", record.reason)
    filled = record.filled + quantity
    if quantity <= 0 or price <= 0 or filled > record.order.quantity:
        raise OrderError(
            f"{record.order}: {quantity:f} more cannot be filled at {price:f},"
            f" {record.filled:f} are already"
        )
    status = "filled" if filled == record.order.quantity else after.status
    return after._replace(
        status=status,
        filled=filled,
        value=record.value + quantity * price,
        reported=max(record.reported, filled),
    )


def order_id(run: str, asset: str, bar: pd.Timestamp, target: Decimal | float) -> str:
    """Return the name of the order for a decision: equal decisions, equal names.

    32 letters and digits, which all brokers accept. The broker refuses a name that it has, so that
    a decision never makes two orders, even if a process is killed between sending and recording.

    Args:
        run: digest of the run that decides.
        asset: its symbol.
        bar: opening time of the bar that was decided on; UTC where it names no zone.
        target: position that is wanted, in units, or weight.

    Raises:
        OrderError: if `target` or `bar` is not finite.

    >>> bar = pd.Timestamp("2024-01-01 10:00")
    >>> order_id("a1", "BTCUSDT", bar, 2) == order_id("a1", "BTCUSDT", bar, 2.0)
    True
    """
    wanted = to_decimal(target, f"target of {asset}")
    wanted = wanted.normalize() if wanted else Decimal(0)
    text = json.dumps([run, asset, _utc(bar).isoformat(), f"{wanted:f}"])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_order(
    run: str,
    asset: str,
    bar: pd.Timestamp,
    target: Decimal | float,
    held: Decimal | float,
    *,
    limit: Decimal | float | None = None,
) -> Order | None:
    """Make the order that brings a position to its target; None where it is there.

    It is reduce-only if the target lies between the position and 0.

    Args:
        run: digest of the run that decides.
        asset: its symbol.
        bar: opening time of the bar that was decided on.
        target: position that is wanted, in units; negative is short. See `round_units`.
        held: position, in units.
        limit: the worst price to accept; None: at market.
    """
    wanted, has = to_decimal(target, f"target of {asset}"), to_decimal(held, f"position in {asset}")
    if wanted == has:
        return None
    return Order(
        order_id(run, asset, bar, wanted),
        asset,
        bar,
        "buy" if wanted > has else "sell",
        abs(wanted - has),
        reduce_only=wanted * has >= 0 and abs(wanted) < abs(has),
        limit=None if limit is None else to_decimal(limit, f"limit of {asset}"),
        held=has,
    )


def round_units(units: Decimal | float, lot: Decimal | float) -> Decimal:
    """Round towards 0 to whole lots.

    >>> round_units(-1.2345, 0.01)
    Decimal('-1.23')
    """
    size = to_decimal(lot, "lot")
    if size <= 0:
        raise OrderError(f"lot {size} is not above 0")
    return int(to_decimal(units, "units") / size) * size


def to_decimal(value: Decimal | float | str, what: str) -> Decimal:
    """Return a finite number as it is written, so that 0.1 stays 0.1.

    Raises:
        OrderError: naming `what`, if it is not a finite number.
    """
    try:
        number = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        raise OrderError(f"{what}: {value!r} is not a number") from None
    if not number.is_finite():
        raise OrderError(f"{what}: {value!r} is not finite")
    return number


def _utc(time: pd.Timestamp) -> pd.Timestamp:
    moment = pd.Timestamp(time)
    if pd.isna(moment):
        raise OrderError("an order needs the time of the bar that was decided on")
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return moment.as_unit("us")
