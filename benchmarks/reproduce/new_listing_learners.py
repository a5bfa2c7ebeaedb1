"""Which learner adapts best to a young asset, on one split of the training assets.

The rule, which was written before the figures. Two thirds of the training assets, by name, to the
day before the validation teach a pooled network of all ages by its squared error, and then each
learner on what that network leaves over, or from it on; all see the same inputs. The other third is
forecast in the years of the validation (`ListingMarket.validation`), as if each had been listed n
bars ago. The learner with the greatest mean over `AGES` of the R2 of the log of volatility is the
one that ships. A setting is chosen from the grid of its row with the first seed, on the same bars;
two trainings are averaged, where the first is not far behind the head. What beats the head counts
if the interval of the difference, by the stationary bootstrap, lies above zero.

Grids were changed once, after the first figures: m = 100, which MAML had been missing in the first
bars, took the place of faster inner rates, which had lost by far.
"""

import time
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from benchmarks.reproduce.new_listing_learner_rows import (
    HEAD,
    LEARNERS,
    NETWORK,
    LearnerRow,
    correct,
)
from benchmarks.reproduce.new_listing_learner_split import (
    AGES,
    META_BATCH,
    POOLED_STEPS,
    QUERIES,
    Split,
)
from benchmarks.reproduce.new_listing_market import Data, mean_error, variance_shift
from benchmarks.reproduce.new_listing_tables import interval_text
from benchmarks.reproduce.progress import Advance
from benchmarks.reproduce.results import Job
from benchmarks.reproduce.study import Call
from benchmarks.reproduce.table import Table
from maml_jax.backtest.inference import qlike, r_squared, r_squared_difference
from maml_jax.meta import MetaLearner, MetaState, Task, fit, predict_tasks
from maml_jax.meta.types import MetaParams, Params, Prediction
from maml_jax.risk.histories import INPUTS

SHOWN = (5, 20, 60, 250)
SEEDS = (0, 1)
_MAX_NORM = 10.0
_NEAR = 0.01
"""Mean R2 below that of the head from which on a learner is trained once: a second cannot help."""

_RELEASED_AFTER = 4
"""Learners whose compiled programs are kept for a second training."""

NOTE = (
    "{market}, the next {horizon} bars: {train} assets before {start} for training, {valid} others"
    " ({names}) at every {every} bars from {start} to {end}, each as if it had been listed n bars"
    " ago; {bars:,} forecasts at each n. R2 is of the log of realised volatility, from one mean of"
    " all assets; mean: over n = {ages}. The setting was chosen from the grid of each row on the"
    " same bars; two trainings are averaged, but for learners that were {near} behind the head"
    " after the first. All but the first row add to the pooled network or start from it. Rows: m,"
    " where a support set of n rows counts n / (n + m). Gain: of the mean over the head's, with the"
    " 95 % interval of the stationary bootstrap over times (blocks of {block} forecasts). QLIKE is"
    " shifted to the mean variance by one constant, fitted on training assets."
)


class Trainer:
    """Trains and measures learners on one split; those of one setting share their programs."""

    def __init__(self, split: Split):
        self.split = split
        self._make = lru_cache(_RELEASED_AFTER)(self._make_learner)

    def _make_learner(self, row: LearnerRow, place: int, steps: int):
        make = row.make
        assert make is not None
        learner = make(row.grid[place], self.split.listings[1].y_std)
        if not row.starts:
            learner = correct(learner, self.split.mean.model)
        return learner, optax.adam(optax.cosine_decay_schedule(row.rate, steps))

    def train(
        self, row: LearnerRow, place: int, seed: int, steps: int, pooled_steps: int
    ) -> tuple[MetaLearner, Params]:
        """Train a learner with one setting of its grid from one seed."""
        split = self.split
        mean = split.mean.params(seed, pooled_steps)
        if row.make is None:
            return split.mean.learner, mean
        learner, optimizer = self._make(row, place, steps)
        key = jax.random.fold_in(jax.random.key(seed), 1)
        start = learner.init(key, jnp.zeros((1, len(INPUTS))))
        if isinstance(start, MetaParams):
            start = start._replace(start=mean)
        else:
            start = start._replace(mean=mean)
        state = MetaState(start, optimizer.init(start), jnp.zeros((), jnp.int32))
        sampler = split.whole if row.whole else split.drawn
        options: Any = {"steps": steps, "state": state, "max_grad_norm": _MAX_NORM}
        state, _ = fit(learner, optimizer, sampler, key, **options)
        return learner, state.params

    def measure(self, row: LearnerRow, learner: MetaLearner, params: Params) -> dict[str, Any]:
        """Forecast the validation; constants are fitted on tasks of training."""
        split, scaling = self.split, self.split.listings[1]

        def forecast(tasks: Task) -> np.ndarray:
            found = predict_tasks(learner, params, tasks)
            mean = found.mean if isinstance(found, Prediction) else found
            return np.asarray(mean, float)[:, 0, 0]

        tasks, y = split.trained_tasks
        error = scaling.y_std * (y - forecast(tasks))
        shape = (len(split.valid), len(split.bars))
        each = np.stack([forecast(tasks).reshape(shape) for tasks in split.tasks])
        logs = scaling.y_mean + scaling.y_std * each
        return {
            "forecasts": np.round(logs, 4).tolist(),
            "to_mean": mean_error(error) if row.of_variance else 0.0,
            "to_variance": variance_shift(error),
        }


def compare_learners(call: Call, data: Data) -> tuple[dict[str, Any], list[Table]]:
    """Train all learners, choose the setting of each, and compare them."""
    split = Split(data)
    trainer = Trainer(split)
    seeds = SEEDS[: call.count_seeds(len(SEEDS))]
    chosen: dict[str, int] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    reference = -np.inf
    for row in LEARNERS:
        places = range(len(row.grid))
        first = [_perform(call, trainer, row, place, seeds[0]) for place in places]
        score = [_score(split, _forecast(each)) for each in first]
        if not np.isfinite(score).any():
            continue
        best = chosen[row.key] = int(np.nanargmax(score))
        reference = score[best] if row.key == HEAD else reference
        near = score[best] > reference - _NEAR
        rest = [_perform(call, trainer, row, best, seed) for seed in seeds[1:] if near]
        found[row.key] = [first[best], *(each for each in rest if "failed" not in each)]
    return _tabulate(split, found, chosen)


def _perform(
    call: Call, trainer: Trainer, row: LearnerRow, place: int, seed: int
) -> dict[str, Any]:
    data = trainer.split.data
    steps, pooled_steps = call.count_steps(row.steps), call.count_steps(POOLED_STEPS)

    def make(advance: Advance) -> dict[str, Any]:
        began = time.perf_counter()
        learner, params = trainer.train(row, place, seed, steps, pooled_steps)
        result = trainer.measure(row, learner, params)
        advance(steps)
        return {**result, "seconds": round(time.perf_counter() - began)}

    def describe(result: dict[str, Any]) -> str:
        r2 = _by_age(trainer.split, _forecast(result))
        return (
            f"{row.grid[place]} R2 {np.round(r2, 3)}, mean {r2.mean():.4f}, {result['seconds']} s"
        )

    identity = {
        **data.identity,
        "validation": data.market.validation,
        "ages": AGES,
        "learner": row.key,
        "setting": row.grid[place],
        "steps": [pooled_steps, steps, META_BATCH, QUERIES],
        "rate": row.rate,
        "seed": seed,
    }
    name = f"{data.market.key}-learner-{row.key}-{place}-{seed}"
    return call.perform([(name, Job(name, identity, steps, make, describe))])[name][0]


def _forecast(
    result: dict[str, Any], shift: str = "to_mean"
) -> Float[np.ndarray, "age asset time"]:
    if "failed" in result:
        return np.full((len(AGES), 1, 1), np.nan)
    return np.array(result["forecasts"], float) + result[shift]


def _by_age(split: Split, forecast: np.ndarray) -> np.ndarray:
    return np.array([r_squared(each, split.truth) for each in forecast])


def _score(split: Split, forecast: np.ndarray) -> float:
    return float(np.mean(_by_age(split, forecast))) if np.isfinite(forecast).any() else np.nan


def _together(
    split: Split, forecast: np.ndarray
) -> tuple[np.ndarray, Float[np.ndarray, "row time"]]:
    """Stack the ages: their outcomes are the same, so the R2 of the stack is the mean of all."""
    truth = np.tile(split.truth, (len(AGES), 1))
    return forecast.reshape(truth.shape), truth


def _tabulate(
    split: Split, found: dict[str, list[dict[str, Any]]], chosen: dict[str, int]
) -> tuple[dict[str, Any], list[Table]]:
    rows = {row.key: row for row in LEARNERS}
    logs = {k: np.mean([_forecast(each) for each in v], axis=0) for k, v in found.items()}
    variances = {
        k: np.mean([_forecast(each, "to_variance") for each in v], axis=0) for k, v in found.items()
    }
    names = {key: rows[key].name for key in found}
    others = [key for key in found if not key.startswith((HEAD, NETWORK, "ridge"))]
    if others and HEAD in found:
        best = max(others, key=lambda key: _score(split, logs[key]))
        for each in (logs, variances):
            each["both"] = (each[HEAD] + each[best]) / 2
        names["both"] = f"mean of the head and {names[best]}"
    block = max(2, 3 * split.data.market.block // (2 * split.data.every))
    record, cells = {}, []
    for key, forecast in logs.items():
        r2 = _by_age(split, forecast)
        setting = rows[key].grid[chosen[key]] if key in chosen else {}
        single = [_score(split, _forecast(each)) for each in found.get(key, ())]
        record[key] = {
            "name": names[key],
            "setting": setting,
            "r2": dict(zip(map(str, AGES), r2.tolist(), strict=True)),
            "mean": float(r2.mean()),
            "single": single,
            "qlike": float(np.mean([qlike(each, split.truth) for each in variances[key]])),
        }
        gain = ""
        if key != HEAD and HEAD in logs:
            ours, truth = _together(split, forecast)
            theirs, _ = _together(split, logs[HEAD])
            difference = r_squared_difference(ours, theirs, truth, block=block)
            record[key]["gain"] = difference._asdict()
            gain = interval_text(record[key]["gain"])
        shown = (f"{r2[AGES.index(age)]:.3f}" for age in SHOWN)
        words = ", ".join(f"{name} {value:g}" for name, value in setting.items())
        last = (f"{record[key]['mean']:.4f}", gain, f"{record[key]['qlike']:.3f}")
        cells.append((names[key], words, *shown, *last))
    columns = ("learner", "setting", *(f"n = {n}" for n in SHOWN), "mean", "gain", "QLIKE")
    title = f"Other learners, on validation: {split.data.market.name}"
    return record, [Table(title, columns, cells, _note(split, block))]


def _note(split: Split, block: int) -> str:
    market = split.data.market
    return NOTE.format(
        market=market.name[0].upper() + market.name[1:],
        horizon=market.horizon,
        train=len(split.train),
        valid=len(split.valid),
        names=", ".join(split.names[1]),
        every=2 * split.data.every,
        start=market.validation[0],
        end=market.validation[1],
        bars=int(np.isfinite(split.truth).sum()),
        ages=", ".join(map(str, AGES)),
        block=block,
        near=_NEAR,
    )
