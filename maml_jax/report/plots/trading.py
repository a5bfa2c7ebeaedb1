"""Figures of trading: exposure, turnover, and the effect of costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maml_jax.backtest.metrics import break_even_cost, sharpe_ratio
from maml_jax.errors import DataError
from maml_jax.report.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = tuple(range(0, 55, 5))
"""Costs of the sensitivity table, in basis points of the value traded."""


@style.apply_style
def plot_exposure(
    exposure: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame | None = None,
    *,
    headline: str | None = None,
    title: str = "Exposure and turnover",
    width: float = 9.0,
    most: int = 3,
) -> Figure:
    """Plot the share of the equity that is invested, and the share traded per bar.

    Args:
        exposure: sum of the sizes of all positions as a share of the equity, `[time, strategy]`.
        turnover: value traded per bar as a share of the equity, likewise; drawn as a rolling mean
            over a fiftieth of all bars, whose number stands on the axis.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    held = style.as_floats(exposure)
    if not held.notna().any(axis=None):
        return style.empty_figure(width, title, "no exposure is known")
    looks = style.line_styles(held.columns, headline)
    names = style.choose(held.columns, headline, most)
    traded = None if turnover is None else style.as_floats(turnover)
    heights = [0.06 * width + 1.5] * (1 if traded is None else 2)
    figure, axes = style.panels(width, heights, title)
    window = max(1, len(held) // 50)
    for name in names:
        style.draw_line(axes[0], style.thin(100 * held[name]), label=str(name), **looks[name])
        if traded is not None and name in traded:
            mean = 100 * traded[name].rolling(window, min_periods=1).mean()
            style.draw_line(axes[1], style.thin(mean), label=str(name), **looks[name])
    axes[0].set_ylabel("invested, %\nof equity")
    axes[0].set_ylim(bottom=0.0)
    if traded is not None:
        over = f", mean\nof {window:,} bars" if window > 1 else ""
        axes[1].set_ylabel(f"traded per bar, %\nof equity{over}")
        axes[1].set_ylim(bottom=0.0)
    style.time_axis(axes[-1], held.index, width)
    style.legend_below(figure, axes, width)
    return figure


def cost_sensitivity(
    gross: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame,
    bars_per_year: float,
    costs: tuple[float, ...] = COSTS,
) -> pd.DataFrame:
    r"""Return the Sharpe ratio of each strategy at other costs.

    $$n_t(c) = g_t - c\,\tau_t$$

    with gross returns $g$ and turnover $\tau$, the same trades at every cost.

    Args:
        gross: simple returns per bar before costs, `[time, strategy]`.
        turnover: value traded per bar as a share of the equity, likewise.
        bars_per_year: for annualising.
        costs: in basis points of the value traded.

    Returns:
        One row per cost, named `cost [bp]`, one column per strategy; annualised Sharpe ratios.

    Raises:
        DataError: if the two tables differ in bars or strategies.
    """
    g, traded = style.as_floats(gross), style.as_floats(turnover)
    if not (g.index.equals(traded.index) and g.columns.equals(traded.columns)):
        raise DataError("gross returns and turnover differ in bars or strategies")
    g, traded = g.fillna(0.0), traded.fillna(0.0)
    rows = {
        cost: {n: sharpe_ratio(g[n] - 1e-4 * cost * traded[n], bars_per_year) for n in g.columns}
        for cost in costs
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cost [bp]")


def break_even(gross: pd.Series | pd.DataFrame, turnover: pd.Series | pd.DataFrame) -> pd.Series:
    """Return the cost, in basis points of the value traded, at which the mean return is 0.

    Negative where it loses before costs; NaN where it does not trade.
    """
    g, traded = style.as_floats(gross).fillna(0.0), style.as_floats(turnover).fillna(0.0)
    return pd.Series({name: break_even_cost(g[name], traded[name]) for name in g.columns})


def effective_cost(
    gross: pd.Series | pd.DataFrame,
    net: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame,
) -> pd.Series:
    """Return the total cost of each strategy in basis points of the value traded.

    Gross minus net returns, over everything traded; NaN where nothing was.
    """
    g, traded = style.as_floats(gross), style.as_floats(turnover)
    costs = (g - style.as_floats(net)).sum()
    return 1e4 * costs / traded.sum().where(lambda total: total > 0)


@style.apply_style
def plot_cost_sensitivity(
    gross: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame,
    bars_per_year: float,
    *,
    cost: float | None = None,
    headline: str | None = None,
    title: str = "Effect of costs",
    width: float = 9.0,
    most: int = 6,
) -> Figure:
    """Plot the Sharpe ratio against the cost of trading, 0 to 50 basis points.

    Args:
        gross: simple returns per bar before costs, `[time, strategy]`.
        turnover: value traded per bar as a share of the equity, likewise.
        bars_per_year: for annualising.
        cost: the cost actually paid, in basis points of the value traded; marked.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    table = cost_sensitivity(gross, turnover, bars_per_year)
    if not table.notna().any(axis=None):
        return style.empty_figure(width, title, "no strategy has varying returns")
    figure, axes = style.canvas(width, 0.1 * width + 2.3, title)
    looks = style.line_styles(table.columns, headline)
    for name in style.choose(table.columns, headline, most):
        axes.plot(table.index, table[name].to_numpy(), label=str(name), **looks[name])
    axes.axhline(0.0, color="#999999", linewidth=0.8, zorder=1)
    if cost is not None and np.isfinite(cost) and cost <= COSTS[-1]:
        style_of = {"color": "#555555", "linewidth": 1.1, "linestyle": "--", "zorder": 2}
        axes.axvline(cost, label=f"paid, {cost:.3g} bp", **style_of)
    axes.set_xlabel("cost of trading, basis points of the value traded")
    axes.set_ylabel("Sharpe ratio (ann.)")
    axes.margins(x=0.01)
    style.legend_below(figure, axes, width)
    return figure
