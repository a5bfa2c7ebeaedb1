"""Orders to Bybit's testnet: linear contracts in one-way mode, over the private API v5.

Nothing else of the package imports this module: orders leave only where somebody makes a
`BybitBroker`.
"""

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pandas as pd
import requests

from maml_jax.data.sources.bybit import TESTNET
from maml_jax.data.sources.http import Client, RateLimit, Reply, Retries, TransientError, plain_text
from maml_jax.errors import BrokerError, SourceError
from maml_jax.live.broker import Held, Outcome, Report
from maml_jax.live.fills import Execution
from maml_jax.live.orders import Order, Side

T = TypeVar("T")

TESTNET_KEYS = ("BYBIT_TESTNET_API_KEY", "BYBIT_TESTNET_API_SECRET")
LIVE_KEYS = ("BYBIT_API_KEY", "BYBIT_API_SECRET")
"""Environment variables that hold the key and the secret."""

PER_SECOND = 8.0
"""Requests per second; Bybit allows 10 for orders of linear contracts."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_WINDOW = pd.Timedelta(days=7)
"""Longest stretch of executions of one request."""

_TRANSIENT = {10000, 10002, 10006, 10016, 10018}
"""Answers to questions that are asked again: time-outs, late requests, rate limits, restarts."""

_UNTAKEN = {10002, 10003, 10004, 10005, 10006, 10010, 10018, 33004}
"""Answers to an order at which Bybit did not look: clock, keys, rights, rate limits."""

_UNTAKEN_STATUS = {400, 401, 403, 404, 429}

_TWICE = {110072}
"""There is an order of that client id already."""

_UNCANCELLABLE = {110001, 110008, 110010}
"""There is no such order, or it is final."""

_SIDES: dict[str, Side] = {"Buy": "buy", "Sell": "sell"}
_STATES = {
    "Created": "open", "New": "open", "PartiallyFilled": "open", "Untriggered": "open",
    "Triggered": "open", "Rejected": "rejected", "Filled": "filled", "Cancelled": "cancelled",
    "PartiallyFilledCanceled": "cancelled", "Deactivated": "cancelled",
}  # fmt: skip


class BybitBroker:
    """An account at Bybit; see `Broker`.

    Questions are asked again after transient failures. An order is sent once. Key and secret are
    read from the environment for each request and kept nowhere.

    Args:
        address: of the server; the testnet, unless `live`.
        live: allow an address that is not the testnet's, where money is real. The variables are
            then `LIVE_KEYS`, otherwise `TESTNET_KEYS`.
        settle: the coin in which the contracts are settled, such as USDT.
        retries: of questions.
        per_second: requests per second; None for no limit of ours.
        window: seconds for which Bybit takes a request as valid.
        timeout: seconds for a connection and for each part of a reply.
        deadline: seconds for a whole reply.

    Raises:
        BrokerError: if the address is not allowed, or the variables are not set.

    References:
        Bybit, API v5: "Place Order", "Get Open & Closed Orders", "Get Order History", "Cancel
        Order", "Get Trade History", "Get Position Info"; "Integration Guidance" for signatures.
    """

    def __init__(
        self,
        address: str = TESTNET,
        *,
        live: bool = False,
        settle: str = "USDT",
        retries: Retries = Retries(),  # noqa: B008 (a constant)
        per_second: float | None = PER_SECOND,
        window: float = 5.0,
        timeout: float = 10.0,
        deadline: float = 30.0,
    ):
        self.address = address.rstrip("/")
        self._require_allowed(live)
        self.settle = settle
        self._names = LIVE_KEYS if live else TESTNET_KEYS
        self._window = str(round(1000 * window))
        self._keys()
        limit = RateLimit(per_second)
        self._client = Client(limit, retries, timeout=timeout, deadline=deadline, sign=self._sign)

    def __repr__(self) -> str:
        return f"BybitBroker({self.address!r})"

    def submit(self, order: Order) -> Outcome:
        """Send an order, once."""
        content = {
            "category": "linear",
            "symbol": order.asset,
            "side": order.side.capitalize(),
            "orderType": "Market" if order.limit is None else "Limit",
            "qty": f"{order.quantity:f}",
            "positionIdx": 0,
            "orderLinkId": order.client_id,
            "reduceOnly": order.reduce_only,
        }
        if order.limit is not None:
            content |= {"price": f"{order.limit:f}", "timeInForce": "GTC"}
        return self._post("/v5/order/create", content)

    def query(self, client_id: str) -> Report | None:
        """Return the state of an order; None if Bybit has none of that name."""
        # Final orders leave the first list, at the latest when Bybit restarts.
        for path, more in (
            ("/v5/order/realtime", {"settleCoin": self.settle}),
            ("/v5/order/history", {}),
        ):
            for report in self._list(path, _report, orderLinkId=client_id, **more):
                if report.client_id == client_id:
                    return report
        return None

    def cancel(self, client_id: str) -> Outcome:
        """Ask to cancel an order, once."""
        report = self.query(client_id)
        if report is None:
            return Outcome("unresolved", client_id, reason="Bybit does not know the order")
        if report.status != "open":
            return Outcome("confirmed", client_id, report.broker_id)
        content = {"category": "linear", "symbol": report.asset, "orderLinkId": client_id}
        return self._post("/v5/order/cancel", content)

    def open_orders(self) -> list[Report]:
        """Return all orders that may be filled, of whomever."""
        found = self._list("/v5/order/realtime", _report, settleCoin=self.settle, openOnly=0)
        return [report for report in found if report.status == "open"]

    def positions(self) -> dict[str, Held]:
        """Return all positions by asset.

        Raises:
            BrokerError: in hedge mode, where an asset has two.
        """
        found = self._list("/v5/position/list", _held, settleCoin=self.settle, limit=200)
        return {asset: held for asset, held in found if held.quantity}

    def executions(self, since: pd.Timestamp) -> list[Execution]:
        """Return all executions from a time on, ascending, without payments of funding."""
        found = {}
        begin, now = since, pd.Timestamp(time.time(), unit="s", tz="UTC")
        while begin <= now:
            start = int(begin.timestamp() * 1000)
            stretch = {"startTime": start, "endTime": start + int(_WINDOW.total_seconds() * 1000)}
            for execution in self._list("/v5/execution/list", _execution, limit=100, **stretch):
                if execution is not None:
                    found[execution.execution_id] = execution
            begin += _WINDOW
        return sorted(found.values(), key=lambda each: (each.time, each.execution_id))

    def _require_allowed(self, live: bool) -> None:
        try:
            parts = urlsplit(self.address)
        except ValueError as error:
            raise BrokerError(f"{self.address}: not an address: {error}") from None
        loopback = parts.hostname in _LOOPBACK
        if parts.hostname != urlsplit(TESTNET).hostname and not loopback and not live:
            raise BrokerError(
                f"{self.address} is not Bybit's testnet ({TESTNET}); orders cost real money there:"
                " pass live=True if that is meant"
            )
        if parts.scheme != "https" and not loopback:
            raise BrokerError(f"{self.address}: orders are sent over https alone")

    def _keys(self) -> tuple[str, str]:
        missing = [name for name in self._names if not os.environ.get(name, "").strip()]
        if missing:
            raise BrokerError(
                f"{self.address} needs a key and its secret: set the environment variables"
                f" {' and '.join(missing)}"
            )
        key, secret = (os.environ[name].strip() for name in self._names)
        for name, value in zip(self._names, (key, secret), strict=True):
            if not (value.isascii() and value.isprintable()) or " " in value:
                raise BrokerError(f"the environment variable {name} holds marks that no key has")
        return key, secret

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers that prove who asks: HMAC-SHA256 of time, key, window and content."""
        key, secret = self._keys()
        moment = str(time.time_ns() // 1_000_000)
        content = request.body if request.method == "POST" else urlsplit(str(request.url)).query
        content = content if isinstance(content, bytes) else str(content or "").encode()
        text = f"{moment}{key}{self._window}".encode() + content
        request.headers["X-BAPI-API-KEY"] = key
        request.headers["X-BAPI-TIMESTAMP"] = moment
        request.headers["X-BAPI-RECV-WINDOW"] = self._window
        request.headers["X-BAPI-SIGN"] = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()
        return request

    def _hide(self, text: object) -> str:
        """Return a text of the server on one line without our keys, which some errors repeat."""
        shown = plain_text(text)
        for name in self._names:
            value = os.environ.get(name, "").strip()
            shown = shown.replace(value, "***") if value else shown
        return shown[:500]

    def _post(self, path: str, content: dict[str, Any]) -> Outcome:
        client_id = content["orderLinkId"]
        body = json.dumps(content, separators=(",", ":")).encode()
        try:
            reply = self._client.post(self.address + path, body)
        except (TransientError, SourceError) as error:
            return Outcome("unresolved", client_id, reason=self._hide(error))
        if reply.status in _UNTAKEN_STATUS:
            return Outcome("refused", client_id, reason=self._describe(reply))
        try:
            answer = json.loads(reply.body)
            code, result = answer["retCode"], answer["result"]
            if reply.status != 200 or not isinstance(code, int):
                raise ValueError
            if code == 0 and (result["orderLinkId"] != client_id or not result["orderId"]):
                raise ValueError
        except (ValueError, LookupError, TypeError):
            return Outcome("unresolved", client_id, reason=self._describe(reply))
        if code == 0:
            return Outcome("confirmed", client_id, str(result["orderId"]))
        reason = self._explain(code, answer)
        if code in _UNTAKEN:
            return Outcome("refused", client_id, reason=reason)
        final = code == 10001 or 110000 <= code < 111000 and code not in _TWICE | _UNCANCELLABLE
        return Outcome("rejected" if final else "unresolved", client_id, reason=reason)

    def _list(self, path: str, read: Callable[[dict], T], **params: str | int) -> Iterator[T]:
        """Yield all rows of a list, page by page."""
        query = {"category": "linear", "limit": 50, **params}
        cursor, seen = "", set()
        while True:
            page, cursor = self._page(path, query | ({"cursor": cursor} if cursor else {}), read)
            yield from page
            if not cursor or not page:
                return
            if cursor in seen:
                raise BrokerError(f"{self!r}: {path}: page {self._hide(cursor)} comes twice")
            seen.add(cursor)

    def _page(
        self, path: str, query: dict[str, str | int], read: Callable[[dict], T]
    ) -> tuple[list[T], str]:
        def parse(reply: Reply) -> tuple[list[T], str]:
            if reply.status != 200:
                raise SourceError(self._describe(reply))
            try:
                answer = json.loads(reply.body)
                code = answer["retCode"]
                if code == 0:
                    result = answer["result"]
                    rows = [read(row) for row in result["list"]]
                    return rows, str(result.get("nextPageCursor") or "")
            except (ValueError, LookupError, TypeError, AttributeError, InvalidOperation) as error:
                problem = f"the reply makes no sense ({type(error).__name__}: {error})"
                raise TransientError(self._hide(problem)) from None
            reason = self._explain(code, answer)
            raise TransientError(reason) if code in _TRANSIENT else SourceError(reason)

        try:
            return self._client.get(self.address + path, query, parse)
        except SourceError as error:
            raise BrokerError(self._hide(f"{self!r}: {path}: {error}")) from None

    def _explain(self, code: object, answer: dict) -> str:
        reason = f"Bybit answers {code}: {self._hide(answer.get('retMsg') or 'no reason given')}"
        moment = answer.get("time")
        if code == 10002 and isinstance(moment, int):
            reason += f"; our clock is ahead of Bybit's by {time.time() - moment / 1000:.1f} s"
        return reason

    def _describe(self, reply: Reply) -> str:
        text = self._hide(reply.body[:4000].decode("utf-8", "replace"))[:200]
        return f"HTTP {reply.status}: {text or 'nothing said'}"


def _number(value: object) -> Decimal:
    if not isinstance(value, str) or "_" in value or not value.isascii():
        raise ValueError(f"{value!r} is not a number")
    number = Decimal(value or "0")
    if not number.is_finite():
        raise ValueError(f"{value!r} is not finite")
    return number


def _positive(value: object) -> Decimal:
    number = _number(value)
    if number <= 0:
        raise ValueError(f"{value!r} is not above 0")
    return number


def _report(row: dict) -> Report:
    reason = str(row.get("rejectReason") or "")
    return Report(
        str(row["orderLinkId"] or ""),
        str(row["orderId"]),
        str(row["symbol"]),
        _SIDES[row["side"]],
        _positive(row["qty"]),
        _number(row["cumExecQty"]),
        _STATES[row["orderStatus"]],  # type: ignore[arg-type]
        "" if reason == "EC_NoError" else plain_text(reason),
    )


def _held(row: dict) -> tuple[str, Held]:
    asset, size = str(row["symbol"]), _number(row["size"])
    if row["positionIdx"] != 0:
        raise SourceError(f"{asset} is in hedge mode; switch the account to one-way mode")
    sign = 0 if not size else {"Buy": 1, "Sell": -1}[row["side"]]
    return asset, Held(sign * size, _number(row["avgPrice"]))


def _execution(row: dict) -> Execution | None:
    if row["execType"] == "Funding":  # a payment; it changes no position
        return None
    return Execution(
        str(row["execId"]),
        str(row["orderLinkId"] or ""),
        str(row["orderId"]),
        str(row["symbol"]),
        _SIDES[row["side"]],
        _positive(row["execQty"]),
        _positive(row["execPrice"]),
        _number(row["execFee"]),
        pd.Timestamp(int(row["execTime"]), unit="ms", tz="UTC"),
    )
