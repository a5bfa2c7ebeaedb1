"""What the page of a comparison of runs shows, and in which order."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from maml_jax.backtest.period_tables import by_year
from maml_jax.experiment.compare.compare import Comparison
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
from maml_jax.report.tear_sheet import Block, Grid, Part, Plot, format_value
from maml_jax.report.text import number, with_intervals

_SHOWN = 12
"""Runs of which years are told; more do not fit beside each other."""


def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write a comparison of runs as one HTML file, and return its path.

    Raises:
        RunError: if it cannot be written.
    """
    return write_page(path, render(comparison_sheet(comparison)))


def comparison_sheet(comparison: Comparison) -> TearSheet:
    """Lay out a comparison of runs."""
    net, first = comparison.returns, comparison.returns.columns[0]
    start, end = (format_value(pd.Timestamp(net.index[place])) for place in (0, -1))
    return TearSheet(
        title=f"{net.shape[1]} runs compared",
        facts=f"{start} to {end} · {len(net):,} bars, {comparison.bars_per_year:g} a year",
        verdict=verdict(comparison),
        notes=comparison.warnings,
        parts=(
            Part("Equity", _growth(comparison)),
            Part("Figures", _figures(comparison), "Net of costs, on the bars that all runs share."),
            Part("Differences", _differences(comparison, first)),
            Part("Settings that differ", _settings(comparison)),
        ),
        settings={},
        versions={"maml-jax": version("maml-jax")},
    )


def verdict(comparison: Comparison) -> str:
    """Say how the first run's Sharpe ratio differs from those of the others."""
    first = comparison.returns.columns[0]
    stats: Any = comparison.stats
    told = [f"{first} had a net Sharpe ratio of {number(stats.loc['Sharpe Ratio', first])}"]
    table = comparison.differences
    for row in table[table["figure"] == "Sharpe Ratio"].itertuples() if len(table) else ():
        value, low, high = (float(getattr(row, end)) for end in ("value", "low", "high"))
        if value != value:
            continue
        side = "above" if value >= 0 else "below"
        clear = "" if low > 0 or high < 0 else ", which luck alone may explain"
        told.append(
            f"{number(abs(value))} {side} that of {row.other} "
            f"(difference {number(value)}, 95 %: {number(low)} to {number(high)}){clear}"
        )
    return "; ".join(told) + "."


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
            "How far each equity lies below its maximum.",
            plot_drawdown(net, title="", width=HALF),
        ),
        Plot(
            "Rolling Sharpe ratio",
            f"Of the last {rolling_window(len(net), comparison.bars_per_year):,} bars.",
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
                "Intervals of 95 %: how far chance alone moves the ratio of as many bars. Whether "
                "a run has an edge is what its own test of alpha says.",
                plot_intervals(comparison.intervals, headline=first, title="", width=HALF),
            )
        )
    blocks.append(Grid("Runs side by side", table, strong=first))
    if len(comparison.intervals):
        laid_out = with_intervals(comparison.intervals).rename_axis("run")
        caption = (
            "In brackets where 95 of 100 samples of a stationary bootstrap lie: how far chance "
            "alone moves a figure in as many bars."
        )
        blocks.append(Grid("Figures with intervals", laid_out, caption, first, columns=5))
    years = by_year(comparison.returns.iloc[:, :_SHOWN])
    blocks.append(Grid("Net return by year, %", years))
    whole = comparison.told.dropna(how="all").T.rename_axis("run")
    whole = whole[[name for name in _TOLD if name in whole]]
    caption = "As each run told them: of its own test span, with its own bars per year."
    return (*blocks, Grid("Each run by itself", whole, caption, first))


_TOLD = (
    "Start", "End", "Bars per Year", "Sharpe Ratio", "Gross Sharpe Ratio", "CAGR [%]",
    "Max. Drawdown [%]", "Turnover (Ann.)", "# Trades", "Correlation", "IC", "R2", "QLIKE",
)  # fmt: skip


def _differences(comparison: Comparison, first: str) -> tuple[Block, ...]:
    table = comparison.differences
    if table.empty:
        return ()
    return (
        Plot(
            f"Difference of Sharpe ratios, {first} less each",
            "Right of 0 the first run is better; an interval across 0 is no difference.",
            plot_intervals(table, headline="", title="", width=HALF),
        ),
        Grid(
            f"{first} less each other run",
            with_intervals(table, "other").rename_axis("run"),
            "Positive: the first run is better. Both hold the same bars in every sample.",
        ),
    )


def _settings(comparison: Comparison) -> tuple[Block, ...]:
    if comparison.settings.empty:
        return ()
    return (Grid("Settings", comparison.settings, columns=4),)
