"""A figure over seeds, with its interval, and whether a claim about it holds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.reproduce.table import format_interval

YES, NO, OPEN = "yes", "no", "not shown"


class Estimate(NamedTuple):
    """A mean over seeds, and half the width of its 95 % interval; NaN where there is none."""

    mean: float
    half: float

    def holds(self, bound: float = 0.0, above: bool = True) -> str:
        """Say whether the whole interval lies above (or below) a bound."""
        if not math.isfinite(self.mean) or not math.isfinite(self.half):
            return OPEN
        low, high = self.mean - self.half - bound, self.mean + self.half - bound
        low, high = (low, high) if above else (-high, -low)
        return YES if low > 0 else NO if high < 0 else OPEN

    def text(self, digits: int = 2, times: float = 1.0) -> str:
        """Write it, in a unit of which `times` make one."""
        return format_interval(self.mean * times, self.half * times, digits)


def average(values: Sequence[float]) -> Estimate:
    """Average over seeds, with Student's interval; NaN where there are none."""
    known = np.asarray(values, float)
    if len(known) < 2:
        return Estimate(float(known[0]) if len(known) else math.nan, math.nan)
    factor = float(stats.t.ppf(0.975, len(known) - 1))
    return Estimate(float(known.mean()), factor * float(known.std(ddof=1)) / len(known) ** 0.5)


def estimate(values: Sequence[float], deviations: Sequence[float] = ()) -> Estimate:
    """Estimate a mean over seeds, and over histories like the one that they share.

    Args:
        values: one per seed.
        deviations: of each value over histories like the one that all seeds share; these errors are
            common to the seeds and do not average out.
    """
    known = np.asarray(values, float)
    count = len(known)
    if not count or not np.isfinite(known).all():
        return Estimate(math.nan, math.nan)
    square = 0.0 if count > 1 or deviations else math.nan
    if count > 1:
        square += (float(stats.t.ppf(0.975, count - 1)) * known.std(ddof=1)) ** 2 / count
    if deviations:
        square += (1.96 * float(np.mean(deviations))) ** 2
    return Estimate(float(known.mean()), square**0.5)
