"""Bybit's private API, played by an exchange on loopback."""

import json
import logging
import pickle
import subprocess
import sys
import traceback
from decimal import Decimal

import exchange_server
import pandas as pd
import pytest
from exchange_server import FAULTS, KEY, SECRET, Exchange, serving

from maml_jax.data.sources.bybit import ADDRESS, TESTNET
from maml_jax.data.sources.http import Retries
from maml_jax.errors import BrokerError
from maml_jax.live.broker import Held
from maml_jax.live.bybit_broker import LIVE_KEYS, TESTNET_KEYS, BybitBroker
from maml_jax.live.orders import Order, make_order, order_id

BAR = pd.Timestamp("2024-01-01T10:00Z")
LONG_AGO = pd.Timestamp("2020-01-01T00:00Z")


def order(number=0, target="1.5", asset="BTCUSDT", **options):
    return make_order("run", asset, BAR + pd.Timedelta(hours=number), Decimal(target), 0, **options)


def posts(exchange):
    return [content for path, content in exchange.requests if path == "/v5/order/create"]


def test_the_fields_of_orders_are_those_that_bybit_documents(broker, exchange):
    market, limited = order(), order(1, "-0.0000001", "ETHUSDT", limit="9.5")
    closing = Order("c", "BTCUSDT", BAR, "sell", Decimal("0.5"), reduce_only=True)
    assert all(broker.submit(each).status == "confirmed" for each in (market, closing, limited))
    fixed = {"category": "linear", "positionIdx": 0}
    assert posts(exchange) == [
        fixed | {
            "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "1.5",
            "orderLinkId": market.client_id, "reduceOnly": False,
        },
        fixed | {
            "symbol": "BTCUSDT", "side": "Sell", "orderType": "Market", "qty": "0.5",
            "orderLinkId": "c", "reduceOnly": True,
        },
        fixed | {
            "symbol": "ETHUSDT", "side": "Sell", "orderType": "Limit", "qty": "0.0000001",
            "orderLinkId": limited.client_id, "reduceOnly": False, "price": "9.5",
            "timeInForce": "GTC",
        },
    ]  # fmt: skip


def test_all_pages_and_weeks_are_read_and_payments_of_funding_are_none(broker, exchange):
    exchange.plan = [0.25, 0.5]
    sent = [order(hour) for hour in range(4)]
    for each in sent:
        broker.submit(each)
    exchange.trades[0]["time"] -= 20 * 86_400_000
    exchange.trades[1]["kind"] = "Funding"
    exchange.repeat = True
    since = pd.Timestamp.now("UTC") - pd.Timedelta(days=21)
    found = broker.executions(since)
    ids = [trade["id"] for trade in exchange.trades]
    assert [execution.execution_id for execution in found] == [ids[0], *ids[2:]]
    assert found[0].quantity == Decimal("0.375") and found[0].fee == Decimal("0.0375")
    assert len(broker.executions(found[0].time)) == 7
    assert len(broker.executions(found[0].time + pd.Timedelta(1, "ms"))) == 6
    reports = broker.open_orders()
    assert [r.client_id for r in reports] == [each.client_id for each in sent]
    assert {(r.filled, r.status) for r in reports} == {(Decimal("1.125"), "open")}
    exchange.trade("ETHUSDT", -1, 2, 7)
    assert broker.positions() == {
        "BTCUSDT": Held(Decimal("4.5"), Decimal(100)), "ETHUSDT": Held(Decimal(-2), Decimal(7)),
    }  # fmt: skip


def test_final_orders_are_found_after_a_restart_of_the_exchange(broker, exchange):
    broker.submit(order())
    exchange.restart()
    report = broker.query(order().client_id)
    assert (report.status, report.filled) == ("filled", Decimal("1.5"))
    assert broker.query("nobody") is None


OUTCOMES = {
    "rejected": "rejected", "rate limit": "refused", "busy": "refused", "skew": "refused",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_an_order_is_posted_once_and_only_certain_refusals_are_no(broker, exchange, fault):
    exchange.faults = [fault]
    outcome = broker.submit(order())
    assert outcome.status == OUTCOMES.get(fault, "unresolved")
    assert outcome.reason and not outcome.broker_id
    assert len(posts(exchange)) == 1
    there = broker.query(order().client_id)
    assert (there is not None) == (fault in ("lost reply", "bad gateway", "nonsense"))


def test_a_second_order_of_a_name_is_not_taken_and_has_to_be_asked_about(broker, exchange):
    assert broker.submit(order()).status == "confirmed"
    outcome = broker.submit(order())
    assert outcome.status == "unresolved" and "110072" in outcome.reason
    assert len(exchange.orders) == 1


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (Order("a", "NOSUCH", BAR, "buy", Decimal(1)), "10001"),
        (Order("a", "BTCUSDT", BAR, "buy", Decimal(1), reduce_only=True), "110017"),
    ],
)
def test_what_the_exchange_does_not_want_is_rejected_with_its_reason(broker, bad, word):
    outcome = broker.submit(bad)
    assert outcome.status == "rejected" and word in outcome.reason


def test_orders_are_cancelled_and_late_requests_to_cancel_do_no_harm(broker, exchange):
    exchange.plan = [0.25]
    name = order().client_id
    broker.submit(order())
    assert broker.cancel(name).status == "confirmed"
    report = broker.query(name)
    assert (report.status, report.filled) == ("cancelled", Decimal("0.375"))
    assert broker.cancel(name).status == "confirmed"
    assert broker.cancel("nobody").status == "unresolved"


def test_questions_are_asked_again_and_fail_loudly_in_the_end(broker, exchange):
    broker.submit(order())
    exchange.failures = ["cut", "busy", "rate limit"]
    assert broker.query(order().client_id).status == "filled"
    for ask in (
        lambda: broker.query("a"), broker.open_orders, broker.positions,
        lambda: broker.executions(pd.Timestamp.now("UTC")),
    ):  # fmt: skip
        exchange.failures = ["cut", "busy", "rate limit", "cut"]
        with pytest.raises(BrokerError, match="gave up after 4 attempts"):
            ask()


def test_clocks_that_differ_are_named(broker, exchange):
    exchange.skew = 60_000
    outcome = broker.submit(order())
    assert outcome.status == "refused"
    assert "our clock is ahead of Bybit's by -60.0 s" in outcome.reason
    with pytest.raises(BrokerError, match=r"-60\.\d s"):
        broker.positions()
    exchange.skew = -60_000
    assert "by 60.0 s" in broker.submit(order()).reason
    assert exchange.orders == {}


def test_an_exchange_that_is_away_is_an_error_or_unresolved():
    with serving(Exchange()) as address:
        broker = BybitBroker(address, retries=Retries(2, first=0.001), per_second=None)
    assert broker.submit(order(1)).status == "unresolved"
    with pytest.raises(BrokerError, match="connection failed"):
        broker.positions()


def change_rows(exchange, **values):
    answer = exchange.answer

    def changed(path, query):
        code, message, result = answer(path, query)
        rows = [row | values for row in result.get("list", [])]
        return code, message, result | ({"list": rows} if rows else {})

    exchange.answer = changed


@pytest.mark.parametrize(
    ("ask", "values", "word"),
    [
        ("query", {"orderStatus": "Dreaming"}, "Dreaming"),
        ("query", {"qty": "nan"}, "nan"),
        ("query", {"cumExecQty": 0.1}, "not a number"),
        ("query", {"side": None}, "None"),
        ("positions", {"positionIdx": 1}, "one-way mode"),
        ("positions", {"size": "1_0"}, "1_0"),
        ("positions", {"side": ""}, "KeyError"),
        ("executions", {"execPrice": "0"}, "not above 0"),
        ("executions", {"execTime": "noon"}, "noon"),
    ],
)
def test_answers_without_sense_are_errors(broker, exchange, ask, values, word):
    broker.submit(order())
    change_rows(exchange, **values)
    questions = {
        "query": lambda: broker.query(order().client_id),
        "positions": broker.positions,
        "executions": lambda: broker.executions(pd.Timestamp.now("UTC") - pd.Timedelta(hours=1)),
    }
    with pytest.raises(BrokerError, match=word):
        questions[ask]()


@pytest.mark.parametrize(
    "address",
    [ADDRESS, "https://api.bytick.com", "https://api-testnet.bybit.com.example.com",
     "https://api-testnet.bybit.com@example.com", "https://example.com/api-testnet.bybit.com",
     "http://127.0.0.1.example.com", "api.bybit.com"],
)  # fmt: skip
def test_no_address_but_the_testnet_is_allowed_unless_meant(address, monkeypatch):
    with pytest.raises(BrokerError, match="live=True"):
        BybitBroker(address)
    with pytest.raises(BrokerError, match="|".join([*LIVE_KEYS, "https alone"])):
        BybitBroker(address, live=True)
    for name in LIVE_KEYS:
        monkeypatch.setenv(name, "x")
    assert repr(BybitBroker(ADDRESS, live=True)) == f"BybitBroker('{ADDRESS}')"
    with pytest.raises(BrokerError, match="https alone"):
        BybitBroker(ADDRESS.replace("https", "http"), live=True)


def test_pages_that_come_twice_are_an_error(broker, exchange):
    for number in range(2):
        broker.submit(order(number))
    answer = exchange.answer
    exchange.answer = lambda *asked: (
        *answer(*asked)[:2],
        answer(*asked)[2] | {"nextPageCursor": "1"},
    )
    with pytest.raises(BrokerError, match="page 1 comes twice"):
        broker.executions(pd.Timestamp.now("UTC") - pd.Timedelta(hours=1))


def test_what_is_no_address_is_refused():
    with pytest.raises(BrokerError, match="not an address"):
        BybitBroker("http://[::1")


def test_keys_come_from_the_environment_alone(monkeypatch):
    assert BybitBroker().address == TESTNET
    monkeypatch.delenv(TESTNET_KEYS[1])
    with pytest.raises(BrokerError, match=f"environment variables {TESTNET_KEYS[1]}$"):
        BybitBroker()


@pytest.mark.parametrize("mark", ["\n", "\r\nX-Other: 1", "\u00e9", " "])
def test_keys_with_impossible_marks_are_refused_unseen(monkeypatch, broker, exchange, mark):
    monkeypatch.setenv(TESTNET_KEYS[0], f"{KEY}{mark}{KEY}")
    with pytest.raises(BrokerError, match=TESTNET_KEYS[0]) as caught:
        BybitBroker()
    assert KEY not in str(caught.value)
    outcome = broker.submit(order())
    assert outcome.status == "unresolved" and KEY not in outcome.reason
    assert exchange.requests == []
    monkeypatch.setenv(TESTNET_KEYS[0], f" {KEY}\n")
    assert broker.submit(order()).status == "confirmed"


def everything_in(thing, seen=None):
    """Return the text of an object and of all that it holds."""
    seen = set() if seen is None else seen
    if id(thing) in seen or len(seen) > 5000:
        return ""
    seen.add(id(thing))
    inner = getattr(thing, "__dict__", {}) or {}
    held = thing if isinstance(thing, (list, tuple, set)) else []
    pairs = thing if isinstance(thing, dict) else {}
    parts = [*inner.values(), *held, *pairs, *pairs.values()]
    return repr(thing) + "".join(everything_in(part, seen) for part in parts)


def test_keys_are_in_no_message_log_or_object(broker, exchange, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    shown = [everything_in(broker), repr(broker.submit(order()))]
    monkeypatch.setattr(exchange_server, "SECRET", "another")
    outcome = broker.submit(order(1))  # Bybit repeats what was signed, the key within
    assert outcome.status == "refused" and "10004" in outcome.reason
    shown.append(repr(outcome))
    with pytest.raises(BrokerError, match="10004") as caught:
        broker.positions()
    shown += [*traceback.format_exception(caught.value), str(pickle.dumps(caught.value))]
    shown += [everything_in(broker), caplog.text]
    monkeypatch.setattr(exchange_server, "KEY", "another")
    shown.append(broker.submit(order(2)).reason)
    assert len(exchange.requests) == 4
    for text in shown:
        assert KEY not in text and SECRET not in text


def test_requests_are_not_redirected_with_their_signatures(exchange, broker, monkeypatch):
    seen = []

    def moved(handler):
        seen.append(handler.path)
        handler.send(302, "", {"Location": "/elsewhere"})

    monkeypatch.setattr(exchange_server._Handler, "do_GET", moved)
    with pytest.raises(BrokerError, match="HTTP 302"):
        broker.positions()
    assert len(seen) == 1


def test_nothing_imports_the_broker():
    code = (
        "import pkgutil, sys, importlib, maml_jax.live as live\n"
        "for each in pkgutil.iter_modules(live.__path__):\n"
        "    if each.name != 'bybit_broker':\n"
        "        importlib.import_module('maml_jax.live.' + each.name)\n"
        "import maml_jax.cli.main\n"
        "assert 'maml_jax.live.bybit_broker' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names_fit_what_bybit_takes():
    name = order_id("run" * 30, "BTCUSDT", BAR, Decimal("1e-20"))
    assert len(name) <= 36 and json.dumps(name) == f'"{name}"' and name.isascii()
