"""The one path on which orders are sent: limits, conflicts, outcomes, differences."""

from decimal import Decimal

import pandas as pd
import pytest

from maml_jax.errors import BrokerError, MismatchError, OrderError
from maml_jax.live.broker import Held, Limits, Outcome, Report
from maml_jax.live.fills import Execution
from maml_jax.live.order_book import OrderBook
from maml_jax.live.orders import Order, make_order
from maml_jax.live.recovery import check_account, resolve, resume, sync, take_report
from maml_jax.live.sending import cancel_order, send_orders

BAR = pd.Timestamp("2024-01-01T10:00Z")
NOW = pd.Timestamp("2024-01-01T11:00Z")
PRICES = {"BTCUSDT": 100.0, "ETHUSDT": 10.0}


class Scripted:
    """A broker in memory: it fills all at a price, or answers what it was told to."""

    def __init__(self):
        self.price = {asset: Decimal(str(price)) for asset, price in PRICES.items()}
        self.answers, self.sent, self.reports, self.trades = [], [], {}, []
        self.share = Decimal(1)

    def submit(self, order):
        self.sent.append(order)
        answer = self.answers.pop(0) if self.answers else "confirmed"
        if answer in ("confirmed", "lost reply", "interrupted"):
            self.take(order)
        if answer == "interrupted":
            raise KeyboardInterrupt
        if answer == "confirmed":
            return Outcome("confirmed", order.client_id, f"b-{order.client_id}")
        status = "unresolved" if answer.startswith("lost") else answer
        return Outcome(status, order.client_id, reason=f"it was {answer}")

    def take(self, order):
        part = order.quantity * self.share
        state = "filled" if self.share == 1 else "open"
        self.reports[order.client_id] = Report(
            order.client_id, f"b-{order.client_id}", order.asset, order.side, order.quantity,
            part, state,
        )  # fmt: skip
        if part:
            price = self.price[order.asset]
            number = f"e{len(self.trades)}"
            self.trades.append(
                Execution(number, order.client_id, f"b-{order.client_id}", order.asset,
                          order.side, part, price, Decimal(1), NOW)
            )  # fmt: skip

    def query(self, client_id):
        return self.reports.get(client_id)

    def cancel(self, client_id):
        report = self.reports[client_id]
        self.reports[client_id] = report._replace(status="cancelled")
        return Outcome("confirmed", client_id, report.broker_id)

    def open_orders(self):
        return [report for report in self.reports.values() if report.status == "open"]

    def positions(self):
        held = {}
        for trade in self.trades:
            quantity = trade.quantity if trade.side == "buy" else -trade.quantity
            held[trade.asset] = held.get(trade.asset, 0) + quantity
        return {asset: Held(q, self.price[asset]) for asset, q in held.items() if q}

    def executions(self, since):
        return [trade for trade in self.trades if trade.time >= since]


@pytest.fixture
def scripted():
    return Scripted()


@pytest.fixture
def limits(tmp_path):
    return Limits(1000, 100, 1000, tmp_path / "stop")


def decide(book, asset="BTCUSDT", target=2, bar=BAR, **options):
    held = book.positions()
    return make_order(
        "run", asset, bar, target, held[asset].quantity if asset in held else 0, **options
    )


def hours(count):
    return BAR + pd.Timedelta(hours=count)


def send(book, broker, limits, *orders, prices=PRICES, now=NOW):
    return send_orders(book, broker, orders, limits, prices, now=now)


def test_an_order_is_sent_once_however_often_it_is_asked_for(book, scripted, limits):
    order = decide(book)
    first = send(book, scripted, limits, order)
    assert first == send(book, scripted, limits, order, order)[:1]
    assert scripted.sent == [order]
    assert sync(book, scripted) and book.positions()["BTCUSDT"].quantity == 2
    assert decide(book) is None


@pytest.mark.parametrize("answer", ["lost request", "lost reply"])
def test_a_lost_answer_is_asked_about_and_not_repeated_blindly(book, scripted, limits, answer):
    scripted.answers = [answer]
    order = decide(book)
    (outcome,) = send(book, scripted, limits, order)
    assert outcome.status == "unresolved"
    assert book.records("unresolved")[0].order == order
    (outcome,) = send(book, scripted, limits, order)
    assert outcome.status == "confirmed"
    assert len(scripted.sent) == (2 if answer == "lost request" else 1)
    assert len({each.client_id for each in scripted.sent}) == 1
    assert check_account(book, scripted) == ([], [])
    assert book.positions()["BTCUSDT"].quantity == 2


def test_a_request_that_arrives_late_is_noticed_before_the_next_is_sent(book, scripted, limits):
    scripted.answers = ["lost request"]
    order = decide(book)
    send(book, scripted, limits, order)
    assert resolve(book, scripted).unsent == [order]
    scripted.share = Decimal("0.5")
    scripted.take(order)
    (outcome,) = send(book, scripted, limits, decide(book, target=3, bar=hours(1)))
    assert outcome.status == "refused" and order.client_id in outcome.reason
    assert scripted.sent == [order]
    check_account(book, scripted)
    assert book.positions()["BTCUSDT"].quantity == 1


def test_a_request_that_arrives_late_is_cancelled_at_the_broker(book, scripted, limits):
    scripted.answers = ["lost request", "lost request"]
    late, never = decide(book), decide(book, "ETHUSDT")
    send(book, scripted, limits, late, never)
    resolve(book, scripted)
    scripted.share = Decimal(0)
    scripted.take(late)
    for order in (late, never):
        assert cancel_order(book, scripted, order.client_id).status == "confirmed"
        assert book.find(order.client_id).status == "cancelled"
    assert scripted.open_orders() == []


def test_an_interrupt_while_an_order_is_sent_leaves_it_to_be_asked_about(book, scripted, limits):
    scripted.answers = ["interrupted"]
    with pytest.raises(KeyboardInterrupt):
        send(book, scripted, limits, decide(book))
    (outcome,) = send(book, scripted, limits, decide(book))
    assert outcome.status == "confirmed" and len(scripted.sent) == 1


def test_fills_between_two_looks_at_the_account_are_no_difference(book, scripted, limits):
    scripted.share = Decimal(0)
    order = decide(book)
    send(book, scripted, limits, order)
    look, scripted.share = scripted.positions, Decimal("0.5")

    def fill_and_look():
        if not scripted.trades:
            scripted.take(order)
        return look()

    scripted.positions = fill_and_look
    check_account(book, scripted)
    assert book.positions()["BTCUSDT"].quantity == 1


def test_what_was_refused_may_be_sent_again_and_what_was_rejected_not(book, scripted, limits):
    scripted.answers = ["refused", "rejected"]
    order, other = decide(book), decide(book, "ETHUSDT")
    first, second = send(book, scripted, limits, order, other)
    assert (first.status, second.status) == ("refused", "rejected")
    again, still = send(book, scripted, limits, order, other)
    assert (again.status, still.status) == ("confirmed", "rejected")
    assert still.reason == "it was rejected"
    assert scripted.sent == [order, other, order]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"notional": 199.9}, "notional 199.9"),
        ({"orders_a_day": 0}, "orders_a_day"),
        ({"daily_loss": 0}, "daily_loss"),
        ({"stale_after": pd.Timedelta(minutes=59)}, "stale"),
        ({"faults": 0}, "clear_faults"),
    ],
)
def test_a_limit_holds_an_order_back_and_leaves_no_trace(book, scripted, limits, change, word):
    (outcome,) = send(book, scripted, limits._replace(**change), decide(book))
    assert outcome.status == "refused" and word in outcome.reason and "BTCUSDT" in outcome.reason
    assert (scripted.sent, book.records()) == ([], [])
    just = {"notional": 200, "orders_a_day": 1, "daily_loss": 1e-9, "faults": 1}
    just |= {"stale_after": pd.Timedelta(hours=1)}
    (outcome,) = send(book, scripted, limits._replace(**just), decide(book))
    assert outcome.status == "confirmed"


def test_a_limit_order_is_valued_at_the_worst_it_accepts(book, scripted, limits):
    (outcome,) = send(book, scripted, limits._replace(notional=200), decide(book, limit=100.01))
    assert "200.02 (limit notional 200)" in outcome.reason


def test_only_reduce_only_orders_pass_while_the_kill_switch_exists(book, scripted, limits):
    send(book, scripted, limits, decide(book))
    sync(book, scripted)
    limits.kill_switch.symlink_to("nowhere")
    tight = limits._replace(notional=0, orders_a_day=0, daily_loss=0, faults=0)
    more, flip, less = (decide(book, target=target, bar=hours(1)) for target in (3, -1, 0.5))
    outcomes = send(book, scripted, tight, more, flip, less)
    assert [outcome.status for outcome in outcomes] == ["refused", "refused", "confirmed"]
    assert all("kill switch" in outcome.reason for outcome in outcomes[:2])
    sync(book, scripted)
    assert book.positions()["BTCUSDT"].quantity == Decimal("0.5")
    (outcome,) = send(book, scripted, tight, less)
    assert outcome.status == "confirmed" and len(scripted.sent) == 2


def test_a_reduce_only_order_needs_something_to_reduce(book, scripted, limits):
    order = Order("a", "BTCUSDT", BAR, "buy", Decimal(1), reduce_only=True)
    (outcome,) = send(book, scripted, limits, order)
    assert outcome.status == "refused" and "cannot be reduced" in outcome.reason


def test_faults_in_a_row_leave_reduce_only_until_somebody_looks(book, scripted, limits):
    send(book, scripted, limits, decide(book))
    sync(book, scripted)
    limits = limits._replace(faults=2)
    scripted.answers = ["rejected", "confirmed", "rejected", "refused"]
    statuses = []
    for hour in range(1, 6):
        (outcome,) = send(book, scripted, limits, decide(book, "ETHUSDT", hour, hours(hour)))
        statuses.append(outcome.status)
        sync(book, scripted)
    assert statuses == ["rejected", "confirmed", "rejected", "refused", "refused"]
    assert "last 2 orders" in outcome.reason
    (outcome,) = send(book, scripted, limits, decide(book, target=1, bar=hours(6)))
    assert outcome.status == "confirmed" and book.faults() == 2
    book.clear_faults()
    (outcome,) = send(book, scripted, limits, decide(book, "ETHUSDT", 9, hours(7)))
    assert outcome.status == "confirmed"


def test_the_loss_of_a_day_counts_what_is_open_and_ends_with_the_day(book, scripted, limits):
    limits = limits._replace(daily_loss=50)
    send(book, scripted, limits, decide(book))
    sync(book, scripted)
    down = PRICES | {"BTCUSDT": 75.4}
    more = decide(book, "ETHUSDT", 1)
    (outcome,) = send(book, scripted, limits, more, prices=down)
    assert outcome.reason.endswith("the loss of today is 50.2 (limit daily_loss 50)")
    tomorrow = NOW + pd.Timedelta(days=1)
    (outcome,) = send(book, scripted, limits, more, prices=down, now=tomorrow)
    assert outcome.status == "confirmed"


def test_an_open_order_blocks_more_of_its_asset_until_it_is_cancelled(book, scripted, limits):
    scripted.share = Decimal("0.25")
    first = decide(book)
    send(book, scripted, limits, first)
    sync(book, scripted)
    second = decide(book, target=3, bar=hours(1))
    (outcome,) = send(book, scripted, limits, second)
    assert outcome.status == "refused" and first.client_id in outcome.reason
    assert cancel_order(book, scripted, first.client_id).status == "confirmed"
    assert book.find(first.client_id).status == "cancelled"
    (outcome,) = send(book, scripted, limits, second)
    assert outcome.status == "confirmed"
    assert cancel_order(book, scripted, first.client_id).status == "confirmed"
    with pytest.raises(OrderError, match="no order x"):
        cancel_order(book, scripted, "x")


def test_an_order_is_not_sent_at_another_position_than_it_was_decided_at(book, scripted, limits):
    """Whoever forgets to look at the account first buys nothing twice."""
    scripted.share = Decimal("0.5")
    send(book, scripted, limits, decide(book))
    stale = decide(book, target=3, bar=hours(1))
    cancel_order(book, scripted, book.records()[0].order.client_id)
    (outcome,) = send(book, scripted, limits, stale)  # half is filled, and nobody heard of it
    assert outcome.status == "refused" and "more may be filled" in outcome.reason
    check_account(book, scripted)
    (outcome,) = send(book, scripted, limits, stale)
    assert outcome.reason.endswith("at a position of 0, which is 1.0; decide again")
    (outcome,) = send(book, scripted, limits, decide(book, target=3, bar=hours(1)))
    assert outcome.status == "confirmed" and scripted.sent[-1].quantity == 2


def test_an_order_that_never_left_is_decided_again_and_one_that_may_arrive_is_not(
    book, scripted, limits
):
    first = make_order("run", "BTCUSDT", BAR, 2, 0)
    again = make_order("run", "BTCUSDT", BAR, 2, -1)
    assert first.client_id == again.client_id
    book.add(first)
    assert book.add(again).order == again
    scripted.answers = ["lost request"]
    book.add(first)
    send(book, scripted, limits, first)
    resolve(book, scripted)
    assert book.add(again).order == first


def test_prices_that_are_missing_or_impossible_stop_before_anything_is_sent(book, scripted, limits):
    for prices in ({}, {"BTCUSDT": 0}, {"BTCUSDT": float("nan")}):
        with pytest.raises(OrderError, match="BTCUSDT"):
            send(book, scripted, limits, decide(book), prices=prices)
    assert scripted.sent == []


def test_a_broker_that_does_not_answer_stops_before_anything_is_sent(book, scripted, limits):
    scripted.answers = ["lost reply"]
    send(book, scripted, limits, decide(book))

    def silent(client_id):
        raise BrokerError("no answer")

    scripted.query = silent
    with pytest.raises(BrokerError, match="no answer"):
        send(book, scripted, limits, decide(book, "ETHUSDT"))
    assert len(scripted.sent) == 1


def test_differences_name_the_asset_and_both_quantities(book, scripted, limits):
    send(book, scripted, limits, decide(book))
    sync(book, scripted)
    foreign = Execution("x", "", "y", "ETHUSDT", "sell", Decimal(3), Decimal(10), Decimal(0), NOW)
    scripted.trades.append(foreign)
    with pytest.raises(MismatchError, match="ETHUSDT: 0 in the book, -3 at the broker") as caught:
        check_account(book, scripted)
    assert "BTCUSDT" not in str(caught.value) and "take_over" in str(caught.value)
    check_account(book, scripted, take_over=True)
    assert check_account(book, scripted) == ([], [])
    assert book.positions()["ETHUSDT"].quantity == -3


def test_an_open_order_of_somebody_else_stops_even_a_takeover(book, scripted, limits):
    report = Report("", "b9", "BTCUSDT", "buy", Decimal(1), Decimal(0), "open")
    scripted.reports["other"] = report
    with pytest.raises(MismatchError, match="b9.*cancel it at the broker"):
        check_account(book, scripted, take_over=True)


def test_another_order_of_our_name_is_a_mismatch(book, scripted, limits):
    scripted.answers = ["lost reply"]
    order = decide(book)
    send(book, scripted, limits, order)
    name = order.client_id
    scripted.reports[name] = scripted.reports[name]._replace(quantity=Decimal(3))
    for ask in (resume, resolve, check_account):
        with pytest.raises(MismatchError, match=f"another order {name}"):
            ask(book, scripted)


def test_reported_fills_are_waited_for(book, scripted, limits):
    """An account whose executions lag behind is neither right nor to be taken over."""
    send(book, scripted, limits, decide(book))
    lagging, scripted.trades = scripted.trades, []
    for take_over in (False, True):
        with pytest.raises(MismatchError, match="reports 2 filled, and executions of 0 alone"):
            check_account(book, scripted, take_over=take_over)
    scripted.trades = lagging
    assert check_account(book, scripted) == ([], [])


def test_a_book_that_was_restored_takes_over_what_the_broker_has(tmp_path, scripted):
    with OrderBook(tmp_path / "restored.db", now=BAR) as book:
        order = book.add(decide(book)).order
        scripted.take(order)
        assert check_account(book, scripted) == ([], [])
        assert book.find(order.client_id).status == "filled"


def test_a_rejection_that_comes_late_is_recorded(book, scripted, limits):
    scripted.share = Decimal(0)
    order = decide(book)
    send(book, scripted, limits, order)
    report = scripted.reports[order.client_id]
    take_report(book, report._replace(status="rejected", reason="no margin"))
    record = book.find(order.client_id)
    assert (record.status, record.reason, record.settled) == ("rejected", "no margin", True)
