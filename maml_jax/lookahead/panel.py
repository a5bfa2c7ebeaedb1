"""The check for looking ahead on what is prepared: rows, labels, scaling, and the tasks of them."""

from collections.abc import Container

import numpy as np
import pandas as pd

from maml_jax.experiment.learning.tasks import find_test_supports, training_windows
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.features import Scaler
from maml_jax.lookahead.findings import Finding, deviation, find_differences, largest_difference
from maml_jax.tasks import Windows
from maml_jax.tasks.rows import LabelledRows

_SINGLE = 2e-6
"""Rounding of what is of order one in single precision: two of its last digits."""

_DOUBLE = 1e-9
"""The same in double precision, of statistics of the same rows."""

_TASKS = 20_000
"""Tasks at most whose rows are gathered."""


def compare_rows(
    base: Prepared, other: Prepared, cut: pd.Timestamp, how: str, *, without: Container[str] = ()
) -> list[Finding]:
    """Compare what is known of each asset at the close of a bar: features, regimes, labels.

    Args:
        base: from all bars.
        other: from bars that are the same up to the cut.
        cut: the last bar that is the same.
        how: what was done to later bars.
        without: features that are left out, since they were scaled otherwise.
    """
    panel, changed = base.panel, other.panel
    names = [name for name in panel.assets if name in changed.assets]
    count = int(panel.timestamps.searchsorted(cut, side="right"))
    if not panel.timestamps[:count].equals(changed.timestamps[:count]):
        return [Finding("bars", "timeline", "", cut, cut, np.inf, "bars", how)]
    ours, theirs = ([p.assets.index(name) for name in names] for p in (panel, changed))

    def both(field: str) -> tuple[np.ndarray, np.ndarray]:
        return tuple(  # pyright: ignore[reportReturnType]
            np.asarray(getattr(p, field))[rows][:, :count]
            for p, rows in ((panel, ours), (changed, theirs))
        )

    def found(what: str, name: str, wrong: np.ndarray, size: float, unit: str) -> list[Finding]:
        if not wrong.any():
            return []
        first = int(np.argmax(wrong.any(axis=0)))
        asset = names[int(np.argmax(wrong[:, first]))]
        return [Finding(what, name, asset, panel.timestamps[first], cut, size, unit, how)]

    findings: list[Finding] = []
    valid = both("valid")
    wrong = valid[0] != valid[1]
    findings += found("row", "rows that are there", wrong, float(wrong.sum()), "rows")
    whole = valid[0] & valid[1]
    features = both("features")
    for number, name in enumerate(panel.feature_names):
        if name in without:
            continue
        a, b = (np.where(whole, each[:, :, number], 0.0) for each in features)
        wrong = find_differences(b, a, absolute=_SINGLE, relative=_SINGLE)
        size = largest_difference(b[wrong], a[wrong], deviation(a[whole]))
        findings += found("scaled feature", name, wrong, size, "deviations")
    if panel.regimes is not None and changed.regimes is not None:
        a, b = both("regimes")
        wrong = a != b
        findings += found("regime", "in force", wrong, float(wrong.sum()), "bars")
    ends, targets = both("label_end"), both("targets")
    known = (ends[0] < count) & whole
    wrong = known & (ends[0] != ends[1])
    findings += found("target", "end of the label", wrong, float(wrong.sum()), "rows")
    a, b = (np.where(known, each, 0.0) for each in targets)
    wrong = known & find_differences(b, a, absolute=_SINGLE, relative=_SINGLE)
    size = largest_difference(b[wrong], a[wrong], deviation(a[known]))
    late = "said to be complete before the bars that it is made of"
    early = found("target", "label", wrong, size, "deviations")
    return findings + [each._replace(how=f"{how}: {late}") for each in early]


def compare_fits(
    scaler: Scaler, other: Scaler, last: pd.Timestamp | None, how: str
) -> list[Finding]:
    """Compare two scalings that should be of the same rows.

    Args:
        scaler: the one.
        other: the other one.
        last: the last bar of the rows.
        how: what was done.
    """
    if list(scaler.mean.index) != list(other.mean.index) or scaler.clip != other.clip:
        return [Finding("scaler", "features", "", None, last, np.inf, "deviations", how)]
    std = scaler.std.to_numpy(float)
    sizes = {
        name: float(max(shift, stretch))
        for name, shift, stretch in zip(
            scaler.mean.index,
            np.abs(other.mean.to_numpy(float) - scaler.mean.to_numpy(float)) / std,
            np.abs(other.std.to_numpy(float) / std - 1),
            strict=True,
        )
    }
    sizes["target"] = max(
        abs(other.target_mean - scaler.target_mean) / scaler.target_std,
        abs(other.target_std / scaler.target_std - 1),
    )
    return [
        Finding("scaler", name, "", None, last, size, "deviations", how)
        for name, size in sizes.items()
        # Means of wide columns round with their size, not with their deviation.
        if not size <= _DOUBLE * (1 + _width(scaler, name))
    ]


def _width(scaler: Scaler, name: str) -> float:
    if name == "target":
        return abs(scaler.target_mean / scaler.target_std)
    return float(abs(scaler.mean[name] / scaler.std[name]))


def true_ends(prepared: Prepared) -> np.ndarray:
    """Count, in each asset's own bars, which bar completes the label of each bar.

    Returns:
        Places on the time axis, `[asset, time]`; its length where no bar does.
    """
    panel, target = prepared.panel, prepared.config.target
    waits = target.fill != "close" and target.kind != "volatility"
    delay = target.horizon + (1 if waits else 0)
    ends = np.full(panel.valid.shape, len(panel.timestamps))
    for row, asset in enumerate(panel.assets):
        place = panel.timestamps.get_indexer(prepared.bars[asset].index)
        ends[row, place[:-delay]] = place[delay:]
    return ends


def check_labels(prepared: Prepared) -> list[Finding]:
    """Look for labels that are said to be complete before their last bar."""
    panel = prepared.panel
    claimed, true = np.asarray(panel.label_end), true_ends(prepared)
    early = (claimed < len(panel.timestamps)) & (claimed < true)
    if not early.any():
        return []
    asset, time = (int(each[0]) for each in np.nonzero(early))
    size = float((true - claimed)[early].max())
    how = "counted in the asset's own bars: said to be complete too early"
    where = (panel.assets[asset], panel.timestamps[time], None)
    return [Finding("target", "end of the label", *where, size, "bars", how)]


def check_tasks(prepared: Prepared) -> tuple[list[Finding], str]:
    """Look at the rows of tasks: no support label may reach into what its query is asked.

    Of meta-training: labels of the support end by the first bar of the query, those of the query
    within the span. Of the walk-forward: labels of the support end by the bar that is predicted at.
    """
    panel, true = prepared.panel, true_ends(prepared)
    findings: list[Finding] = []

    def late(name: str, ends: np.ndarray, bound: np.ndarray, first: np.ndarray) -> None:
        """Tell where labels end after a bound, `[task, row]` against `[task]`."""
        over = ends - bound[:, None]
        if (over > 0).any():
            task = int(np.argmax((over > 0).any(axis=1)))
            asset, time = first[task]
            findings.append(
                Finding(
                    "task",
                    name,
                    panel.assets[asset],
                    panel.timestamps[time],
                    panel.timestamps[min(int(bound[task]), len(panel.timestamps) - 1)],
                    float(over.max()),
                    "bars",
                    "rows gathered: labels end after the bar up to which all may be known",
                )
            )

    looked = 0
    if prepared.train_assets:
        windows = training_windows(prepared)
        support, query = _window_rows(windows)
        looked = len(support)
        first = query[np.arange(len(query)), query[:, :, 1].argmin(axis=1)]
        late("support of meta-training", true[support[..., 0], support[..., 1]], first[:, 1], first)
        last = np.full(len(query), prepared.train_last)
        late("query of meta-training", true[query[..., 0], query[..., 1]], last, first)
    due, rows = _walk_rows(prepared)
    late("support of the walk-forward", true[rows[..., 0], rows[..., 1]], due[:, 1], due)
    text = f"rows of {looked} tasks of meta-training and" if looked else "rows of"
    return findings, f"{text} {len(due)} of the walk-forward gathered, and their labels' ends"


def compare_tasks(base: Prepared, other: Prepared, how: str) -> list[Finding]:
    """Compare the windows of meta-training, and what their rows hold, on two futures."""
    mine, theirs = training_windows(base), training_windows(other)
    last = base.panel.timestamps[base.train_last]

    def found(name: str, size: float, unit: str) -> list[Finding]:
        return [Finding("task", name, "", None, last, size, unit, how)]

    if len(mine.query) != len(theirs.query):
        return found("windows of meta-training", abs(len(mine.query) - len(theirs.query)), "tasks")
    rows = [np.concatenate(_window_rows(each), axis=1) for each in (mine, theirs)]
    if not np.array_equal(rows[0], rows[1]):
        return found("windows of meta-training", float((rows[0] != rows[1]).sum()), "rows")
    asset, time = rows[0][..., 0], rows[0][..., 1]
    a, b = (np.asarray(each.panel.targets)[asset, time] for each in (base, other))
    wrong = find_differences(b, a, absolute=_SINGLE, relative=_SINGLE)
    if not wrong.any():
        return []
    size = largest_difference(b[wrong], a[wrong], deviation(a))
    return found("labels of meta-training", size, "deviations")


def _window_rows(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Return asset and time index of the rows of windows, `[window, row, 2]`: support, query."""
    chosen = np.unique(np.linspace(0, len(windows.query) - 1, _TASKS, dtype=int))
    stops = windows.stop[chosen]
    places = [stops[:, part, None] + np.arange(-size, 0) for part, size in enumerate(windows.sizes)]
    query = windows.query[chosen, None] + np.arange(windows.query_size)
    return (
        _locate(windows.rows, windows.entries[np.concatenate(places, axis=1)]),
        _locate(windows.rows, windows.entries[query]),
    )


def _walk_rows(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Return where predictions are due, `[ask, 2]`, and the rows adapted on, `[ask, row, 2]`."""
    found = find_test_supports(prepared)
    # Of sets that lack all rows of a part there is nothing to compare.
    whole = found.due if found.counts is None else found.due & (found.counts > 0).all(axis=-1)
    due = np.argwhere(whole)
    due = due[np.unique(np.linspace(0, len(due) - 1, _TASKS, dtype=int))] if len(due) else due
    stops = found.stops[due[:, 0], due[:, 1]]
    sizes = found.layout.sizes
    places = [stops[:, part, None] + np.arange(-size, 0) for part, size in enumerate(sizes)]
    if found.counts is not None:  # the oldest row stands for those that are not there
        oldest = stops - found.counts[due[:, 0], due[:, 1]]
        places = [np.maximum(rows, oldest[:, part, None]) for part, rows in enumerate(places)]
    return due, _locate(found.rows, found.entries[np.concatenate(places, axis=1)])


def _locate(rows: LabelledRows, numbers: np.ndarray) -> np.ndarray:
    """Return asset and time index of labelled rows, `[..., 2]`."""
    asset = np.searchsorted(rows.first, numbers, side="right") - 1
    # Assets without rows share their first number with the next one.
    return np.stack([asset, rows.time[asset, numbers - rows.first[asset]]], axis=-1)
