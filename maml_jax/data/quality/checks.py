"""Find errors and oddities in bars before a model sees them.

Nothing here changes a bar; see `maml_jax.data.quality.cleaning` for that.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.data.bars import bar_interval
from maml_jax.data.quality.shared_bars import find_apart
from maml_jax.data.quality.trading_hours import missing_bars

SPIKE = 12.0
"""Robust standard deviations beyond its neighbours that make a close an outlier."""
ALONE = 4.0
"""Multiple of the largest nearby move that a bad tick must exceed. A real spike comes with others:
of some 500,000 real bars none that was 6 deviations wide exceeded 2.5."""

_AROUND = 8
_LONGEST_SPIKE = 3
_SPIKE_RETURN = 0.25
"""Share of a spike that may remain after it reverts."""
_LOCAL = 101
"""Bars in the centred window of local volatility."""
_FEWEST = 30
"""Bars needed to know what is usual."""
_SHORTEST_REST = 5
_COARSE = 0.05
_CONTINUOUS = 0.999
_SPLITS = (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100)

MEANINGS = {
    "bad_tick": "a close far from its neighbours that reverts at once",
    "bad_open": "an open far from the closes on both sides",
    "ohlc": "the high is below, or the low above, another price of the bar",
    "wick": "high or low far beyond the closes on both sides: a flash crash, or a bad print",
    "irregular": "less than one interval after the previous bar",
    "no_open": "the open is missing: empty or 0 in the source",
    "duplicate": "duplicate rows, merged when read",
    "unsorted": "rows out of order, sorted when read",
    "gap": "missing bars while the market is usually open",
    "absent": "missing bars that most other assets have",
    "closed": "breaks while the market is usually closed: nights, weekends, holidays",
    "zero_volume": "no volume",
    "stale": "the same close for longer than chance explains",
    "split": "a jump that looks like a stock split: are prices adjusted?",
    "jump": "a close far from its neighbours that does not revert: a real move, or a new series",
    "coarse": "many closes equal the previous one: large ticks, or rounded prices",
    "continuous": "every open equals the previous close: `next_open` fills at the close",
    "apart": "almost no bar is at the time of one of another asset: are their time zones known?",
    "begins_late": "starts after the others",
    "ends_early": "ends before the others",
    "last_bar": "the last bar has little volume: it may be unfinished",
}
"""The meaning of each kind of finding."""


class Finding(NamedTuple):
    """Something found in the bars of one asset.

    Attributes:
        kind: one of `MEANINGS`.
        times: opening times of the bars concerned, ascending; for `gap` and `absent`, of the
            missing ones.
        detail: for the reader.
    """

    kind: str
    times: pd.DatetimeIndex
    detail: str = ""


def check_bars(
    bars: Mapping[str, pd.DataFrame], *, interval: pd.Timedelta | None = None
) -> dict[str, list[Finding]]:
    """Find errors and oddities in bars.

    * `bad_tick`: the close moves by at least 12 local standard deviations (robust: 1.4826 times the
      median absolute return of the 101 bars around, or of those that are not 0) and by 4 times the
      largest of the 16 returns around, and reverts within three bars, by three quarters at least.
      What does not revert is a `jump`, or looks like a `split`.
    * `bad_open`, `wick`: the open, or the high or low, is as far as that from the closes of its bar
      and of the previous one.
    * `gap`: missing bars at times of the week that usually have one; nights, weekends and, in daily
      bars, up to five weekdays in a row (holidays) are not gaps.
    * `stale`: a run of equal closes that chance would produce in one of a hundred series, given the
      share of zero returns nearby; at least five.

    Args:
        bars: in normal form, by asset.
        interval: from one bar to the next; default the median step of each asset.

    Returns:
        Findings by asset, at most one of each kind; an empty list if there are none.
    """
    found = {name: _check_one(frame, interval) for name, frame in bars.items()}
    if len(bars) > 1:
        for name, findings in _compare(bars).items():
            found[name] += findings
    return found


def findings_table(found: Mapping[str, list[Finding]]) -> pd.DataFrame:
    """Return findings as a table: asset, kind, bars, first, last, detail."""
    rows = [
        (name, each.kind, len(each.times), _at(each.times, 0), _at(each.times, -1), each.detail)
        for name, findings in found.items()
        for each in findings
    ]
    return pd.DataFrame(rows, columns=["asset", "kind", "bars", "first", "last", "detail"])


def _at(times: pd.DatetimeIndex, place: int) -> pd.Timestamp | None:
    return times[place] if len(times) else None


def _check_one(bars: pd.DataFrame, interval: pd.Timedelta | None) -> list[Finding]:
    found = _from_reading(bars)
    known = bars["close"].notna().to_numpy()
    if len(bars) < 2:
        return found
    checks: list[Callable] = [
        _moves,
        _prints,
        _contradictions,
        _volume,
        _rest,
        _coarse,
        _continuous,
    ]
    for check in checks:
        found += check(bars[known])
    step = bar_interval(bars) if interval is None else interval
    return found + _steps(bars, step)


def _from_reading(bars: pd.DataFrame) -> list[Finding]:
    """Return what the reader merged or sorted (see `to_bars`)."""
    mended = {
        kind: [time for time in map(pd.Timestamp, times) if time in bars.index]
        for kind, times in bars.attrs.get("mended", {}).items()
    }
    return [
        Finding(kind, pd.DatetimeIndex(times), "when read")
        for kind, times in mended.items()
        if times
    ]


def _moves(bars: pd.DataFrame) -> list[Finding]:
    """Find closes far from their neighbours: bad ticks, splits, jumps."""
    count = len(bars)
    if count < _FEWEST:
        return []
    close = np.log(bars["close"].to_numpy())
    index = pd.DatetimeIndex(bars.index)
    move = np.diff(close)
    sigma = _local_deviation(move)
    bad = np.zeros(count, bool)
    returning = np.zeros(count, bool)  # the move back is not a jump
    spikes = _spikes(close, move, sigma)
    others = np.abs(move)
    for spike in spikes:  # clustered bad ticks must not hide one another
        others[[spike.start, spike.start + spike.length]] = 0
    for spike in spikes:
        after = spike.start + spike.length
        around = others[max(0, spike.start - _AROUND) : after + 1 + _AROUND]
        if spike.size >= ALONE * around.max():
            bad[spike.start + 1 : after + 1] = True
            returning[after + 1] = True
    found = []
    if bad.any():
        worst = max((s for s in spikes if bad[s.start + 1]), key=lambda s: s.size).start + 1
        before, at, after = (bars["close"].iloc[worst + k] for k in (-1, 0, 1))
        detail = f"close {at:g} at {index[worst]}, {before:g} before and {after:g} after"
        found.append(Finding("bad_tick", index[bad], detail))
    far = np.append(False, np.abs(move) >= SPIKE * sigma) & ~bad & ~returning
    split = _splits(bars, close, sigma)
    for kind, which in (("split", split & ~bad & ~returning), ("jump", far & ~split)):
        if which.any():
            size = np.where(which, np.abs(np.append(0, move)), 0)
            worst = int(size.argmax())
            change = np.expm1(move[worst - 1])
            found.append(Finding(kind, index[which], f"{change:+.1%} at {index[worst]}"))
    return found


def _prints(bars: pd.DataFrame) -> list[Finding]:
    """Find opens, highs and lows far from the closes on both sides."""
    if len(bars) < _FEWEST:
        return []
    close, index = np.log(bars["close"].to_numpy()), pd.DatetimeIndex(bars.index)
    upper, lower = np.maximum(close[1:], close[:-1]), np.minimum(close[1:], close[:-1])
    size = np.abs(np.diff(close))
    sigma = _local_deviation(np.diff(close))
    around = pd.Series(np.append(np.append(np.zeros(_AROUND), size), np.zeros(_AROUND)))
    before = around.rolling(_AROUND).max().to_numpy()[_AROUND - 1 : -_AROUND - 1]
    after = around[::-1].rolling(_AROUND).max().to_numpy()[::-1][_AROUND + 1 :][: len(size)]
    far = np.maximum(SPIKE * sigma, ALONE * np.maximum(before, after))
    found = []
    for kind, columns in (("bad_open", ("open",)), ("wick", ("high", "low"))):
        beyond = np.zeros(len(size))
        for column in (name for name in columns if name in bars.columns):
            value = np.log(bars[column].to_numpy()[1:])
            if column != "low":
                beyond = np.maximum(beyond, value - upper)
            if column != "high":
                beyond = np.maximum(beyond, lower - value)
        which = np.append(False, beyond > far)
        if which.any():
            worst = 1 + int(np.where(which[1:], beyond, 0).argmax())
            shown = ", ".join(f"{name} {bars[name].iloc[worst]:g}" for name in columns)
            closes = f"between closes of {np.exp(close[worst - 1]):g} and {np.exp(close[worst]):g}"
            found.append(Finding(kind, index[which], f"{shown} at {index[worst]}, {closes}"))
    return found


class _Spike(NamedTuple):
    """A number of closes after place `start` that move away and revert."""

    start: int
    length: int
    size: float


def _spikes(close: np.ndarray, move: np.ndarray, sigma: np.ndarray) -> list[_Spike]:
    count, result = len(close), []
    taken = np.zeros(count, bool)
    for length in range(1, _LONGEST_SPIKE + 1):
        entry, leave = move[: count - 1 - length], -move[length:]
        base, there = close[: count - 1 - length], close[1 + length :]
        size = np.minimum(np.abs(entry), np.abs(leave))
        spike = (np.sign(entry) == np.sign(leave)) & (size >= SPIKE * sigma[: len(entry)])
        spike &= np.abs(there - base) <= _SPIKE_RETURN * size
        for start in np.flatnonzero(spike):
            run = slice(start + 1, start + 1 + length)
            away = (close[run] - close[start]) * np.sign(entry[start])
            if not taken[run].any() and (away >= size[start] / 2).all():
                taken[run] = True
                result.append(_Spike(int(start), length, float(size[start])))
    return result


def _local_deviation(move: np.ndarray) -> np.ndarray:
    """Return a robust standard deviation of the returns around each; positive."""
    size = pd.Series(np.abs(move))
    moved = size.where(size > 0)
    usual = moved.median()
    usual = 1e-12 if np.isnan(usual) else usual
    # Where the price is constant most of the time, moves of a tick or two are usual.
    local = moved.rolling(_LOCAL, center=True, min_periods=5).median().fillna(usual)
    return 1.4826 * np.maximum(local.to_numpy(), 0.5 * usual)


def _splits(bars: pd.DataFrame, close: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Find overnight changes by the ratio of a split that do not revert."""
    result = np.zeros(len(close), bool)
    opened = np.log(bars["open"].to_numpy()) if "open" in bars.columns else close
    night = opened[1:] - close[:-1]
    ratios = np.log(np.array(_SPLITS, float))
    nearest = (
        ratios[np.abs(np.abs(night)[:, None] - ratios).argmin(axis=1)] if len(night) else night
    )
    near = np.abs(np.abs(night) - nearest) <= np.minimum(np.maximum(sigma, 0.01), 0.06)
    for place in np.flatnonzero(near & (np.abs(night) > 5 * sigma)):
        before = np.median(close[max(0, place - 4) : place + 1])
        after = np.median(close[place + 1 : place + 6])
        stays = np.abs((after - before) - night[place]) < np.abs(night[place]) / 4
        result[place + 1] = stays and len(close) - place > 3
    return result


def _contradictions(bars: pd.DataFrame) -> list[Finding]:
    prices = [c for c in ("open", "high", "low", "close") if c in bars.columns]
    bad = np.zeros(len(bars), bool)
    slack = 1e-9 * bars["close"].to_numpy()
    if "high" in prices:
        bad |= bars["high"].to_numpy() < bars[prices].max(axis=1).to_numpy() - slack
    if "low" in prices:
        bad |= bars["low"].to_numpy() > bars[prices].min(axis=1).to_numpy() + slack
    if not bad.any():
        return []
    first = bars[bad].iloc[0]
    shown = ", ".join(f"{name} {first[name]:g}" for name in prices)
    index = pd.DatetimeIndex(bars.index[bad])
    return [Finding("ohlc", index, f"{shown} at {index[0]}")]


def _volume(bars: pd.DataFrame) -> list[Finding]:
    if "volume" not in bars.columns:
        return []
    volume, index = bars["volume"].to_numpy(), pd.DatetimeIndex(bars.index)
    found = []
    none = volume == 0
    if none.any() and not none.all():
        longest = max(len(run) for run in _runs(none))
        found.append(Finding("zero_volume", index[none], f"at most {longest} in a row"))
    if len(volume) >= _FEWEST and 0 < volume[-1] < 0.05 * np.quantile(volume[-_LOCAL:], 0.1):
        share = volume[-1] / np.median(volume[-_LOCAL:])
        found.append(Finding("last_bar", index[-1:], f"{share:.2%} of the usual volume"))
    return found


def _rest(bars: pd.DataFrame) -> list[Finding]:
    close, index = bars["close"].to_numpy(), pd.DatetimeIndex(bars.index)
    rests = np.append(False, close[1:] == close[:-1])
    if not rests.any():
        return []
    share = pd.Series(rests, dtype=float).rolling(251, center=True, min_periods=1).mean()
    share = share.clip(rests[1:].mean(), 0.5).clip(upper=0.5).to_numpy()
    chance = np.maximum(np.log(0.01 / len(close)) / np.log(share), _SHORTEST_REST)
    runs = [run for run in _runs(rests) if len(run) + 1 >= chance[run].max()]
    if not runs:
        return []
    longest = max(runs, key=len)
    detail = f"at most {len(longest) + 1} equal closes in a row, from {index[longest[0] - 1]}"
    return [Finding("stale", index[np.concatenate(runs)], detail)]


def _coarse(bars: pd.DataFrame) -> list[Finding]:
    close = bars["close"].to_numpy()
    rests = np.append(False, close[1:] == close[:-1])
    share = rests[1:].mean()
    if len(close) < _FEWEST or share < _COARSE:
        return []
    return [Finding("coarse", pd.DatetimeIndex(bars.index[rests]), f"{share:.1%} of all returns")]


def _continuous(bars: pd.DataFrame) -> list[Finding]:
    if "open" not in bars.columns or len(bars) < _FEWEST:
        return []
    same = bars["open"].to_numpy()[1:] == bars["close"].to_numpy()[:-1]
    if same.mean() < _CONTINUOUS:
        return []
    index = pd.DatetimeIndex(bars.index[1:][same])
    return [Finding("continuous", index, "it fills like `next_close`, without the delay")]


def _steps(bars: pd.DataFrame, step: pd.Timedelta) -> list[Finding]:
    index = pd.DatetimeIndex(bars.index)
    found = []
    close = np.append(False, np.diff(index.as_unit("us").asi8) < 0.75 * step / pd.Timedelta("1us"))
    # Months differ by a tenth, and clocks are set forward.
    if close.any():
        found.append(Finding("irregular", index[close], f"expected one every {step}"))
    missing = missing_bars(index, step)
    if len(missing.gaps):
        found.append(Finding("gap", missing.gaps, missing.longest))
    if len(missing.closed) and step < pd.Timedelta(days=1):
        found.append(Finding("closed", missing.closed, missing.longest_break))
    return found


def _compare(bars: Mapping[str, pd.DataFrame]) -> dict[str, list[Finding]]:
    """Find what only a comparison shows: bars that most assets have, late starts, early ends."""
    indices = {name: pd.DatetimeIndex(frame.index) for name, frame in bars.items() if len(frame)}
    steps = {name: bar_interval(frame) for name, frame in bars.items() if len(frame) > 1}
    found: dict[str, list[Finding]] = {name: [] for name in bars}
    if len(steps) < 2 or max(steps.values()) > 1.2 * min(steps.values()):
        return found
    for name, each in find_apart(indices).items():
        detail = f"{each.shared:.0%} of them are at times of bars of {each.other}"
        found[name].append(Finding("apart", each.times, detail))
    union = np.unique(np.concatenate([i.as_unit("us").asi8 for i in indices.values()]))
    timeline = pd.DatetimeIndex(union.view("datetime64[us]"), tz="UTC")
    present = np.stack([timeline.isin(index) for index in indices.values()])
    alive = np.stack([(timeline >= i[0]) & (timeline <= i[-1]) for i in indices.values()])
    usual = present.sum(axis=0) > 0.5 * alive.sum(axis=0)
    ends = pd.DatetimeIndex([index[-1] for index in indices.values()]).sort_values()
    most_end = ends[len(ends) // 2]
    for row, (name, index) in enumerate(indices.items()):
        absent = timeline[usual & alive[row] & ~present[row] & (alive.sum(axis=0) > 2)]
        if len(absent):
            most = f"{len(absent)} of {int((usual & alive[row]).sum())}"
            found[name].append(Finding("absent", absent, most))
        if index[0] > timeline[0]:
            first = f"the first starts {timeline[0]}"
            found[name].append(Finding("begins_late", index[:1], first))
        # Assets fetched one after the other may differ by a bar.
        if index[-1] + 2 * steps.get(name, pd.Timedelta(0)) < most_end:
            behind = f"{most_end - index[-1]} before most others, which end {most_end}"
            found[name].append(Finding("ends_early", index[-1:], behind))
    return found


def _runs(where: np.ndarray) -> list[np.ndarray]:
    """Return the places of each run of True."""
    places = np.flatnonzero(where)
    return np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
