"""Orders through a broker that fails in all ways: none is lost, none is doubled."""

import json
import os
import sqlite3
import tempfile
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import exchange_server
import pandas as pd
import pytest
from exchange_server import FAULTS, FINAL, Exchange, serving
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from maml_jax.data.sources.http import Reply, Retries
from maml_jax.errors import MismatchError
from maml_jax.live.broker import Limits
from maml_jax.live.bybit_broker import BybitBroker
from maml_jax.live.order_book import OrderBook
from maml_jax.live.orders import OPEN, make_order
from maml_jax.live.recovery import check_account, resolve, sync
from maml_jax.live.sending import cancel_order, send_orders

BEGIN = pd.Timestamp("2024-01-01", tz="UTC")
ASSETS = st.sampled_from(["BTCUSDT", "ETHUSDT"])
QUARTERS = st.integers(-8, 8).map(lambda n: n / 4)
PRICES = st.integers(50, 150)
SHARES = st.sampled_from([[1], [0.25], [0.25, 0.5], [0.5, 0.25, 0.25], []])
SOME_FAULTS = st.lists(st.sampled_from([None, *FAULTS]), max_size=2)
FAILURES = st.lists(st.sampled_from(["cut", "busy", "rate limit"]), max_size=2)


def assert_near(ours, theirs):
    assert abs(Fraction(ours) - theirs) <= Fraction(1, 10**12) * max(1, abs(theirs))


class Calm:
    """A client that asks the exchange itself: quick, and nothing is lost on the way."""

    def __init__(self, exchange):
        self.exchange = exchange

    def get(self, url, params, read):
        query = {name: str(value) for name, value in params.items()}
        code, message, result = self.exchange.answer(urlsplit(url).path, query)
        content = {"retCode": code, "retMsg": message, "result": result}
        return read(Reply(url, 200, {}, json.dumps(content).encode()))


class Trading(RuleBasedStateMachine):
    """A book and an exchange that drift apart in all ways, and agree once all is resolved."""

    steps = sent = failed = 0
    """In all examples: steps, orders taken by the exchange, faults met by them."""

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.exchange = Exchange()
        self.exchange.rows_most = 10
        address = self.stack.enter_context(serving(self.exchange))
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH)))
        quick = Retries(6, first=0.0005)
        self.broker = BybitBroker(address, retries=quick, per_second=None, window=60)
        self.calm = BybitBroker(address)
        self.calm._client = Calm(self.exchange)
        self.book = OrderBook(self.folder / "orders.db")
        self.limits = Limits(10**9, 10**9, 10**9, self.folder / "stop", faults=10**9)
        self.bar, self.decided, self.by_hand = BEGIN, [], 0

    def teardown(self):
        type(self).sent += len(self.exchange.orders)
        self.book.close()
        self.stack.close()

    def send(self, orders):
        prices = {asset: float(price) for asset, price in self.exchange.prices.items()}
        return send_orders(self.book, self.broker, orders, self.limits, prices)

    @rule(asset=ASSETS, wanted=QUARTERS, price=PRICES, plan=SHARES, faults=SOME_FAULTS,
          failures=FAILURES, look=st.booleans())  # fmt: skip
    def decide(self, asset, wanted, price, plan, faults, failures, look):
        self.bar += pd.Timedelta(hours=1)
        self.exchange.prices[asset] = Fraction(price)
        self.exchange.plan, self.exchange.failures = plan, failures
        if look:
            with self.all_shown():
                check_account(self.book, self.broker)
        held = self.book.positions()
        held = held[asset].quantity if asset in held else 0
        order = make_order("run", asset, self.bar, wanted, held)
        if order is not None:
            self.decided.append(order)
            self.exchange.faults = list(faults)
            self.send([order])
            met = faults[: len(faults) - len(self.exchange.faults)]
            type(self).failed += sum(fault is not None for fault in met)
            self.exchange.faults = []

    @precondition(lambda self: self.decided)
    @rule(data=st.data(), faults=SOME_FAULTS)
    def send_again(self, data, faults):
        """As a process that was killed and does not know what it sent."""
        self.exchange.faults = faults
        self.send(data.draw(st.lists(st.sampled_from(self.decided[-4:]), min_size=1, max_size=3)))
        self.exchange.faults = []

    def working(self):
        return [n for n, order in self.exchange.orders.items() if order["status"] not in FINAL]

    @precondition(lambda self: self.working())
    @rule(data=st.data(), share=st.sampled_from([0.25, 0.5, 1]), price=PRICES)
    def fill_more(self, data, share, price):
        self.exchange.fill(data.draw(st.sampled_from(self.working())), share, price)

    @precondition(lambda self: self.book.records(*OPEN))
    @rule(data=st.data())
    def cancel(self, data):
        record = data.draw(st.sampled_from(self.book.records(*OPEN)))
        cancel_order(self.book, self.broker, record.order.client_id)

    @rule(repeat=st.booleans(), failures=FAILURES, ask=st.booleans())
    def hear(self, repeat, failures, ask):
        self.exchange.repeat, self.exchange.failures = repeat, failures
        if ask:
            resolve(self.book, self.broker)
        sync(self.book, self.broker)

    @precondition(lambda self: self.exchange.orders)
    @rule(hide=st.integers(0, 3))
    def restart_exchange(self, hide):
        """Its lists of what is final are empty, and its last trades come late."""
        self.exchange.restart()
        latest = self.exchange.trades[::-1][:hide]
        self.exchange.hidden = {trade["id"] for trade in latest}

    @precondition(lambda self: self.decided)
    @rule()
    def restart_process(self):
        self.book.close()
        self.book = OrderBook(self.folder / "orders.db")
        with self.all_shown():
            check_account(self.book, self.broker)

    @precondition(lambda self: self.exchange.late)
    @rule()
    def deliver_late(self):
        """What was given up as lost arrives: unless the book waits for it, somebody must look."""
        names = {each["orderLinkId"] for each in self.exchange.late} - {*self.exchange.orders}
        self.exchange.plan = []
        self.exchange.deliver()
        for name in sorted(names & {*self.exchange.orders}):
            if self.book.find(name).status not in OPEN:
                with pytest.raises(MismatchError, match="cancel it at the broker"):
                    check_account(self.book, self.broker)
                self.exchange.cancel(name)

    @precondition(lambda self: 4 * self.by_hand < len(self.decided))
    @rule(asset=ASSETS, sign=st.sampled_from([-1, 1]), quarters=st.integers(1, 12))
    def trade_by_hand(self, asset, sign, quarters):
        with self.all_shown():
            check_account(self.book, self.calm)
            self.by_hand += 1
            quantity = Fraction(quarters, 4)
            self.exchange.trade(asset, sign, quantity, self.exchange.prices[asset])
            with pytest.raises(MismatchError, match=rf"{asset}: .* in the book, .*take_over"):
                check_account(self.book, self.calm)
            check_account(self.book, self.calm, take_over=True)

    @contextmanager
    def all_shown(self):
        hidden, self.exchange.hidden = self.exchange.hidden, set()
        yield
        self.exchange.hidden = hidden

    @invariant()
    def book_and_exchange_agree_once_all_is_resolved(self):
        """Resolved in a copy of the book, so that what is open stays open in the original."""
        type(self).steps += 1
        path = self.folder / "copy.db"
        for old in self.folder.glob("copy.db*"):
            old.unlink()
        with sqlite3.connect(self.folder / "orders.db") as source, sqlite3.connect(path) as copy:
            source.backup(copy)
        source.close()
        copy.close()
        with OrderBook(path) as book, self.all_shown():
            check_account(book, self.calm)
            self.compare(book)

    def compare(self, book):
        records = {record.order.client_id: record for record in book.records()}
        theirs = self.exchange.orders
        assert {*theirs} <= {*records}
        for name, record in records.items():
            assert record.settled or name in theirs or record.status == "new"
            if name not in theirs:
                assert (record.filled, record.broker_id) == (0, "")
                continue
            there = theirs[name]
            given_up = record.status in ("cancelled", "rejected")  # and cancelled by hand
            assert record.broker_id == there["id"] or given_up
            assert record.order.quantity == there["quantity"]
            assert record.filled == there["filled"]
            assert (record.status in OPEN) == (there["status"] not in FINAL)
            if there["filled"]:
                assert_near(record.average, there["value"] / there["filled"])
        decisions = [(r.order.asset, r.order.bar) for n, r in records.items() if n in theirs]
        assert len(decisions) == len(set(decisions))
        ours = [t["id"] for t in self.exchange.trades if t["order"] is not None]
        assert sorted(ours) == sorted(e.execution_id for e in book.executions())
        positions = book.positions()
        for asset, (held, cost, profit, fees) in self.exchange.held.items():
            if asset not in positions:
                assert held == 0
                continue
            position = positions[asset]
            assert position.quantity == held
            assert_near(position.cost, cost)
            assert_near(position.profit, profit - self.exchange.outside_profit.get(asset, 0))
            assert_near(position.fees, fees)


SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Books that nobody needs after a power cut."""


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name, value in exchange_server.KEYS.items():
        monkeypatch.setenv(name, value)


def trade(examples, steps):
    Trading.steps = Trading.sent = Trading.failed = 0
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Trading,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
            suppress_health_check=quiet, database=None, phases=[Phase.generate],
        ),
    )  # fmt: skip
    print(f"{Trading.steps} steps, {Trading.sent} orders, {Trading.failed} faults")
    return Trading.steps, Trading.sent, Trading.failed


def test_no_order_is_lost_or_doubled():
    steps, sent, failed = trade(7, 30)  # what is drawn differs between versions of hypothesis
    assert steps >= 100 and sent >= 5 and failed >= 3


@pytest.mark.slow
def test_no_order_is_lost_or_doubled_in_ten_thousand_steps():
    steps, sent, failed = trade(240, 50)
    assert steps >= 10_000 and sent >= 500 and failed >= 300
