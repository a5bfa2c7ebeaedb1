"""Buying and holding at a target volatility: how near to it realised volatility is."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from arch.bootstrap import StationaryBootstrap
from jaxtyping import Float

from benchmarks.reproduce.table import Table
from benchmarks.reproduce.volatility_rows import VolatilityMarket
from maml_jax.backtest import held_weights
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.features import fill_returns, label_delay

LEVERAGE = 4.0
"""The most that is held of an asset, in units of its capital."""

TRAILING = "trailing"
DRAWS, BLOCKS = 1000, 4

NOTE = (
    "Each unseen asset is held with weight {target:.0%} a year over the volatility forecast for the"
    " next {horizon} bars (at most {leverage:g}), traded one bar after each decision. Deviation:"
    " mean distance of realised volatility per year, in blocks of {block} bars, from {target:.0%}."
    " Gain: deviation with trailing volatility minus this one, with the 95 % interval of the"
    " stationary bootstrap over blocks."
)


class Held(NamedTuple):
    """The outcome of holding at a target volatility.

    Attributes:
        realised: volatility per year in each block, `[seed, asset, block]`; NaN where an asset has
            no whole block.
        turnover: per asset and year, the mean of all.
    """

    realised: Float[np.ndarray, "seed asset block"]
    turnover: float


def hold_at_target(
    prepared: Prepared,
    market: VolatilityMarket,
    forecasts: Float[np.ndarray, "seed asset time"],
) -> Held:
    """Hold the unseen assets at the target over the test span.

    Args:
        prepared: the bars.
        market: the target, and the bars of a block.
        forecasts: logarithms of volatility per bar, at the bars of the test span.
    """
    config, assets = prepared.config, prepared.test_assets
    span = slice(prepared.test_first, prepared.test_last + 1)
    times = prepared.panel.timestamps[span]
    returns = fill_returns({a: prepared.bars[a] for a in assets}, config.target.fill)
    returns = returns.reindex(times)
    per_bar = market.target / prepared.bars_per_year**0.5
    delay = label_delay(config.target.fill, 1)
    realised, turnover = [], []
    for logs in forecasts:
        wanted = pd.DataFrame((per_bar / np.exp(logs)).clip(max=LEVERAGE).T, times, assets)
        held = held_weights(wanted, returns, delay)
        earned = (held * returns)[delay:].to_numpy().T
        count = earned.shape[1] // market.block
        blocks = earned[:, : count * market.block].reshape(len(assets), count, market.block)
        realised.append(np.sqrt((blocks**2).mean(axis=-1) * prepared.bars_per_year))
        turnover.append(held[delay:].diff().abs().mean().mean() * prepared.bars_per_year)
    return Held(np.stack(realised), float(np.mean(turnover)))


def make_target_table(
    found: dict[str, Held], names: dict[str, str], market: VolatilityMarket, headline: str
) -> tuple[dict[str, Any], Table]:
    """Compare how far realised volatility is from its target, as figures and as a table.

    Args:
        found: by key of the forecast; `trailing` among them.
        names: of the keys.
        market: the target.
        headline: key of the learner.
    """
    record, rows = {}, []
    distance = {
        key: np.abs(held.realised - market.target).mean(axis=0) for key, held in found.items()
    }
    for key, held in found.items():
        gain = np.nanmean(distance[TRAILING] - distance[key], axis=0)
        low, high = _interval(gain)
        record[key] = {
            "deviation": float(np.nanmean(distance[key])),
            "realised": float(np.nanmean(held.realised)),
            "turnover": held.turnover,
            "gain": {"value": float(gain.mean()), "low": low, "high": high},
        }
        rows.append(
            (
                names[key],
                f"{record[key]['deviation']:.2%}",
                f"{record[key]['realised']:.1%}",
                f"{held.turnover:.0f}",
                "" if key == TRAILING else f"{gain.mean():.2%} [{low:.2%}, {high:.2%}]",
            )
        )
    title = f"Buy and hold at a volatility of {market.target:.0%}, with the {names[headline]}"
    columns = ("forecast", "deviation", "mean volatility", "turnover a year", "gain")
    note = NOTE.format(
        target=market.target,
        horizon=market.horizon,
        block=market.block,
        leverage=LEVERAGE,
    )
    return record, Table(title, columns, rows, note)


def _interval(gain: Float[np.ndarray, " block"]) -> tuple[float, float]:
    bootstrap = StationaryBootstrap(BLOCKS, gain, seed=0)
    drawn = bootstrap.apply(lambda each: np.array([each.mean()]), DRAWS)[:, 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
