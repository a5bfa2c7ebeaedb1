"""The check for looking ahead on all that is a column of one asset's bars.

Features, sides of rules and regimes of an asset are functions of its bars, so that they can be
computed many times: with the bars cut off, altered after a bar, altered in many places at once, and
replaced.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features import Feature, is_registered
from maml_jax.features.feature import feature_values
from maml_jax.lookahead.findings import Finding, deviation, find_differences, largest_difference
from maml_jax.lookahead.futures import (
    NOISE,
    Frames,
    alter,
    alter_after,
    cut_off,
    middle_cuts,
    mix,
    replace_by_walk,
    stretches,
)
from maml_jax.tasks.panel import assets_timeline

ABSOLUTE, RELATIVE = 1e-7, 1e-11
"""Differences that count as rounding: shares of the quantity's deviation, and of a value. Columns
are computed in double precision, and what comes later takes no part in them at all."""

_WORK, _OWN_WORK = 4e6, 6e7
"""Values that are computed for the cuts of built-in quantities, and of those of the user's own."""

_PER_COLUMN = 5000
"""Values that could be computed in the time that a column costs however short it is."""

_MARKET = 3
"""Columns that could be computed in the time that one of all assets together costs."""

_MOST_CUTS = 8
_FEWEST_PHASES = 4

_CONFIRMED = 8
"""Bars at most that are looked at once more, with one cut, before anything is said."""

_FEW_ASSETS = 5
"""In which a quantity is looked at once more."""

_KNOWING, _SURPRISE = 0.15, 6.0
"""Correlation with what comes, and standard errors, beyond which a feature of bars that know
nothing of an outcome has it from elsewhere. Effects of the calendar stay far below."""


class Quantity(NamedTuple):
    """A column that is computed from the bars of one asset.

    Attributes:
        what: what findings call it.
        feature: how it is computed, and how far it looks back.
        assets: of which assets; None for all.
    """

    what: str
    feature: Feature
    assets: tuple[str, ...] | None = None

    def of(self, frames: Iterable[str]) -> list[str]:
        """Return those of the assets that it is computed of."""
        return [name for name in frames if self.assets is None or name in self.assets]


class Study(NamedTuple):
    """Quantities as they are on all bars, to compare with.

    Attributes:
        quantities: what is computed.
        frames: bars in normal form, by asset.
        market: adds the columns that need all assets at once to bars.
        whole: `frames` with these columns.
        values: of each quantity, by asset, `[bar]`.
        units: the deviation of each quantity, by asset.
    """

    quantities: Sequence[Quantity]
    frames: Frames
    market: Callable[[Frames], dict[str, pd.DataFrame]]
    whole: dict[str, pd.DataFrame]
    values: list[dict[str, np.ndarray]]
    units: list[dict[str, float]]


def study_columns(
    quantities: Sequence[Quantity],
    frames: Frames,
    market: Callable[[Frames], dict[str, pd.DataFrame]],
) -> Study:
    """Compute quantities on the bars as they are.

    Raises:
        DataError: if one cannot be computed.
    """
    whole = market(frames)
    values = [
        {name: feature_values(whole[name], each.feature, asset=name) for name in each.of(frames)}
        for each in quantities
    ]
    units = [
        {name: deviation(column[each.feature.warm_up :]) for name, column in columns.items()}
        for each, columns in zip(quantities, values, strict=True)
    ]
    return Study(quantities, frames, market, whole, values, units)


def check_columns(
    study: Study, *, cuts: int, horizon: int, seed: int
) -> tuple[list[Finding], list[str]]:
    """Look for quantities that change with later bars, or know what their bars do not.

    Args:
        study: the quantities.
        cuts: how many bars at least after which everything is cut off or altered.
        horizon: bars over which outcomes are looked at.
        seed: of all that is random.

    Returns:
        What was found, and sentences that say what was looked at.
    """
    timeline = assets_timeline(study.frames)
    everything = {n: each.of(study.frames) for n, each in enumerate(study.quantities)}
    count = int(np.clip(_WORK / (3 * _cost(study, everything)), cuts, _MOST_CUTS))
    places = middle_cuts(timeline, 1, len(timeline) - 2, count, seed)
    findings = []
    for place in places:
        findings += _compare_at(study, everything, timeline[place], seed)
    found, share = _check_stretches(study, timeline, seed)
    findings += found + _find_knowing(study, horizon, seed)
    kinds = pd.Series([each.what for each in study.quantities]).value_counts(sort=False)
    counts = ", ".join(f"{n} {what}{'s' if n > 1 else ''}" for what, n in kinds.items())
    return findings, [
        f"{counts} of {len(study.frames)} assets: all bars cut off, and altered, after "
        f"{len(places)} bars; short stretches altered after {share} of all bars"
    ]


def _compare_at(
    study: Study, wanted: Mapping[int, Sequence[str]], cut: pd.Timestamp, seed: int
) -> list[Finding]:
    """Compare quantities of assets up to a cut, with later bars altered."""
    futures = {
        "bars cut off": cut_off(study.frames, cut),
        "later bars altered": alter_after(study.frames, cut, 2 * seed),
        "later bars altered a little, some missing": alter_after(study.frames, cut, 2 * seed + 1),
    }
    findings = []
    for how, frames in futures.items():
        seen = study.market(frames)
        for number, names in wanted.items():
            for name in names:
                if name in seen:
                    findings += _compare(study, number, name, seen[name], cut, how)
    return findings


def _compare(
    study: Study, number: int, name: str, bars: pd.DataFrame, cut: pd.Timestamp, how: str
) -> list[Finding]:
    quantity = study.quantities[number]
    first = quantity.feature.warm_up
    stop = int(bars.index.searchsorted(cut, side="right"))
    if stop <= first:
        return []
    unit = study.units[number][name]
    about = (quantity.what, quantity.feature.name, name)
    try:
        found = feature_values(bars, quantity.feature, asset=name)[first:stop]
    except DataError as error:
        text = f"{how}: {reason(error)}"
        return [Finding(*about, bars.index[stop - 1], cut, np.inf, "deviations", text)]
    expected = study.values[number][name][first:stop]
    wrong = find_differences(found, expected, absolute=ABSOLUTE * unit, relative=RELATIVE)
    if not wrong.any():
        return []
    bar = bars.index[first + int(np.argmax(wrong))]
    size = largest_difference(found[wrong], expected[wrong], unit)
    return [Finding(*about, bar, cut, size, "deviations", how)]


def reason(error: DataError) -> str:
    """Say what a feature that failed raised, without naming it and the asset."""
    text = str(error)
    return f"it fails there ({text.partition('failed: ')[2] or text})"


def _check_stretches(
    study: Study, timeline: pd.DatetimeIndex, seed: int
) -> tuple[list[Finding], str]:
    """Alter stretches of bars all over the history, to find what looks ahead on few dates alone.

    What differs before a stretch that is altered is looked at once more with one cut there: a
    quantity that remembers more than its warm-up differs as well, and does not look ahead.
    """
    others = {
        name: alter(frame, [seed, number, 3], NOISE[0])
        for number, (name, frame) in enumerate(study.frames.items())
    }
    findings, shares = [], {False: [1.0], True: [1.0]}
    groups = _groups(study)
    for group, numbers in groups.items():
        names = {n: study.quantities[n].of(study.frames) for n in numbers}
        warm_up = max(study.quantities[n].feature.warm_up for n in numbers)
        _, period, whole = stretches(timeline, warm_up, 0)
        work = (_OWN_WORK if group[0] else _WORK) / len(groups)
        phases = int(np.clip(work / _cost(study, names), _FEWEST_PHASES, period))
        steps = np.unique(np.linspace(0, period, phases, endpoint=False, dtype=int))
        shares[group[0]].append(len(steps) / period)
        suspects: dict[tuple[int, str], list[tuple[int, pd.Timestamp]]] = {}
        for phase in steps:
            changed = stretches(timeline, warm_up, int(phase))[0]
            seen = study.market(
                {
                    name: mix(frame, others[name], np.asarray(frame.index.isin(changed)))
                    for name, frame in study.frames.items()
                }
            )
            place = pd.Series((np.arange(len(timeline)) + phase) % period, timeline)
            for n in numbers:
                for name in names[n]:
                    known = place.reindex(seen[name].index).to_numpy()
                    kept = (known >= warm_up) & (known < whole)
                    kept[: study.quantities[n].feature.warm_up] = False
                    for bar, at in _find_differences_in(study, n, name, seen[name], kept, known):
                        suspects.setdefault((n, name), []).append((at, bar))
        findings += _confirm(study, suspects, seed)
    own = f" ({min(shares[True]):.0%} for your own)" if len(shares[True]) > 1 else ""
    return findings, f"{min(shares[False]):.0%}{own}"


def _cost(study: Study, wanted: Mapping[int, Sequence[str]]) -> int:
    """Count the values that computing quantities of assets once costs, 1 at least."""
    columns = [len(study.values[n][name]) for n, names in wanted.items() for name in names]
    added = sum(
        len(study.whole[name].columns) - len(frame.columns) for name, frame in study.frames.items()
    )
    return sum(columns) + _PER_COLUMN * (len(columns) + _MARKET * added) + 1


def _groups(study: Study) -> dict[tuple[bool, int], list[int]]:
    """Join quantities that look back about as far, the user's own apart."""
    groups: dict[tuple[bool, int], list[int]] = {}
    for number, each in enumerate(study.quantities):
        back = int(each.feature.warm_up).bit_length()
        groups.setdefault((is_registered(each.feature), back), []).append(number)
    return groups


def _find_differences_in(
    study: Study, number: int, name: str, bars: pd.DataFrame, kept: np.ndarray, place: np.ndarray
) -> list[tuple[pd.Timestamp, int]]:
    """Return the bars that differ among those that are kept, with their places in a stretch."""
    try:
        found = feature_values(bars, study.quantities[number].feature, asset=name)
    except DataError:
        return []  # of bars that no market knows; cuts show more
    expected = study.values[number][name]
    unit = study.units[number][name]
    wrong = kept & find_differences(found, expected, absolute=ABSOLUTE * unit, relative=RELATIVE)
    places = np.flatnonzero(wrong)
    latest = places[np.argsort(-place[places], kind="stable")][: 4 * _CONFIRMED]
    times = pd.DatetimeIndex(bars.index)
    return [(times[each], int(place[each])) for each in latest]


def _confirm(study: Study, suspects: dict, seed: int) -> list[Finding]:
    findings, tried = [], dict.fromkeys(range(len(study.quantities)), 0)
    for (number, name), bars in suspects.items():
        if tried[number] == _FEW_ASSETS:
            continue
        tried[number] += 1
        # What looks ahead differs at the end of a stretch; what remembers long, at its beginning.
        order = sorted(bars, key=lambda each: -each[0])
        rng = np.random.default_rng([seed, 11])
        best = [bar for at, bar in order if at == order[0][0]]
        chosen = [best[each] for each in rng.permutation(len(best))[:_CONFIRMED]]
        for cut in chosen:
            found = _compare_at(_alone(study, name), {number: [name]}, cut, seed)
            findings += found
            if found:
                break
    return findings


def _alone(study: Study, name: str) -> Study:
    """Leave other assets out where no column is made of them."""
    own = study.frames[name]
    if not study.whole[name].columns.equals(own.columns):
        return study
    return study._replace(frames={name: own}, market=dict)


def _find_knowing(study: Study, horizon: int, seed: int) -> list[Finding]:
    """Find features that agree with what came although their bars were replaced by others."""
    findings = []
    walks = study.market(
        {
            name: replace_by_walk(frame, [seed, number, 5])
            for number, (name, frame) in enumerate(study.frames.items())
        }
    )
    for quantity in study.quantities:
        for name in quantity.of(study.frames):
            try:
                values = feature_values(walks[name], quantity.feature, asset=name)
            except DataError:
                continue
            close = study.frames[name]["close"]
            for bars in dict.fromkeys((1, horizon)):
                for delay in (0, 1):
                    outcome = np.log(np.asarray(close.shift(-bars - delay) / close.shift(-delay)))
                    correlation, rows = _agreement(values, outcome)
                    surprise = abs(correlation) * np.sqrt(rows / bars)
                    if abs(correlation) > _KNOWING and surprise > _SURPRISE:
                        how = (
                            "its bars replaced by a random walk, and it still agrees with what the "
                            f"next {bars} bars brought: it is known from elsewhere"
                        )
                        about = (quantity.what, quantity.feature.name, name)
                        found = Finding(*about, None, None, correlation, "correlation", how)
                        findings.append(found)
    return findings


def _agreement(values: np.ndarray, outcome: np.ndarray) -> tuple[float, int]:
    """Return the correlation of ranks, and of how many bars; 0 where there is none."""
    both = np.isfinite(values) & np.isfinite(outcome)
    if both.sum() < 30:
        return 0.0, 0
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(each[both]) for each in (values, outcome)])
    if (ranks.std(axis=1) == 0).any():
        return 0.0, 0
    return float(np.corrcoef(ranks)[0, 1]), int(both.sum())
