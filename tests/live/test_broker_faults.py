"""Orders through a broker that fails in all ways: none is lost, none is doubled."""

import os
import sqlite3
import tempfile
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import exchange_server
import pandas as pd
import pytest
from exchange_server import FAULTS, FINAL, Exchange, serving
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from maml_jax.data.sources.http import Retries
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


class Trading(RuleBasedStateMachine):
    """A book and an exchange that drift apart in all ways, and agree once all is resolved."""

    steps = 0

    def __init__(self):
        super().__init__()
        self.stack = ExitStack()
        self.exchange = Exchange()
        address = self.stack.enter_context(serving(self.exchange))
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH)))
        quick = Retries(6, first=0.0005)
        self.broker = BybitBroker(address, retries=quick, per_second=None, window=60)
        self.book = OrderBook(self.folder / "orders.db")
        self.limits = Limits(10**9, 10**9, 10**9, self.folder / "stop", faults=10**9)
        self.bar, self.decided = BEGIN, []

    def teardown(self):
        self.book.close()
        self.stack.close()

    def send(self, orders):
        prices = {asset: float(price) for asset, price in self.exchange.prices.items()}
        return send_orders(self.book, self.broker, orders, self.limits, prices)

    @rule(asset=ASSETS, wanted=QUARTERS, plan=SHARES, faults=SOME_FAULTS, failures=FAILURES)
    def decide(self, asset, wanted, plan, faults, failures):
        self.bar += pd.Timedelta(hours=1)
        self.exchange.plan, self.exchange.failures = plan, failures
        held = self.book.positions()
        held = held[asset].quantity if asset in held else 0
        order = make_order("run", asset, self.bar, wanted, held)
        if order is not None:
            self.decided.append(order)
            self.exchange.faults = faults
            self.send([order])
            self.exchange.faults = []

    @rule(data=st.data(), faults=SOME_FAULTS)
    def send_again(self, data, faults):
        """As a process that was killed and does not know what it sent."""
        if self.decided:
            self.exchange.faults = faults
            self.send(data.draw(st.lists(st.sampled_from(self.decided[-4:]), max_size=3)))
            self.exchange.faults = []

    @rule(data=st.data(), share=st.sampled_from([0.25, 0.5, 1]), price=PRICES)
    def fill_more(self, data, share, price):
        names = [n for n, order in self.exchange.orders.items() if order["status"] not in FINAL]
        if names:
            self.exchange.fill(data.draw(st.sampled_from(names)), share, price)

    @rule(asset=ASSETS, price=PRICES)
    def move_price(self, asset, price):
        self.exchange.prices[asset] = Fraction(price)

    @rule(data=st.data())
    def cancel(self, data):
        found = self.book.records(*OPEN)
        if found:
            cancel_order(self.book, self.broker, data.draw(st.sampled_from(found)).order.client_id)

    @rule(repeat=st.booleans(), failures=FAILURES)
    def hear(self, repeat, failures):
        self.exchange.repeat, self.exchange.failures = repeat, failures
        sync(self.book, self.broker)

    @rule()
    def ask(self):
        resolve(self.book, self.broker)

    @rule()
    def hide_trades(self):
        self.exchange.hidden = {trade["id"] for trade in self.exchange.trades[-2:]}

    @rule()
    def restart_exchange(self):
        self.exchange.restart()

    @rule()
    def restart_process(self):
        self.book.close()
        self.book = OrderBook(self.folder / "orders.db")
        with self.all_shown():
            check_account(self.book, self.broker)

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

    @rule(asset=ASSETS, sign=st.sampled_from([-1, 1]), quarters=st.integers(1, 12))
    def trade_by_hand(self, asset, sign, quarters):
        with self.all_shown():
            check_account(self.book, self.broker)
            quantity = Fraction(quarters, 4)
            self.exchange.trade(asset, sign, quantity, self.exchange.prices[asset])
            with pytest.raises(MismatchError, match=rf"{asset}: .* in the book, .*take_over"):
                check_account(self.book, self.broker)
            check_account(self.book, self.broker, take_over=True)

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
            check_account(book, self.broker)
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
            assert record.broker_id == there["id"]
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
    Trading.steps = 0
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Trading,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
            suppress_health_check=quiet, database=None, phases=[Phase.generate],
        ),
    )  # fmt: skip
    return Trading.steps


def test_no_order_is_lost_or_doubled():
    assert trade(7, 30) >= 200


@pytest.mark.slow
def test_no_order_is_lost_or_doubled_in_ten_thousand_steps():
    assert trade(300, 50) >= 10_000
