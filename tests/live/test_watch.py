"""A watch decides once on each bar, whatever fails, and says when none comes."""

import itertools

import numpy as np
import pandas as pd
import pytest

from maml_jax.data.sources.http import Retries
from maml_jax.errors import DataError
from maml_jax.live.watch import HEARTBEAT, watch

HOUR = pd.Timedelta("1h")
BEGIN = pd.Timestamp("2024-03-04 10:00", tz="UTC")


class World:
    """A clock that runs as fast as it is waited for, and a source of hourly bars."""

    def __init__(self, faults=0.0, seed=0, closed=lambda _: False):
        self.time, self.rng, self.faults, self.closed = (
            BEGIN,
            np.random.default_rng(seed),
            faults,
            closed,
        )
        self.decided = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert seconds > 0
        self.time += pd.Timedelta(seconds=seconds)

    def refresh(self):
        self.time += pd.Timedelta(seconds=0.2)
        if self.rng.random() < self.faults:
            raise DataError("no reply from https://x?apikey=secret")
        done = pd.date_range(BEGIN - 30 * HOUR, self.time - HOUR, freq="h")
        times = [each for each in done if not self.closed(each)]
        return {"A": pd.DataFrame({"close": 1.0}, pd.DatetimeIndex(times))}

    def decide(self, bars):
        self.decided.append(bars["A"].index[-1])
        return len(self.decided)

    def until(self, end, **options):
        events = watch(
            self.refresh,
            self.decide,
            interval=HOUR,
            last=options.pop("last", None),
            clock=self,
            **options,
        )
        return list(
            itertools.takewhile(lambda each: self.time < pd.Timestamp(end, tz="UTC"), events)
        )


def test_each_bar_is_decided_on_once_soon_after_its_close():
    world = World()
    events = world.until("2024-03-05 10:00")
    made = [each for each in events if each.kind == "signal"]
    assert len(made) == 24
    assert world.decided[:24] == list(pd.date_range(BEGIN - HOUR, periods=24, freq="h"))
    for event, bar in zip(made[1:], world.decided[1:], strict=False):
        assert event.time - (bar + HOUR) < pd.Timedelta("10s")
    waits = [each.time for each in events if each.kind == "waiting"]
    assert len(waits) >= 24 * 3600 / HEARTBEAT / 2
    assert not [each for each in events if each.kind in ("fault", "alert")]


@pytest.mark.parametrize("seed", range(3))
def test_faults_lose_no_bar_and_double_none(seed):
    world = World(faults=0.5, seed=seed)
    events = world.until("2024-03-06 10:00", retries=Retries(first=1.0, longest=60.0))
    assert world.decided == list(pd.date_range(BEGIN - HOUR, periods=len(world.decided), freq="h"))
    assert len(world.decided) >= 47
    assert any(each.kind == "fault" for each in events)
    assert all("secret" not in each.text for each in events)


def test_a_lasting_fault_is_an_alert_and_waits_grow():
    world = World(faults=1.0)
    events = world.until("2024-03-04 12:00", retries=Retries(attempts=4, first=1.0, longest=60.0))
    assert [each.kind for each in events[:4]] == ["fault", "fault", "fault", "alert"]
    assert len(events) < 200


def test_no_bar_is_an_alert_but_not_at_every_look():
    world = World(closed=lambda time: time >= BEGIN + 3 * HOUR)
    events = world.until("2024-03-06 10:00")
    alerts = [each for each in events if each.kind == "alert"]
    assert alerts
    assert alerts[0].time < BEGIN + 9 * HOUR
    assert len(alerts) < 6
    assert len(world.decided) == 4


def test_what_came_while_the_machine_slept_is_taken_together():
    world = World()
    first = world.until("2024-03-04 13:30")
    last = world.decided[-1]
    world.time = pd.Timestamp("2024-03-07 08:10", tz="UTC")
    world.until("2024-03-07 09:30", last=last)
    assert world.decided[len([e for e in first if e.kind == "signal"])] == pd.Timestamp(
        "2024-03-07 07:00", tz="UTC"
    )
    assert len(set(world.decided)) == len(world.decided)
