"""What the tear sheet of a run shows, and in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.errors import mask_values
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.experiment.evaluation.verdict import verdict
from maml_jax.listing import MOST, join_or_count
from maml_jax.notes import Note
from maml_jax.report import RunTables, TearSheet, render, text, write_page
from maml_jax.report.sections.assets import describe_assets
from maml_jax.report.sections.forecasts import describe_forecasts, describe_regimes
from maml_jax.report.sections.returns import (
    describe_equity,
    describe_luck,
    describe_periods,
    describe_strategies,
    describe_trading,
    make_tiles,
)
from maml_jax.report.tear_sheet import format_value

_PACKAGES = ("maml-jax", "jax", "optax", "flax", "numpy", "pandas")
_UNITS = {
    "return": "units of trailing volatility",
    "direction": "-1 down, 1 up",
    "volatility": "log of volatility",
}


def write_tear_sheet(
    path: str | Path,
    config: Config,
    evaluation: Evaluation,
    history: pd.DataFrame,
    notes: Sequence[Note],
) -> Path:
    """Write the tear sheet of a run as one HTML file, and return its path.

    Args:
        path: of the file.
        config: the settings of the run, with what was left open filled in.
        evaluation: its tables.
        history: of its meta-training, as `Result` has it.
        notes: what a reader must know.

    Raises:
        RunError: if it cannot be written.
    """
    return write_page(path, render(tear_sheet(config, evaluation, history, notes)))


def tear_sheet(
    config: Config, evaluation: Evaluation, history: pd.DataFrame, notes: Sequence[Note]
) -> TearSheet:
    """Lay out what a run found; arguments as for `write_tear_sheet`."""
    tables = run_tables(config, evaluation, history)
    assets = join_or_count(config.data.test_assets or (), "assets")
    settings: dict[str, Any] = mask_values(config.model_dump(exclude_none=True))
    seed = settings.pop("seed")
    run = {"seed": seed, "bars per year": f"{tables.bars_per_year:g}"}
    if any(_is_long(value) for values in settings.values() for value in values.values()):
        run["lists of many"] = "cut short here, whole in config.toml of the run directory"
    return TearSheet(
        title=f"{tables.headline.upper()} on {assets}",
        facts=_facts(config, tables),
        tiles=make_tiles(tables),
        verdict=verdict(config, evaluation),
        notes=text.shorten_notes(notes),
        sections=(
            describe_equity(tables),
            describe_luck(tables),
            describe_strategies(tables),
            describe_periods(tables),
            describe_trading(tables),
            describe_forecasts(tables),
            describe_assets(tables),
            describe_regimes(tables),
        ),
        settings={"run": run, **settings},
        versions={name: version(name) for name in _PACKAGES},
    )


def run_tables(config: Config, evaluation: Evaluation, history: pd.DataFrame) -> RunTables:
    """Return the tables of a run; those that an old run directory lacks are empty."""
    stats: Any = evaluation.stats
    settings = config.backtest
    headline = stats.columns[0]
    names = {field.name for field in fields(RunTables)} & {*Evaluation._fields}
    return RunTables(
        headline=headline,
        methods=[name for name in config.learner.methods if name in stats],
        bars_per_year=float(stats.loc["Bars per Year", headline]),
        history=history,
        cost=settings.fee + settings.slippage,
        units=_UNITS.get(config.target.kind, ""),
        overlap=config.target.horizon,
        **{name: getattr(evaluation, name) for name in names},
    )


def _facts(config: Config, tables: RunTables) -> str:
    returns, settings = tables.returns, config.backtest
    start, end = (format_value(pd.Timestamp(returns.index[place])) for place in (0, -1))
    cost = 1e4 * (settings.fee + settings.slippage)
    more = [
        f", {100 * share:g} % {what}"
        for share, what in (
            (settings.range_slippage, "of the bar's range"),
            (settings.borrow, "a year for borrowing"),
        )
        if share
    ]
    return (
        f"{start} to {end} · {len(returns):,} bars, {tables.bars_per_year:,.6g} a year · "
        f"{cost:g} bp of the value traded for fees and slippage{''.join(more)} · "
        f"seed {config.seed}"
    )


def _is_long(value: object) -> bool:
    return isinstance(value, tuple | list | Mapping) and len(value) > MOST
