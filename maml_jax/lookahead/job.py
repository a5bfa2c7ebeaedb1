"""What the check for looking ahead works on: its bars, settings, and bars altered after a cut."""

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from maml_jax.data import clean_bars
from maml_jax.data.quality.checks import check_bars
from maml_jax.data.quality.cleaning import read_policies
from maml_jax.errors import DataError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.learning.checkpoint import Checkpoint
from maml_jax.experiment.preparation.bars import load_bars
from maml_jax.experiment.preparation.regimes import needs_regimes
from maml_jax.experiment.preparation.series import PAIRS, follows_rules
from maml_jax.experiment.result import Result
from maml_jax.experiment.run import Bars
from maml_jax.features import (
    STRATEGIES,
    Feature,
    add_cross_section,
    label_regimes,
    reads_cross_section,
    regime_warm_up,
)
from maml_jax.features.signals.strategies import spread_market
from maml_jax.lookahead.columns import Quantity
from maml_jax.lookahead.findings import Finding
from maml_jax.lookahead.futures import Frames, alter_after, cut_off

CUT_OFF = "bars cut off"
"""What findings say of a future that there is not."""

_LOOKED = 5
"""Bars of each kind of fault of which it is asked whether later ones gave them away."""


class Job(NamedTuple):
    """What is checked.

    Attributes:
        result: the run.
        config: its settings; bars are cleaned already.
        frames: the bars in use, cleaned.
        features: that the settings name.
        findings: what cleaning knew.
        notes: what was not looked at.
        cuts: how many.
        seed: of what is random.
    """

    result: Result
    config: Config
    frames: dict[str, pd.DataFrame]
    features: list[Feature]
    findings: list[Finding]
    notes: list[str]
    cuts: int
    seed: int

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs that are traded; numbers of pairs were resolved when the run was made."""
        task = self.config.task
        if not follows_rules(self.config) or PAIRS not in task.strategies:
            return []
        chosen = () if isinstance(task.pairs, int) else task.pairs
        return [pair for pair in chosen if {*pair} <= {*self.frames}]

    def market(self, frames: Frames) -> dict[str, pd.DataFrame]:
        """Add the columns that are made of all assets."""
        if not reads_cross_section(self.features):
            return dict(frames)
        return add_cross_section(frames)

    def futures(self, cut: pd.Timestamp) -> Iterator[tuple[str, dict[str, pd.DataFrame]]]:
        """Alter all bars after a cut, in several ways."""
        yield CUT_OFF, cut_off(self.frames, cut)
        # What pairs return may not exceed the capital; only altered a little they stay below.
        first = 2 * self.seed + 1 if self.pairs else 2 * self.seed
        yield "later bars altered", alter_after(self.frames, cut, first)
        other = "later bars altered a little, some missing"
        yield other, alter_after(self.frames, cut, 2 * self.seed + 3)


def folds_of(result: Result) -> tuple[dict[str, Checkpoint], ...]:
    """Return the checkpoints of each fold, by method; those of the one fold of most runs."""
    return result.folds or (result.checkpoints,)


def job_of(result: Result, bars: Bars | None, cuts: int, seed: int) -> Job:
    """Read the bars of a run and clean them as it did.

    Raises:
        DataError: if bars are missing or will not do.
    """
    config = result.config
    frames = load_bars(config, bars)
    trained = [next(iter(fold.values())).config.data for fold in folds_of(result)]
    wanted = [name for each in trained for name in each.train_assets or ()]
    wanted += config.data.test_assets or frames
    frames = {name: frames[name] for name in dict.fromkeys(wanted) if name in frames}
    missing = [name for name in config.data.test_assets or () if name not in frames]
    if missing:
        raise DataError(f"no bars of {', '.join(missing)}, which the run was tested on")
    cleaned = clean_bars(frames, config.data.policies).bars
    findings = _hindsight(frames, config)
    return Job(
        result,
        keep_bars(config),
        cleaned,
        config.features.named(),
        findings,
        [],
        cuts,
        seed,
    )


def keep_bars(config: Config) -> Config:
    """Leave bars as they are, for they are cleaned already."""
    return config.changed(data={"policies": "keep"})


def _hindsight(frames: Frames, config: Config) -> list[Finding]:
    """Find bars that were dropped or masked for what only later ones show."""
    findings = []
    policies = read_policies(config.data.policies)
    for name, frame in frames.items() if policies else ():
        for fault in check_bars({name: frame})[name]:
            if fault.kind not in policies or fault.kind == "gap":  # where there is no bar
                continue
            for time in fault.times[:_LOOKED]:
                then = check_bars({name: frame.loc[:time]})[name]
                if not any(each.kind == fault.kind and time in each.times for each in then):
                    how = (
                        f"data.policies: {policies[fault.kind]}; a fault of this kind is known "
                        "by the bars after it"
                    )
                    count = float(len(fault.times))
                    findings.append(
                        Finding("bars", fault.kind, name, time, time, count, "bars", how)
                    )
                    break
    return findings


def quantities_of(job: Job) -> list[Quantity]:
    """List what is computed from the bars of one asset: features, sides of rules, regimes."""
    config, pairs = job.config, tuple(f"{a}-{b}" for a, b in job.pairs)
    features = [Quantity("feature", each) for each in job.features]
    if not follows_rules(config):
        sides = []
    else:
        sides = [
            Quantity(
                "side",
                Feature(name, STRATEGIES[name].side, STRATEGIES[name].warm_up),
                pairs if name == PAIRS else tuple(job.frames),
            )
            for name in config.task.strategies
        ]
    regimes = []
    if needs_regimes(config) and not config.regimes.market_wide():
        windows = config.regimes.windows()

        def label(bars: pd.DataFrame) -> pd.Series:
            return label_regimes(bars, **windows).astype(float)

        regimes = [Quantity("regime", Feature("of the asset", label, regime_warm_up(**windows)))]
    return [*features, *sides, *regimes]


def columns_of(job: Job) -> dict[str, pd.DataFrame]:
    """Return the bars of which quantities are computed: of assets, and of pairs of them."""
    return {**job.frames, **spread_market(job.frames, job.pairs)}
