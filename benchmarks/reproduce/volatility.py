"""Volatility of assets that meta-training never saw, from a few of their rows."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from scipy import stats

from benchmarks.reproduce.progress import Advance, Progress
from benchmarks.reproduce.results import Job, number, perform, write, write_json
from benchmarks.reproduce.table import (
    QUICK_MARK,
    QUICK_SHARE,
    Table,
    choose,
    plus_minus,
    require_positive,
    surroundings,
)
from benchmarks.reproduce.training import point
from benchmarks.reproduce.volatility_rows import (
    ALWAYS,
    BASELINES,
    MARKETS,
    MODELS_OF_VARIANCE,
    ROWS,
    UNSEEN_SHARE,
    WINDOWS,
    Forecasts,
    VolatilityMarket,
    VolatilityRow,
    baseline_forecasts,
)
from benchmarks.reproduce.volatility_target import deviations, target_table
from maml_jax.backtest import find_supports, walk_forward
from maml_jax.backtest.inference.forecast_tests import (
    diebold_mariano,
    qlike,
    r_squared,
    r_squared_difference,
)
from maml_jax.data import read_bars
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.train import make_learner, meta_train
from maml_jax.experiment.preparation.prepare import Prepared, prepare

CALIBRATION = 1000
"""Bars before the test span on which forecasts of variances are calibrated."""

DIGITS = 4
"""Of the forecasts in files of results, in deviations of the target."""

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
    "Patton's QLIKE of the variance, less is better. Each forecast is scaled by one factor, the"
    " best in the {before:,} bars before the test."
)
GAIN_NOTE = (
    "R2 of the {name} (mean of seeds) less that of each other forecast, with the 95 % interval of"
    " the stationary bootstrap over times (blocks of {block} bars, all assets at once); p of the"
    " Diebold-Mariano test of squared errors (Newey-West, Harvey)."
)
TARGET_NOTE = (
    "All forecasts are scaled by one factor fitted in the {before:,} bars before the test; learner"
    " and regressions with {rows} rows."
)


def reproduce_volatility(
    *,
    bars: str | Path,
    market: str = "stocks",
    methods: Sequence[str] = (),
    seeds: int | None = None,
    steps: int | None = None,
    quick: bool = False,
    out: str | Path = "runs/volatility",
    console: Console | None = None,
    command: str = "",
    rows: Sequence[VolatilityRow] = ROWS,
) -> list[Table]:
    """Meta-train on most assets of a file, forecast the volatility of the others, and compare.

    Every training's forecasts are a file of their own in `out/results`; one that is there already,
    of the same protocol, is not made again. `volatility-MARKET.json` and `volatility-MARKET.md`
    hold what was asked for in the last call. The first row that is asked for is the one that is
    compared with the baselines: it is chosen beforehand, not by what came out.

    Args:
        bars: a file of bars of at least four assets.
        market: `stocks` or `crypto`, which says the dates and horizons.
        methods: keys of rows, or their beginnings; none for all.
        seeds: trainings per row, instead of the row's own number.
        steps: meta-steps, instead of the row's own number.
        quick: one seed, a fiftieth of the meta-steps.
        out: the folder to write to.
        console: where to tell progress; None tells nothing.
        command: the command line, to be noted in the JSON file.
        rows: the table to choose from.

    Returns:
        Tables of R2, of QLIKE, of differences, and of buying and holding at a target volatility.

    Raises:
        ConfigError: if an option is impossible or names no market or row.
        DataError: if the bars cannot be read or will not do.
        RunError: if `out` cannot be written.
    """
    require_positive(seeds=seeds, steps=steps)
    if market not in MARKETS:
        raise ConfigError(f"--market {market}: there is no such market; there are {[*MARKETS]}")
    if not Path(bars).is_file():
        raise ConfigError(f"--bars {bars}: no such file")
    out, setting = Path(out), MARKETS[market]
    chosen = [_shortened(row, seeds, steps, quick) for row in choose(rows, methods)]
    frames = read_bars(bars)
    seen, unseen = _parted(sorted(frames))
    digest = hashlib.sha256(Path(bars).read_bytes()).hexdigest()[:16]

    @cache  # all jobs share one panel
    def prepared() -> Prepared:
        first = _settings(chosen[0], setting, WINDOWS[0], seen, unseen, 0)
        return prepare(load_config(first), frames)

    told = {"market": setting.key, "sha256": digest, "before": CALIBRATION}
    plan = [
        (row.key, _learner_job(row, setting, support, seen, unseen, seed, prepared, told))
        for row in chosen
        for seed in range(row.seeds)
        for support in row.trainings()
    ]
    plan.append(("baselines", _baseline_job(setting, seen, unseen, prepared, told)))
    results = perform((job for _, job in plan), out / "results", Progress(console))
    found: dict[str, list[dict]] = {}
    for (key, _), result in zip(plan, results, strict=True):
        found.setdefault(key, []).append(result)
    judged = _Judged(prepared(), setting, chosen, found)
    tables = judged.tables(QUICK_MARK if quick else "")
    name = f"volatility-{setting.key}"
    write_json(
        out / f"{name}.json",
        {
            "command": command,
            "quick": quick,
            "where": surroundings(),
            "bars": {"file": Path(bars).name, "sha256": digest},
            "rows": {
                row.key: [row.settings(setting, support) for support in row.trainings()]
                for row in chosen
            },
            **judged.told,
        },
    )
    write(out / f"{name}.md", "\n".join(table.markdown() for table in tables))
    return tables


def _shortened(row: VolatilityRow, seeds, steps, quick) -> VolatilityRow:
    count = steps or (max(1, row.steps // QUICK_SHARE) if quick else row.steps)
    return replace(row, steps=count, seeds=seeds or (1 if quick else row.seeds))


def _parted(names: list[str]) -> tuple[list[str], list[str]]:
    if len(names) < UNSEEN_SHARE:
        raise ConfigError(
            f"--bars: needs at least {UNSEEN_SHARE} assets, there are {len(names)}: {names}"
        )
    count = len(names) // UNSEEN_SHARE
    return names[:-count], names[-count:]


def _settings(row, market: VolatilityMarket, support: int, seen, unseen, seed: int) -> dict:
    settings = row.settings(market, support)
    assets = {"train_assets": seen, "test_assets": unseen}
    return {**settings, "seed": seed, "data": {**settings["data"], **assets}}


def _learner_job(
    row, market, support, seen, unseen, seed, prepared: Callable[[], Prepared], told
) -> Job:
    settings = _settings(row, market, support, seen, unseen, seed)
    windows = row.trainings()[support]

    def run(advance: Advance) -> dict:
        ready = prepared()._replace(config=load_config(settings))
        params, history = meta_train(ready, row.method)
        advance(row.steps)
        learner = make_learner(ready.config, row.method)
        forecasts = {}
        for window in windows:
            predictions = walk_forward(
                learner,
                params,
                ready.panel,
                find_supports(
                    *(ready.panel, window),
                    first=_first(ready),
                    last=ready.test_last,
                    assets=unseen,
                ),
                steps=None if row.adapts else 0,
            )
            key = str(window) if row.adapts else ALWAYS
            forecasts[key] = _kept(np.asarray(point(predictions), float), ready)
        loss = history["loss"].to_numpy()
        return {
            "forecasts": forecasts,
            "training_loss": float(loss[-max(1, len(loss) // 10) :].mean()),
        }

    trained = f"{support}rows-" if row.support is None else ""
    name = f"{market.key}-{row.key}-{trained}seed{seed}"
    tested = windows if row.support is None else WINDOWS
    identity = {**told, "run": settings, "adapts": row.adapts, "windows": tested}
    return Job(name, identity, row.steps, run, lambda r: f"training loss {r['training_loss']:.4f}")


def _baseline_job(market, seen, unseen, prepared: Callable[[], Prepared], told) -> Job:
    def run(advance: Advance) -> dict:
        ready = prepared()
        made = baseline_forecasts(ready, market, _first(ready))
        advance(1)
        return {
            key: {window: _kept(values, ready) for window, values in forecasts.items()}
            for key, forecasts in made.items()
        }

    protocol = {
        "features": list(market.features),
        "har": list(market.har),
        "garch": dict(market.garch),
        "trailing": market.trailing,
        "horizon": market.horizon,
        "dates": dict(market.dates),
        "assets": [seen, unseen],
        "windows": WINDOWS,
    }
    return Job(f"{market.key}-baselines", {**told, **protocol}, 1, run, lambda r: ", ".join(r))


def _first(prepared: Prepared) -> int:
    return max(0, prepared.test_first - CALIBRATION)


def _kept(values: Float[np.ndarray, "asset time"], prepared: Prepared) -> list[list[float]]:
    """Keep the forecasts of the unseen assets from the first bar that counts."""
    assets = [prepared.panel.assets.index(asset) for asset in prepared.test_assets]
    kept = values[assets, _first(prepared) : prepared.test_last + 1]
    return np.round(kept, DIGITS).tolist()


class _Judged:
    """Forecasts beside outcomes, in logarithms of volatility per bar.

    Attributes:
        told: all figures, fit for JSON.
    """

    def __init__(self, prepared: Prepared, market: VolatilityMarket, rows, found):
        self.prepared, self.market, self.rows = prepared, market, rows
        first, start = _first(prepared), prepared.test_first
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
        self.told: dict[str, Any] = {"failed": self.failed}

    def _array(self, kept: list[list[float | None]]) -> np.ndarray:
        values = np.array([[number(value) for value in row] for row in kept])
        return np.asarray(self.prepared.scaler.restore_target(values))

    def of(self, key: str, window: int) -> Float[np.ndarray, "seed asset time"]:
        """Return the forecasts on so many rows, or those that do not depend on rows."""
        forecasts = self.logs[key]
        return forecasts.get(str(window), forecasts.get(ALWAYS))  # pyright: ignore

    def of_variance(self, key: str, window: int) -> Float[np.ndarray, "seed asset time"]:
        """Scale by the factor that is the best in QLIKE before the test span."""
        forecast = self.of(key, window)
        errors = np.exp(2 * (self.before - forecast))
        return forecast + 0.5 * np.log(np.nanmean(errors, axis=(-2, -1), keepdims=True))

    def tables(self, mark: str) -> list[Table]:
        """Compute all figures and lay them out."""
        columns = ("forecast", *(f"{window} rows" for window in WINDOWS))
        r2 = self._measured("r2", lambda key, n: r_squared_each(self.of(key, n), self.outcome))
        loss = self._measured(
            "qlike",
            lambda key, n: [qlike(each, self.outcome) for each in self.of_variance(key, n)],
        )
        tables = [
            Table(
                f"{mark}R2 of the log of volatility: {self.market.name}", columns, r2, self._note()
            ),
            Table(f"{mark}QLIKE", columns, loss, QLIKE_NOTE.format(before=CALIBRATION)),
        ]
        if self.headline is not None:
            tables += [self._gains(mark, self.headline), self._targets(mark, self.headline)]
        return tables

    def _measured(self, name: str, measure: Callable[[str, int], list[float]]):
        self.told[name] = {key: {n: measure(key, n) for n in WINDOWS} for key in self.logs}
        rows = [
            (self.names[key], *(_mean_and_half(values) for values in cells.values()))
            for key, cells in self.told[name].items()
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

    def _gains(self, mark: str, headline: str) -> Table:
        block, rows = 3 * self.market.block, []
        told: dict[str, dict[int, dict]] = {}
        for key in [key for key in self.logs if key not in (headline, TOGETHER)]:
            cells = []
            for window in WINDOWS:
                ours, other = self.of(headline, window), self.of(key, window)
                gain = r_squared_difference(ours, other, self.outcome, block=block)
                losses = [((f - self.outcome) ** 2).mean(axis=0) for f in (ours, other)]
                test = diebold_mariano(losses[0], losses[1], self.market.horizon)
                told.setdefault(key, {})[window] = {**gain._asdict(), "p": test.p_value}
                cells.append(
                    f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], p {test.p_value:.1g}"
                )
            rows.append((self.names[key], *cells))
        self.told["gains"] = {"of": headline, "over": told}
        return Table(
            f"{mark}What the {self.names[headline]} gains in R2",
            ("over", *(f"{window} rows" for window in WINDOWS)),
            rows,
            GAIN_NOTE.format(name=self.names[headline], block=block),
        )

    def _targets(self, mark: str, headline: str) -> Table:
        window = WINDOWS[-1]
        keys = [headline, *(key for key in BASELINES if key in self.logs)]
        start = self.prepared.test_first - _first(self.prepared)
        found = {
            key: deviations(self.prepared, self.market, self.of_variance(key, window)[..., start:])
            for key in keys
        }
        self.told["target"], table = target_table(found, self.names, self.market, headline)
        note = f"{table.note} {TARGET_NOTE.format(before=CALIBRATION, rows=window)}"
        return table._replace(title=mark + table.title, note=note)


def r_squared_each(forecasts: Float[np.ndarray, "seed asset time"], outcome) -> list[float]:
    """Return the R2 of each seed."""
    return [r_squared(each, outcome) for each in forecasts]


def _mean_and_half(values: list[float]) -> str:
    array = np.asarray(values)
    half = math.nan
    if len(array) > 1:
        half = float(stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / len(array) ** 0.5)
    return plus_minus(float(array.mean()), half)
