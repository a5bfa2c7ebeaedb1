"""How far the beginning of the bars reaches into features: the recursive analysis."""

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features.feature import feature_values
from maml_jax.lookahead.columns import Study, reason
from maml_jax.lookahead.findings import Finding, find_differences, largest_difference

_STARTS = 5
"""Places at which the bars begin."""

_TIMES: tuple[int, ...] = (1, 2, 4, 8)
"""Bars before a value, in warm-ups, for which the effect of the beginning is shown."""

_ROUNDING = 1e-6
"""A share of a value or of the usual size, as `check_feature` has it: running sums that begin later
round otherwise."""


def check_beginnings(study: Study) -> tuple[list[Finding], pd.DataFrame]:
    """Begin the bars later: from the warm-up on, no value may be another.

    Columns that all assets make together are those of all bars: an asset that begins has one return
    less, which is not a fault of a feature. Of features that say that they depend on the start the
    effect is shown, and is no finding.

    Args:
        study: the quantities.

    Returns:
        What was found; and the greatest difference in per cent of a quantity's deviation, a row for
        each quantity and a column for so many times its warm-up of bars before the value (of those
        without a warm-up: so many bars).
    """
    findings, rows = [], {}
    for number, quantity in enumerate(study.quantities):
        effect = dict.fromkeys(_TIMES, 0.0)
        for name in quantity.of(study.frames):
            found, sizes = _begin_later(study, number, name)
            findings += found
            effect = {times: max(effect[times], sizes[times]) for times in _TIMES}
        rows[quantity.feature.name] = effect
    table = pd.DataFrame(rows).T.rename_axis("feature")
    table.columns = ["warm-up" if times == 1 else f"{times} x warm-up" for times in _TIMES]
    table.insert(0, "bars", [each.feature.warm_up for each in study.quantities])
    return findings, table


def _begin_later(study: Study, number: int, name: str) -> tuple[list[Finding], dict[int, float]]:
    quantity = study.quantities[number]
    bars, values, warm_up = study.whole[name], study.values[number][name], quantity.feature.warm_up
    unit, times_of = study.units[number][name], pd.DatetimeIndex(bars.index)
    sizes: dict[int, float] = dict.fromkeys(_TIMES, 0.0)
    known = values[np.isfinite(values)]
    usual = float(np.abs(known).mean()) if len(known) else 0.0
    findings: list[Finding] = []
    last = len(bars) - warm_up - 1
    starts = np.unique(np.linspace(1, last, _STARTS + 1, dtype=int)[:-1]) if last >= 1 else []
    for start in starts:
        try:
            late = feature_values(bars.iloc[start:], quantity.feature, asset=name)[warm_up:]
        except DataError as error:
            size, place = np.inf, 0
            how = f"bars that begin later: {reason(error)}"
        else:
            expected = values[start + warm_up :]
            for times in _TIMES:
                # One value is not enough: a difference may pass through 0.
                at = slice((times - 1) * max(1, warm_up), (times - 1) * max(1, warm_up) + 5)
                effect = 100 * largest_difference(late[at], expected[at], unit)
                sizes[times] = max(sizes[times], effect)
            if not quantity.feature.start_invariant:
                continue
            wrong = find_differences(late, expected, absolute=_ROUNDING * usual, relative=_ROUNDING)
            if not wrong.any():
                continue
            place, size = (
                int(np.argmax(wrong)),
                largest_difference(late[wrong], expected[wrong], unit),
            )
            how = f"depends on where its bars begin, beyond its warm-up of {warm_up} bars"
        bar = times_of[int(start) + warm_up + place]
        about = (quantity.what, quantity.feature.name, name)
        findings.append(Finding(*about, bar, None, size, "deviations", how))
    return findings, sizes
