"""Figures of many samples of the same bars at once, each equal to the metric of that name."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maml_jax.backtest.metrics import growth


def figures(
    returns: Float[np.ndarray, "bar strategy"],
    bars: Int[np.ndarray, "sample drawn"],
    bars_per_year: float,
) -> dict[str, Float[np.ndarray, "sample strategy"]]:
    """Compute figures of samples, from how often each holds each bar where order does not matter.

    Args:
        returns: net simple returns per bar; a column with NaN has no figures.
        bars: which bars each sample holds, in order.
        bars_per_year: for everything annualised.

    Returns:
        By name as in `summarise`, and "Mean Return (Ann.) [%]": the mean return times bars per
        year.
    """
    measure = SampleFigures(returns, bars_per_year)
    found, runs = measure(bars)
    return measure.with_drawdowns(
        found, [measure.deepest(n, [runs]) for n in range(returns.shape[1])]
    )


_RUIN = -1e6
"""Stands for the logarithm of 0; a sum of logarithms below half of it holds one of them."""


class SampleFigures:
    """Computes `figures` of many sets of samples of the same returns.

    Drawdowns depend on the order of bars and come last, strategy by strategy: what they are looked
    up in takes ten times the memory of the returns.
    """

    def __init__(self, returns: Float[np.ndarray, "bar strategy"], bars_per_year: float):
        self.year, self.returns = bars_per_year, returns
        with np.errstate(all="ignore"):
            self.level = returns.mean(axis=0)
            centred = returns - self.level
            self.logs = np.maximum(np.log(growth(returns)), _RUIN)
            parts = (centred, centred**2, np.minimum(returns, 0) ** 2, np.maximum(returns, 0),
                     -np.minimum(returns, 0), returns > 0, self.logs)  # fmt: skip
            # Of all that only counts of bars are needed for: one product for each set of samples.
            self.summed = np.concatenate(parts, axis=1)
        self.orders = np.argsort(returns, axis=0).T

    def __call__(
        self, bars: Int[np.ndarray, "sample drawn"]
    ) -> tuple[dict[str, Float[np.ndarray, "sample strategy"]], "Runs"]:
        """Compute figures of samples but those of drawdowns, and the runs of bars they hold."""
        drawn, year = bars.shape[1], self.year
        counts = np.stack([np.bincount(row, minlength=len(self.returns)) for row in bars])
        counts = counts.astype(float)
        with np.errstate(all="ignore"):
            sums = np.split(counts @ self.summed, 7, axis=1)
            mean, square = sums[0] / drawn, sums[1] / drawn
            variance = np.maximum(square - mean**2, 0.0) * drawn / max(drawn - 1, 1)
            # A difference of rounding errors is not a variance, nor is that of a single bar.
            least = 1e-12 * square + 1e-28 * self.level**2
            spread = np.where(variance > least, np.sqrt(variance), 0.0)
            downside, gains, losses = np.sqrt(sums[2] / drawn), sums[3], sums[4]
            if drawn < 2:
                spread, downside, gains = (np.full_like(mean, np.nan) for _ in range(3))
            mean = mean + self.level
            total = np.where(sums[6] < _RUIN / 2, -np.inf, sums[6])
            worst = [
                _worst(self.returns[:, column], counts, order)
                for column, order in enumerate(self.orders)
            ]
            found = {
                "Return [%]": 100 * np.expm1(total),
                "CAGR [%]": 100 * np.expm1(total * year / drawn),
                "Mean Return (Ann.) [%]": 100 * mean * year,
                "Volatility (Ann.) [%]": 100 * spread * np.sqrt(year),
                "Sharpe Ratio": _ratio(mean, spread) * np.sqrt(year),
                "Sortino Ratio": _ratio(mean, downside) * np.sqrt(year),
                "Calmar Ratio": np.full_like(mean, np.nan),
                "Omega Ratio": _ratio(gains, losses),
                "Max. Drawdown [%]": np.full_like(mean, np.nan),
                "VaR 5 % [%]": 100 * np.stack([each[0] for each in worst], axis=1),
                "CVaR 5 % [%]": 100 * np.stack([each[1] for each in worst], axis=1),
                "Win Rate (Bars) [%]": 100 * sums[5] / drawn,
            }
        unknown = np.isnan(self.returns).any(axis=0)
        found = {name: np.where(unknown, np.nan, values) for name, values in found.items()}
        return found, find_runs(bars)

    def deepest(self, strategy: int, runs: Sequence["Runs"]) -> Float[np.ndarray, " sample"]:
        """Return the deepest drawdown of a strategy in each sample, as a share, 0 or below."""
        longest = max(int(each.lengths.max(initial=1)) for each in runs)
        path = _Path(self.logs[:, strategy], longest)
        return np.concatenate([path.deepest(each) for each in runs])

    def with_drawdowns(
        self,
        found: dict[str, Float[np.ndarray, "sample strategy"]],
        deepest: Sequence[Float[np.ndarray, " sample"]],
    ) -> dict[str, Float[np.ndarray, "sample strategy"]]:
        """Complete what a call returned by the deepest drawdown of each strategy."""
        below = np.stack(deepest, axis=1)
        with np.errstate(all="ignore"):
            calmar = _ratio(found["CAGR [%]"] / 100, -below)
        calmar = np.where(np.isnan(below), np.nan, calmar)
        return found | {"Calmar Ratio": calmar, "Max. Drawdown [%]": 100 * below}


class Runs(NamedTuple):
    """Samples as runs of bars that follow each other, `[sample, run]`.

    Attributes:
        firsts: first bar of each run.
        lengths: its bars; runs without a bar fill rows up.
    """

    firsts: Int[np.ndarray, "sample run"]
    lengths: Int[np.ndarray, "sample run"]


def find_runs(bars: Int[np.ndarray, "sample drawn"]) -> Runs:
    """Find the runs of samples."""
    begins = np.ones(bars.shape, bool)
    begins[:, 1:] = np.diff(bars, axis=1) != 1
    rows, starts = np.nonzero(begins)
    ends = np.append(starts[1:], 0)
    ends[ends == 0] = bars.shape[1]
    numbers = begins.sum(axis=1)
    shape = (len(bars), numbers.max(initial=1))
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    firsts, lengths = np.zeros((2, *shape), np.int32)
    firsts[rows, columns] = bars[rows, starts]
    lengths[rows, columns] = ends - starts
    return Runs(firsts, lengths)


class _Path:
    """Sums of logarithms from the first bar on, with what runs of them are looked up in.

    For each power of two, the highest and lowest sum and the deepest fall among so many sums from
    each one on. Two such stretches, which may overlap, make up any run.
    """

    def __init__(self, logs: Float[np.ndarray, " bar"], longest: int):
        sums = np.concatenate([[0.0], np.cumsum(logs)])
        self.sums, self.size = sums, len(sums)
        self.rounding = 1e-12 * (1 + np.abs(sums).max())
        levels = (longest + 1).bit_length()
        high, low, fall = np.empty((3, levels, self.size))
        high[0] = low[0] = sums
        fall[0] = 0.0
        for level in range(1, levels):
            here, half = slice(0, max(self.size - (1 << level) + 1, 0)), 1 << (level - 1)
            there = slice(half, half + here.stop)
            np.maximum(high[level - 1, here], high[level - 1, there], out=high[level, here])
            np.minimum(low[level - 1, here], low[level - 1, there], out=low[level, here])
            across = low[level - 1, there] - high[level - 1, here]
            inside = np.minimum(fall[level - 1, here], fall[level - 1, there])
            np.minimum(across, inside, out=fall[level, here])
        self.high, self.low, self.fall = high.ravel(), low.ravel(), fall.ravel()

    def deepest(self, runs: Runs) -> Float[np.ndarray, " sample"]:
        """Return the deepest drawdown of each sample."""
        first, number = runs.firsts.astype(np.int64), runs.lengths + 1  # sums of a run
        level = _log2(number)
        one = level * self.size + first
        two = one + number - (1 << level)
        highest = np.maximum(self.high[one], self.high[two])
        lowest = np.minimum(self.low[one], self.low[two])
        inside = np.minimum(self.fall[one], self.fall[two])
        # From the sums before the second stretch down into it.
        before = number - (1 << level)
        level = _log2(np.maximum(before, 1))
        first_of = level * self.size + first
        above = np.maximum(self.high[first_of], self.high[first_of + before - (1 << level)])
        inside = np.where(before > 0, np.minimum(inside, self.low[two] - above), inside)
        # What came before a run, and the highest that any path to it reached; all begin at 0.
        begin = self.sums[first]
        grown = np.cumsum(self.sums[first + runs.lengths] - begin, axis=1)
        base = np.concatenate([np.zeros((len(grown), 1)), grown[:, :-1]], axis=1) - begin
        peak = np.maximum(np.maximum.accumulate(base + highest, axis=1), 0.0)
        peak = np.concatenate([np.zeros((len(grown), 1)), peak[:, :-1]], axis=1)
        deepest = np.minimum(inside, base + lowest - peak).min(axis=1)
        # A difference of rounding errors is not a drawdown.
        return np.where(deepest > -self.rounding, 0.0, np.expm1(deepest))


def _log2(numbers):
    """Return the powers of the largest powers of two that are not above whole numbers >= 1."""
    return np.frexp(numbers.astype(float))[1].astype(np.int64) - 1


def _worst(returns, counts, order, share: float = 0.05):
    """Return value at risk and its mean beyond, where a sample holds bars so often as counted."""
    drawn = counts[0].sum()
    rank = (drawn - 1) * share
    below = np.floor(rank)
    # The worst bars lie far in front, but in samples that hardly hold any of them.
    for times in (1.2, 3, 1 / share):
        front = min(int(times * share * len(order)) + 20, len(order))
        ordered, upto = returns[order[:front]], np.cumsum(counts[:, order[:front]], axis=1)
        if (upto[:, -1] > below + 1).all():
            break
    lower = ordered[(upto <= below).sum(axis=1)]
    upper = ordered[(upto <= min(below + 1, drawn - 1)).sum(axis=1)]
    taken = np.diff(np.minimum(upto, below + 1), axis=1, prepend=0.0)
    return lower + (upper - lower) * (rank - below), (taken @ ordered) / (below + 1)


def _ratio(above, below):
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
