"""Figures of many samples of the same bars at once, each equal to the metric of that name."""

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
    return FiguresOf(returns, bars_per_year)(bars)


class FiguresOf:
    """Computes `figures` of many sets of samples of the same returns."""

    def __init__(self, returns: Float[np.ndarray, "bar strategy"], bars_per_year: float):
        self.year, self.returns = bars_per_year, returns
        with np.errstate(all="ignore"):
            self.level = returns.mean(axis=0)
            centred = returns - self.level
            parts = (centred, centred**2, np.minimum(returns, 0) ** 2, np.maximum(returns, 0),
                     -np.minimum(returns, 0), returns > 0)  # fmt: skip
            # Of all that only counts of bars are needed for: one product for each set of samples.
            self.summed = np.concatenate(parts, axis=1)
            self.logs = np.ascontiguousarray(np.log(growth(returns)).T)
        self.orders = np.argsort(returns, axis=0).T

    def __call__(
        self, bars: Int[np.ndarray, "sample drawn"]
    ) -> dict[str, Float[np.ndarray, "sample strategy"]]:
        """Compute figures of samples."""
        drawn, year = bars.shape[1], self.year
        counts = np.stack([np.bincount(row, minlength=len(self.returns)) for row in bars])
        counts = counts.astype(float)
        with np.errstate(all="ignore"):
            sums = np.split(counts @ self.summed, 6, axis=1)
            mean, square = sums[0] / drawn, sums[1] / drawn
            variance = np.maximum(square - mean**2, 0.0) * drawn / max(drawn - 1, 1)
            # A difference of rounding errors is no variance, nor is that of a single bar.
            least = 1e-12 * square + 1e-28 * self.level**2
            spread = np.where(variance > least, np.sqrt(variance), 0.0)
            downside, gains, losses = np.sqrt(sums[2] / drawn), sums[3], sums[4]
            if drawn < 2:
                spread, downside, gains = (np.full_like(mean, np.nan) for _ in range(3))
            mean = mean + self.level
            total, deepest = _paths(self.logs, bars)
            grown = np.expm1(total * year / drawn)
            worst = [
                _worst(self.returns[:, place], counts, order)
                for place, order in enumerate(self.orders)
            ]
            found = {
                "Return [%]": 100 * np.expm1(total),
                "CAGR [%]": 100 * grown,
                "Mean Return (Ann.) [%]": 100 * mean * year,
                "Volatility (Ann.) [%]": 100 * spread * np.sqrt(year),
                "Sharpe Ratio": _ratio(mean, spread) * np.sqrt(year),
                "Sortino Ratio": _ratio(mean, downside) * np.sqrt(year),
                "Calmar Ratio": _ratio(grown, -deepest),
                "Omega Ratio": _ratio(gains, losses),
                "Max. Drawdown [%]": 100 * deepest,
                "VaR 5 % [%]": 100 * np.stack([each[0] for each in worst], axis=1),
                "CVaR 5 % [%]": 100 * np.stack([each[1] for each in worst], axis=1),
                "Win Rate (Bars) [%]": 100 * sums[5] / drawn,
            }
        unknown = np.isnan(self.returns).any(axis=0)
        return {name: np.where(unknown, np.nan, values) for name, values in found.items()}


def _paths(logs, bars):
    """Return the logarithm of all growth of each sample, and its deepest drawdown."""
    total = np.empty((len(bars), len(logs)))
    deepest = np.empty_like(total)
    for place, own in enumerate(logs):
        path = np.cumsum(np.take(own, bars), axis=1)
        total[:, place] = path[:, -1]
        highest = np.maximum(np.maximum.accumulate(path, axis=1), 0.0)
        deepest[:, place] = np.expm1(np.min(path - highest, axis=1))
    return total, np.minimum(deepest, 0.0)


def _worst(returns, counts, order, share: float = 0.05):
    """Return value at risk and its mean beyond, where a sample holds bars so often as counted."""
    drawn = counts[0].sum()
    place = (drawn - 1) * share
    below = np.floor(place)
    # The worst bars lie far in front, but in samples that hardly hold any of them.
    for front in (int(3 * share * len(order)) + 20, len(order)):
        ordered, upto = returns[order[:front]], np.cumsum(counts[:, order[:front]], axis=1)
        if (upto[:, -1] > below + 1).all():
            break
    lower = ordered[(upto <= below).sum(axis=1)]
    upper = ordered[(upto <= min(below + 1, drawn - 1)).sum(axis=1)]
    taken = np.diff(np.minimum(upto, below + 1), axis=1, prepend=0.0)
    return lower + (upper - lower) * (place - below), (taken @ ordered) / (below + 1)


def _ratio(above, below):
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)
