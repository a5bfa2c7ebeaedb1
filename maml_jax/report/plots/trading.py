"""Figures of how a strategy trades: what it holds, what it turns over, what costs do to it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from maml_jax.backtest.metrics import break_even_cost, sharpe_ratio
from maml_jax.errors import DataError
from maml_jax.report.plots import style

COSTS = tuple(range(0, 55, 5))
"""Costs of the sensitivity table, in basis points of the value traded."""


@style.styled
def plot_exposure(
    exposure: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame | None = None,
    *,
    headline: str | None = None,
    title: str = "Exposure and turnover",
    width: float = 9.0,
    most: int = 3,
) -> Figure:
    """Plot what share of the equity is invested, and what share is traded.

    Args:
        exposure: sum of the sizes of all positions as a share of the equity, `[time, strategy]`.
        turnover: value traded per bar as a share of the equity, likewise; drawn as the mean of
            the last fiftieth of all bars, whose number the axis tells.
        headline: the strategy that stands out; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: how many strategies are shown.
    """
    held = style.columns_of(exposure)
    if not held.notna().any(axis=None):
        return style.nothing(width, title, "no exposure is known")
    looks = style.looks(held.columns, headline)
    names = style.shown(held.columns, headline, most)
    traded = None if turnover is None else style.columns_of(turnover)
    heights = [0.06 * width + 1.5] * (1 if traded is None else 2)
    figure, axes = style.panels(width, heights, title)
    window = max(1, len(held) // 50)
    for name in names:
        style.line(axes[0], style.thinned(100 * held[name]), label=str(name), **looks[name])
        if traded is not None and name in traded:
            mean = 100 * traded[name].rolling(window, min_periods=1).mean()
            style.line(axes[1], style.thinned(mean), label=str(name), **looks[name])
    axes[0].set_ylabel("invested, %\nof equity")
    axes[0].set_ylim(bottom=0.0)
    if traded is not None:
        over = f", mean\nof {window:,} bars" if window > 1 else ""
        axes[1].set_ylabel(f"traded a bar, %\nof equity{over}")
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
    r"""Return the Sharpe ratio that each strategy would have had at other costs.

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
        DataError: if the two tables have other bars or strategies.
    """
    g, traded = style.columns_of(gross), style.columns_of(turnover)
    if not (g.index.equals(traded.index) and g.columns.equals(traded.columns)):
        raise DataError("gross returns and turnover have other bars or strategies")
    g, traded = g.fillna(0.0), traded.fillna(0.0)
    rows = {
        cost: {n: sharpe_ratio(g[n] - 1e-4 * cost * traded[n], bars_per_year) for n in g.columns}
        for cost in costs
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cost [bp]")


def break_even(gross: pd.Series | pd.DataFrame, turnover: pd.Series | pd.DataFrame) -> pd.Series:
    """Return at what cost, in basis points of the value traded, each strategy's mean return is 0.

    Negative where it loses before costs; NaN where it does not trade.
    """
    g, traded = style.columns_of(gross).fillna(0.0), style.columns_of(turnover).fillna(0.0)
    return pd.Series({name: break_even_cost(g[name], traded[name]) for name in g.columns})


def paid(
    gross: pd.Series | pd.DataFrame,
    net: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame,
) -> pd.Series:
    """Return what each strategy paid, in basis points of the value traded, whatever it paid for.

    All that lies between gross and net returns over all that was traded; NaN where nothing was.
    """
    g, traded = style.columns_of(gross), style.columns_of(turnover)
    costs = (g - style.columns_of(net)).sum()
    return 1e4 * costs / traded.sum().where(lambda total: total > 0)


@style.styled
def plot_cost_sensitivity(
    gross: pd.Series | pd.DataFrame,
    turnover: pd.Series | pd.DataFrame,
    bars_per_year: float,
    *,
    cost: float | None = None,
    headline: str | None = None,
    title: str = "What costs do",
    width: float = 9.0,
    most: int = 6,
) -> Figure:
    """Plot the Sharpe ratio against the cost of trading, 0 to 50 basis points.

    Args:
        gross: simple returns per bar before costs, `[time, strategy]`.
        turnover: value traded per bar as a share of the equity, likewise.
        bars_per_year: for annualising.
        cost: what was paid, in basis points of the value traded; marked.
        headline: the strategy that stands out; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: how many strategies are shown.
    """
    table = cost_sensitivity(gross, turnover, bars_per_year)
    if not table.notna().any(axis=None):
        return style.nothing(width, title, "no strategy has returns that vary")
    figure, axes = style.canvas(width, 0.1 * width + 2.3, title)
    looks = style.looks(table.columns, headline)
    for name in style.shown(table.columns, headline, most):
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
