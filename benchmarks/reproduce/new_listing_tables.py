"""Forecasts of the volatility of new listings beside outcomes: figures and tables."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from benchmarks.reproduce.estimate import average
from benchmarks.reproduce.new_listing_market import Data
from benchmarks.reproduce.new_listing_rows import DONORS, MODEL, ListingRow
from benchmarks.reproduce.results import read_number
from benchmarks.reproduce.table import Table
from maml_jax.backtest.inference import (
    model_confidence_set,
    qlike,
    qlike_loss,
    r_squared,
    r_squared_difference,
    realised_utility,
)

ENSEMBLE, NETWORK = "model-ensemble", "network-ensemble"
OURS = {
    ENSEMBLE: "the model, ensemble of {members}",
    "model": "the model, one training",
    NETWORK: "the same without adaptation, ensemble",
    "network": "the same without adaptation, one training",
}
SIZE = 0.1
"""Of the model confidence set."""

_HOPELESS = 10.0
"""Rows whose loss is so many times the least are left out of it: their losses are all noise."""

_SAME = (1e-3, 1e-3)
"""Losses that are this near at all times, relatively and in absolute terms, are the same."""

R2_NOTE = (
    "{market}, the next {horizon} bars: {train} assets before {start} for training, {test} unseen"
    " ones ({names}) at every {every} bars to {last}, each as if it had been listed n bars ago;"
    " {bars:,} forecasts at each n, the same of all rows. R2 is of the log of realised volatility,"
    " from one mean of all assets. ± is the 95 % interval over trainings, by Student's t. Models of"
    " the variance are shifted to the mean of logarithms by a constant fitted on the training"
    " assets before the test."
)
GAIN_NOTE = (
    "R2 of the ensemble minus that of the best opponent at that age, chosen afterwards, and minus"
    " that of the same networks without adaptation, with the 95 % interval of the stationary"
    " bootstrap over times (blocks of {block} forecasts, all assets at once)."
)
QLIKE_NOTE = (
    "Patton's QLIKE of the variance, lower is better. At each age a forecast is shifted to the"
    " mean variance by one constant, fitted on the training assets before the test; of the model"
    " these are bars that it was trained on; what is read from a file stands as it is where it has"
    " no forecasts of those bars. * marks the model confidence set of {size:.0%} (Hansen, Lunde,"
    " Nason); of rows whose forecasts are the same one stands for all, and rows with ten times the"
    " least loss are left out."
)
UTILITY_NOTE = (
    "Realised utility of the same forecasts, in per cent of wealth a year at a Sharpe ratio of 0.4"
    " and a risk aversion of 2 (Bollerslev, Hood, Huss, Pedersen); 4 % is the most there is."
)
DONOR_NOTE = (
    "R2 at every {every} bars of the ensemble and of a regression on the 200 nearest histories by"
    " dynamic time warping (Teller, Pigorsch, Pigorsch, 2026), and the difference with its 95 %"
    " interval."
)


class Forecast(NamedTuple):
    """Forecasts of one row.

    Attributes:
        logs: of volatility per bar, `[seed, age, asset, time]`.
        variances: the same, shifted to the root of the mean variance.
    """

    logs: Float[np.ndarray, "seed age asset time"]
    variances: Float[np.ndarray, "seed age asset time"]


def read_forecast(trainings: Sequence[dict[str, Any]]) -> Forecast:
    """Read the forecasts of one row, a result for each training."""
    logs = np.array([each["forecasts"] for each in trainings], float)
    shifts = [
        np.array([[read_number(value) for value in each[name]] for each in trainings])
        for name in ("to_mean", "to_variance")
    ]
    to_mean, to_variance = (each[..., None, None] for each in shifts)
    return Forecast(logs + to_mean, logs + to_variance)


def read_rows(found: dict[str, list[dict[str, Any]]]) -> dict[str, Forecast]:
    """Read all rows by key; those that failed are left out."""
    rows = {}
    for key, results in found.items():
        result = results[0]
        if "failed" in result:
            continue
        if key == MODEL:
            rows |= {name: read_forecast(result[name]) for name in OURS}
        else:
            rows[key] = read_forecast([result])
    return rows


class Comparison:
    """Forecasts of volatility beside outcomes.

    Attributes:
        record: all figures, fit for JSON.
    """

    def __init__(self, data: Data, rows: Sequence[ListingRow], found: dict[str, Any]):
        self.data, self.ages = data, data.market.ages
        self.outcome = data.outcomes[1]
        self.forecasts = read_rows(found)
        self.donors = self.forecasts.pop(DONORS, None)
        members = found[MODEL][0].get("members", 0) if MODEL in found else 0
        names = {key: name.format(members=members) for key, name in OURS.items()}
        self.names = {row.key: row.name for row in rows} | names
        self.block = max(2, 3 * data.market.block // data.every)
        self.record: dict[str, Any] = {
            "failed": {k: v[0]["failed"] for k, v in found.items() if "failed" in v[0]}
        }

    @cached_property
    def judged(self) -> Bool[np.ndarray, "age asset time"]:
        """Bars at which all that forecast an age do so."""
        known = np.repeat(np.isfinite(self.outcome)[None], len(self.ages), axis=0)
        for age in range(len(self.ages)):
            for key in self.at(age):
                known[age] &= np.isfinite(self.forecasts[key].logs[:, age]).all(axis=0)
                known[age] &= np.isfinite(self.forecasts[key].variances[:, age]).all(axis=0)
        return known

    def at(self, age: int) -> list[str]:
        """Return the rows that forecast an age at all."""
        return [
            key
            for key, each in self.forecasts.items()
            if np.isfinite(each.logs[:, age]).any() and np.isfinite(each.variances[:, age]).any()
        ]

    def truth(self, age: int) -> Float[np.ndarray, "asset time"]:
        """Return the outcomes that are judged."""
        return np.where(self.judged[age], self.outcome, np.nan)

    def make_tables(self) -> list[Table]:
        """Compute all figures and lay them out."""
        best = self._confidence_sets()
        data = self.data
        columns = ("forecast", *(f"n = {age}" for age in self.ages))
        market = data.market

        def r2(each: Forecast, age: int) -> list[float]:
            return [r_squared(seed, self.truth(age)) for seed in each.logs[:, age]]

        def loss(each: Forecast, age: int) -> list[float]:
            return [qlike(seed, self.truth(age)) for seed in each.variances[:, age]]

        def utility(each: Forecast, age: int) -> list[float]:
            seeds = each.variances[:, age]
            return [float(np.nanmean(realised_utility(seed, self.truth(age)))) for seed in seeds]

        tables = [
            Table(
                f"R2 of the log of volatility n bars after the listing: {market.name}",
                columns,
                self._measure("r2", r2, 3),
                self._note(),
            )
        ]
        if ENSEMBLE in self.forecasts:
            tables.append(self._gains())
        losses = self._measure("qlike", loss, 3, best)
        note = QLIKE_NOTE.format(size=1 - SIZE)
        tables.append(Table(f"QLIKE: {market.name}", columns, losses, note))
        title = f"Realised utility: {market.name}"
        tables.append(Table(title, columns, self._measure("utility", utility, 2), UTILITY_NOTE))
        if self.donors is not None and ENSEMBLE in self.forecasts:
            tables.append(self._nearest())
        return tables

    def _measure(
        self,
        name: str,
        measure: Callable[[Forecast, int], list[float]],
        digits: int,
        marked: Sequence[set[str]] | None = None,
    ) -> list[tuple[str, ...]]:
        found: dict[str, dict[int, list[float]]] = {key: {} for key in self.forecasts}
        rows = []
        for key, each in self.forecasts.items():
            cells = []
            for place, age in enumerate(self.ages):
                if key not in self.at(place):
                    cells.append("")
                    continue
                values = found[key][age] = measure(each, place)
                mark = "*" if marked is not None and key in marked[place] else ""
                cells.append(average(values).text(digits) + mark)
            rows.append((self.names[key], *cells))
        self.record[name] = found
        lost = [""] * (len(self.ages) - 1)
        return rows + [(self.names[key], "failed", *lost) for key in self.record["failed"]]

    def _note(self) -> str:
        data = self.data
        return R2_NOTE.format(
            market=data.market.name[0].upper() + data.market.name[1:],
            horizon=data.market.horizon,
            train=len(data.seen),
            start=data.market.start,
            test=len(data.unseen),
            names=", ".join(data.names[1]),
            every=data.every,
            last=f"{data.timeline[data.last]:%Y-%m-%d}",
            bars=int(self.judged.sum(axis=(1, 2)).min()),
        )

    def _gains(self) -> Table:
        found, rows = {}, []
        for place, age in enumerate(self.ages):
            truth, ours = self.truth(place), self.forecasts[ENSEMBLE].logs[:, place]
            r2 = {key: np.mean(self.record["r2"][key][age]) for key in self.at(place)}
            others = [key for key in r2 if key not in OURS]
            against = {"network": NETWORK}
            if others:
                against = {"opponent": max(others, key=lambda key: r2[key]), **against}
            cells = {}
            for name, key in against.items():
                other = self.forecasts[key].logs[:, place]
                gain = r_squared_difference(ours, other, truth, block=self.block)
                cells[name] = {"of": key, **gain._asdict()}
            found[age] = cells
            texts = {name: interval_text(each) for name, each in cells.items()}
            best = cells.get("opponent", {}).get("of")
            named = "" if best is None else f"{self.names[best]} ({r2[best]:.3f})"
            own = f"{r2[ENSEMBLE]:.3f}"
            rows.append((str(age), own, named, texts.get("opponent", ""), texts["network"]))
        self.record["gains"] = found
        columns = ("n", "R2", "best opponent", "gain over it", "gain over no adaptation")
        note = GAIN_NOTE.format(block=self.block)
        return Table(f"What the model gains: {self.data.market.name}", columns, rows, note)

    def _confidence_sets(self) -> list[set[str]]:
        """Find the rows among which the best one in QLIKE is, at each age."""
        best, record = [], {}
        for place, age in enumerate(self.ages):
            columns, stands_for = self._losses(place)
            if len(columns) < 2 or self.judged[place].any(axis=0).sum() < 2 * self.block:
                best.append(set())
                continue
            table = model_confidence_set(pd.DataFrame(columns), size=SIZE, block=self.block)
            record[age] = {key: float(table["p_value"][of]) for key, of in stands_for.items()}
            best.append({key for key, of in stands_for.items() if table["included"][of]})
        self.record["confidence_set"] = record
        return best

    def _losses(self, age: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Return mean QLIKE at each time of distinct rows, and the one that stands for each."""
        losses: dict[str, np.ndarray] = {}
        for key in self.at(age):
            if key not in ("model", "network"):
                loss = qlike_loss(self.forecasts[key].variances[0, age], self.truth(age))
                count = np.isfinite(loss).sum(axis=0)
                losses[key] = np.nansum(loss, axis=0) / np.where(count > 0, count, np.nan)
        least = min((np.nanmean(each) for each in losses.values()), default=0.0)
        columns: dict[str, np.ndarray] = {}
        stands_for = {}
        for key, each in losses.items():
            if np.nanmean(each) > _HOPELESS * least:
                continue
            same = (k for k, v in columns.items() if np.allclose(v, each, *_SAME, equal_nan=True))
            stands_for[key] = next(same, key)
            columns.setdefault(stands_for[key], each)
        return columns, stands_for

    def _nearest(self) -> Table:
        assert self.donors is not None
        found, rows = {}, []
        for place, age in enumerate(self.data.market.donor_ages):
            theirs = self.donors.logs[:, place]
            ours = self.forecasts[ENSEMBLE].logs[:, self.ages.index(age)]
            known = np.isfinite(theirs).all(axis=0) & np.isfinite(ours).all(axis=0)
            truth = np.where(known, self.outcome, np.nan)
            gain = r_squared_difference(ours, theirs, truth, block=max(2, self.block // 12))
            both = [r_squared(each, truth) for each in (ours, theirs)]
            found[age] = {"model": both[0], "donors": both[1], **gain._asdict()}
            texts = (f"{value:.3f}" for value in both)
            rows.append((str(age), *texts, interval_text(gain._asdict()), f"{known.sum():,}"))
        self.record["donors"] = found
        columns = ("n", "the model, ensemble", "nearest donors", "difference", "forecasts")
        note = DONOR_NOTE.format(every=12 * self.data.every)
        return Table(f"Nearest donors: {self.data.market.name}", columns, rows, note)


def interval_text(gain: dict[str, Any]) -> str:
    """Write a difference and its interval."""
    return f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
