"""An exchange on loopback that speaks Bybit's private API for orders, and fails on demand."""

import hashlib
import hmac
import json
import threading
import time
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from urllib.parse import parse_qsl, urlsplit

import loopback

KEY, SECRET = "a-key-of-the-tests", "a-secret-of-the-tests"
KEYS = {"BYBIT_TESTNET_API_KEY": KEY, "BYBIT_TESTNET_API_SECRET": SECRET}
FAULTS = ("lost request", "late request", "lost reply", "bad gateway", "timeout", "rate limit",
          "busy", "skew", "rejected", "nonsense")  # fmt: skip
"""What may happen to an order that is sent, besides nothing."""

FEE = Fraction(1, 1000)
FINAL = ("Filled", "Cancelled", "Rejected")


def digits(number):
    """Write a fraction as exchanges write numbers, to 24 digits."""
    sign, number = ("-" if number < 0 else ""), abs(Fraction(number))
    whole, rest = divmod(round(number * 10**24), 10**24)
    return f"{sign}{whole}.{rest:024d}".rstrip("0").rstrip(".")


class Exchange:
    """An account: orders, trades and positions, counted in fractions.

    Attributes:
        prices: of the assets.
        plan: the parts in which the next orders are filled as they come, each a share of the
            order; what is missing to 1 stays open.
        faults: of the next orders, in order; see `FAULTS`.
        failures: of the next questions: `cut`, `busy` or `rate limit`.
        skew: by how much the clock of the exchange is ahead, in ms.
        repeat: list each trade twice.
        hidden: trades that no list has yet.
        on_take: called when an order was taken, before the reply.
        requests: (path, parameters) of all that was asked.
    """

    def __init__(self, prices=None):
        self.prices = {"BTCUSDT": Fraction(100), "ETHUSDT": Fraction(10)} | (prices or {})
        self.plan, self.faults, self.failures, self.requests = [1], [], [], []
        self.skew, self.repeat, self.rows_most = 0, False, 3
        self.orders, self.trades, self.hidden = {}, [], set()
        self.held, self.late, self.forgotten = {}, [], set()
        self.outside_profit: dict = {}
        self.on_take = lambda: None
        self.lock = threading.RLock()
        self.numbers = count(1)

    def now(self):
        return time.time_ns() // 1_000_000 + self.skew

    # What happens at the exchange

    def take(self, content):
        """Take an order, or say why not: (code, message)."""
        name, asset = content["orderLinkId"], content["symbol"]
        if name in self.orders:
            return 110072, "OrderLinkedID is duplicate"
        quantity = Fraction(content["qty"])
        if asset not in self.prices or quantity <= 0:
            return 10001, "params error: symbol or qty invalid"
        sign = {"Buy": 1, "Sell": -1}[content["side"]]
        if content["reduceOnly"] and self.quantity(asset) * sign >= 0:
            return 110017, "ReduceOnly rule not satisfied"
        self.orders[name] = {
            "id": f"o{next(self.numbers)}", "name": name, "asset": asset, "sign": sign,
            "quantity": quantity, "filled": Fraction(0), "value": Fraction(0), "status": "New",
            "reduce": content["reduceOnly"],
        }  # fmt: skip
        for share in self.plan:
            self.fill(name, share)
        self.on_take()
        return 0, "OK"

    def fill(self, name, share=1, price=None):
        """Fill a share of an order, at the price of the market by default."""
        order = self.orders[name]
        left = order["quantity"] - order["filled"]
        part = min(left, Fraction(share) * order["quantity"])
        if order["reduce"]:  # what would open is cancelled
            part = min(part, max(0, -order["sign"] * self.quantity(order["asset"])))
        if order["status"] in FINAL:
            return
        if part > 0:
            price = self.prices[order["asset"]] if price is None else Fraction(price)
            order["filled"] += part
            order["value"] += part * price
            self.trade(order["asset"], order["sign"], part, price, order)
        if order["filled"] == order["quantity"]:
            order["status"] = "Filled"
        elif order["reduce"] and self.quantity(order["asset"]) * order["sign"] >= 0:
            order["status"] = "Cancelled"
        elif part > 0:
            order["status"] = "PartiallyFilled"

    def cancel(self, name):
        order = self.orders.get(name)
        if order is None:
            return 110001, "Order does not exist"
        if order["status"] in FINAL:
            return 110008, "Order has been finished or canceled"
        order["status"] = "Cancelled"
        return 0, "OK"

    def trade(self, asset, sign, quantity, price, order=None):
        """Trade by an order, or by hand."""
        held, cost, profit, fees = self.held.get(asset, (Fraction(0),) * 4)
        gain = Fraction(0)
        if held * sign < 0:
            closed = min(quantity, abs(held))
            gain = closed * -sign * (price - cost / held)
            cost += sign * closed * (cost / held)
            cost += sign * (quantity - closed) * price
        else:
            cost += sign * quantity * price
        fee = quantity * price * FEE
        if order is None:
            self.outside_profit[asset] = self.outside_profit.get(asset, 0) + gain
        self.held[asset] = (
            held + sign * quantity, cost, profit + gain, fees + (fee if order else 0)
        )  # fmt: skip
        self.trades.append(
            {"id": f"e{next(self.numbers)}", "order": order, "asset": asset, "sign": sign,
             "quantity": quantity, "price": price, "fee": fee, "time": self.now()}
        )  # fmt: skip

    def quantity(self, asset):
        return self.held[asset][0] if asset in self.held else Fraction(0)

    def deliver(self):
        """Let the requests arrive that are late."""
        late, self.late = self.late, []
        for content in late:
            self.take(content)

    def restart(self):
        """Start again: what is final leaves the list of orders, and stays in the history."""
        self.forgotten = {name for name, order in self.orders.items() if order["status"] in FINAL}

    # What it answers

    def answer(self, path, query):
        """Return (code, message, result)."""
        if path == "/v5/order/cancel":
            code, message = self.cancel(query["orderLinkId"])
            return code, message, self.names(query["orderLinkId"])
        if path in ("/v5/order/realtime", "/v5/order/history"):
            rows = [self.order_row(o) for o in self.orders.values() if self.shows(path, o, query)]
        elif path == "/v5/position/list":
            rows = [self.position_row(asset) for asset in self.held if self.quantity(asset)]
        elif path == "/v5/execution/list":
            first, last = int(query["startTime"]), int(query["endTime"])
            if last - first > 7 * 86_400_000:
                return 10001, "the time range must be at most 7 days", {}
            seen = [t for t in self.trades if first <= t["time"] <= last]
            rows = [self.trade_row(t) for t in seen if t["id"] not in self.hidden][::-1]
            rows = [row for row in rows for _ in range(2)] if self.repeat else rows
        else:
            return 10001, "no such path", {}
        begin = int(query.get("cursor", 0))
        most = min(int(query["limit"]), self.rows_most)
        following = str(begin + most) if begin + most < len(rows) else ""
        return 0, "OK", {"list": rows[begin : begin + most], "nextPageCursor": following}

    def shows(self, path, order, query):
        name = query.get("orderLinkId")
        if name is not None:
            known = path.endswith("history") or name not in self.forgotten
            return order["name"] == name and known
        return order["status"] not in FINAL

    def names(self, name):
        return {"orderId": self.orders[name]["id"] if name in self.orders else "",
                "orderLinkId": name}  # fmt: skip

    def order_row(self, order):
        return {
            "orderId": order["id"], "orderLinkId": order["name"], "symbol": order["asset"],
            "side": "Buy" if order["sign"] > 0 else "Sell", "qty": digits(order["quantity"]),
            "cumExecQty": digits(order["filled"]), "orderStatus": order["status"],
            "rejectReason": "EC_NoError",
        }  # fmt: skip

    def position_row(self, asset):
        held, cost, _, _ = self.held[asset]
        return {
            "symbol": asset, "side": "Buy" if held > 0 else "Sell", "size": digits(abs(held)),
            "avgPrice": digits(cost / held), "positionIdx": 0,
        }  # fmt: skip

    def trade_row(self, trade):
        order = trade["order"]
        return {
            "execId": trade["id"], "orderLinkId": order["name"] if order else "",
            "orderId": order["id"] if order else "by-hand", "symbol": trade["asset"],
            "side": "Buy" if trade["sign"] > 0 else "Sell",
            "execQty": digits(trade["quantity"]), "execPrice": digits(trade["price"]),
            "execFee": digits(trade["fee"]), "execTime": str(trade["time"]),
            "execType": trade.get("kind", "Trade"),
        }  # fmt: skip

    def refusal(self, headers, content):
        """Check signature and time as Bybit does."""
        moment, window = headers["X-BAPI-TIMESTAMP"], headers["X-BAPI-RECV-WINDOW"]
        signed = f"{moment}{headers['X-BAPI-API-KEY']}{window}".encode() + content
        if headers["X-BAPI-API-KEY"] != KEY:
            return 10003, "API key is invalid."
        if hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest() != headers["X-BAPI-SIGN"]:
            return 10004, f"error sign! origin_string[{signed.decode()}]"
        if not self.now() - int(window) <= int(moment) < self.now() + 1000:
            return 10002, "invalid request, please check your server timestamp or recv_window"
        return None


class _Handler(loopback.Handler):
    exchange: Exchange

    def reply(self, code, message, result=None):
        content = {"retCode": code, "retMsg": message, "result": result or {}}
        self.send(200, json.dumps(content | {"time": self.exchange.now()}))

    def hang_up(self):
        self.close_connection = True

    def do_GET(self):
        parts, exchange = urlsplit(self.path), self.exchange
        query = dict(parse_qsl(parts.query))
        with exchange.lock:
            exchange.requests.append((parts.path, query))
            failure = exchange.failures.pop(0) if exchange.failures else None
            refusal = exchange.refusal(self.headers, parts.query.encode())
            answer = refusal or exchange.answer(parts.path, query)
        if failure == "cut":
            self.hang_up()
        elif failure == "busy":
            self.send(429, "too many")
        elif failure == "rate limit":
            self.reply(10006, "Too many visits!")
        else:
            self.reply(*answer)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        content, exchange, path = json.loads(body), self.exchange, urlsplit(self.path).path
        with exchange.lock:
            exchange.requests.append((path, content))
            refusal = exchange.refusal(self.headers, body)
            fault = exchange.faults.pop(0) if exchange.faults else None
            if refusal or path != "/v5/order/create":
                answer = refusal or exchange.answer(path, content)
            else:
                answer = self.create(content, fault)
        if fault in ("lost request", "late request", "lost reply"):
            self.hang_up()
        elif fault == "bad gateway":
            self.send(502, "<html>bad gateway</html>")
        elif fault == "busy":
            self.send(429, "too many")
        elif fault == "nonsense":
            self.send(200, "<html>hello</html>")
        else:
            self.reply(*answer)

    def create(self, content, fault):
        exchange = self.exchange
        before = {
            "timeout": (10000, "Server Timeout"),
            "rate limit": (10006, "Too many visits!"),
            "skew": (10002, "invalid request, please check your server timestamp"),
            "rejected": (110007, "Insufficient available balance"),
        }
        if fault == "late request":
            exchange.late.append(content)
        if fault in before or fault in ("lost request", "late request", "busy"):
            return before.get(fault, (10000, "not taken"))
        code, message = exchange.take(content)
        return code, message, exchange.names(content["orderLinkId"])


@contextmanager
def serving(exchange):
    """Yield the address at which an exchange answers."""
    with loopback.serving(type("Handler", (_Handler,), {"exchange": exchange})) as address:
        yield address
