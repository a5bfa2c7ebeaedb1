"""Sections of the tear sheet on returns: equity, luck, strategies, periods, trading."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maml_jax.backtest.period_tables import by_year, drawdowns
from maml_jax.report import text
from maml_jax.report.plots import comparisons, style, trading
from maml_jax.report.plots import returns as growth
from maml_jax.report.run_tables import HALF, PHONE, WIDE, RunTables
from maml_jax.report.sections.overfitting import describe_overfitting
from maml_jax.report.tear_sheet import Block, Grid, Plot, Section, Tile, format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TABLES = {
    "Return and risk": (
        "Return [%]", "CAGR [%]", "Volatility (Ann.) [%]", "Sharpe Ratio", "Gross Sharpe Ratio",
        "Sortino Ratio", "Calmar Ratio", "Max. Drawdown [%]",
    ),
    "Trading": (
        "Exposure Time [%]", "Avg. Exposure [%]", "Turnover (Ann.)", "Costs (Ann.) [%]",
        "Break-Even Cost [bp]",
    ),
    "Trades": (
        "# Trades", "Win Rate [%]", "Profit Factor", "Best Trade [%]", "Worst Trade [%]",
        "Avg. Trade [%]", "Max. Trade Duration", "Avg. Trade Duration",
    ),
    "Forecasts": (
        "Correlation", "IC", "Rank IC", "ICIR", "Hit Rate [%]", "R2", "QLIKE", "NLL", "CRPS",
        "Coverage 50 % [%]", "Coverage 90 % [%]", "Calibration Error [%]",
    ),
}  # fmt: skip


def make_tiles(tables: RunTables) -> tuple[Tile, ...]:
    """Return the headline figures."""
    own = tables.headline

    def with_interval(figure: str) -> str:
        found = tables.intervals
        if found.empty:
            return ""
        row = found[(found["strategy"] == own) & (found["figure"] == figure)]
        if row.empty or not np.isfinite(row["low"].iloc[0]):
            return ""
        low, high = (text.format_number(row[end].iloc[0]) for end in ("low", "high"))
        return f"95 %: {low} to {high}"

    def against(figure: str) -> str:
        other = tables.figure(tables.benchmark, figure)
        known = other == other and own != tables.benchmark
        return f"{tables.benchmark} {text.format_number(other)}" if known else ""

    found = [
        Tile(label, text.format_number(value), with_interval(figure) or against(figure))
        for label, figure in (
            ("Sharpe ratio, net", "Sharpe Ratio"),
            ("CAGR, net, %", "CAGR [%]"),
            ("Max. drawdown, %", "Max. Drawdown [%]"),
            ("Turnover per year, × equity", "Turnover (Ann.)"),
        )
        if (value := float(tables.figure(own, figure))) == value
    ]
    if (explained := float(tables.figure(own, "R2"))) == explained:
        found.insert(0, Tile("R2 of forecasts", f"{explained:.3f}"))
    if own in tables.significance.index:
        row: dict = tables.significance.loc[own].to_dict()
        alpha, low, high = (
            row.get(key, np.nan) for key in ("alpha [%]", "alpha low [%]", "alpha high [%]")
        )
        if alpha == alpha:
            interval = (
                f"90 %: {text.format_number(low)} to {text.format_number(high)}"
                if low == low
                else ""
            )
            label = f"Alpha over {tables.benchmark}, % per year"
            found.append(Tile(label, text.format_number(alpha), interval))
        p, trials = row.get("p_adjusted", np.nan), row.get("trials", np.nan)
        if p == p:
            tried = f"best of {int(trials):,} trials" if trials > 1 else "one trial"
            found.append(Tile("Chance of a result this good by luck", text.format_chance(p), tried))
    return tuple(found)


def describe_equity(tables: RunTables) -> Section:
    """Show growth and drawdowns."""
    order = tables.order
    net, gross = tables.returns[order], _like(tables.gross, order)
    most = tables.headline
    return Section(
        "Equity",
        (
            _wide(
                "Growth of 1, net and before costs",
                "Costs are the gap between the solid and the dotted blue line." + tables.rest_note,
                lambda width: growth.plot_equity(net, gross, title="", width=width),
            ),
            _wide(
                "Drawdown",
                f"How far equity is below its previous peak. Filled: {most}.",
                lambda width: growth.plot_drawdown(net, title="", width=width),
            ),
        ),
    )


def describe_luck(tables: RunTables) -> Section:
    """Show how much of the result luck alone would explain."""
    blocks: list[Block] = []
    if not tables.intervals.empty:
        ordered = style.select_rows(tables.intervals, tables.order, "strategy")
        blocks.append(
            Plot(
                "Sharpe ratio",
                "95 % intervals: how far chance alone moves the ratio over this many bars. Whether "
                "there is an edge is what the test of alpha answers.",
                comparisons.plot_intervals(ordered, headline=tables.headline, title="", width=HALF),
            )
        )
    if not tables.differences.empty:
        ratios = tables.differences[tables.differences["figure"] == "Sharpe Ratio"]
        ratios = style.select_rows(ratios, tables.order, "other")
        if len(ratios):
            blocks.append(
                Plot(
                    f"Sharpe ratio, {tables.headline} minus each other strategy",
                    "Right of 0, the headline is better; an interval across 0 shows no difference.",
                    comparisons.plot_intervals(ratios, headline="", title="", width=HALF),
                )
            )
    if not tables.significance.empty:
        table = tables.significance.reindex(
            [n for n in tables.order if n in tables.significance.index]
        )
        table = table.dropna(axis="columns", how="all").rename(columns=_plain)
        if "trials" in table:
            table["trials"] = table["trials"].astype("Int64")
        blocks.append(
            Grid(
                "Tests",
                table,
                f"Alpha: annual return beyond beta times {tables.benchmark}, with its 90 % "
                "interval. p-value: how often luck does as well without alpha; adjusted: as the "
                "best of all trials on these bars. Probabilistic and deflated Sharpe: probability "
                "that the true Sharpe ratio is above 0, and above the best of as many trials "
                "without an edge. SPA p: how often luck makes some method beat that baseline by as "
                "much. Random shifts beaten: share of random shifts in time at which the "
                "same positions would have earned less.",
                tables.headline,
            )
        )
    if not tables.intervals.empty:
        laid_out = text.format_intervals(
            style.select_rows(tables.intervals, tables.order, "strategy")
        )
        caption = (
            "In brackets: 95 % intervals of a stationary bootstrap, how far luck alone moves a "
            "figure over this many bars."
        )
        blocks.append(Grid("Figures with intervals", laid_out, caption, tables.headline, columns=5))
    if not tables.differences.empty:
        ordered = style.select_rows(tables.differences, tables.order, "other")
        caption = "Positive: the headline is better."
        table = text.format_intervals(ordered, "other")
        blocks.append(Grid(f"{tables.headline} minus each other strategy", table, caption))
    if tables.overfitting:
        blocks += describe_overfitting(tables)
    return Section("Skill or luck", tuple(blocks))


def describe_strategies(tables: RunTables) -> Section:
    """Show every figure of every strategy."""
    table = tables.stats[[n for n in tables.order if n in tables.stats.columns]].T
    table = table.drop(columns=["Start", "End", "Duration", "Bars per Year"], errors="ignore")
    table = table.dropna(axis="columns", how="all").rename_axis("strategy")
    named = [name for names in _TABLES.values() for name in names]
    others = [name for name in table.columns if name not in named]
    blocks = [
        Grid(title, table[found], strong=tables.headline)
        for title, names in {**_TABLES, "Further figures": others}.items()
        if (found := [name for name in names if name in table.columns])
    ]
    text = "Same bars, same costs. Net returns, unless the name says gross."
    return Section("Strategies and baselines", tuple(blocks), text)


def describe_periods(tables: RunTables) -> Section:
    """Show months, years and drawdowns."""
    order, own = tables.order, tables.returns[tables.headline]
    net, years = tables.returns[order], tables.bars_per_year
    window = growth.rolling_window(len(net), years)
    few = tables.main_strategies[:8]
    falls = drawdowns(own.fillna(0.0)).sort_values("depth [%]").head(5)
    falls = falls.set_index(pd.RangeIndex(1, 1 + len(falls), name="#"))
    blocks: list[Block] = [
        _wide(
            f"Net return by month, {tables.headline}",
            "Blue: gain; orange: loss. A lasting edge is more than a few dark squares.",
            lambda width: growth.plot_monthly_returns(own, title="", width=width),
        ),
        Plot(
            "Rolling Sharpe ratio",
            f"Over the last {window:,} bars. A lasting edge stays above 0.",
            growth.plot_rolling_sharpe(net, years, title="", width=HALF, most=3),
        ),
        Plot(
            f"Returns per bar, {tables.headline}",
            "Columns above the curve at both ends: heavy tails; the two outermost hold all beyond.",
            growth.plot_return_distribution(own, title="", width=HALF),
        ),
        Grid("Net return by year, %", by_year(net[few]), tables.rest_note.strip()),
    ]
    if len(falls):
        caption = "From the peak to the trough and back to the peak; – where it is not back yet."
        blocks.append(Grid(f"Worst drawdowns, {tables.headline}", falls, caption))
    return Section("Over time", tuple(blocks))


def describe_trading(tables: RunTables) -> Section:
    """Show positions, costs and trades."""
    blocks: list[Block] = []
    order = tables.order
    exposure, turnover = _like(tables.exposure, order), _like(tables.turnover, order)
    if exposure is not None:
        blocks.append(
            Plot(
                "Exposure and turnover",
                "Share of the equity invested, and traded per bar. Every trade costs.",
                trading.plot_exposure(exposure, turnover, title="", width=HALF),
            )
        )
    gross = _like(tables.gross, order)
    if gross is not None and turnover is not None:
        cost, paid = _describe_cost(tables, gross, turnover)
        even = trading.break_even(gross, turnover)
        at = even[tables.headline]
        if at == at:
            paid += f" {tables.headline} breaks even at {text.format_number(at)} bp."
        terms = {"cost": cost, "title": "", "width": HALF, "most": 5}
        blocks.append(
            Plot(
                "Effect of costs",
                f"Sharpe ratio of the same trades at other costs; below 0 they lose money.{paid}",
                trading.plot_cost_sensitivity(gross, turnover, tables.bars_per_year, **terms),
            )
        )
        table = trading.cost_sensitivity(gross, turnover, tables.bars_per_year).T
        table = table.rename(columns=lambda bp: f"{bp:g} bp").rename_axis("strategy")
        table = table[[name for name in table if name in _SHOWN_COSTS]]
        table["break-even, bp"] = even
        blocks.append(
            Grid(
                "Sharpe ratio at other costs",
                table,
                "Basis points (hundredths of a per cent) of the value traded. Break-even: the cost "
                "at which the mean return is 0; negative where it loses before costs.",
                tables.headline,
            )
        )
    blocks += _trades(tables)
    return Section("Trading", tuple(blocks))


_SHOWN_COSTS = tuple(f"{bp:g} bp" for bp in (0, 5, 10, 15, 20, 30, 50))

_NAMES = {
    "p_value": "p-value", "p_adjusted": "p, adjusted", "spa_p": "SPA p", "trials": "trials",
    "probabilistic_sharpe": "probabilistic Sharpe", "deflated_sharpe": "deflated Sharpe",
    "random_share": "random shifts beaten",
}  # fmt: skip


_HIDDEN = ("open", "result", "cost", "entry_price", "exit_price")


def _plain(name: str) -> str:
    return _NAMES.get(name, name)


def _describe_cost(
    tables: RunTables, gross: pd.DataFrame, turnover: pd.DataFrame
) -> tuple[float | None, str]:
    """Return the headline's total cost in basis points of the value traded, and a sentence."""
    own = tables.headline
    cost = trading.effective_cost(gross[[own]], tables.returns[[own]], turnover[[own]])[own]
    if not np.isfinite(cost):
        return None, ""
    paid = f" {own} paid {cost:.3g} bp"
    paid += " (the dashed line)" if cost <= trading.COSTS[-1] else " (beyond the figure)"
    charged = None if tables.cost is None else 1e4 * tables.cost
    if charged is None or abs(cost - charged) <= max(0.05, 0.03 * charged):
        return cost, f"{paid}."
    return cost, (
        f"{paid} in total: {charged:g} bp of fee and slippage, and what the settings add or waive "
        "(borrowing, a share of the bar's range, take-profits without slippage)."
    )


def _trades(tables: RunTables) -> list[Block]:
    """Show the headline's first, last, best and worst trades."""
    if tables.trades.empty or "strategy" not in tables.trades:
        return []
    own = tables.trades[tables.trades["strategy"] == tables.headline].drop(columns="strategy")
    if own.empty:
        return []
    own = own.reset_index(drop=True)
    closed = own[~own["open"].astype(bool)] if "open" in own else own
    few = 4
    picked = {
        "first": own.head(few),
        "last": own.iloc[few:].tail(few),
        "best": closed.nlargest(few, "net"),
        "worst": closed.nsmallest(few, "net"),
    }
    parts = [part.assign(which=which) for which, part in picked.items() if len(part)]
    table = pd.concat(parts).set_index("which")
    table["side"] = np.where(table["side"] > 0, "long", "short")
    for name in ("gross", "net"):
        table[name] = 100 * table[name]
    table = table.rename(columns={"gross": "gross, %", "net": "net, %"})
    if "open" in table:
        table["exit"] = [
            "open" if is_open else format_value(time)
            for is_open, time in zip(table["open"], table["exit"], strict=True)
        ]
    keep = [c for c in table if c not in _HIDDEN]
    title = f"Trades of {tables.headline}: {len(own):,} in total"
    caption = "Entry and exit are the bars of the fills; returns are relative to equity at entry."
    return [Grid(title, table[keep], caption)]


def _wide(title: str, caption: str, draw: Callable[[float], Figure]) -> Plot:
    return Plot(title, caption, draw(WIDE), draw(PHONE), wide=True)


def _like(table: pd.DataFrame, order: list[str]) -> pd.DataFrame | None:
    """Return the strategies of a table in order; None where it lacks one."""
    return table[order] if len(table) and {*order} <= {*table.columns} else None
