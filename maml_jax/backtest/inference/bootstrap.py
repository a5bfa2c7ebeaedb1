"""The stationary bootstrap: how far figures of a series of returns may lie from what is true."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from maml_jax.backtest.inference.bootstrap_metrics import SampleFigures
from maml_jax.parallel.machine import cores, one_blas_thread

SAMPLES = 1_000
LEVEL = 0.95

_CHUNK = 400_000
"""Bars drawn together: they and what is computed of them stay in the caches of a core."""


@one_blas_thread()
def block_length(returns: Float[np.ndarray, "bar strategy"]) -> float:
    r"""Return the mean length of blocks that keeps what is dependent in the returns together.

    The mean over strategies of the automatic choice of Politis and White, but at least $n^{1/3}$,
    since volatility clusters where returns are uncorrelated, and at most $n / 3$.

    Args:
        returns: per bar; a column that is constant or not finite has no say.

    Reference:
        Politis, White (2004), Automatic Block-Length Selection for the Dependent Bootstrap, and the
        correction by Patton, Politis, White (2009).
    """
    length = len(returns)
    least = max(length ** (1 / 3), 1.0)
    if length < 20:
        return least
    returns = returns[:, np.isfinite(returns).all(axis=0)]
    returns = returns[:, np.ptp(returns, axis=0) > 0]
    if not returns.size:
        return least
    from arch.bootstrap import optimal_block_length

    scaled = returns / returns.std(axis=0)
    with np.errstate(all="ignore"):
        # Column by column, which lie in one piece: the search reads them many hundred times.
        columns = (np.ascontiguousarray(column) for column in scaled.T)
        found = [float(optimal_block_length(column)["stationary"].iloc[0]) for column in columns]
    found = np.array(found)[np.isfinite(found)]
    return float(min(max(least, found.mean() if len(found) else 1.0), max(length / 3, 1.0)))


def draws(
    length: int, samples: int, block: float, rng: np.random.Generator
) -> Iterator[Int[np.ndarray, "some bar"]]:
    r"""Draw the bars of samples, some samples at a time.

    A sample strings blocks together that begin anywhere, with $1/\text{block}$ the probability that
    a block ends at a bar; after the last bar comes the first.

    Args:
        length: bars of the series, and of a sample.
        samples: how many.
        block: mean length of a block, >= 1.
        rng: where randomness comes from.

    Reference:
        Politis, Romano (1994), The Stationary Bootstrap, JASA 89, section 2.
    """
    together = max(1, _CHUNK // length)
    bar = np.arange(length)
    for first in range(0, samples, together):
        shape = (min(together, samples - first), length)
        begins = rng.random(shape) < 1 / block
        begins[:, 0] = True
        latest = np.maximum.accumulate(np.where(begins, bar, 0), axis=1)
        starts = rng.integers(length, size=shape)
        yield (np.take_along_axis(starts, latest, axis=1) + bar - latest) % length


class Resampled(NamedTuple):
    """Figures of all strategies, and of samples of their bars.

    Attributes:
        strategies: names of the columns.
        value: by figure, `[strategy]`.
        drawn: by figure, `[sample, strategy]`.
        block: mean length of the blocks that samples are made of, in bars.
        bars_per_year: by which figures are annualised.
    """

    strategies: list
    value: dict[str, Float[np.ndarray, " strategy"]]
    drawn: dict[str, Float[np.ndarray, "sample strategy"]]
    block: float
    bars_per_year: float


@one_blas_thread()
def resample(
    net: pd.DataFrame, bars_per_year: float, *, seed: int, samples: int = SAMPLES
) -> Resampled | None:
    """Draw samples of the bars of all strategies together, and compute the figures of each.

    Some samples are drawn and measured at a time, on as many threads as there are cores; memory
    does not grow with their number, nor do results depend on it.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        bars_per_year: for everything annualised.
        seed: decides the samples.
        samples: how many.

    Returns:
        None where there is no bar or no strategy.

    Raises:
        ValueError: if there is no sample to draw.
    """
    if samples < 1:
        raise ValueError(f"a bootstrap needs at least one sample, got {samples}")
    values = net.to_numpy(float)
    if not values.size:
        return None
    rng = np.random.default_rng(seed)
    values = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    block, measure = block_length(values), SampleFigures(values, bars_per_year)
    # The series itself comes first, as if it were a sample.
    whole = iter([np.arange(len(values))[None]])
    parts = list(_on_threads(measure, chain(whole, draws(len(values), samples, block, rng))))
    runs = [part[1] for part in parts]
    deepest = list(_on_threads(partial(measure.deepest, runs=runs), range(values.shape[1])))
    found = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    found = measure.with_drawdowns(found, deepest)
    drawn = {name: each[1:] for name, each in found.items()}
    value = {name: each[0] for name, each in found.items()}
    return Resampled(list(net.columns), value, drawn, block, bars_per_year)


def _on_threads(function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterator[Any]:
    """Map in order, with no more arguments made than threads can take."""
    workers = cores()
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future] = deque()
        for each in arguments:
            waiting.append(pool.submit(function, each))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def bootstrap_intervals(
    net: pd.DataFrame,
    bars_per_year: float,
    *,
    seed: int,
    samples: int = SAMPLES,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Return intervals of every strategy's figures, by one bootstrap of all together.

    The interval lies between quantiles of the figure in samples as long as the series. It says how
    far chance alone moves a figure in as many bars; a largest drawdown of a sample is one of bars
    in another order.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        bars_per_year: for everything annualised.
        seed: decides the samples.
        samples: how many.
        level: of the intervals.

    Returns:
        One row per strategy and figure: `strategy`, `figure` (named as by `summarise`), `value`,
        `low`, `high`; NaN where the data do not determine them.

    Raises:
        ValueError: if there is no sample to draw, or the level is none.
    """
    return compute_intervals(resample(net, bars_per_year, seed=seed, samples=samples), level=level)


def compute_intervals(found: Resampled | None, *, level: float = LEVEL) -> pd.DataFrame:
    """Return the intervals of `bootstrap_intervals` from samples that are drawn already."""
    columns = ["strategy", "figure", "value", "low", "high"]
    if found is None:
        return pd.DataFrame({name: [] for name in columns})
    bounds = {name: quantiles(drawn, level) for name, drawn in found.drawn.items()}
    rows = [
        (strategy, name, found.value[name][column], low[column], high[column])
        for column, strategy in enumerate(found.strategies)
        for name, (low, high) in bounds.items()
    ]
    return pd.DataFrame(rows, columns=columns)


def bootstrap_differences(
    net: pd.DataFrame,
    of: str,
    others: Sequence[str],
    bars_per_year: float,
    *,
    seed: int,
    samples: int = SAMPLES,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Return intervals of one strategy's figures minus those of others.

    Both strategies of a sample hold the same bars, so that what moves both does not count.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        of: the strategy.
        others: those it is compared with; itself is left out.
        bars_per_year: for everything annualised.
        seed: decides the samples.
        samples: how many.
        level: of the intervals.

    Returns:
        One row per other strategy and figure ("Sharpe Ratio", "Mean Return (Ann.) [%]",
        "Max. Drawdown [%]"): `other`, `figure`, `value` (of the strategy minus that of the other),
        `low`, `high`; NaN where the data do not determine them.

    Raises:
        KeyError: if a strategy is not in the table.
        ValueError: if there is no sample to draw, or the level is none.
    """
    chosen = net[[of, *(name for name in dict.fromkeys(others) if name != of)]]
    found = None
    if chosen.shape[1] > 1:
        found = resample(chosen, bars_per_year, seed=seed, samples=samples)
    return compute_differences(found, of, level=level)


def compute_differences(found: Resampled | None, of: str, *, level: float = LEVEL) -> pd.DataFrame:
    """Return the intervals of `bootstrap_differences` from samples that are drawn already."""
    columns = ["other", "figure", "value", "low", "high"]
    if found is None:
        return pd.DataFrame({name: [] for name in columns})
    own, rows = found.strategies.index(of), []
    for column, other in enumerate(found.strategies):
        if column == own:
            continue
        for name in ("Sharpe Ratio", "Mean Return (Ann.) [%]", "Max. Drawdown [%]"):
            value, drawn = found.value[name], found.drawn[name]
            low, high = quantiles((drawn[:, own] - drawn[:, column])[:, None], level)
            rows.append((other, name, value[own] - value[column], low[0], high[0]))
    return pd.DataFrame(rows, columns=columns)


def quantiles(
    drawn: Float[np.ndarray, "sample strategy"], level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds between which a share `level` of each column lies.

    Samples of which a figure is not determined are left out; where they are a tenth or more, the
    bounds are NaN.

    Raises:
        ValueError: if the level does not lie between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must lie between 0 and 1, got {level}")
    tails = [50 * (1 - level), 50 * (1 + level)]
    bounds = np.full((2, drawn.shape[1]), np.nan)
    for column, values in enumerate(drawn.T):
        known = values[~np.isnan(values)]
        if len(known) > 0.9 * len(values):
            # An infinite figure is beyond every bound; between it and another lies nothing.
            bounds[:, column] = np.percentile(known, tails, method="nearest")
    return bounds[0], bounds[1]
