"""Figures of returns: equity, drawdown, rolling Sharpe ratio, months, distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maml_jax.backtest.metrics import drawdown, equity_curve
from maml_jax.backtest.period_tables import by_month, by_year
from maml_jax.report.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOOR = 1e-4
"""Growth below this is drawn at the floor: what is left of 1 after losing 99.99 %."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@style.apply_style
def plot_equity(
    returns: pd.Series | pd.DataFrame,
    gross: pd.Series | pd.DataFrame | None = None,
    *,
    headline: str | None = None,
    title: str = "Equity",
    width: float = 9.0,
) -> Figure:
    """Plot the growth of 1 of each strategy on a log axis.

    Args:
        returns: net simple returns per bar, `[time, strategy]`; NaN where there is none.
        gross: the same before costs; the headline's is drawn.
        headline: the strategy to highlight; default the first. Of many, the first are shown.
        title: above the axes.
        width: of the figure, in inches.
    """
    net = style.as_floats(returns)
    names = style.choose(net.columns, headline)
    looks = style.line_styles(net.columns, headline)
    curves = {str(name): (_equity(net[name]), looks[name]) for name in names}
    if gross is not None and names and names[0] in (table := style.as_floats(gross)):
        look = {**looks[names[0]], "linestyle": (0, (2, 1.5)), "linewidth": 1.2, "zorder": 4}
        curves[f"{names[0]}, before costs"] = (_equity(table[names[0]]), look)
    if not any(curve.notna().any() for curve, _ in curves.values()):
        return style.empty_figure(width, title, "no return is known")
    figure, axes = style.canvas(width, 0.16 * width + 2.5, title)
    for name, (curve, look) in curves.items():
        label = name if curve.min() > FLOOR else f"{name} (lost)"
        style.draw_line(axes, style.thin(curve.clip(lower=FLOOR)), label=label, **look)
    known = pd.concat([curve.clip(lower=FLOOR) for curve, _ in curves.values()])
    style.growth_axis(axes, min(known.min(), 1.0), max(known.max(), 1.0))
    axes.axhline(1.0, color="#999999", linewidth=0.8, zorder=1)
    axes.set_ylabel("growth of 1 (log axis)")
    style.time_axis(axes, net.index, width)
    style.legend_below(figure, axes, width)
    return figure


@style.apply_style
def plot_drawdown(
    returns: pd.Series | pd.DataFrame,
    *,
    headline: str | None = None,
    title: str = "Drawdown",
    width: float = 9.0,
    most: int = 4,
) -> Figure:
    """Plot how far each strategy's equity is below its previous peak, in per cent.

    Args:
        returns: net simple returns per bar, `[time, strategy]`.
        headline: the strategy to highlight, its drawdown filled; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    net = style.as_floats(returns)
    names = style.choose(net.columns, headline, most)
    looks = style.line_styles(net.columns, headline)
    if not net[names].notna().any(axis=None):
        return style.empty_figure(width, title, "no return is known")
    figure, axes = style.canvas(width, 0.1 * width + 1.95, title)
    for name in names:
        falls = 100 * pd.Series(drawdown(net[name].fillna(0.0)), index=net.index)
        falls = style.thin(falls.where(_within(net[name])))
        style.draw_line(axes, falls, label=str(name), **looks[name])
        if name == names[0]:
            filled = {"color": looks[name]["color"], "alpha": 0.12, "linewidth": 0}
            axes.fill_between(style.positions(falls.index), falls, 0.0, **filled)
    axes.set_ylabel("below the peak, %")
    axes.set_ylim(top=0.0)
    style.time_axis(axes, net.index, width)
    style.legend_below(figure, axes, width)
    return figure


@style.apply_style
def plot_rolling_sharpe(
    returns: pd.Series | pd.DataFrame,
    bars_per_year: float,
    *,
    window: int | None = None,
    headline: str | None = None,
    title: str = "Rolling Sharpe ratio",
    width: float = 9.0,
    most: int = 4,
) -> Figure:
    """Plot the annualised Sharpe ratio of the last bars.

    Args:
        returns: net simple returns per bar, `[time, strategy]`.
        bars_per_year: for annualising.
        window: bars; default a year, or a quarter of all bars if that is shorter.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    net = style.as_floats(returns)
    window = window or rolling_window(len(net), bars_per_year)
    names = style.choose(net.columns, headline, most)
    looks = style.line_styles(net.columns, headline)
    rolled = net[names].rolling(window)
    spread = rolled.std(ddof=1)
    ratios = rolled.mean() / spread.where(spread > 1e-9 * net[names].abs().max())
    ratios = ratios * np.sqrt(bars_per_year)
    if not ratios.notna().any(axis=None):
        return style.empty_figure(width, title, f"fewer than {window} bars with varying returns")
    figure, axes = style.canvas(width, 0.1 * width + 2.0, title)
    for name in names:
        style.draw_line(axes, style.thin(ratios[name]), label=str(name), **looks[name])
    axes.axhline(0.0, color="#999999", linewidth=0.8, zorder=1)
    axes.set_ylabel("Sharpe ratio (ann.)")
    style.time_axis(axes, net.index, width)
    axes.set_xlabel(f"window of {window:,} bars")
    style.legend_below(figure, axes, width)
    return figure


def rolling_window(bars: int, bars_per_year: float) -> int:
    """Return the window of rolling figures in bars: a year, or a quarter of all bars.

    >>> rolling_window(3000, 252.0), rolling_window(400, 252.0)
    (252, 100)
    """
    return max(2, min(round(bars_per_year), bars // 4))


@style.apply_style
def plot_monthly_returns(
    returns: pd.Series, *, title: str = "Net return by month", width: float = 9.0
) -> Figure:
    """Plot the return of each month and year in per cent, as a heat map.

    Args:
        returns: net simple returns per bar of one strategy, on an index of times.
        title: above the axes.
        width: of the figure, in inches.
    """
    from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

    months = 100 * monthly_returns(returns)
    if not months.notna().any(axis=None):
        return style.empty_figure(width, title, "no return is known")
    years = months.pop("year")
    figure, axes = style.canvas(width, 0.235 * len(months) + 1.05, title)
    size = np.nanmax(np.abs(months.to_numpy()))
    # One wild month must not leave all others white.
    bound = max(min(size, 2.5 * np.nanquantile(np.abs(months.to_numpy()), 0.9)), 1e-9)
    norm = TwoSlopeNorm(0.0, -bound, bound)
    colours = LinearSegmentedColormap.from_list("gains", (style.LOSS, "#ffffff", style.GAIN))
    axes.grid(False)
    image = axes.imshow(months, cmap=colours, norm=norm, aspect="auto")
    digits = 1 if width > 6 and size < 100 else 0
    text: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "fontsize": 8 if width > 6 else 7,
        "in_layout": False,
    }
    for row, month in zip(*np.nonzero(months.notna().to_numpy()), strict=True):
        value = float(months.to_numpy()[row, month])
        strong = abs(value) > 0.75 * bound
        axes.text(month, row, _short(value, digits), color="w" if strong else "#222222", **text)
    for row, value in enumerate(years):
        axes.text(12.1, row, _short(value, digits), color="#222222", fontweight="bold", **text)
    axes.set_xlim(-0.5, 12.6)
    names = _MONTHS if width > 6 else [name[0] for name in _MONTHS]
    axes.set_xticks([*range(12), 12.1], [*names, "year"])
    axes.set_yticks(range(len(months)), [str(year) for year in months.index])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(
        image, ax=axes, orientation="horizontal", fraction=0.08, aspect=60, pad=0.02, extend="both"
    )
    bar.set_label("net return of the month, %")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def monthly_returns(returns: pd.Series) -> pd.DataFrame:
    """Return compounded returns, `[year, month]` with months 1 to 12 and the column `year`.

    Args:
        returns: simple returns per bar, on an index of times; NaN counts as 0 within the span.
    """
    known = style.as_floats(returns).iloc[:, 0].loc[_within(returns)]
    months = by_month(known) / 100
    months["year"] = by_year(known.to_frame("year"))["year"] / 100
    return months.rename_axis(index="year", columns=None)


@style.apply_style
def plot_return_distribution(
    returns: pd.Series, *, title: str = "Distribution of returns", width: float = 9.0
) -> Figure:
    """Plot a histogram of net returns, beside a normal distribution.

    Args:
        returns: net simple returns per bar of one strategy. Returns of exactly 0, as without a
            position, are counted in the legend but not drawn.
        title: above the axes.
        width: of the figure, in inches.
    """
    from scipy import stats

    known = 100 * style.as_floats(returns).iloc[:, 0].dropna()
    moved = known[known != 0].to_numpy()
    if not len(moved):
        return style.empty_figure(width, title, "every return is 0")
    figure, axes = style.canvas(width, 0.1 * width + 2.1, title)
    low, high = np.quantile(moved, [0.002, 0.998])
    room = 0.05 * max(high - low, 1e-9 * max(abs(high), 1.0), 1e-12)
    bins = np.linspace(low - room, high + room, int(np.clip(2 * len(moved) ** 0.4, 8, 70)))
    idle = (
        f" ({len(known) - len(moved):,} of exactly 0 not drawn)" if len(moved) < len(known) else ""
    )
    inside = np.clip(moved, bins[0], bins[-1])
    label = f"{len(moved):,} bars{idle}"
    axes.hist(inside, bins=bins, color=style.COLOURS[0], alpha=0.75, label=label)  # pyright: ignore[reportArgumentType]
    if len(moved) > 2 and moved.std() > 1e-9 * np.abs(moved).max():
        place = np.linspace(bins[0], bins[-1], 200)
        normal = stats.norm.pdf(place, moved.mean(), moved.std()) * len(moved) * (bins[1] - bins[0])
        axes.plot(
            place, normal, color="#222222", linewidth=1.1, label="normal, same mean and deviation"
        )
    axes.axvline(known.mean(), color=style.COLOURS[4], linewidth=1.4, label="mean")
    fall = np.percentile(known, 5)
    axes.axvline(fall, color=style.LOSS, linewidth=1.4, linestyle="--", label="worst 5 % of bars")
    axes.set_xlabel("net return of a bar, %")
    axes.set_ylabel("number of bars")
    style.legend_below(figure, axes, width)
    return figure


def _equity(returns: pd.Series) -> pd.Series:
    curve = pd.Series(equity_curve(returns.fillna(0.0)), index=returns.index)
    return curve.where(np.isfinite(curve) & _within(returns))


def _within(returns: pd.Series) -> pd.Series:
    """Say which bars lie between the first and the last known return."""
    known = returns.notna()
    return known.cummax() & known[::-1].cummax()[::-1]


def _short(value: float, digits: int) -> str:
    return "" if value != value else f"{value:.{digits}f}".replace("-0.0", "0.0")
