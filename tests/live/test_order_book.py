"""The book survives kills: whenever a process ends, one decision makes one order."""

import os
import queue
import signal
import sqlite3
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from exchange_server import KEYS, Exchange, serving

from maml_jax.errors import BookError, MismatchError, OrderError
from maml_jax.live.broker import Held, Limits
from maml_jax.live.bybit_broker import BybitBroker
from maml_jax.live.fills import Execution
from maml_jax.live.order_book import OrderBook
from maml_jax.live.orders import Order, acknowledge, make_order, step
from maml_jax.live.recovery import check_account, resume
from maml_jax.live.sending import send_orders

BAR = pd.Timestamp("2024-01-01T10:00Z")
NOW = pd.Timestamp("2024-01-01T11:00Z")


def order(client_id="a", bar=BAR, quantity="1.5", asset="BTCUSDT"):
    return Order(client_id, asset, bar, "buy", Decimal(quantity))


def execution(number=1, client_id="a", quantity="0.5", price="100", **changes):
    values = (
        f"e{number}",
        client_id,
        "b1",
        "BTCUSDT",
        "buy",
        *map(Decimal, (quantity, price, "0.1")),
    )
    return Execution(*values, NOW)._replace(**changes)


def mark_sent(book, client_id="a", when=NOW):
    return book.update(client_id, lambda r: step(r, "send")._replace(sent=when))


def test_what_is_written_is_read_again_exactly(tmp_path, book):
    limited = Order("a", "BTCUSDT", BAR, "buy", Decimal("1.50"), limit=Decimal("99.9"))
    book.add(limited)
    mark_sent(book)
    book.update("a", lambda r: acknowledge(r, "b1"))
    fills = [execution(1, price="100.10"), execution(2, quantity="0.25", price="1e-9")]
    assert [book.take_execution(each) for each in fills] == [True, True]
    with OrderBook(tmp_path / "orders.db") as again:
        assert again.records() == book.records()
        assert again.records()[0].order == limited
        assert again.executions() == fills
        assert again.positions() == book.positions()
        assert again.records("sent")[0].filled == Decimal("0.75")


def test_times_of_all_zones_are_in_order(book):
    book.add(order())
    mark_sent(book, when=pd.Timestamp("2024-01-02T05:00+09:00"))
    assert [book.orders_sent(NOW + pd.Timedelta(days=n)) for n in (0, 1)] == [1, 0]
    late, early = NOW + pd.Timedelta(1, "ms"), NOW.tz_convert("Asia/Tokyo")
    for number, moment in enumerate([late, early]):
        book.take_execution(execution(number, time=moment))
    assert [each.time for each in book.executions()] == [early, late]
    book.update("a", lambda r: r._replace(sent=late))
    assert book.oldest_unseen() == late


def test_an_execution_counts_once_in_order_and_position(book):
    book.add(order())
    mark_sent(book)
    assert book.take_execution(execution())
    before = book.records(), book.positions()
    assert not book.take_execution(execution())
    assert (book.records(), book.positions()) == before


@pytest.mark.parametrize(
    "bad",
    [
        execution(2, quantity="1.5"),
        execution(2, side="sell"),
        execution(2, asset="ETHUSDT"),
        execution(2, client_id="b"),
        execution(2, broker_id="b2"),
        execution(2, price="0"),
    ],
)
def test_an_impossible_execution_changes_nothing(book, bad):
    book.add(order())
    mark_sent(book)
    book.take_execution(execution())
    before = book.records(), book.positions(), book.executions()
    with pytest.raises(OrderError):
        book.take_execution(bad)
    assert (book.records(), book.positions(), book.executions()) == before


def test_a_later_decision_withdraws_what_was_never_sent(book):
    for name, asset in [("a", "BTCUSDT"), ("b", "ETHUSDT")]:
        book.add(order(name, asset=asset))
    book.add(order("c", bar=BAR + pd.Timedelta(hours=1)))
    assert {r.order.client_id: r.status for r in book.records()} == {
        "a": "cancelled", "b": "new", "c": "new",
    }  # fmt: skip
    assert book.add(order("a", quantity="7")).order == order("a")


def test_days_faults_and_takeovers_are_kept(book):
    midnight = pd.Timestamp("2024-01-02T00:00Z")
    for number, when in enumerate([NOW, midnight - pd.Timedelta(1, "us"), midnight]):
        book.add(order(str(number)))
        mark_sent(book, str(number), when)
    assert [book.orders_sent(when) for when in (NOW, midnight)] == [2, 1]
    assert book.first_equity(NOW, Decimal(7)) == book.first_equity(NOW, Decimal(3)) == 7
    book.count_fault()
    book.count_fault()
    assert book.faults() == 2
    book.clear_faults()
    assert book.faults() == 0
    book.take_execution(execution(client_id="0"))
    book.take_over({"ETHUSDT": Held(Decimal(-2), Decimal(10))}, NOW)
    assert {asset: p.quantity for asset, p in book.positions().items()} == {
        "BTCUSDT": 0, "ETHUSDT": -2,
    }  # fmt: skip
    assert book.positions()["BTCUSDT"].fees == Decimal("0.1")
    assert book.positions()["ETHUSDT"].average == 10
    assert book.first_equity(NOW, Decimal(3)) == 3


def test_files_that_are_no_book_are_refused(tmp_path):
    (tmp_path / "text").write_text("hello, " * 1000)
    with pytest.raises(BookError, match="text"):
        OrderBook(tmp_path / "text")
    with pytest.raises(BookError, match="nowhere"):
        OrderBook(tmp_path / "nowhere" / "orders.db")
    with sqlite3.connect(tmp_path / "later.db") as later:
        later.execute("PRAGMA user_version=99")
    with pytest.raises(BookError, match="version 99"):
        OrderBook(tmp_path / "later.db")


def test_two_processes_cannot_both_send_an_order(tmp_path, book):
    with OrderBook(tmp_path / "orders.db") as other:
        book.add(order())
        assert other.find("a").status == "new"
        mark_sent(book)
        with pytest.raises(OrderError, match="cannot send what is sent"):
            mark_sent(other)


SCRIPT = """
import os, signal, sys
from pathlib import Path
import pandas as pd
from maml_jax.live.broker import Limits
from maml_jax.live.bybit_broker import BybitBroker
from maml_jax.live.order_book import OrderBook
from maml_jax.live.orders import make_order
from maml_jax.live.sending import send_orders

point = None

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Killed(BybitBroker):
    def submit(self, order):
        if point == "before sending":
            die()
        outcome = super().submit(order)
        if point == "after sending":
            die()
        return outcome

class KilledBook(OrderBook):
    def add(self, order):
        super().add(order)
        if point == "after recording":
            die()

    def _write(self, record):
        super()._write(record)
        if point == "while recording" or point == "while acknowledging" and record.broker_id:
            die()

def trade(address, path):
    order = make_order("run", "BTCUSDT", pd.Timestamp("2024-01-01T10:00Z"), 0.75, 0)
    limits = Limits(10**6, 10, 10**6, Path(path + ".stop"))
    send_orders(KilledBook(path), Killed(address), [order], limits, {"BTCUSDT": 100})

for line in sys.stdin:
    address, path, point = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if not child:
        trade(address, path)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
POINTS = {
    "while recording": 0, "after recording": 0, "before sending": 0, "while sending": 1,
    "after sending": 1, "while acknowledging": 1,
}  # fmt: skip
"""Where a process is killed, and how many orders are at the exchange then."""


@pytest.fixture(scope="module")
def traders():
    """A process that starts one that trades, for each line that it reads."""
    command, pipe = [sys.executable, "-c", SCRIPT], subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, env=os.environ | KEYS
    ) as process:
        yield process
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_makes_neither_two_orders_nor_none(tmp_path, exchange, broker, traders, point):
    path, child = tmp_path / "orders.db", queue.Queue()
    if point == "while sending":  # the request has come, the reply has not left
        exchange.on_take = lambda: os.kill(child.get(timeout=60), signal.SIGKILL)
    print(broker.address, path, point, sep="\t", file=traders.stdin, flush=True)
    child.put(int(traders.stdout.readline()))
    assert int(traders.stdout.readline()) == -signal.SIGKILL
    exchange.on_take = lambda: None
    assert len(exchange.orders) == POINTS[point]
    decided = make_order("run", "BTCUSDT", BAR, 0.75, 0)
    limits = Limits(10**6, 10, 10**6, tmp_path / "stop")
    with OrderBook(path) as book:
        unsent = check_account(book, broker).unsent
        assert unsent == ([decided] if point in ("after recording", "before sending") else [])
        (outcome,) = send_orders(book, broker, [decided], limits, {"BTCUSDT": 100})
        assert outcome.status == "confirmed"
        assert check_account(book, broker) == ([], [])
        (record,) = book.records()
        assert (record.status, record.filled) == ("filled", Decimal("0.75"))
    assert [o["filled"] for o in exchange.orders.values()] == [0.75]
    assert [trade["quantity"] for trade in exchange.trades] == [0.75]


def test_what_the_broker_forgot_stops_until_it_is_given_up(book, broker, exchange):
    exchange.plan = []
    placed = make_order("run", "BTCUSDT", BAR, 1, 0)
    limits = Limits(10**6, 10, 10**6, Path("none"))
    send_orders(book, broker, [placed], limits, {"BTCUSDT": 100})
    exchange.orders.clear()
    assert resume(book, broker).lost == [placed]
    with pytest.raises(MismatchError, match=f"{placed.client_id}.*does not know it.*take_over"):
        check_account(book, broker)
    check_account(book, broker, take_over=True)
    assert book.find(placed.client_id).status == "cancelled"


def test_books_that_begin_with_a_position_at_the_broker_take_it_over(tmp_path, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    exchange = Exchange()
    exchange.trade("ETHUSDT", -1, 3, 10)
    with serving(exchange) as address, OrderBook(tmp_path / "new.db") as book:
        broker = BybitBroker(address, per_second=None)
        with pytest.raises(MismatchError, match="ETHUSDT: 0 in the book, -3 at the broker"):
            check_account(book, broker)
        check_account(book, broker, take_over=True)
        assert check_account(book, broker) == ([], [])
        assert book.positions()["ETHUSDT"].cost == -30
