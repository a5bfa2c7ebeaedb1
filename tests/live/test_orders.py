"""Orders, their names and their states; fills and the positions that they make."""

from decimal import Decimal
from fractions import Fraction
from itertools import permutations, product

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maml_jax.errors import OrderError
from maml_jax.live.fills import Execution, Position, fill_position
from maml_jax.live.orders import (
    Order,
    Record,
    acknowledge,
    fill_order,
    make_order,
    order_id,
    round_units,
    step,
)

BAR = pd.Timestamp("2024-01-01T10:00Z")
ORDER = Order("a", "BTCUSDT", BAR, "buy", Decimal("1.5"))
SENT = step(Record(ORDER), "send")


def test_equal_decisions_have_equal_names_and_others_have_not():
    zoned = BAR.tz_convert("Asia/Tokyo").as_unit("ns")
    same = {
        order_id("run", "BTCUSDT", bar, target)
        for bar in (BAR, zoned, BAR.tz_localize(None), "2024-01-01 10:00")
        for target in (2, 2.0, Decimal("2.000"), "2", Decimal("0.2E1"))
    }
    assert len(same) == 1
    assert all(len(name) <= 36 and name.isalnum() for name in same)
    assert order_id("run", "A", BAR, -0.0) == order_id("run", "A", BAR, 0)
    runs, assets = ("run", "runA", "ru"), ("A", "nA", "AA", '","')
    bars, targets = (BAR, BAR + pd.Timedelta(1, "us")), (1, -1, 10, 0, 1e-9)
    names = {order_id(*each) for each in product(runs, assets, bars, targets)}
    assert len(names) == len(runs) * len(assets) * len(bars) * len(targets)


def test_an_order_brings_the_position_to_its_target_and_says_whether_it_reduces():
    for held, target in product((-2, -1, 0, 1, 2), repeat=2):
        order = make_order("run", "A", BAR, target, held)
        if held == target:
            assert order is None
            continue
        assert held + order.sign * order.quantity == target
        between = min(held, 0) <= target <= max(held, 0)
        assert order.reduce_only == between


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantity": Decimal(0)}, "not above 0"),
        ({"quantity": Decimal(-1)}, "not above 0"),
        ({"quantity": float("nan")}, "not finite"),
        ({"quantity": "many"}, "not a number"),
        ({"side": "Buy"}, "side 'Buy'"),
        ({"limit": Decimal(0)}, "limit"),
        ({"asset": ""}, "asset"),
        ({"client_id": ""}, "client id"),
        ({"bar": pd.NaT}, "time of the bar"),
    ],
)
def test_impossible_orders_are_refused(change, message):
    values = {"client_id": "a", "asset": "A", "bar": BAR, "side": "buy", "quantity": Decimal(1)}
    with pytest.raises(OrderError, match=message):
        Order(**values | change)
    with pytest.raises(OrderError, match="target of A"):
        order_id("run", "A", BAR, float("inf"))


def test_units_are_rounded_towards_zero_to_whole_lots():
    assert round_units(0.3, 0.1) == Decimal("0.3")
    assert round_units(-7.99, "0.5") == Decimal("-7.5")
    assert round_units(0.04, 0.1) == 0
    with pytest.raises(OrderError, match="lot"):
        round_units(1, 0)


def test_fills_add_up_in_any_order_and_whenever_the_acknowledgement_comes():
    fills = [("0.5", "100"), ("0.25", "104"), ("0.75", "98")]
    moves = [lambda r, q=q, p=p: fill_order(r, Decimal(q), Decimal(p)) for q, p in fills]
    ends = set()
    lost = step(SENT, "lose")
    for order in permutations([*moves, lambda r: acknowledge(r, "b1")]):
        for record in (SENT, lost, step(lost, "refuse")):
            for move in order:
                record = move(record)
            ends.add(record._replace(reason=""))
    assert len(ends) == 1
    (end,) = ends
    assert (end.status, end.filled, end.settled) == ("filled", Decimal("1.5"), True)
    assert end.average == (50 + 26 + Decimal("73.5")) / Decimal("1.5")


def test_late_fills_count_after_a_cancellation():
    record = step(acknowledge(SENT, "b1"), "cancel")
    record = fill_order(record, Decimal(1), Decimal(100))
    assert (record.status, record.filled) == ("cancelled", 1)
    assert fill_order(record, Decimal("0.5"), Decimal(1)).status == "filled"


FILLED = fill_order(SENT, Decimal("1.5"), Decimal(100))
PARTLY = fill_order(SENT, Decimal(1), Decimal(100))
REJECTED = step(SENT, "reject")
CANCELLED = step(SENT, "cancel")


@pytest.mark.parametrize(
    "illegal",
    [
        lambda: step(SENT, "send"),
        lambda: step(step(SENT, "lose"), "send"),
        lambda: step(FILLED, "send"),
        lambda: step(REJECTED, "send"),
        lambda: step(CANCELLED, "send"),
        lambda: step(Record(ORDER), "lose"),
        lambda: step(Record(ORDER), "reject"),
        lambda: acknowledge(REJECTED, "b1"),
        lambda: acknowledge(SENT, ""),
        lambda: acknowledge(acknowledge(SENT, "b1"), "b2"),
        lambda: step(acknowledge(SENT, "b1"), "refuse"),
        lambda: step(PARTLY, "refuse"),
        lambda: step(PARTLY, "reject"),
        lambda: step(FILLED, "cancel"),
        lambda: step(CANCELLED, "refuse"),
        lambda: fill_order(REJECTED, Decimal(1), Decimal(100)),
        lambda: fill_order(FILLED, Decimal(1), Decimal(100)),
        lambda: fill_order(PARTLY, Decimal(1), Decimal(100)),
        lambda: fill_order(SENT, Decimal(0), Decimal(100)),
        lambda: fill_order(SENT, Decimal(1), Decimal(0)),
    ],
)
def test_illegal_steps_raise_and_name_the_order(illegal):
    with pytest.raises(OrderError, match="BTCUSDT"):
        illegal()


TRADES = st.lists(
    st.tuples(st.sampled_from([-1, 1]), st.integers(1, 8), st.integers(1, 400)), max_size=30
)


@given(TRADES)
def test_a_position_is_what_the_trades_add_up_to(trades):
    """Money in equals money out: whatever is closed when, and through 0, at each step."""
    position, held, spent, fees = Position(), Fraction(0), Fraction(0), Fraction(0)
    for number, (sign, quarters, price) in enumerate(trades):
        quantity = Decimal(quarters) / 4
        side = "buy" if sign > 0 else "sell"
        fee = Decimal(price) / 1000
        before = position
        execution = Execution(str(number), "a", "b", "A", side, quantity, Decimal(price), fee, BAR)
        position = fill_position(position, execution)
        held += sign * Fraction(quantity)
        spent += sign * Fraction(quantity) * price
        fees += Fraction(fee)
        assert (position.quantity, position.fees) == (held, fees)
        equity = Fraction(position.equity(Decimal(200)))
        assert abs(equity - (held * 200 - spent - fees)) < Fraction(1, 10**18)
        if held == 0:
            assert position.cost == 0
        if before.quantity * sign >= 0:  # nothing is realised by opening
            assert position.profit == before.profit
        elif position.quantity * before.quantity > 0:  # nor does closing change the average
            assert abs(position.average - before.average) < Decimal("1e-18")
        elif held:  # through 0: what is open was opened here
            assert position.average == price
