"""What the check for looking ahead found, as a table that a person can act on."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

KINDS = (
    "bars",
    "feature",
    "side",
    "regime",
    "chain",
    "scaler",
    "scaled feature",
    "target",
    "row",
    "task",
    "fold",
    "prediction",
    "position",
    "order",
    "account",
    "record",
)
"""Where something was found, in the order of the pipeline: what comes first is nearer the cause."""

COLUMNS = ("what", "name", "asset", "assets", "bar", "cut", "size", "unit", "how")


class Finding(NamedTuple):
    """One difference that should not be there.

    Attributes:
        what: one of `KINDS`.
        name: of the feature, the strategy, or the part of a task.
        asset: where it was seen first.
        bar: the first bar at which it differs.
        cut: the last bar that should matter; None where nothing was cut.
        size: of the difference.
        unit: of the size; "deviations" are standard deviations of the quantity itself.
        how: how it was found.
    """

    what: str
    name: str
    asset: str
    bar: pd.Timestamp | None
    cut: pd.Timestamp | None
    size: float
    unit: str
    how: str


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Join findings of one quantity: the earliest bar, the greatest size, all ways of finding it.

    Args:
        findings: in any order.

    Returns:
        A row for each `what` and `name`, in the order of `KINDS`, with the columns `COLUMNS`;
        `assets` counts those in which it was seen. A scaled feature is listed where the
        feature itself is not.
    """
    rows: dict[tuple[str, str], list[Finding]] = {}
    for each in findings:
        rows.setdefault((each.what, each.name), []).append(each)
    for _, name in [key for key in rows if key[0] == "feature"]:
        rows.pop(("scaled feature", name), None)
    joined = [_join(same) for same in rows.values()]
    joined.sort(key=lambda row: KINDS.index(row[0]))
    return pd.DataFrame(joined, columns=list(COLUMNS))


def _join(same: list[Finding]) -> tuple:
    # What changes with later bars comes before what depends on earlier ones.
    dated = [(each.cut is None, each.bar, n) for n, each in enumerate(same) if each.bar is not None]
    first = same[min(dated)[-1] if dated else 0]
    hows = list(dict.fromkeys(each.how for each in same))
    # Sizes of one unit are comparable; that of the first way stands for the row.
    sizes = [each.size for each in same if each.unit == first.unit and not np.isnan(each.size)]
    sizes = [size for size in sizes if np.isfinite(size)] or sizes
    return (
        first.what,
        first.name,
        first.asset,
        len({each.asset for each in same} - {""}),
        first.bar,
        first.cut,
        max(sizes, default=np.nan),
        first.unit,
        "; ".join(hows),
    )


def find_differences(
    found: np.ndarray, expected: np.ndarray, *, absolute: float, relative: float
) -> np.ndarray:
    """Say where two arrays differ by more than rounding; NaN is equal to NaN.

    Args:
        found: numbers.
        expected: numbers of the same shape.
        absolute: difference that counts as rounding whatever the values.
        relative: the same as a share of the expected value.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(found - expected) <= absolute + relative * np.abs(expected)
    return ~(near | (found == expected) | (np.isnan(found) & np.isnan(expected)))


def largest_difference(found: np.ndarray, expected: np.ndarray, unit: float) -> float:
    """Return the greatest difference in units; infinite where there is never a value in both."""
    known = np.isfinite(found) & np.isfinite(expected)
    if len(known) and not known.any() and not (np.isnan(found) & np.isnan(expected)).all():
        return np.inf
    with np.errstate(over="ignore"):
        differences = np.abs(found[known] - expected[known])
    return float(differences.max(initial=0.0)) / (unit if unit > 0 else 1.0)


def deviation(values: np.ndarray) -> float:
    """Return the standard deviation of the finite values; their usual size where they are equal.

    Tails are cut: one value out of all measure says nothing of the others.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return 1.0
    low, high = np.quantile(known, [0.001, 0.999])
    spread = float(np.clip(known, low, high).std())
    usual = float(np.abs(known).mean())
    return spread if spread > 1e-12 * usual else (usual or 1.0)
