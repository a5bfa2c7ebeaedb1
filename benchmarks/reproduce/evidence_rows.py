"""The evidence on real bars: on which bars, by which methods, adapted on which rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from maml_jax.errors import ConfigError

METHODS = ("maml", "fomaml", "reptile", "meta_sgd", "maml_plus_plus", "ridge", "alpaca")
"""Each is meta-trained and walked forward with each kind of support set."""

BASELINES = "baselines"
"""Key of the row that holds what does not depend on the method."""

HOST = "fomaml"
"""The method whose variants that go on learning are among the baselines: the cheapest that takes
steps."""


@dataclass(frozen=True, eq=False)
class EvidenceMarket:
    """Bars, and how they are split.

    Attributes:
        key: its name on the command line and in files.
        name: its name in tables.
        dates: keys of the settings' section `data`.
        horizon: bars over which returns are predicted.
        unseen: how many assets, the last by name, are unseen until the test.
        unit: what a bar is, in tables.
        block: mean length in bars of the bootstrap's blocks.
    """

    key: str
    name: str
    dates: Mapping[str, str]
    horizon: int
    unseen: int
    unit: str
    block: int


MARKETS = {
    market.key: market
    for market in (
        EvidenceMarket(
            key="stocks",
            name="daily stocks, the next 5 days",
            dates={"train_end": "2009-12-31", "test_start": "2010-01-01", "test_end": "2022-12-31"},
            horizon=5,
            unseen=5,
            unit="day",
            block=20,
        ),
        EvidenceMarket(
            key="crypto",
            name="hourly crypto pairs, the next 24 hours",
            dates={"train_end": "2024-05-31", "test_start": "2024-06-01"},
            horizon=24,
            unseen=5,
            unit="hour",
            block=48,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class Support:
    """What a support set is made of.

    Attributes:
        key: its name in files.
        name: its name in tables.
        task: keys of the settings' section `task`.
    """

    key: str
    name: str
    task: Mapping[str, Any]


SUPPORTS = {
    support.key: support
    for support in (
        Support("own20", "20 rows of its own", {"support": 20}),
        Support("own120", "120 rows of its own", {"support": 120}),
        Support(
            "cross100",
            "the latest 100 rows of all assets",
            {"support": 100, "support_from": "cross_section"},
        ),
    )
}


@dataclass(frozen=True)
class EvidenceRow:
    """One row: what is trained on one market.

    Attributes:
        market: the bars.
        support: what support sets are made of.
        method: what is trained; `BASELINES` for the row of what does not depend on it.
    """

    market: EvidenceMarket
    support: Support
    method: str

    @property
    def key(self) -> str:
        """Its name on the command line and in files."""
        return f"{self.market.key}-{self.support.key}-{self.method}"

    def settings(self, assets: list[str], seed: int, steps: int) -> dict[str, Any]:
        """Return the settings of its run, as `maml_jax.experiment.run` takes them.

        Args:
            assets: all assets of the market, by name.
            seed: of weights and tasks.
            steps: meta-steps.
        """
        unseen = self.market.unseen
        settings: dict[str, Any] = {
            "seed": seed,
            "data": {
                **self.market.dates,
                "train_assets": assets[:-unseen],
                "test_assets": assets[-unseen:],
            },
            "target": {"horizon": self.market.horizon},
            "task": dict(self.support.task),
            "learner": {"methods": [self.method]},
            "training": {"steps": steps},
            "backtest": {"baselines": []},
        }
        if self.method == BASELINES:
            settings["learner"] = {"methods": [HOST, "joint_training"]}
            online: dict[str, Any] = {"variants": ["online", "retrained", "incremental"]}
            settings["online"] = online
            settings["backtest"] = {"baselines": ["random", "momentum", "ridge", "trees"]}
            # Training again from scratch four times a year is most of the work.
            if self.market.unit == "hour":
                online["retrain_every"] = 24 * 7
                online["every"] = 24
        return settings


def rows_of(markets: list[EvidenceMarket]) -> list[EvidenceRow]:
    """List all rows of some markets, those of the baselines first."""
    first = SUPPORTS["own20"]
    return [
        row
        for market in markets
        for row in (
            EvidenceRow(market, first, BASELINES),
            *(EvidenceRow(market, s, method) for s in SUPPORTS.values() for method in METHODS),
        )
    ]


def require_market(market: EvidenceMarket, bars: Mapping[str, pd.DataFrame]) -> None:
    """Refuse bars that cannot be split as the market is.

    Raises:
        ConfigError: naming what is missing.
    """
    if len(bars) < 2 * market.unseen:
        raise ConfigError(
            f"--{market.key}: needs at least {2 * market.unseen} assets, there are {len(bars)}"
        )
    first = min(frame.index[0] for frame in bars.values())
    last = max(frame.index[-1] for frame in bars.values())
    start = pd.Timestamp(market.dates["test_start"], tz="UTC")
    if not first < start < last:
        raise ConfigError(
            f"--{market.key}: bars run from {first} to {last}, and the test begins at {start}"
        )
