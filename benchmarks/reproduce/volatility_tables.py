"""Forecasts of volatility beside outcomes: figures, differences and tables."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.reproduce.estimate import average
from benchmarks.reproduce.results import read_number
from benchmarks.reproduce.table import Table
from benchmarks.reproduce.volatility_rows import (
    ALWAYS,
    BASELINES,
    MODELS_OF_VARIANCE,
    WINDOWS,
    Forecasts,
    VolatilityMarket,
)
from benchmarks.reproduce.volatility_target import hold_at_target, make_target_table
from maml_jax.backtest.inference.forecast_tests import (
    diebold_mariano,
    qlike,
    r_squared,
    r_squared_difference,
)
from maml_jax.experiment.preparation.prepare import Prepared

CALIBRATION = 1000
"""Bars before the test span on which forecasts of variances are calibrated."""

TOGETHER = "together"
"""Key of the mean of the forecasts of all seeds, of the first row."""

R2_NOTE = (
    "{market}: {train} assets to {end} for meta-training, {test} unseen ones ({names}) walked"
    " forward on from {start} to {last}, {bars:,} bars with an outcome. R2 = 1 - sum of squared"
    " errors / sum of squared deviations of the outcomes from their one mean over all assets, of"
    " the log of realised volatility. ± is the 95 % interval of the mean over seeds, by Student's"
    " t. The last three baselines are shifted by the mean of their errors in the {before:,} bars"
    " before the test."
)
QLIKE_NOTE = (
    "Patton's QLIKE of the variance, lower is better. Each forecast is scaled by one factor, the"
    " best in the {before:,} bars before the test."
)
GAIN_NOTE = (
    "R2 of the {name} (mean of seeds) minus that of each other forecast, with the 95 % interval of"
    " the stationary bootstrap over times (blocks of {block} bars, all assets at once); p of the"
    " Diebold-Mariano test of squared errors (Newey-West, Harvey)."
)
TARGET_NOTE = (
    "All forecasts are scaled by one factor fitted in the {before:,} bars before the test; learner"
    " and regressions with {rows} rows."
)


def first_bar(prepared: Prepared) -> int:
    """Return the place of the first bar that forecasts are needed at."""
    return max(0, prepared.test_first - CALIBRATION)


class Comparison:
    """Forecasts beside outcomes, in logarithms of volatility per bar.

    Attributes:
        record: all figures, fit for JSON.
    """

    def __init__(self, prepared: Prepared, market: VolatilityMarket, rows, found):
        self.prepared, self.market, self.rows = prepared, market, rows
        first, start = first_bar(prepared), prepared.test_first
        panel, scaler = prepared.panel, prepared.scaler
        assets = [panel.assets.index(asset) for asset in prepared.test_assets]
        span = slice(first, prepared.test_last + 1)
        ends = np.asarray(panel.label_end)[assets, span]
        outcome = scaler.restore_target(np.asarray(panel.targets, float)[assets, span])
        places = np.arange(first, prepared.test_last + 1)
        before = np.where(ends < start, outcome, np.nan)
        after = np.where((ends <= prepared.test_last) & (places >= start), outcome, np.nan)
        self.failed = {
            row.key: [r["failed"] for r in found[row.key] if "failed" in r] for row in rows
        }
        self.logs: dict[str, Forecasts] = {}
        for row in rows:
            kept: dict[str, list] = {}
            for result in found[row.key]:
                for window, values in result.get("forecasts", {}).items():
                    kept.setdefault(window, []).append(self._array(values))
            if len(kept) == sum(map(len, row.trainings().values())):
                self.logs[row.key] = {key: np.stack(values) for key, values in kept.items()}
        for key, forecasts in found["baselines"][0].items():
            self.logs[key] = {k: self._array(values)[None] for k, values in forecasts.items()}
        every = [values for forecasts in self.logs.values() for values in forecasts.values()]
        judged = np.isfinite(after) & np.all([np.isfinite(v).all(axis=0) for v in every], axis=0)
        self.outcome, self.before = np.where(judged, after, np.nan), before
        self.names = {row.key: row.name for row in rows} | BASELINES
        for key in MODELS_OF_VARIANCE:
            shift = np.nanmean(before - self.logs[key][ALWAYS])
            self.logs[key] = {ALWAYS: self.logs[key][ALWAYS] + shift}
        self.headline = next((row.key for row in rows if row.key in self.logs), None)
        if self.headline is not None and any(row.seeds > 1 for row in rows):
            together = {
                k: v.mean(axis=0, keepdims=True) for k, v in self.logs[self.headline].items()
            }
            self.logs = {self.headline: self.logs[self.headline], TOGETHER: together} | self.logs
            self.names[TOGETHER] = f"{self.names[self.headline]}, forecasts of all seeds averaged"
        self.record: dict[str, Any] = {"failed": self.failed}

    def _array(self, kept: list[list[float | None]]) -> np.ndarray:
        values = np.array([[read_number(value) for value in row] for row in kept])
        return np.asarray(self.prepared.scaler.restore_target(values))

    def forecast(self, key: str, window: int) -> Float[np.ndarray, "seed asset time"]:
        """Return the forecasts on so many rows, or those that do not depend on rows."""
        forecasts = self.logs[key]
        return forecasts.get(str(window), forecasts.get(ALWAYS))  # pyright: ignore

    def forecast_variance(self, key: str, window: int) -> Float[np.ndarray, "seed asset time"]:
        """Scale by the factor that is the best in QLIKE before the test span."""
        forecast = self.forecast(key, window)
        errors = np.exp(2 * (self.before - forecast))
        return forecast + 0.5 * np.log(np.nanmean(errors, axis=(-2, -1), keepdims=True))

    def make_tables(self) -> list[Table]:
        """Compute all figures and lay them out."""
        columns = ("forecast", *(f"{window} rows" for window in WINDOWS))
        r2 = self._measure("r2", lambda key, n: r_squared_each(self.forecast(key, n), self.outcome))
        loss = self._measure(
            "qlike",
            lambda key, n: [qlike(each, self.outcome) for each in self.forecast_variance(key, n)],
        )
        tables = [
            Table(f"R2 of the log of volatility: {self.market.name}", columns, r2, self._note()),
            Table("QLIKE", columns, loss, QLIKE_NOTE.format(before=CALIBRATION)),
        ]
        if self.headline is not None:
            tables += [self._compare(self.headline), self._hold_targets(self.headline)]
        return tables

    def _measure(self, name: str, measure: Callable[[str, int], list[float]]):
        self.record[name] = {key: {n: measure(key, n) for n in WINDOWS} for key in self.logs}
        rows = [
            (self.names[key], *(average(values).text(3) for values in cells.values()))
            for key, cells in self.record[name].items()
        ]
        lost = [(self.names[key], "failed", "", "") for key in self.failed if key not in self.logs]
        return [*rows, *lost]

    def _note(self) -> str:
        prepared, times = self.prepared, self.prepared.panel.timestamps
        return R2_NOTE.format(
            market=self.market.name[0].upper() + self.market.name[1:],
            train=len(prepared.train_assets),
            test=len(prepared.test_assets),
            names=", ".join(prepared.test_assets),
            end=f"{times[prepared.train_last]:%Y-%m-%d}",
            start=f"{times[prepared.test_first]:%Y-%m-%d}",
            last=f"{times[prepared.test_last]:%Y-%m-%d}",
            bars=int(np.isfinite(self.outcome).sum()),
            before=CALIBRATION,
        )

    def _compare(self, headline: str) -> Table:
        block, rows = 3 * self.market.block, []
        found: dict[str, dict[int, dict]] = {}
        for key in [key for key in self.logs if key not in (headline, TOGETHER)]:
            cells = []
            for window in WINDOWS:
                ours, other = self.forecast(headline, window), self.forecast(key, window)
                gain = r_squared_difference(ours, other, self.outcome, block=block)
                losses = [((f - self.outcome) ** 2).mean(axis=0) for f in (ours, other)]
                test = diebold_mariano(losses[0], losses[1], self.market.horizon)
                found.setdefault(key, {})[window] = {**gain._asdict(), "p": test.p_value}
                cells.append(
                    f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], p {test.p_value:.1g}"
                )
            rows.append((self.names[key], *cells))
        self.record["gains"] = {"of": headline, "over": found}
        return Table(
            f"What the {self.names[headline]} gains in R2",
            ("over", *(f"{window} rows" for window in WINDOWS)),
            rows,
            GAIN_NOTE.format(name=self.names[headline], block=block),
        )

    def _hold_targets(self, headline: str) -> Table:
        window = WINDOWS[-1]
        keys = [headline, *(key for key in BASELINES if key in self.logs)]
        start = self.prepared.test_first - first_bar(self.prepared)
        found = {
            key: hold_at_target(
                self.prepared, self.market, self.forecast_variance(key, window)[..., start:]
            )
            for key in keys
        }
        self.record["target"], table = make_target_table(found, self.names, self.market, headline)
        note = f"{table.note} {TARGET_NOTE.format(before=CALIBRATION, rows=window)}"
        return table._replace(note=note)


def r_squared_each(forecasts: Float[np.ndarray, "seed asset time"], outcome) -> list[float]:
    """Return the R2 of each seed."""
    return [r_squared(each, outcome) for each in forecasts]
