"""Returns of strategies that have no edge, on simulated markets: how often a test is wrong."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.reproduce.progress import Advance
from maml_jax.backtest.inference.alpha import SIZE, alpha_tests

MARKET = "market"
MARKETS = ("Gaussian", "Student t, 3 degrees", "GARCH with Student t, 5 degrees", "AR(1), 0.2")
STRATEGIES = (
    "coin, every bar",
    "coin, every 20 bars",
    "long on one bar of 20",
    "long, by volatility",
    "trend of 20 bars",
)
LENGTHS = (250, 1_000)
WORLDS, QUICK_WORLDS = 1_000, 20
SAMPLES = 499

_DEVIATION = 0.01
_BEFORE = 300
"""Bars before the first that count, in which volatility settles."""


class Size(NamedTuple):
    """How often the test rejects what is true.

    Attributes:
        rejected: worlds, by strategy.
        worlds: of so many.
    """

    rejected: dict[str, int]
    worlds: int


def count_rejections(market: str, length: int, worlds: int, seed: int, advance: Advance) -> Size:
    """Count how often strategies without alpha are called significant at 5 %.

    Args:
        market: one of `MARKETS`.
        length: bars of a world.
        worlds: how many.
        seed: decides them.
        advance: is called after every world.
    """
    rejected: dict[str, int] = {name: 0 for name in STRATEGIES}
    for world in range(worlds):
        rng = np.random.default_rng([seed, MARKETS.index(market), length, world])
        net = simulate_without_edge(market, length, rng)
        tests = alpha_tests(net, MARKET, seed=world, samples=SAMPLES)
        for name in STRATEGIES:
            rejected[name] += int(tests[name].p_value < SIZE)
        advance(1)
    return Size(rejected, worlds)


def simulate_without_edge(market: str, length: int, rng: np.random.Generator) -> pd.DataFrame:
    """Simulate a market without drift and strategies whose weights know nothing of the future.

    Args:
        market: one of `MARKETS`.
        length: bars.
        rng: where randomness comes from.

    Returns:
        Returns per bar of the market and of every strategy, `[time, strategy]`.
    """
    full = _market(market, length + _BEFORE, rng)
    recent = pd.Series(full)
    trend = np.sign(recent.rolling(20).sum().shift(1).fillna(0.0).to_numpy())
    volatility = recent.rolling(20).std().shift(1).to_numpy()
    weights = {
        STRATEGIES[0]: rng.choice([-1.0, 1.0], len(full)),
        STRATEGIES[1]: _slow(len(full), rng),
        STRATEGIES[2]: (rng.random(len(full)) < 0.05).astype(float),
        STRATEGIES[3]: np.clip(_DEVIATION / volatility, 0.0, 2.0),
        STRATEGIES[4]: trend,
    }
    net = {name: (weight * full)[_BEFORE:] for name, weight in weights.items()}
    return pd.DataFrame({**net, MARKET: full[_BEFORE:]})


def _slow(length: int, rng: np.random.Generator) -> np.ndarray:
    begins = rng.random(length) < 1 / 20
    sides = rng.choice([-1.0, 1.0], length)
    return sides[np.maximum.accumulate(np.where(begins, np.arange(length), 0))]


def _market(name: str, length: int, rng: np.random.Generator) -> np.ndarray:
    match MARKETS.index(name):
        case 0:
            return _DEVIATION * rng.normal(size=length)
        case 1:
            return _DEVIATION * rng.standard_t(3, length) / np.sqrt(3)
        case 2:
            return _garch(rng.standard_t(5, length) / np.sqrt(5 / 3))
        case _:
            noise, values = rng.normal(size=length), np.zeros(length)
            for bar in range(1, length):
                values[bar] = 0.2 * values[bar - 1] + noise[bar]
            return _DEVIATION * values * np.sqrt(1 - 0.2**2)


def _garch(noise: np.ndarray) -> np.ndarray:
    """Let shocks raise the variance by a tenth of them, which decays by 2 % a bar."""
    values, variance = np.zeros(len(noise)), _DEVIATION**2
    for bar, shock in enumerate(noise):
        values[bar] = np.sqrt(variance) * shock
        variance = 0.02 * _DEVIATION**2 + 0.1 * values[bar] ** 2 + 0.88 * variance
    return values
