"""The tables of volatility: on which bars, of which learners, against what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from maml_jax.backtest.baselines.volatility import (
    HAR,
    align_to_panel,
    ewma_volatility,
    garch_volatility,
    pooled_regression,
    recent_regression,
)
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.features.volatility import log_volatility

WINDOWS = (20, 60, 250)
"""Rows of an unseen asset that learners adapt on, and regressions are fitted on."""

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Of ridge regressions; which, is decided on the meta-training assets, window by window."""

Forecasts = dict[str, Float[np.ndarray, "asset time"]]
"""By window, or one of `ALWAYS` where rows of the asset do not matter."""

ALWAYS = "all"


@dataclass(frozen=True)
class VolatilityMarket:
    """Bars, and how they are split.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        dates: keys of the settings' section `data`.
        horizon: bars whose volatility is predicted.
        features: names of features.
        har: those of the HAR model: a day, a week, a month.
        garch: `window` and `refit` of GARCH.
        trailing: bars of the trailing volatility that a volatility target is usually held by.
        target: volatility that is aimed at, per year.
        block: bars over which realised volatility is compared with it, and of a block of the
            bootstrap three times as many.
    """

    key: str
    name: str
    dates: Mapping[str, str]
    horizon: int
    features: Sequence[str]
    har: Sequence[str]
    garch: Mapping[str, int]
    trailing: int
    target: float
    block: int


MARKETS = {
    market.key: market
    for market in (
        VolatilityMarket(
            key="stocks",
            name="daily stocks, the next 5 days",
            dates={"train_end": "2009-12-31", "test_start": "2010-01-01", "test_end": "2022-12-31"},
            horizon=5,
            features=("har", "market_volatility"),
            har=HAR,
            garch={"window": 1000, "refit": 21},
            trailing=22,
            target=0.15,
            block=21,
        ),
        VolatilityMarket(
            key="crypto",
            name="hourly crypto pairs, the next 24 hours",
            dates={"train_end": "2024-05-31", "test_start": "2024-06-01"},
            horizon=24,
            features=("har", "market_volatility", "har_hourly"),
            har=("log_volatility_1", "log_volatility_24", "log_volatility_168"),
            garch={"window": 1000, "refit": 24},
            trailing=24,
            target=0.4,
            block=168,
        ),
    )
}
UNSEEN_SHARE = 4
"""The last quarter of the assets, by name, is unseen until the test."""


@dataclass(frozen=True)
class VolatilityRow:
    """One learner.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        method: as settings call it.
        support: rows of a support set in meta-training; None for as many as it will adapt on, with
            a training for each number of rows.
        query: rows of a query set.
        steps: meta-steps.
        meta_batch: tasks of a meta-step.
        adapts: False for the network as meta-training leaves it, whatever the rows.
        seeds: trainings.
        model: keys of the settings' section `model`.
        learner: keys of the settings' section `learner`.
    """

    key: str
    name: str
    method: str
    support: int | None = 60
    query: int = 30
    steps: int = 2000
    meta_batch: int = 32
    adapts: bool = True
    seeds: int = 3
    model: Mapping[str, Any] = field(
        default_factory=lambda: {"hidden": [64, 64], "activation": "tanh"}
    )
    learner: Mapping[str, Any] = field(default_factory=lambda: {"features": 16})

    def trainings(self) -> dict[int, tuple[int, ...]]:
        """Return the rows of the support sets of each training, and those it is tested with."""
        if self.support is None:
            return {window: (window,) for window in WINDOWS}
        return {self.support: WINDOWS if self.adapts else WINDOWS[:1]}

    def settings(self, market: VolatilityMarket, support: int) -> dict[str, Any]:
        """Return the settings of a run, but for the assets and the seed."""
        return {
            "data": dict(market.dates),
            "features": {"names": list(market.features)},
            "target": {"kind": "volatility", "horizon": market.horizon},
            "task": {"support": support, "query": self.query},
            "model": dict(self.model),
            "learner": {"methods": [self.method], **self.learner},
            "training": {"steps": self.steps, "meta_batch": self.meta_batch},
        }


ROWS = (
    VolatilityRow("alpaca", "Bayesian head on 16 features", "alpaca", support=None, meta_batch=64),
    VolatilityRow("alpaca-250", "Bayesian head, trained for 250 rows alone", "alpaca", support=250),
    VolatilityRow("ridge", "ridge head on 16 features", "ridge", support=250),
    VolatilityRow("maml", "MAML, 5 steps", "maml"),
    VolatilityRow("fomaml", "FOMAML, 5 steps", "fomaml"),
    VolatilityRow("anil", "ANIL, 5 steps", "anil"),
    VolatilityRow("network", "network, no adaptation", "joint_training", adapts=False),
)

BASELINES = {
    "har": "HAR on the same rows",
    "own-ridge": "ridge on the same rows",
    "around-pooled": "pooled regression, corrected by ridge on the same rows",
    "pooled-har": "pooled HAR, all features",
    "ewma": "EWMA (0.94)",
    "garch": "GARCH(1,1) on 1,000 returns",
    "trailing": "trailing volatility",
}
"""Keys and names of what learners are compared with."""

MODELS_OF_VARIANCE = ("ewma", "garch", "trailing")
"""Their logarithms are shifted by the mean of their errors before the test span."""


def forecast_baselines(
    prepared: Prepared, market: VolatilityMarket, first: int
) -> dict[str, Forecasts]:
    """Compute the forecasts of all baselines for the unseen assets, in the panel's units.

    Args:
        prepared: the bars.
        market: how they are split.
        first: place of the first bar to forecast at.
    """
    panel, scaler, unseen = prepared.panel, prepared.scaler, prepared.test_assets
    span = {"first": first, "last": prepared.test_last, "assets": unseen}
    pooled = pooled_regression(
        panel,
        train_assets=prepared.train_assets,
        train_first=prepared.train_first,
        train_last=prepared.train_last,
    )
    rest = panel._replace(targets=np.asarray(panel.targets) - np.nan_to_num(pooled))
    forecasts: dict[str, Forecasts] = {
        "har": {
            str(n): recent_regression(panel, window=n, features=market.har, **span) for n in WINDOWS
        },
        "own-ridge": {
            str(n): recent_regression(
                panel, window=n, penalty=_choose_penalty(prepared, panel, n), **span
            )
            for n in WINDOWS
        },
        "around-pooled": {
            str(n): pooled
            + recent_regression(rest, window=n, penalty=_choose_penalty(prepared, rest, n), **span)
            for n in WINDOWS
        },
        "pooled-har": {ALWAYS: pooled},
    }
    bars = {asset: prepared.bars[asset] for asset in unseen}
    garch = {"horizon": market.horizon, **market.garch}
    for name, logs in {
        "ewma": {a: ewma_volatility(b) for a, b in bars.items()},
        "garch": {
            # Places in an asset's own bars: it may begin after the panel does.
            a: garch_volatility(
                b, first=int(b.index.searchsorted(panel.timestamps[first])), **garch
            )
            for a, b in bars.items()
        },
        "trailing": {a: log_volatility(b, market.trailing) for a, b in bars.items()},
    }.items():
        laid = align_to_panel(panel, logs)
        forecasts[name] = {ALWAYS: (laid - scaler.target_mean) / scaler.target_std}
    return forecasts


def _choose_penalty(prepared: Prepared, panel, window: int) -> float:
    """Choose the penalty that would have been best on the meta-training assets in their span."""
    last = prepared.train_last
    first = (prepared.train_first + last) // 2
    assets = [panel.assets.index(asset) for asset in prepared.train_assets]
    y = np.asarray(panel.targets, float)[assets]
    complete = np.asarray(panel.label_end)[assets] <= last
    losses = []
    for penalty in PENALTIES:
        forecast = recent_regression(
            panel,
            window=window,
            penalty=penalty,
            first=first,
            last=last,
            assets=prepared.train_assets,
        )[assets]
        known = complete & np.isfinite(forecast)
        losses.append(((y - forecast)[known] ** 2).mean())
    return PENALTIES[int(np.argmin(losses))]
