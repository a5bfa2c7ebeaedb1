"""Bars of random walks with a visible signal that predicts a given part of returns, or nothing."""

import numpy as np
import pandas as pd

from maml_jax.features import register_feature

SIGNAL = "visible_signal"
ASSETS = ("WALK1", "WALK2", "WALK3", "WALK4")
BARS = 700
DELAY = 2
"""Bars from a decision at a close to the close at which its first return is complete, with orders
that are filled at the next close."""

_DEVIATION = 0.01


def simulate_walks(ic: float, seed: int, bars: int = BARS) -> dict[str, pd.DataFrame]:
    r"""Simulate assets whose returns are independent normal numbers without drift.

    $$r_{t+2} = \sigma\,(\rho\, s_t + \sqrt{1 - \rho^2}\,\varepsilon_{t+2}), \qquad
      s_t, \varepsilon_t \sim N(0, 1)$$

    is the return that a decision at the close of bar t earns first; $\rho$ is its correlation with
    the signal that is visible then, the logarithm of the volume. Prices are martingales where it
    is 0: no rule for positions earns anything in the mean.

    Args:
        ic: $\rho$.
        seed: decides the world.
        bars: per asset.

    Returns:
        Daily bars by asset.
    """
    index = pd.bdate_range("2015-01-01", periods=bars, tz="UTC", name="timestamp")
    rng = np.random.default_rng(seed)
    world = {}
    for asset in ASSETS:
        signal, noise = rng.normal(size=(2, bars))
        known = np.concatenate([np.zeros(DELAY), signal[:-DELAY]])
        returns = _DEVIATION * (ic * known + np.sqrt(1 - ic**2) * noise)
        close = 100 * np.cumprod(1 + returns)
        world[asset] = pd.DataFrame({"close": close, "volume": np.exp(signal)}, index=index)
    return world


def traded_returns(world: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what a decision at each bar earns first, `[time, asset]`."""
    return pd.DataFrame({a: b["close"].pct_change().shift(-DELAY) for a, b in world.items()})


def follow_the_signal(world: dict[str, pd.DataFrame], index: pd.Index) -> pd.Series:
    """Return what an account earns per bar that takes the side of every signal, at no cost.

    Args:
        world: as `simulate_walks` returns it.
        index: the bars that count.
    """
    sides = pd.DataFrame({asset: np.sign(np.log(bars["volume"])) for asset, bars in world.items()})
    earned = (sides * traded_returns(world)).shift(DELAY).mean(axis="columns")
    return earned.reindex(index).fillna(0.0)


def _logarithm(bars: pd.DataFrame) -> pd.Series:
    return pd.Series(np.log(bars["volume"]), index=bars.index)


register_feature(SIGNAL, _logarithm, warm_up=0, columns=("volume",))
