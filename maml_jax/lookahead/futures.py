"""Other futures of the same bars: cut off, altered, with holes; and where to cut."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

Frames = Mapping[str, pd.DataFrame]

NOISE = (0.3, 0.02)
"""Standard deviations of the logarithmic factors by which later closes are multiplied: one that no
market knows, and one that is like a market's."""

_HOLES = 0.05
"""Share of the later bars that are taken out of one of the altered futures."""

_MARGIN = 8
"""Bars of altered future in each of many places: further than that a rare leak hardly looks."""


def cut_off(frames: Frames, last: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """Return the bars up to one, itself included; assets that begin later are left out."""
    cut = {name: frame.loc[:last] for name, frame in frames.items()}
    return {name: frame for name, frame in cut.items() if len(frame)}


def begin_late(frames: Frames, first: pd.Timestamp) -> dict[str, pd.DataFrame]:
    """Return the bars from one on; assets that end before are left out."""
    begun = {name: frame.loc[first:] for name, frame in frames.items()}
    return {name: frame for name, frame in begun.items() if len(frame)}


def alter_after(frames: Frames, last: pd.Timestamp, seed: int) -> dict[str, pd.DataFrame]:
    """Return bars that are the same up to one, and have another future.

    Later bars are multiplied by random factors, each bar's prices by ones that keep high above low;
    with an odd seed by small ones, and some of the later bars are missing.
    """
    changed = {}
    for number, (name, frame) in enumerate(frames.items()):
        later = frame.index > last
        other = alter(frame, [seed, number], NOISE[seed % 2])
        result = mix(frame, other, np.asarray(later))
        if seed % 2:
            rng = np.random.default_rng([seed, number, 1])
            kept = ~later | (rng.random(len(frame)) >= _HOLES)
            kept[-1] = True
            result = result[kept]
        changed[name] = result
    return changed


def mix(frame: pd.DataFrame, other: pd.DataFrame, changed: np.ndarray) -> pd.DataFrame:
    """Return a table of bars with some rows of another one of the same times."""
    values = np.where(changed[:, None], other.to_numpy(float), frame.to_numpy(float))
    return pd.DataFrame(values, index=frame.index, columns=frame.columns)


def replace_by_walk(frame: pd.DataFrame, seed: int | list[int]) -> pd.DataFrame:
    """Return a random walk as volatile as the bars, on their times, that knows nothing of them."""
    rng = np.random.default_rng(seed)
    moves = np.diff(np.log(frame["close"].dropna().to_numpy()))
    walk = np.cumsum((np.std(moves) or NOISE[1]) * rng.standard_normal(len(frame)))
    close = 100 * np.exp(walk - walk.mean())
    table = {name: close for name in frame.columns if name != "volume"}
    if "volume" in frame:
        table["volume"] = np.full(len(frame), 1000.0)
    flat = pd.DataFrame(table, index=frame.index)[list(frame.columns)]
    other = alter(flat, rng.integers(2**32, size=2).tolist(), NOISE[1] / 10)
    return other.where(frame.notna())


def alter(frame: pd.DataFrame, seed: int | list[int], noise: float) -> pd.DataFrame:
    """Return a table of bars on the same times in which every value is another.

    Args:
        frame: in normal form.
        seed: of the random factors.
        noise: standard deviation of the logarithm of the factors of closes.
    """
    rng, count = np.random.default_rng(seed), len(frame)

    def factors(size: float) -> np.ndarray:
        return np.exp(size * rng.standard_normal(count))

    table = {"close": frame["close"].to_numpy() * factors(noise)}
    if "open" in frame:
        table["open"] = frame["open"].to_numpy() * factors(noise)
    edges = [table[name] for name in ("close", "open") if name in table]
    if "high" in frame:
        table["high"] = np.maximum.reduce(edges) * np.exp(np.abs(np.log(factors(noise / 3))))
    if "low" in frame:
        table["low"] = np.minimum.reduce(edges) / np.exp(np.abs(np.log(factors(noise / 3))))
    for name in frame.columns.difference(list(table)):
        values = frame[name].to_numpy()
        table[name] = np.where(values == 0, 1.0, values) * factors(1.0)
    return pd.DataFrame(table, index=frame.index)[list(frame.columns)]


def stretches(
    timeline: pd.DatetimeIndex, warm_up: int, phase: int
) -> tuple[pd.DatetimeIndex, int, int]:
    """Alter a few bars here and there, so that one computation stands for many cuts.

    Stretches of bars as they are take turns with short ones that are altered. A value that is
    further from the last altered bar than its warm-up may not change, and the next altered bars are
    its future.

    Args:
        timeline: of all assets.
        warm_up: bars that a value may look back.
        phase: 0 .. period - 1; all phases together make every bar the last of a stretch.

    Returns:
        The times of the altered bars, the period, and how many bars of it are left as they are.
    """
    whole = warm_up + _MARGIN
    period = whole + _MARGIN
    place = (np.arange(len(timeline)) + phase) % period
    return timeline[place >= whole], period, whole


def middle_cuts(
    timeline: pd.DatetimeIndex, first: int, last: int, count: int, seed: int
) -> list[int]:
    """Choose bars to cut after, spread over a stretch, in the middle of periods of the calendar.

    What is resampled to days, weeks or months and looks at the whole period shows where the period
    is not over. Among the bars around each place, the one is taken that stands within a day (of
    shorter bars), a week and a month together with its neighbours.

    Args:
        timeline: of all assets.
        first: place of the first bar that may be a cut.
        last: place of the last one.
        count: how many; fewer where the stretch is shorter.
        seed: places are jittered.

    Returns:
        Places in ascending order.
    """
    count = min(count, last - first + 1)
    if count < 1:
        return []
    rng = np.random.default_rng([seed, 7])
    edges = np.linspace(first, last + 1, count + 1)
    score = _within_periods(timeline)
    chosen = []
    for low, high in zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True):
        places = low + rng.permutation(max(1, high - low))[:24]
        chosen.append(int(places[np.argmax(score[places])]))
    return sorted(set(chosen))


def _within_periods(timeline: pd.DatetimeIndex) -> np.ndarray:
    """Count the periods that each bar shares with both of its neighbours, `[time]`."""
    naive = timeline.tz_localize(None)
    shared = np.zeros(len(timeline))
    for number in (
        naive.normalize().to_numpy(),
        naive.to_period("W").asi8,
        12 * naive.year.to_numpy() + naive.month.to_numpy(),
    ):
        same = number[1:] == number[:-1]
        shared[1:-1] += same[1:] & same[:-1]
    shared[[0, -1]] = -1
    return shared
