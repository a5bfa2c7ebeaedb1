"""What the study of new listings stands on: markets, bars, weights and outcomes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from benchmarks.pretrain import MARKETS as SHIPPED
from benchmarks.pretrain import split_assets
from maml_jax.backtest.metrics import bars_per_year
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.risk.histories import Histories, make_histories, outcome
from maml_jax.risk.model import CARD, RiskModel, load_model, save_model
from maml_jax.risk.table import bar_length
from maml_jax.risk.training import RiskSettings, train_risk

LEAST = 4
"""Fewest assets of a file: a quarter of them is unseen."""

_MOST = 3.0
"""Errors of the logarithm beyond this are taken for that, as in the model's own tables."""


@dataclass(frozen=True)
class ListingMarket:
    """Bars, how they are split, and what is forecast.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        start: first day of the test; training ends the day before.
        end: last day of the test; None for the last of the file.
        horizon: bars whose volatility is forecast.
        tail_horizons: bars whose return's tails are forecast.
        settings: of the trainings.
        target: volatility that is aimed at, per year.
        block: bars over which realised volatility is compared with it, and of a block of the
            bootstrap three times as many.
        ages: returns since the listing.
        tail_ages: those at which tails are judged.
        donor_ages: those at which nearest donors are searched.
        held_ages: those at which a volatility target is held.
        calibration: bars before the test on which constants are fitted.
        validation: first and last day on which learners are compared.
    """

    key: str
    name: str
    start: str
    end: str | None
    horizon: int
    tail_horizons: tuple[int, ...]
    settings: RiskSettings
    target: float
    block: int
    ages: tuple[int, ...] = (0, 1, 2, 5, 10, 20, 40, 60, 125, 250, 500)
    tail_ages: tuple[int, ...] = (5, 10, 20, 40, 60, 125, 250, 500)
    donor_ages: tuple[int, ...] = (5, 20, 60, 250)
    held_ages: tuple[int, ...] = (60, 250)
    calibration: int = 1000
    validation: tuple[str, str] = ("2000-01-01", "2009-12-31")


MARKETS = {
    market.key: market
    for market in (
        ListingMarket(
            key="stocks",
            name="daily stocks",
            start="2010-01-01",
            end="2022-12-31",
            horizon=5,
            tail_horizons=(1, 5),
            settings=SHIPPED["stocks-daily"][2],
            target=0.15,
            block=21,
        ),
        ListingMarket(
            key="crypto",
            name="hourly crypto pairs",
            start="2024-06-01",
            end=None,
            horizon=24,
            tail_horizons=(1, 24),
            settings=SHIPPED["crypto-hourly"][2],
            target=0.4,
            block=168,
            validation=("2024-04-01", "2024-05-31"),
        ),
    )
}


class Bars(NamedTuple):
    """A file of bars.

    Attributes:
        name: of the file.
        sha256: the first digits of its digest.
        frames: bars by asset, in the order of names.
    """

    name: str
    sha256: str
    frames: Mapping[str, pd.DataFrame]


def read_file(path: Path, option: str) -> Bars:
    """Read bars.

    Raises:
        ConfigError: if there is no such file.
        DataError: if it cannot be read.
    """
    if not path.is_file():
        raise ConfigError(f"--{option} {path}: no such file")
    frames = read_bars(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Bars(path.name, digest, {name: frames[name] for name in sorted(frames)})


def split(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the assets to train on and the unseen ones, as for the weights that ship.

    Raises:
        ConfigError: if there are too few.
    """
    if len(names) < LEAST:
        raise ConfigError(f"--bars: needs at least {LEAST} assets, there are {len(names)}: {names}")
    return split_assets(names)


@dataclass(frozen=True)
class Weights:
    """Weights that are trained where they are needed for the first time, and kept.

    Attributes:
        folder: where they are kept.
        settings: of their training.
        given: name or folder of weights that are used instead; None to train.
        log: called with a line of text at each stage.
    """

    folder: Path
    settings: RiskSettings
    given: str | None = None
    log: Callable[[str], None] = lambda _: None

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What marks them in files of results."""
        if self.given is not None:
            return {"given": load_model(self.given).card["sha256"]}
        return {"trained": self.settings._asdict()}

    def find(
        self, key: str, bars: Bars, histories: Histories, assets: list[int], stop: pd.Timestamp
    ) -> RiskModel:
        """Load them, or train on the bars of some assets before a time."""
        if self.given is not None:
            return load_model(self.given)
        what = {
            "bars": bars.sha256,
            "assets": assets,
            "stop": f"{stop}",
            "settings": self.settings._asdict(),
        }
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:10]
        folder = self.folder / f"{key}-weights.{digest}"
        if not (folder / CARD).is_file():
            model = train_risk(
                histories,
                name=key,
                interval=bar_length(bars.frames),
                assets=assets,
                last=[int(histories.times[asset].searchsorted(stop)) - 1 for asset in assets],
                settings=self.settings,
                report=lambda text: self.log(f"{key}: {text}"),
            )
            save_model(model, folder)
        return load_model(folder)


@dataclass(frozen=True)
class Data:
    """The bars of a call: assets to train on, unseen ones, and the bars of forecasts.

    Attributes:
        market: dates and horizons.
        bars: the file.
        every: bars from one forecast to the next.
        weights: of the model.
    """

    market: ListingMarket
    bars: Bars
    every: int
    weights: Weights

    @cached_property
    def names(self) -> tuple[list[str], list[str]]:
        """Assets to train on, and unseen ones."""
        return split([*self.bars.frames])

    @cached_property
    def seen(self) -> list[int]:
        """Numbers of the assets to train on."""
        return [*range(len(self.names[0]))]

    @cached_property
    def unseen(self) -> list[int]:
        """Numbers of the others, which come last by name."""
        return [*range(len(self.names[0]), len(self.bars.frames))]

    @cached_property
    def histories(self) -> Histories:
        """Of all assets."""
        return make_histories(self.bars.frames)

    @cached_property
    def model(self) -> RiskModel:
        """The ensemble; each of its members is a training from a seed of its own."""
        start = _day(self.market.start)
        return self.weights.find(self.market.key, self.bars, self.histories, self.seen, start)

    @property
    def timeline(self) -> pd.DatetimeIndex:
        """All times."""
        return self.histories.timeline

    @cached_property
    def per_year(self) -> float:
        """Bars of a year."""
        return float(bars_per_year(self.timeline))

    @cached_property
    def returns(self) -> Float[np.ndarray, "asset time"]:
        """Of all assets, NaN where one has no bar."""
        return on_timeline(self.histories, self.histories.returns)

    def after(self, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the log of volatility and the return over the next bars, `[asset, time]`."""
        found = [outcome(each, horizon) for each in self.histories.returns]
        volatility, total = (list(each) for each in zip(*found, strict=True))
        return on_timeline(self.histories, volatility), on_timeline(self.histories, total)

    @cached_property
    def first(self) -> int:
        """Place of the first bar of the test."""
        return int(self.timeline.searchsorted(_day(self.market.start)))

    @cached_property
    def last(self) -> int:
        """Place of the last bar of the test."""
        if self.market.end is None:
            return len(self.timeline) - 1
        stop = _day(self.market.end) + pd.Timedelta(days=1)
        return int(self.timeline.searchsorted(stop)) - 1

    @cached_property
    def calibrated_from(self) -> int:
        """Place of the first bar on which constants are fitted."""
        return max(self.first - self.market.calibration, 1)

    @cached_property
    def before(self) -> Int[np.ndarray, " time"]:
        """Places of the bars on which constants are fitted: outcomes are known before the test."""
        stop = self.first - max(self.market.horizon, *self.market.tail_horizons)
        return np.arange(self.calibrated_from, stop, 2 * self.every)

    @cached_property
    def grid(self) -> Int[np.ndarray, " time"]:
        """Places of the bars of forecasts; outcomes are known at the last bar of the test."""
        return np.arange(self.first, self.last - self.market.horizon + 1, self.every)

    @cached_property
    def outcomes(self) -> tuple[np.ndarray, np.ndarray]:
        """Log of volatility of seen assets before the test and of unseen ones in it."""
        return self.pick(self.after(self.market.horizon)[0])

    def pick(self, values: Float[np.ndarray, "*lead asset time"]) -> tuple[np.ndarray, np.ndarray]:
        """Take seen assets at the bars of calibration and unseen ones at those of forecasts."""
        pairs = ((self.seen, self.before), (self.unseen, self.grid))
        before, test = (values[..., np.asarray(assets)[:, None], at] for assets, at in pairs)
        return before, test

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What marks these bars and this protocol in files of results."""
        market = self.market
        return {
            "market": market.key,
            "sha256": self.bars.sha256,
            "dates": [market.start, market.end],
            "horizon": market.horizon,
            "calibration": market.calibration,
            "every": self.every,
            "ages": market.ages,
        }


def on_timeline(histories: Histories, values: Any) -> Float[np.ndarray, "asset time"]:
    """Lay values of the bars of each asset out on all times, NaN where there is none."""
    found = np.full((len(histories.assets), len(histories.timeline)), np.nan)
    for asset, own in enumerate(histories.times):
        found[asset, histories.timeline.get_indexer(own)] = values[asset]
    return found


def mean_error(error: np.ndarray) -> float:
    """Mean of the errors that are known; NaN of none."""
    known = error[np.isfinite(error)]
    return float(known.mean()) if len(known) else np.nan


def variance_shift(error: np.ndarray) -> float:
    """Half the logarithm of the mean of exp(2 error): to the root of the mean variance."""
    known = np.clip(error[np.isfinite(error)], -_MOST, _MOST)
    return float(0.5 * np.log(np.exp(2 * known).mean())) if len(known) else np.nan


def _day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")
