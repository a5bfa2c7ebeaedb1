"""What the figures of a walk-forward are worth: intervals, differences, tests."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.account.orders import Market
from maml_jax.backtest.inference import (
    Roles,
    assess_significance,
    compute_differences,
    compute_intervals,
    overfitting_probability,
    resample,
)
from maml_jax.backtest.strategy_names import BUY_AND_HOLD
from maml_jax.errors import RunError
from maml_jax.experiment.evaluation.accounts import trade_totals
from maml_jax.experiment.evaluation.decisions import random_positions
from maml_jax.experiment.evaluation.trials import (
    LEDGER,
    Trials,
    count,
    count_alone,
    record,
    trials_of,
)
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.process import is_first_process, together
from maml_jax.features import fill_returns
from maml_jax.notes import Note

RANDOM_DRAWS = 200
"""Sets of the headline's positions at random times that it is ranked among, no more than samples
of the bootstrap."""


class Judgement(NamedTuple):
    """What figures are worth; the attributes of `Evaluation` of the same names."""

    intervals: pd.DataFrame
    differences: pd.DataFrame
    significance: pd.DataFrame
    overfitting: Mapping[str, Any]
    notes: tuple[Note, ...]


def judge(
    prepared: Prepared,
    net: pd.DataFrame,
    decisions: Mapping[str, pd.DataFrame],
    market: Market,
    *,
    ledger: Path | None,
) -> Judgement:
    """Judge the returns of all strategies.

    Args:
        prepared: settings and bars.
        net: net returns per bar, `[time, strategy]`, the headline first.
        decisions: of every strategy.
        market: as `market_of_test_span` returns it.
        ledger: folder in which trials are recorded; None counts those of this call alone.
    """
    config, years = prepared.config, prepared.bars_per_year
    headline = next(iter(net.columns))
    methods = [name for name in config.learner.methods if name in net.columns]
    baselines = [name for name in net.columns if name not in methods]
    drawn: dict[str, Any] = {"seed": config.seed, "samples": config.backtest.samples}
    resampled = resample(net, years, **drawn)
    trials, notes = _trials(prepared, net, methods, market, ledger)
    table = assess_significance(
        net,
        Roles(headline, methods, baselines, BUY_AND_HOLD),
        trials=trials.number,
        trial_variance=trials.variance,
        bars_per_year=years,
        resampled=resampled,
        **drawn,
    )
    table["random_share"] = np.nan
    table.loc[headline, "random_share"] = _random_share(
        prepared, net[headline], decisions[headline], market
    )
    return Judgement(
        compute_intervals(resampled),
        compute_differences(resampled, headline),
        table,
        _overfitting(net[methods]),
        notes,
    )


def _trials(
    prepared: Prepared,
    net: pd.DataFrame,
    methods: list[str],
    market: Market,
    ledger: Path | None,
) -> tuple[Trials, tuple[Note, ...]]:
    """Record what is tried here, and count what was tried on the same bars before.

    A ledger that cannot be written costs the record, and not what was found.
    """
    own = trials_of(prepared.config, net, methods, market.close)
    if ledger is None:
        return count_alone(own), ()
    # One process records; the others' judgements are dropped.
    counted, texts = count_alone(own), []
    with together(f"recording trials in {ledger}"):
        if is_first_process():
            try:
                record(ledger, own)
            except RunError as error:
                texts.append(f"{error}; later runs will not count the trials of this one.")
            try:
                counted = count(ledger, own[0].data, own)
            except RunError as error:
                texts.append(f"{error}; trials of earlier runs are not counted.")
    if counted.damaged:
        texts.append(
            f"{ledger / LEDGER}: {counted.damaged} lines cannot be read; the trials in them are "
            "not counted, so p-values are too optimistic."
        )
    return counted, tuple(Note("ledger", text) for text in texts)


def _random_share(
    prepared: Prepared, net: pd.Series, decided: pd.DataFrame, market: Market
) -> float:
    """Return the share of the same positions at random times with a smaller mean return."""
    if not (decided != 0).any(axis=None):
        return np.nan
    bars = {asset: prepared.bars[asset] for asset in prepared.test_assets}
    returns = fill_returns(bars, prepared.config.target.fill).reindex(net.index)
    draws = min(RANDOM_DRAWS, prepared.config.backtest.samples)
    drawn = [
        partial(random_positions, prepared, decided, returns, draw=draw)
        for draw in range(1, draws + 1)
    ]
    totals = trade_totals(prepared, market, drawn)
    others = totals.net.mean(axis=1)
    own = float(net.mean())
    return float((np.sum(others < own) + 0.5 * np.sum(others == own)) / len(others))


def _overfitting(net: pd.DataFrame) -> dict[str, Any]:
    """Return what choosing the best of the methods is worth; nothing where there is one."""
    if net.shape[1] < 2:
        return {}
    found = overfitting_probability(net)
    if np.isnan(found.probability):
        return {}
    return {
        "probability": found.probability,
        "loss_probability": found.loss_probability,
        "slope": found.slope,
        "splits": len(found.logits),
        "methods": list(net.columns),
    }
