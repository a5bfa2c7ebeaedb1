"""What the tear sheet of a run shows, and in which order."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from maml_jax.listing import MOST
from maml_jax.report import RunTables, TearSheet, text
from maml_jax.report.sections import assets as parts_assets
from maml_jax.report.sections import forecasts as parts_forecasts
from maml_jax.report.sections import returns as parts
from maml_jax.report.tear_sheet import format_value

if TYPE_CHECKING:
    from maml_jax.experiment.result import Result

_PACKAGES = ("maml-jax", "jax", "optax", "flax", "numpy", "pandas")
_UNITS = {
    "return": "trailing volatilities",
    "direction": "-1 down, 1 up",
    "volatility": "log of volatility",
}


def tear_sheet(result: "Result", verdict: str) -> TearSheet:
    """Lay out what a run found.

    Args:
        result: of a run that was backtested.
        verdict: what is to be said of it first.
    """
    tables = run_tables(result)
    settings: dict[str, Any] = result.config.model_dump(exclude_none=True)
    seed = settings.pop("seed")
    run = {"seed": seed, "bars per year": f"{tables.bars_per_year:g}"}
    if any(_is_long(value) for values in settings.values() for value in values.values()):
        run["lists of many"] = "cut short here, whole in config.toml of the run directory"
    return TearSheet(
        title=f"{tables.headline.upper()} on {name_assets(result)}",
        facts=_facts(result, tables),
        tiles=parts.tiles(tables),
        verdict=verdict,
        notes=brief_notes(result),
        parts=(
            parts.earned(tables),
            parts.luck(tables),
            parts.strategies(tables),
            parts.over_time(tables),
            parts.traded(tables),
            parts_forecasts.predicted(tables),
            parts_assets.by_asset(tables),
            parts_forecasts.by_regime(tables),
        ),
        settings={"run": run, **settings},
        versions={name: version(name) for name in _PACKAGES},
    )


def run_tables(result: "Result") -> RunTables:
    """Return the tables of a run; those that an old run directory lacks are empty."""
    evaluation: Any = result.evaluation
    names = ("predictions", "trades", "assets", "regimes", "gross", "turnover", "exposure",
             "adaptation", "intervals", "differences", "significance")  # fmt: skip
    given: dict[str, Any] = {name: getattr(evaluation, name, pd.DataFrame()) for name in names}
    stats: Any = result.stats
    config = result.config
    settings = config.backtest
    headline = next(iter(result.checkpoints))
    return RunTables(
        headline=headline,
        methods=[name for name in result.checkpoints if name in stats],
        bars_per_year=float(stats.loc["Bars per Year", headline]),
        stats=stats,
        returns=result.returns,
        history=result.history,
        overfitting=getattr(evaluation, "overfitting", {}),
        cost=settings.fee + settings.slippage,
        units=_UNITS.get(config.target.kind, ""),
        overlap=config.target.horizon,
        **given,
    )


def _facts(result: "Result", tables: RunTables) -> str:
    returns, settings = tables.returns, result.config.backtest
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
        f"{start} to {end} · {len(returns):,} bars, {tables.bars_per_year:g} a year · "
        f"{cost:g} bp of the value traded for fees and slippage{''.join(more)} · "
        f"seed {result.config.seed}"
    )


def brief_notes(result: "Result") -> tuple[str, ...]:
    """Return what a reader must know; of notes on many assets, the first."""
    data = result.config.data
    return text.brief(result.notes, {*(data.test_assets or ()), *(data.train_assets or ())})


def name_assets(result: "Result") -> str:
    """Name the assets that are walked forward on, or count them."""
    names = result.config.data.test_assets or ()
    return ", ".join(names) if len(names) <= 8 else f"{len(names):,} assets"


def _is_long(value: object) -> bool:
    return isinstance(value, tuple | list | Mapping) and len(value) > MOST
