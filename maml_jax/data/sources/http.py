"""A client with rate limits, time limits and retries, for all sources.

urllib3's own retries are not used: some sources put transient failures into the body of a reply
that HTTP calls a success, and one mechanism must count them all.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import requests
import urllib3

from maml_jax import watchdog
from maml_jax.errors import DataError, SourceError

T = TypeVar("T")

_NO_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)
_MOST_BYTES = 1 << 30
_LONGEST_PAUSE = 60.0
_LONGEST_NAP = 0.25
"""Seconds after which a waiting thread looks again: another may have learned that it can go on."""


class Reply(NamedTuple):
    """What a server answered.

    Attributes:
        url: of the request.
        status: HTTP status.
        headers: names in lower case.
        body: all of it.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class TransientError(Exception):
    """A failure that a retry may cure.

    Args:
        problem: what was wrong, for the message if retries do not help.
        wait: seconds to wait at least; None leaves it to the retries.
    """

    def __init__(self, problem: str, wait: float | None = None):
        super().__init__(problem)
        self.wait = wait


class Retries(NamedTuple):
    """How often to retry, and how long to wait before.

    The n-th wait is random, between half and all of `min(first * 2^n, longest)`, so that clients
    that failed together do not retry together.

    Attributes:
        attempts: in total.
        first: seconds before the second attempt, at most.
        longest: seconds to wait at most.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0

    def wait(self, attempt: int, asked: float | None = None) -> float:
        """Return the seconds to wait after a failed attempt (0 is the first).

        Args:
            attempt: which one failed.
            asked: seconds that the server asks for; bounded by `longest`.
        """
        most = min(self.first * 2**attempt, self.longest)
        drawn = most * random.uniform(0.5, 1)
        return max(drawn, min(asked or 0.0, self.longest))


class RateLimit:
    """A limit on requests to a server, shared by all threads.

    Two limits hold together: a pace of our own, and the requests that the server says are left
    until its next reset (`learn`). Requests in flight count as made.

    Args:
        per_second: requests started per second; None for no pace of our own.
    """

    def __init__(self, per_second: float | None = None):
        if per_second is not None and per_second <= 0:
            raise DataError(f"requests per second must be above 0, got {per_second}")
        self._spacing = 0.0 if per_second is None else 1.0 / per_second
        self._lock = threading.Lock()
        self._next = 0.0
        self._in_flight = 0
        self._left: int | None = None
        self._limit: int | None = None
        self._reset = 0.0
        self._period = 1.0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Wait until a request may be made, and count it while it is in flight."""
        while (wait := self._take()) > 0:
            watchdog.progress(wait)
            time.sleep(min(wait, _LONGEST_NAP))
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def learn(self, *, limit: int | None, left: int, seconds: float) -> None:
        """Update the limit from what the server says.

        Args:
            limit: requests allowed from reset to reset, if it says so.
            left: requests left.
            seconds: until the next reset.
        """
        with self._lock:
            reset = time.monotonic() + min(max(seconds, 0.0), _LONGEST_PAUSE)
            self._period = max(self._period, reset - time.monotonic())
            self._limit = limit
            left = max(0, left - max(0, self._in_flight - 1))
            # Replies may overtake each other: within a period the smallest count is the latest.
            same_period = self._left is not None and abs(reset - self._reset) < 0.5
            self._left = min(self._left or 0, left) if same_period else left
            self._reset = reset

    def pause(self, seconds: float) -> None:
        """Allow no requests for a while, at most a minute."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + min(seconds, _LONGEST_PAUSE))

    def _take(self) -> float:
        """Count a request as made and return 0, or return how long to wait first."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            if self._left is not None and now >= self._reset:
                # Nothing is known of a new period until its first reply.
                self._left, self._reset = self._limit, now + self._period
            if self._left is not None and self._left <= 0:
                return max(self._reset - now, 0.001)
            if self._left is not None:
                self._left -= 1
            self._next = max(self._next, now) + self._spacing
            self._in_flight += 1
            return 0.0


class Client:
    """A client of one server, for any number of threads.

    Args:
        limit: on requests.
        retries: after transient failures.
        observe: updates the limit from the headers of a reply.
        refusals: what an HTTP status means for this server, for the error message.
        timeout: seconds to wait for a connection and for each part of a reply.
        deadline: seconds that one reply may take in total.
        sign: adds headers to each request, just before it is made. What is signed is never
            redirected.
    """

    def __init__(
        self,
        limit: RateLimit | None = None,
        retries: Retries = Retries(),  # noqa: B008 (a constant)
        *,
        observe: Callable[[RateLimit, Reply], None] | None = None,
        refusals: Mapping[int, str] | None = None,
        timeout: float = 15.0,
        deadline: float = 60.0,
        sign: Callable[[requests.PreparedRequest], requests.PreparedRequest] | None = None,
    ):
        if min(timeout, deadline) <= 0 or retries.attempts < 1:
            raise DataError("timeout and deadline must be above 0 seconds, and attempts at least 1")
        self.limit = RateLimit() if limit is None else limit
        self.retries = retries
        self.observe = observe
        self.refusals = refusals or {}
        self.timeout = timeout
        self.deadline = deadline
        self.sign = sign
        self._local = threading.local()

    def get(self, url: str, params: Mapping[str, str | int], read: Callable[[Reply], T]) -> T:
        """Request until `read` accepts the reply.

        Failed connections, replies that are late or cut off, HTTP 429 and 5xx, and a
        `TransientError` of `read` are retried.

        Args:
            url: of the server.
            params: of the query.
            read: takes the reply, whose status is below 400 or 404; raises `TransientError` or
                `SourceError`.

        Raises:
            SourceError: if it is refused, or fails as often as the retries allow.
        """
        problem = ""
        for attempt in range(self.retries.attempts):
            try:
                reply = self._ask("GET", url, params=dict(params))
                self._refuse_status(reply)
                return read(reply)
            except TransientError as failure:
                problem, asked = str(failure), failure.wait
                if asked is not None:  # by the server, of all threads
                    self.limit.pause(min(asked, self.retries.longest))
            if attempt + 1 < self.retries.attempts:
                wait = self.retries.wait(attempt, asked)
                watchdog.progress(wait)
                time.sleep(wait)
        raise SourceError(f"{url}: {problem}; gave up after {self.retries.attempts} attempts")

    def post(self, url: str, body: bytes) -> Reply:
        """Request once, whatever happens.

        Args:
            url: of the server.
            body: JSON.

        Returns:
            The reply, of whatever status.

        Raises:
            TransientError: if there is none; the server may have taken the request all the same.
            SourceError: if `url` is no address; nothing was sent.
        """
        return self._ask("POST", url, data=body, headers={"Content-Type": "application/json"})

    def _ask(self, method: str, url: str, **request: Any) -> Reply:
        with self.limit.request():
            reply = self._exchange(method, url, **request)
            if self.observe is not None:
                self.observe(self.limit, reply)
        return reply

    def _exchange(self, method: str, url: str, **request: Any) -> Reply:
        if not hasattr(self._local, "session"):  # a session belongs to one thread
            self._local.session = requests.Session()
        end = time.monotonic() + self.deadline
        watchdog.progress(self.deadline + self.timeout)
        try:
            with self._local.session.request(
                method,
                url,
                auth=self.sign,
                allow_redirects=self.sign is None,
                timeout=self.timeout,
                stream=True,
                **request,
            ) as answer:
                body = bytearray()
                # Parts as they come: `iter_content` waits until its chunks are full.
                while part := answer.raw.read1(1 << 16, decode_content=True):
                    body += part
                    if time.monotonic() > end:
                        raise TransientError(f"the reply took longer than {self.deadline:g} s")
                    if len(body) > _MOST_BYTES:
                        raise SourceError(f"{url}: the reply is longer than a gigabyte")
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Reply(answer.url, answer.status_code, headers, bytes(body))
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise TransientError(f"no answer within {self.timeout:g} s") from None
        except SourceError:  # an OSError, as those below are
            raise
        except _NO_ADDRESS as error:
            raise SourceError(f"{url}: not an address: {error}") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise TransientError(_describe(error)) from None

    def _refuse_status(self, reply: Reply) -> None:
        """Sort HTTP errors into transient and permanent ones."""
        if reply.status < 400 or reply.status == 404:
            return
        if reply.status == 429:
            asked = reply.headers.get("retry-after", "")
            raise TransientError(
                "too many requests (HTTP 429)", float(asked) if asked.isdigit() else None
            )
        if reply.status >= 500:
            raise TransientError(f"the server failed (HTTP {reply.status})")
        said = plain_text(reply.body[:200].decode("utf-8", "replace")) or "no reason given"
        meaning = self.refusals.get(reply.status)
        said = said if meaning is None else f"{meaning} (it says: {said})"
        raise SourceError(f"{reply.url}: refused with HTTP {reply.status}: {said}")


def plain_text(text: object) -> str:
    """Return a server's text on one line, without control characters."""
    words = " ".join(str(text or "").split())
    return "".join(mark for mark in words if mark.isprintable())


def _describe(error: Exception) -> str:
    """Say what went wrong with a connection, without the layers of exceptions."""
    inner: BaseException = error
    while inner.args and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None) or inner
    return f"the connection failed ({plain_text(reason)[:200]})"
