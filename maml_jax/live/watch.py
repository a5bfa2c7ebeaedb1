"""Waiting for bars to close, and deciding once on each."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import pandas as pd

from maml_jax import interrupts
from maml_jax.data.sources.http import Retries
from maml_jax.errors import MamlJaxError, mask_secrets

Bars = Mapping[str, pd.DataFrame]

HEARTBEAT = 300.0
"""Seconds between signs of life."""

SETTLE = 2.0
"""Seconds after its close in which a source may still be writing a bar."""

PATIENCE = 3
"""Bars that may fail to come before it is an alert."""

_NAP = 1.0
"""Seconds that a wait is cut into, so that a signal ends it."""


class Clock(Protocol):
    """The time, and waiting."""

    def now(self) -> pd.Timestamp:
        """Return the time, by the clock of the source."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The clock of this machine, set right by what a source says.

    Args:
        ahead: by how much the clock of the source is ahead of this one.
    """

    def __init__(self, ahead: pd.Timedelta = pd.Timedelta(0)):  # noqa: B008 - immutable
        self.ahead = ahead

    def now(self) -> pd.Timestamp:
        """Return the time, by the clock of the source."""
        return pd.Timestamp.now("UTC") + self.ahead

    def sleep(self, seconds: float) -> None:
        """Wait, until a signal asks to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            interrupts.check()
            time.sleep(min(left, _NAP))


class Event(NamedTuple):
    """What a watch has to say.

    Attributes:
        kind: `signal` (a bar was decided on), `waiting` (a sign of life), `fault` (it is tried
            again), or `alert` (somebody should look).
        time: when.
        text: a line.
        value: of a signal what was decided, else None.
    """

    kind: str
    time: pd.Timestamp
    text: str
    value: Any = None


def watch(
    refresh: Callable[[], Bars],
    decide: Callable[[Bars], Any],
    *,
    interval: pd.Timedelta,
    last: pd.Timestamp | None,
    clock: Clock | None = None,
    retries: Retries = Retries(first=1.0, longest=60.0),  # noqa: B008 - immutable
    heartbeat: float = HEARTBEAT,
) -> Iterator[Event]:
    """Wait for each bar's close, take the bars, and decide once.

    It goes on until the caller stops. Bars that come while nothing was decided, as over a night in
    which the machine slept, are taken together: the last is decided on.

    Args:
        refresh: returns the bars there are; a fault of ours or of the network is tried again, ever
            less often.
        decide: takes them; called once for each time at which the last bar is a new one.
        interval: length of a bar.
        last: time of the last bar that was decided on before; None for none.
        clock: the time, and waiting; default that of the machine.
        retries: how long to wait after faults; its number of attempts is one after which each is
            an alert.
        heartbeat: seconds between signs of life.

    Yields:
        Events, in the order of time.
    """
    clock = clock or SystemClock()
    failures, quiet, alive = 0, 0, clock.now()
    while True:
        try:
            bars = refresh()
            newest = max((f.index[-1] for f in bars.values() if len(f)), default=None)
            new = newest is not None and (last is None or newest > last)
            value = decide(bars) if new else None
        except (MamlJaxError, OSError) as error:
            kind = "alert" if failures + 1 >= retries.attempts else "fault"
            wait = retries.wait(failures)
            text = mask_secrets(" ".join(str(error).split()))
            yield Event(kind, clock.now(), f"{text}; trying again in {wait:.0f} s")
            failures = min(failures + 1, 50)
            clock.sleep(wait)
            continue
        failures = 0
        if new:
            last, quiet = newest, 0
            yield Event("signal", clock.now(), f"decided on the bar of {newest}", value)
        now = clock.now()
        due = _due(last, interval, now)
        if not new and last is not None:
            missed = int((now - last) / interval) - 1
            if missed >= PATIENCE and missed > quiet:
                quiet = 2 * missed  # the next time after twice as long
                yield Event("alert", now, f"no new bar for {missed} bars; the last is of {last}")
        while (left := (due - clock.now()).total_seconds()) > 0:
            if (clock.now() - alive).total_seconds() >= heartbeat:
                alive = clock.now()
                yield Event("waiting", alive, f"waiting for the bar that closes at {due}")
            clock.sleep(min(left, max(heartbeat, 1.0)))


def _due(last: pd.Timestamp | None, interval: pd.Timedelta, now: pd.Timestamp) -> pd.Timestamp:
    """Return when to look again: after the next close, or soon where a bar is late."""
    settle = pd.Timedelta(seconds=SETTLE)
    if last is None:
        return now + interval / 10
    close = last + 2 * interval + settle
    if close > now:
        return close
    # Late: look often at first; then at each close, as over a weekend.
    late = now - close
    if late < interval / 2:
        return now + max(interval / 60, settle)
    return close + ((late // interval) + 1) * interval
