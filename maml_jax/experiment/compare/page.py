"""What the page of a comparison of runs shows, and in which order."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.backtest.period_tables import by_year
from maml_jax.experiment.compare.compare import Comparison
from maml_jax.experiment.digests import record_page
from maml_jax.report import (
    TearSheet,
    plot_drawdown,
    plot_equity,
    plot_intervals,
    plot_rolling_sharpe,
    render,
    write_page,
)
from maml_jax.report.plots.returns import rolling_window
from maml_jax.report.run_tables import HALF, PHONE, WIDE
from maml_jax.report.tear_sheet import Block, Grid, Plot, Section, format_value
from maml_jax.report.text import format_intervals, format_number

_SHOWN = 12
"""Runs whose years are shown; more do not fit side by side."""


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison of runs as one HTML file, and return its path.

    Raises:
        RunError: if it cannot be written.
    """
    page = write_page(path, render(comparison_sheet(comparison)))
    record_page(page)
    return page


def comparison_sheet(comparison: Comparison) -> TearSheet:
    """Lay out a comparison of runs."""
    net, first = comparison.returns, comparison.returns.columns[0]
    start, end = (format_value(pd.Timestamp(net.index[place])) for place in (0, -1))
    return TearSheet(
        title=f"{net.shape[1]} runs compared",
        facts=f"{start} to {end} · {len(net):,} bars, {comparison.bars_per_year:,.6g} a year",
        verdict=verdict(comparison),
        notes=comparison.warnings,
        sections=(
            Section("Equity", _growth(comparison)),
            Section(
                "Figures", _figures(comparison), "Net of costs, on the bars that all runs share."
            ),
            Section("Differences", _differences(comparison, first)),
            Section("Settings that differ", _settings(comparison)),
        ),
        settings={},
        versions={"maml-jax": version("maml-jax")},
    )


def verdict(comparison: Comparison) -> str:
    """Say how the first run's Sharpe ratio differs from those of the others."""
    first = comparison.returns.columns[0]
    stats: Any = comparison.stats
    parts = [f"{first} had a net Sharpe ratio of {format_number(stats.loc['Sharpe Ratio', first])}"]
    table = comparison.differences
    for row in table[table["figure"] == "Sharpe Ratio"].itertuples() if len(table) else ():
        value, low, high = (float(getattr(row, end)) for end in ("value", "low", "high"))
        if value != value:
            continue
        side = "above" if value >= 0 else "below"
        clear = "" if low > 0 or high < 0 else ", indistinguishable from chance"
        parts.append(
            f"{format_number(abs(value))} {side} that of {row.other} (difference "
            f"{format_number(value)}, 95 %: {format_number(low)} to {format_number(high)}){clear}"
        )
    return "; ".join(parts) + "."


def _growth(comparison: Comparison) -> tuple[Block, ...]:
    net = comparison.returns
    return (
        Plot(
            "Growth of 1, net of costs",
            "The strategy that stands for each run: "
            + ", ".join(f"{name}: {each}" for name, each in comparison.strategies.items())
            + ".",
            plot_equity(net, title="", width=WIDE),
            plot_equity(net, title="", width=PHONE),
            wide=True,
        ),
        Plot(
            "Drawdown",
            "How far each equity is below its previous peak.",
            plot_drawdown(net, title="", width=HALF),
        ),
        Plot(
            "Rolling Sharpe ratio",
            f"Over the last {rolling_window(len(net), comparison.bars_per_year):,} bars.",
            plot_rolling_sharpe(net, comparison.bars_per_year, title="", width=HALF),
        ),
    )


def _figures(comparison: Comparison) -> tuple[Block, ...]:
    first = comparison.returns.columns[0]
    table = comparison.stats.T.rename_axis("run")
    table.insert(0, "strategy", pd.Series(comparison.strategies, dtype=object))
    blocks: list[Block] = []
    if len(comparison.intervals):
        blocks.append(
            Plot(
                "Sharpe ratio",
                "95 % intervals: how far chance alone moves the ratio over this many bars. Whether "
                "a run has an edge is what its own test of alpha answers.",
                plot_intervals(comparison.intervals, headline=first, title="", width=HALF),
            )
        )
    blocks.append(Grid("Runs side by side", table, strong=first))
    if len(comparison.intervals):
        laid_out = format_intervals(comparison.intervals).rename_axis("run")
        caption = (
            "In brackets: 95 % intervals of a stationary bootstrap, how far chance alone moves a "
            "figure over this many bars."
        )
        blocks.append(Grid("Figures with intervals", laid_out, caption, first, columns=5))
    years = by_year(comparison.returns.iloc[:, :_SHOWN])
    blocks.append(Grid("Net return by year, %", years))
    whole = comparison.own_stats.dropna(how="all").T.rename_axis("run")
    whole = whole[[name for name in _SHOWN_FIGURES if name in whole]]
    caption = "As each run reports them: on its own test span, with its own bars per year."
    return (*blocks, Grid("Each run by itself", whole, caption, first))


_SHOWN_FIGURES = (
    "Start", "End", "Bars per Year", "Sharpe Ratio", "Gross Sharpe Ratio", "CAGR [%]",
    "Max. Drawdown [%]", "Turnover (Ann.)", "# Trades", "Correlation", "IC", "R2", "QLIKE",
)  # fmt: skip


def _differences(comparison: Comparison, first: str) -> tuple[Block, ...]:
    table = comparison.differences
    if table.empty:
        return ()
    return (
        Plot(
            f"Sharpe ratio, {first} minus each other run",
            "Right of 0, the first run is better; an interval across 0 shows no difference.",
            plot_intervals(table, headline="", title="", width=HALF),
        ),
        Grid(
            f"{first} minus each other run",
            format_intervals(table, "other").rename_axis("run"),
            "Positive: the first run is better. Each bootstrap sample draws the same bars of both.",
        ),
    )


def _settings(comparison: Comparison) -> tuple[Block, ...]:
    if comparison.settings.empty:
        return ()
    return (Grid("Settings", comparison.settings, columns=4),)
