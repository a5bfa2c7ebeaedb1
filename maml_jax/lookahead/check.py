"""Does a run use anything that was not known yet? Its pipeline is rerun with later bars altered.

Bars are cut off after a bar, altered after it, and begun later; and all that is known at that bar
is compared: every feature, the scaling, regimes, labels, the rows of tasks, predictions, decisions
and orders.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from maml_jax.errors import ConfigError, LookAheadError
from maml_jax.experiment.result import Result, load
from maml_jax.experiment.run import Bars
from maml_jax.experiment.timing import stage
from maml_jax.lookahead.beginnings import check_beginnings
from maml_jax.lookahead.columns import check_columns, study_columns
from maml_jax.lookahead.findings import Finding, findings_table
from maml_jax.lookahead.job import columns_of, job_of, quantities_of
from maml_jax.lookahead.pipeline import check_training, check_walk, parts_of

CUTS = 3
"""Bars of the test span after which bars are cut off and altered."""


@dataclass(frozen=True, repr=False)
class LookAheadReport:
    """What the check found.

    Attributes:
        findings: one row for each quantity that looks ahead: `what` it is (in the
            order of the pipeline), its `name`, the `asset` in which it was seen first and in how
            many `assets`, the first `bar` that differs, the `cut` up to which it should not, the
            `size` of the difference in its `unit`, and `how` it was found.
        recursive: how far the beginning of the bars reaches: the greatest difference of each
            feature in per cent of its deviation, after so many warm-ups of bars.
        checked: what was looked at, in sentences.
        notes: what was not looked at, and why.
    """

    findings: pd.DataFrame
    recursive: pd.DataFrame
    checked: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return self.findings.empty

    def __repr__(self) -> str:
        return f"LookAheadReport({len(self.findings)} findings)"

    def __str__(self) -> str:
        return self.verdict()

    def verdict(self) -> str:
        """Say in a sentence what was found."""
        if self.clean:
            return "No look-ahead found in the checks above."
        first = self.findings.iloc[0]
        count = len(self.findings)
        where = f" of {first['asset']}" if first["asset"] else ""
        when = f", first seen at {first['bar']}" if first["bar"] is not None else ""
        return (
            f"Look-ahead found ({count} finding{'s' if count > 1 else ''}). "
            f"Most likely cause: {first['what']} {first['name']!r}{where}{when} "
            f"({first['how']})."
        )


def check_lookahead(
    run: Result | str | Path, *, bars: Bars | None = None, cuts: int = CUTS, seed: int = 0
) -> LookAheadReport:
    """Run the pipeline of a run again with later bars altered and other beginnings, and compare.

    Args:
        run: a result, or a run directory.
        bars: bars to use instead of those that the settings name; those of a run that was made of
            bars in memory.
        cuts: after how many bars of the test span the future is changed.
        seed: of the places of cuts and of the altered futures.

    Returns:
        What was found, what was looked at, and what could not be.

    Raises:
        ConfigError: if the bars of the run have to be passed, or `cuts` is below 1.
        DataError: if the bars will not do.
        RunError: if there is no run.
    """
    if cuts < 1:
        raise ConfigError(f"cuts must be at least 1, got {cuts}")
    result = run if isinstance(run, Result) else load(run)
    job = job_of(result, bars, cuts, seed)
    findings, checked, notes = [*job.findings], [], [*job.notes]
    with stage("features with later bars altered"):
        study = study_columns(quantities_of(job), columns_of(job), job.market)
        found, looked = check_columns(
            study, cuts=2 * cuts, horizon=job.config.target.horizon, seed=seed
        )
        begun, recursive = check_beginnings(study)
        findings += found + begun
        checked += [*looked, "bars begun later at 5 places: the same, from their warm-up on"]
    try:
        parts, unchecked = parts_of(job)
        findings += unchecked.findings
        notes += unchecked.notes
        for part, step in itertools.product(parts, (check_training, check_walk)):
            found, looked, left = step(job, part)
            findings += found
            checked += looked
            notes += left
    except LookAheadError as error:
        where = (error.feature, error.asset, error.bar, error.cut)
        how = "refused while the panel was made"
        findings.append(Finding("feature", *where, np.nan, "deviations", how))
        notes.append(f"Not checked: everything made of features. {error}.")
    return LookAheadReport(findings_table(findings), recursive, tuple(checked), tuple(notes))
