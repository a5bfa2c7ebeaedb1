"""How often the strategy that was best on some bars is no better than the median on others."""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.parallel.machine import one_blas_thread

BLOCKS = 16


class Overfitting(NamedTuple):
    r"""What choosing the best of several strategies is worth; see `overfitting_probability`.

    Attributes:
        probability: of overfitting, the share of splits in which the strategy that was chosen ends
            in the lower half of the others' bars.
        logits: $\lambda$ of every split, by which the probability is counted; empty where the data
            do not determine it.
        loss_probability: share of splits in which the chosen strategy's Sharpe ratio is negative on
            the bars that it was not chosen on.
        slope: of a line through the chosen strategies' Sharpe ratios, per bar: those on the other
            bars by those that they were chosen for. Negative where the best of the past become the
            worst.
    """

    probability: float
    logits: Float[np.ndarray, " split"]
    loss_probability: float
    slope: float


@one_blas_thread()
def overfitting_probability(net: pd.DataFrame, blocks: int = BLOCKS) -> Overfitting:
    r"""Estimate the probability of backtest overfitting, by splits that are combinatorial and even.

    The bars are cut into blocks of equal length. For every way to take half of them, the strategy
    whose Sharpe ratio is best there is chosen, and has the relative rank $\omega$ on the bars of
    the other half:

    $$\omega = \frac{\text{rank}}{N + 1}, \qquad \lambda = \log \frac{\omega}{1 - \omega}, \qquad
      \text{PBO} = P(\lambda \le 0)$$

    Choosing among strategies of which none is better than the others gives about one half.

    Args:
        net: net simple returns per bar, `[time, strategy]`, of all that were chosen from. Columns
            that do not move, or with entries that are not finite, cannot be chosen.
        blocks: into how many, an even number; 16 make 12,870 splits.

    Returns:
        NaN where there are fewer than two strategies, or fewer than two bars a block.

    Raises:
        ValueError: if `blocks` is odd, below 2 or above 20.

    Reference:
        Bailey, Borwein, Lopez de Prado, Zhu (2017), The Probability of Backtest Overfitting,
        Journal of Computational Finance 20, section 3.
    """
    if blocks % 2 or not 2 <= blocks <= 20:
        raise ValueError(f"blocks must be an even number from 2 to 20, got {blocks}")
    values = net.to_numpy(float)
    values = values[:, np.isfinite(values).all(axis=0)]
    values = values[:, np.ptp(values, axis=0) > 0] if len(values) else values
    bars, strategies = values.shape
    if strategies < 2 or bars < 2 * blocks:
        return Overfitting(np.nan, np.empty(0), np.nan, np.nan)
    edges = np.linspace(0, bars, blocks + 1).round().astype(int)[:-1]
    scaled = values / values.std(axis=0)
    sums = np.add.reduceat(scaled, edges, axis=0)
    squares = np.add.reduceat(scaled**2, edges, axis=0)
    sizes = np.diff(edges, append=bars).astype(float)
    chosen = np.array(list(itertools.combinations(range(blocks), blocks // 2)))
    inside = np.zeros((len(chosen), blocks))
    np.put_along_axis(inside, chosen, 1.0, axis=1)
    before = _sharpe(inside, sums, squares, sizes)
    after = _sharpe(1 - inside, sums, squares, sizes)
    best = before.argmax(axis=1)
    from scipy.stats import rankdata

    ranks = rankdata(after, axis=1)
    split = np.arange(len(chosen))
    omega = ranks[split, best] / (strategies + 1)
    logits = np.log(omega / (1 - omega))
    chosen_before, chosen_after = before[split, best], after[split, best]
    moves = np.ptp(chosen_before) > 0
    return Overfitting(
        float(np.mean(logits <= 0)),
        logits,
        float(np.mean(chosen_after < 0)),
        float(np.polyfit(chosen_before, chosen_after, 1)[0]) if moves else np.nan,
    )


def _sharpe(taken, sums, squares, sizes):
    """Return the Sharpe ratio per bar of every strategy on the blocks of every split."""
    number = (taken @ sizes)[:, None]
    mean, square = taken @ sums / number, taken @ squares / number
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    # What does not move on these blocks has earned nothing for its risk.
    return np.where(deviation > 1e-9, mean / np.maximum(deviation, 1e-9), 0.0)
