"""The book of orders, executions and positions, in one SQLite file that survives kills."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.errors import BookError, OrderError
from maml_jax.live.broker import Held
from maml_jax.live.fills import Execution, Position, fill_position
from maml_jax.live.orders import OPEN, Order, Record, Status, acknowledge, fill_order, step

_VERSION = 1
_PATIENCE = 30.0
"""Seconds to wait for another process that writes."""

_SCHEMA = """
CREATE TABLE orders (
    client_id TEXT PRIMARY KEY, asset TEXT NOT NULL, bar TEXT NOT NULL, side TEXT NOT NULL,
    quantity TEXT NOT NULL, reduce_only INTEGER NOT NULL, worst TEXT, held TEXT,
    status TEXT NOT NULL, broker_id TEXT NOT NULL, filled TEXT NOT NULL, value TEXT NOT NULL,
    reported TEXT NOT NULL, reason TEXT NOT NULL, sent TEXT
) WITHOUT ROWID;
CREATE INDEX orders_by_status ON orders (status);
CREATE TABLE executions (
    execution_id TEXT PRIMARY KEY, client_id TEXT NOT NULL REFERENCES orders,
    broker_id TEXT NOT NULL, asset TEXT NOT NULL, side TEXT NOT NULL, quantity TEXT NOT NULL,
    price TEXT NOT NULL, fee TEXT NOT NULL, time TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE positions (
    asset TEXT PRIMARY KEY, quantity TEXT NOT NULL, cost TEXT NOT NULL, profit TEXT NOT NULL,
    fees TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE takeovers (
    time TEXT NOT NULL, asset TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL
);
CREATE TABLE days (day TEXT PRIMARY KEY, equity TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
"""Exact numbers and times are text: SQLite has neither decimals nor time zones."""


class OrderBook:
    """Orders, executions and positions of one account; each change is one transaction.

    An order is recorded before it is sent and marked as sent before it leaves, so that whatever
    was killed, all that may be at the broker is in the book. Several processes may share a book.

    Args:
        path: of the file; made if there is none. Two more stand beside it while it is open.
        now: when a new book begins, in UTC.

    Raises:
        BookError: if it cannot be read or written, or was written by another version.
    """

    def __init__(self, path: Path | str, now: pd.Timestamp | None = None):
        self.path = Path(path)
        with self._errors():
            self._database = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            self._prepare(pd.Timestamp.now("UTC") if now is None else now)
        except BookError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; the book is of no use afterwards."""
        self._database.close()

    def __enter__(self) -> "OrderBook":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, order: Order) -> Record:
        """Record an order as new and return it; one of its name is returned as it is.

        An order that never left is replaced, as the position may be another by now. Orders for the
        same asset and earlier bars that are not at the broker are cancelled.
        """
        with self._change():
            known = self._find(order.client_id)
            if known is not None and (known.status != "new" or known.sent is not None):
                return known
            for old in self._select("status = 'new' AND asset = ?", order.asset):
                if old.order.bar < order.bar:
                    self._write(step(old, "cancel", f"not sent before {order.bar} was decided"))
            record = Record(order)
            self._write(record)
            return record

    def find(self, client_id: str) -> Record | None:
        """Return an order; None if there is none of that name."""
        with self._errors():
            return self._find(client_id)

    def records(self, *statuses: Status) -> list[Record]:
        """Return the orders in some states, or all, by bar."""
        marks = ", ".join("?" * len(statuses))
        with self._errors():
            return list(self._select(f"status IN ({marks})" if statuses else "1", *statuses))

    def unsettled(self) -> list[Record]:
        """Return the orders of which something is to be learned: a state, or fills."""
        marks = ", ".join("?" * len(OPEN))
        with self._errors():
            found = self._select(f"status IN ({marks}) OR filled != reported", *OPEN)
        return [record for record in found if not record.settled]

    def update(self, client_id: str, change: Callable[[Record], Record]) -> Record:
        """Change an order by a function of what is recorded, and return it.

        Raises:
            OrderError: if there is no such order, or the function does not allow the change.
        """
        with self._change():
            record = self._find(client_id)
            if record is None:
                raise OrderError(f"{self.path}: there is no order {client_id}")
            after = change(record)
            self._write(after)
            return after

    def take_execution(self, execution: Execution) -> bool:
        """Record an execution of one of our orders, and return whether it was not known.

        Order and position change with it.

        Raises:
            OrderError: if it is of no order of the book, or cannot be one of its order.
        """
        with self._change():
            record = self._find(execution.client_id)
            if record is None:
                raise OrderError(f"{self.path}: there is no order {execution.client_id}")
            if (execution.asset, execution.side) != (record.order.asset, record.order.side):
                raise OrderError(
                    f"{record.order}: execution {execution.execution_id} is to {execution.side}"
                    f" {execution.asset}"
                )
            if self._row("SELECT 1 FROM executions WHERE execution_id = ?", execution.execution_id):
                return False
            record = acknowledge(record, execution.broker_id)
            self._write(fill_order(record, execution.quantity, execution.price))
            position = self._position(execution.asset)
            self._write_position(execution.asset, fill_position(position, execution))
            self._replace("executions", _to_text(execution))
            return True

    def executions(self) -> list[Execution]:
        """Return all executions, by time."""
        with self._errors():
            rows = self._database.execute("SELECT * FROM executions ORDER BY time, execution_id")
            return [_to_execution(row) for row in rows]

    def positions(self) -> dict[str, Position]:
        """Return the positions by asset, also those closed by now."""
        with self._errors():
            rows = self._database.execute("SELECT * FROM positions ORDER BY asset")
            return {asset: Position(*map(Decimal, numbers)) for asset, *numbers in rows}

    def take_over(self, held: Mapping[str, Held], now: pd.Timestamp) -> None:
        """Replace the positions by those of the broker; profits and fees stay.

        Where one changes, the loss of the day is counted from here on.

        Args:
            held: at the broker, by asset.
            now: for the record.
        """
        with self._change():
            changed = False
            for asset in sorted({*self.positions(), *held}):
                before = self._position(asset)
                there = held.get(asset, Held(Decimal(0), Decimal(0)))
                if before.quantity == there.quantity:
                    continue
                cost = there.quantity * there.average
                self._write_position(asset, before._replace(quantity=there.quantity, cost=cost))
                change = (_to_utc(now), asset, str(before.quantity), str(there.quantity))
                self._database.execute("INSERT INTO takeovers VALUES (?, ?, ?, ?)", change)
                changed = True
            if changed:
                self._database.execute("DELETE FROM days WHERE day = ?", (_date(now),))

    def orders_sent(self, day: pd.Timestamp) -> int:
        """Return how many orders were sent on a day (UTC)."""
        query = "SELECT count(*) FROM orders WHERE substr(sent, 1, 10) = ?"
        with self._errors():
            return self._row(query, _date(day))[0]

    def first_equity(self, day: pd.Timestamp, equity: Decimal) -> Decimal:
        """Return the equity at the first look of a day (UTC), which may be this one."""
        date = _date(day)
        with self._change():
            self._database.execute("INSERT OR IGNORE INTO days VALUES (?, ?)", (date, str(equity)))
            return Decimal(self._row("SELECT equity FROM days WHERE day = ?", date)[0])

    def faults(self) -> int:
        """Return how many orders in a row the broker did not confirm."""
        with self._errors():
            row = self._row("SELECT value FROM notes WHERE name = 'faults'")
            return int(row[0]) if row else 0

    def count_fault(self) -> None:
        """Count an order that the broker did not confirm."""
        with self._change():
            self._note("faults", str(self.faults() + 1))

    def clear_faults(self) -> None:
        """Forget the faults, after somebody looked into them."""
        with self._change():
            self._note("faults", "0")

    def oldest_unseen(self) -> pd.Timestamp:
        """Return the time from which on executions may be missing from the book, by our clock."""
        with self._errors():
            (begun,) = self._row("SELECT value FROM notes WHERE name = 'begun'")
            (latest,) = self._row("SELECT max(time) FROM executions")
        sent = [r.sent for r in self.unsettled() if r.sent is not None]
        return min([pd.Timestamp(latest or begun), *sent])

    def _prepare(self, now: pd.Timestamp) -> None:
        with self._errors():
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._database.execute(f"PRAGMA {pragma}").fetchone()
        with self._change():
            (version,) = self._row("PRAGMA user_version")
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version={_VERSION}")
                self._note("begun", _to_utc(now))
            elif version != _VERSION:
                raise BookError(f"{self.path}: written by version {version} of the book")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise BookError(f"{self.path}: the book of orders fails: {error}") from error

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Do what is in the block wholly or not at all, while no other process writes."""
        with self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _row(self, statement: str, *values: str) -> Any:
        return self._database.execute(statement, values).fetchone()

    def _find(self, client_id: str) -> Record | None:
        return next(iter(self._select("client_id = ?", client_id)), None)

    def _select(self, condition: str, *values: str) -> list[Record]:
        rows = self._database.execute(
            f"SELECT * FROM orders WHERE {condition} ORDER BY bar, client_id", values
        )
        return [_to_record(row) for row in rows]

    def _write(self, record: Record) -> None:
        order = record.order
        self._replace(
            "orders",
            [
                order.client_id, order.asset, order.bar.isoformat(), order.side,
                str(order.quantity), int(order.reduce_only),
                *(None if each is None else str(each) for each in (order.limit, order.held)),
                record.status, record.broker_id, str(record.filled), str(record.value),
                str(record.reported), record.reason,
                None if record.sent is None else _to_utc(record.sent),
            ],
        )  # fmt: skip

    def _position(self, asset: str) -> Position:
        row = self._row("SELECT * FROM positions WHERE asset = ?", asset)
        return Position(*map(Decimal, row[1:])) if row else Position()

    def _write_position(self, asset: str, position: Position) -> None:
        self._replace("positions", [asset, *map(str, position)])

    def _note(self, name: str, value: str) -> None:
        self._replace("notes", [name, value])

    def _replace(self, table: str, values: Iterable[object]) -> None:
        row = tuple(values)
        marks = ", ".join("?" * len(row))
        self._database.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)


def _to_utc(time: pd.Timestamp) -> str:
    """Write a time so that texts are in the order of times."""
    return time.tz_convert("UTC").isoformat()


def _date(time: pd.Timestamp) -> str:
    return _to_utc(time)[:10]


def _to_record(row: tuple) -> Record:
    client_id, asset, bar, side, quantity, reduce_only, limit, held, *state = row
    status, broker_id, filled, value, reported, reason, sent = state
    order = Order(
        client_id, asset, pd.Timestamp(bar), side, Decimal(quantity), bool(reduce_only),
        *(None if each is None else Decimal(each) for each in (limit, held)),
    )  # fmt: skip
    return Record(
        order, status, broker_id, Decimal(filled), Decimal(value), Decimal(reported), reason,
        None if sent is None else pd.Timestamp(sent),
    )  # fmt: skip


def _to_text(execution: Execution) -> list[str]:
    return [*map(str, execution[:-1]), _to_utc(execution.time)]


def _to_execution(row: tuple) -> Execution:
    execution_id, client_id, broker_id, asset, side, *numbers, time = row
    quantity, price, fee = map(Decimal, numbers)
    moment = pd.Timestamp(time)
    return Execution(
        execution_id, client_id, broker_id, asset, side, quantity, price, fee, moment
    )  # fmt: skip
