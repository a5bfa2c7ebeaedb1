"""Asking servers: rate limits, time limits and retries, for every source alike.

urllib3's own retries are not used: some sources put the failures that pass into the body of a reply
that HTTP calls a success, and one mechanism must count them all.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

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
"""Seconds after which one who waits looks again: what another thread learned may end the wait."""


class Reply(NamedTuple):
    """What a server answered.

    Attributes:
        url: what was asked.
        status: HTTP status.
        headers: names in lower case.
        body: whole.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class Passing(Exception):
    """A failure that may pass: ask again.

    Args:
        problem: what was wrong, for the message if it does not pass.
        wait: seconds to wait at least; None leaves it to the retries.
    """

    def __init__(self, problem: str, wait: float | None = None):
        super().__init__(problem)
        self.wait = wait


class Retries(NamedTuple):
    """How often to ask again, and how long to wait before.

    The n-th wait is drawn between half of and the whole of `min(first * 2^n, longest)`, so that
    clients that failed together do not come back together.

    Attributes:
        attempts: how often to ask in all.
        first: seconds before the second attempt, at most.
        longest: bound on a wait, in seconds.
    """

    attempts: int = 6
    first: float = 0.5
    longest: float = 30.0

    def wait(self, attempt: int, asked: float | None = None) -> float:
        """Return the seconds to wait after a failed attempt (0 is the first).

        Args:
            attempt: which one failed.
            asked: seconds that the server wants; never more than `longest`.
        """
        most = min(self.first * 2**attempt, self.longest)
        drawn = most * random.uniform(0.5, 1)
        return max(drawn, min(asked or 0.0, self.longest))


class RateLimit:
    """A bound on how often a server is asked, shared by all threads.

    Two bounds hold together: a pace of our own, and what the server says is left until it counts
    anew (`learn`). Requests on their way count as made.

    Args:
        per_second: requests started in a second; None for no pace of our own.
    """

    def __init__(self, per_second: float | None = None):
        if per_second is not None and per_second <= 0:
            raise DataError(f"requests in a second must be more than 0, not {per_second}")
        self._spacing = 0.0 if per_second is None else 1.0 / per_second
        self._lock = threading.Lock()
        self._next = 0.0
        self._on_their_way = 0
        self._left: int | None = None
        self._limit: int | None = None
        self._reset = 0.0
        self._period = 1.0

    @contextmanager
    def request(self) -> Iterator[None]:
        """Wait until a request may be made, and count it while it is on its way."""
        while (wait := self._take()) > 0:
            watchdog.progress(wait)
            time.sleep(min(wait, _LONGEST_NAP))
        try:
            yield
        finally:
            with self._lock:
                self._on_their_way -= 1

    def learn(self, *, limit: int | None, left: int, seconds: float) -> None:
        """Take in what a server says.

        Args:
            limit: requests it allows from reset to reset, where it says so.
            left: requests left.
            seconds: until it counts anew.
        """
        with self._lock:
            reset = time.monotonic() + min(max(seconds, 0.0), _LONGEST_PAUSE)
            self._period = max(self._period, reset - time.monotonic())
            self._limit = limit
            left = max(0, left - max(0, self._on_their_way - 1))
            # Replies may overtake each other: of one period the smallest count is the latest.
            same_period = self._left is not None and abs(reset - self._reset) < 0.5
            self._left = min(self._left or 0, left) if same_period else left
            self._reset = reset

    def pause(self, seconds: float) -> None:
        """Let nobody ask for a while, at most a minute."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + min(seconds, _LONGEST_PAUSE))

    def _take(self) -> float:
        """Count a request as made and return 0, or return how long to wait first."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                return self._next - now
            if self._left is not None and now >= self._reset:
                # Of the period that begins nothing is known until its first reply.
                self._left, self._reset = self._limit, now + self._period
            if self._left is not None and self._left <= 0:
                return max(self._reset - now, 0.001)
            if self._left is not None:
                self._left -= 1
            self._next = max(self._next, now) + self._spacing
            self._on_their_way += 1
            return 0.0


class Client:
    """Asks one server, from any number of threads.

    Args:
        limit: how often it may be asked.
        retries: what to do about failures that may pass.
        observe: takes what a reply says of rate limits into the limit.
        refusals: what an HTTP status means here, to be told with the error.
        timeout: seconds to wait for a connection and for each part of a reply.
        deadline: seconds that one reply may take in all.
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
    ):
        if min(timeout, deadline) <= 0 or retries.attempts < 1:
            raise DataError("time-outs must be more than 0 seconds, and attempts at least 1")
        self.limit = RateLimit() if limit is None else limit
        self.retries = retries
        self.observe = observe
        self.refusals = refusals or {}
        self.timeout = timeout
        self.deadline = deadline
        self._local = threading.local()

    def get(self, url: str, params: Mapping[str, str | int], read: Callable[[Reply], T]) -> T:
        """Ask until `read` makes sense of the reply.

        Connections that fail, replies that are late or cut off, HTTP 429 and 5xx, and whatever
        `read` calls `Passing` are tried again.

        Args:
            url: where to.
            params: of the query.
            read: takes the reply, whose status is below 400 or 404; raises `Passing` or
                `SourceError`.

        Raises:
            SourceError: if it is refused, or fails as often as the retries allow.
        """
        problem = ""
        for attempt in range(self.retries.attempts):
            try:
                with self.limit.request():
                    reply = self._ask(url, params)
                    if self.observe is not None:
                        self.observe(self.limit, reply)
                self._refuse_status(reply)
                return read(reply)
            except Passing as failure:
                problem, asked = str(failure), failure.wait
                if asked is not None:  # by the server: of all who ask
                    self.limit.pause(min(asked, self.retries.longest))
            if attempt + 1 < self.retries.attempts:
                wait = self.retries.wait(attempt, asked)
                watchdog.progress(wait)
                time.sleep(wait)
        raise SourceError(f"{url}: {problem}; gave up after {self.retries.attempts} attempts")

    def _ask(self, url: str, params: Mapping[str, str | int]) -> Reply:
        if not hasattr(self._local, "session"):  # a session belongs to one thread
            self._local.session = requests.Session()
        end = time.monotonic() + self.deadline
        watchdog.progress(self.deadline + self.timeout)
        try:
            with self._local.session.get(
                url, params=dict(params), timeout=self.timeout, stream=True
            ) as answer:
                body = bytearray()
                # Part by part as they come: `iter_content` waits until its parts are full.
                while part := answer.raw.read1(1 << 16, decode_content=True):
                    body += part
                    if time.monotonic() > end:
                        raise Passing(f"the reply took longer than {self.deadline:g} s")
                    if len(body) > _MOST_BYTES:
                        raise SourceError(f"{url}: the reply is longer than a gigabyte")
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Reply(answer.url, answer.status_code, headers, bytes(body))
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Passing(f"no answer within {self.timeout:g} s") from None
        except SourceError:  # an OSError, as those below are
            raise
        except _NO_ADDRESS as error:
            raise SourceError(f"{url}: is no address: {error}") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Passing(_plainly(error)) from None

    def _refuse_status(self, reply: Reply) -> None:
        """Sort HTTP errors into those that may pass and those that will not."""
        if reply.status < 400 or reply.status == 404:
            return
        if reply.status == 429:
            asked = reply.headers.get("retry-after", "")
            raise Passing("too many requests (HTTP 429)", float(asked) if asked.isdigit() else None)
        if reply.status >= 500:
            raise Passing(f"the server failed (HTTP {reply.status})")
        said = plain_text(reply.body[:200].decode("utf-8", "replace")) or "no reason given"
        meaning = self.refusals.get(reply.status)
        said = said if meaning is None else f"{meaning} (it says: {said})"
        raise SourceError(f"{reply.url}: refused with HTTP {reply.status}: {said}")


def plain_text(text: object) -> str:
    """Return what a server said on one line, without what a terminal would obey."""
    words = " ".join(str(text or "").split())
    return "".join(mark for mark in words if mark.isprintable())


def _plainly(error: Exception) -> str:
    """Say what went wrong with a connection, without the layers that it came through."""
    inner: BaseException = error
    while inner.args and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None) or inner
    return f"the connection failed ({plain_text(reason)[:200]})"
