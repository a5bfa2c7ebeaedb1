"""What the tear sheet of a run shows, and in which order."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from maml_jax.report import RunTables, TearSheet, parts, parts_forecasts
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
    return TearSheet(
        title=f"{tables.headline.upper()} on {_list(result.config.data.test_assets or ())}",
        facts=_facts(result, tables),
        tiles=parts.tiles(tables),
        verdict=verdict,
        notes=result.notes,
        parts=(
            parts.earned(tables),
            parts.luck(tables),
            parts.strategies(tables),
            parts.over_time(tables),
            parts.traded(tables),
            parts_forecasts.predicted(tables),
            parts_forecasts.by_asset(tables),
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


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{len(names)} assets"
