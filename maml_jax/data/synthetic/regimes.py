"""Markets that change between regimes at times that nobody announces."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from maml_jax.data.synthetic.market import Market, Simulated


class Regime(NamedTuple):
    r"""How prices move while a regime lasts.

    $$r_t = \mu - \kappa\, d_{t-1} + \sigma\, \epsilon_t, \qquad d_t = d_{t-1} + r_t$$

    with d the log price over that at which the regime began.

    Attributes:
        drift: $\mu$, log return per bar.
        volatility: $\sigma$, standard deviation per bar.
        reversion: $\kappa$ in [0, 1], the share of d that the next bar takes back.
        bars: mean length of a stay, at least 1.
    """

    drift: float = 0.0
    volatility: float = 0.01
    reversion: float = 0.0
    bars: float = 60.0


REGIMES: Mapping[str, Regime] = MappingProxyType(
    {
        "bull": Regime(drift=0.0009, volatility=0.009, bars=150),
        "bear": Regime(drift=-0.0008, volatility=0.015, bars=50),
        "high_volatility": Regime(volatility=0.025, bars=30),
        "low_volatility": Regime(drift=0.0003, volatility=0.005, bars=80),
        "ranging": Regime(volatility=0.01, reversion=0.1, bars=60),
        "crash": Regime(drift=-0.015, volatility=0.035, bars=5),
    }
)
"""Regimes of daily bars, about as share indices have them."""


def regime_bars(
    count: int,
    *,
    regimes: Mapping[str, Regime] = REGIMES,
    transition: ArrayLike | None = None,
    shared: bool = False,
    **market,
) -> Simulated:
    """Simulate prices under a hidden Markov chain of regimes.

    The chain starts from its stationary distribution. Time is a loop over all assets at once, a
    few microseconds a bar.

    Args:
        count: bars of each asset.
        regimes: `{name: Regime}`.
        transition: probabilities `[from, to]` in the order of `regimes`. None makes stays as long
            as the regimes' `bars` say, and leaves to each other regime alike.
        shared: all assets change together; otherwise each has a chain of its own.
        **market: the other settings of a `Market`.

    Returns:
        Bars, and as truth the name of the regime in force during each bar, as categories.

    Raises:
        ValueError: if a setting or the matrix is impossible.

    >>> regime_bars(500, seed=3).truth["A0"].cat.categories.tolist()[:2]
    ['bull', 'bear']
    """
    setting = Market(count, **market)
    _validate(regimes)
    matrix = _by_length(regimes) if transition is None else np.asarray(transition, float)
    stationary = stationary_distribution(matrix)
    if len(matrix) != len(regimes):
        raise ValueError(
            f"transition is of {len(matrix)} regimes, but there are {len(regimes)}: {list(regimes)}"
        )
    assets = len(setting.names)
    chains = [_chain(setting, matrix, stationary, i) for i in range(1 if shared else assets)]
    codes = np.broadcast_to(np.stack(chains), (assets, count))
    mu, sigma, kappa, _ = np.array(list(regimes.values()), float).T
    noise, _ = setting.noise()
    returns = mu[codes] + sigma[codes] * noise
    if kappa.any():
        returns = _pulled_back(returns, kappa[codes], codes)
    typical = np.full((assets, 1), (stationary @ sigma**2) ** 0.5)
    names = pd.CategoricalDtype(list(regimes))
    columns = {
        name: pd.Categorical.from_codes(row, dtype=names)
        for name, row in zip(setting.names, codes, strict=True)
    }
    truth = pd.DataFrame(columns, index=setting.times)
    return Simulated(setting.bars(returns, sigma[codes], typical), truth)


def stationary_distribution(transition: ArrayLike) -> np.ndarray:
    """Return the share of time that a Markov chain spends in each state in the long run.

    Where that depends on the first state, each is taken to be as likely.

    Args:
        transition: probabilities `[from, to]`; rows sum to 1.

    Returns:
        Probabilities `[state]`.

    Raises:
        ValueError: if the matrix is impossible.

    >>> stationary_distribution([[0.9, 0.1], [0.3, 0.7]]).round(3).tolist()
    [0.75, 0.25]
    """
    matrix = np.asarray(transition, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"transition must be a square matrix, got shape {matrix.shape}")
    if not (matrix >= 0).all():
        raise ValueError("transition must hold probabilities, none negative or missing")
    totals = matrix.sum(axis=1)
    if not np.allclose(totals, 1, rtol=0, atol=1e-6):
        row = int(np.argmax(np.abs(totals - 1)))
        raise ValueError(
            f"each row of transition must sum to 1, but row {row} sums to {totals[row]}"
        )
    # Half a step at a time has the same stationary distribution, and never runs in circles.
    power = (matrix / totals[:, None] + np.eye(len(matrix))) / 2
    for _ in range(50):
        power = power @ power
        power /= power.sum(axis=1, keepdims=True)
    return power.mean(axis=0)


def _validate(regimes: Mapping[str, Regime]) -> None:
    if not regimes:
        raise ValueError("regimes must hold at least one")
    for name, regime in regimes.items():
        for field, least, most in (
            ("drift", -np.inf, np.inf),
            ("volatility", 0.0, np.inf),
            ("reversion", 0.0, 1.0),
            ("bars", 1.0, np.inf),
        ):
            value = getattr(regime, field)
            if not (np.isfinite(value) and least <= value <= most):
                raise ValueError(
                    f"{field} of regime {name!r} must be finite and lie in [{least:g}, {most:g}], "
                    f"got {value}"
                )


def _by_length(regimes: Mapping[str, Regime]) -> np.ndarray:
    """The matrix of stays as long as wanted; a stay is geometric, of mean 1 / chance to leave."""
    count = len(regimes)
    if count == 1:
        return np.ones((1, 1))
    leave = 1 / np.array([regime.bars for regime in regimes.values()])
    others = np.broadcast_to((leave / (count - 1))[:, None], (count, count))
    return np.where(np.eye(count, dtype=bool), 1 - leave, others)


def _chain(setting: Market, matrix, stationary, asset: int) -> np.ndarray:
    """Draw one Markov chain, `[time]`."""
    uniforms = setting.generator("regime", asset).random(setting.count)
    bounds = np.cumsum(matrix / matrix.sum(axis=1, keepdims=True), axis=1)[:, :-1]
    # What would follow each state is known for all times at once; the loop only looks it up.
    following = [np.searchsorted(row, uniforms, side="right").tolist() for row in bounds]
    state = int(np.searchsorted(np.cumsum(stationary)[:-1], uniforms[0], side="right"))
    states = [state]
    for t in range(1, setting.count):
        state = following[state][t]
        states.append(state)
    return np.array(states)


def _pulled_back(returns: np.ndarray, kappa: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Add the pull towards the price at which each regime began, `[asset, time]`."""
    stays = np.ones(codes.shape)
    stays[:, 1:] = codes[:, 1:] == codes[:, :-1]
    # One row per time lies together in memory.
    pulled, pull = np.ascontiguousarray(returns.T), np.ascontiguousarray(kappa.T)
    away = np.zeros(len(codes))
    for row, strength, stay in zip(pulled, pull, np.ascontiguousarray(stays.T), strict=True):
        away *= stay
        row -= strength * away
        away += row
    return pulled.T
