"""Figures that compare strategies: intervals, regimes, assets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from maml_jax import listing
from maml_jax.errors import DataError
from maml_jax.report import text
from maml_jax.report.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@style.apply_style
def plot_intervals(
    intervals: pd.DataFrame,
    figure: str = "Sharpe Ratio",
    *,
    headline: str | None = None,
    label: str = "95 % bootstrap interval",
    title: str | None = None,
    width: float = 9.0,
) -> Figure:
    """Plot a figure of each strategy with its interval.

    Args:
        intervals: one row per strategy and figure: `strategy` (or `other`), `figure`, `value`,
            `low`, `high`.
        figure: which figure to plot, with its units.
        headline: the strategy to highlight; default the first; "" for none.
        label: of the intervals, in the legend.
        title: above the axes; default the name of the figure.
        width: of the figure, in inches.

    Raises:
        DataError: if a column is missing.
    """
    name = "strategy" if "strategy" in intervals else "other"
    missing = [c for c in (name, "figure", "value", "low", "high") if c not in intervals]
    if missing:
        raise DataError(f"the table of intervals lacks {missing}")
    intervals = style.drop_categories(intervals)
    title = figure if title is None else title
    rows = intervals[intervals["figure"] == figure].drop_duplicates(name).set_index(name)
    rows = style.as_floats(rows[["value", "low", "high"]])
    rows = rows[rows["value"].notna()]
    if rows.empty:
        return style.empty_figure(width, title, f"{figure} is not known")
    drawn, axes = style.canvas(width, 0.27 * len(rows) + 1.15, title)
    first = rows.index[0] if headline is None else headline
    for place, (strategy, row) in enumerate(rows.iterrows()):
        own = strategy == first
        colour = style.COLOURS[0] if own else "#6f6f6f"
        spans = {"color": colour, "linewidth": 2.4 if own else 1.5, "solid_capstyle": "butt"}
        axes.plot(
            [row["low"], row["high"]], [place, place], **spans, label=None if place else label
        )
        axes.plot(row["value"], place, "o", color=colour, markersize=6 if own else 4.5)
    axes.axvline(0.0, color="#999999", linewidth=0.9, zorder=1)
    axes.set_yticks(range(len(rows)), [style.shorten(strategy) for strategy in rows.index])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel(figure)
    style.legend_below(drawn, axes, width)
    return drawn


@style.apply_style
def plot_regimes(
    regimes: pd.DataFrame,
    bars_per_year: float | None = None,
    *,
    headline: str | None = None,
    title: str = "Net return by regime",
    width: float = 9.0,
    most: int = 4,
) -> Figure:
    """Plot the annualised return of strategies in each regime of the market.

    Args:
        regimes: one row per strategy and regime: `strategy`, `regime`, `bars`,
            `Mean Return (Ann.) [%]`, `Volatility (Ann.) [%]`.
        bars_per_year: if given, error bars show 1.96 standard errors.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    regimes, names, looks = _read(regimes, headline, most)
    if regimes.empty or not regimes["Mean Return (Ann.) [%]"].notna().any():
        return style.empty_figure(width, title, "no regime is known")
    order = list(dict.fromkeys(regimes["regime"]))
    bars = regimes.drop_duplicates("regime").set_index("regime")["bars"]
    figure, axes = style.canvas(width, 0.16 * len(order) * (len(names) + 1) + 1.2, title)
    step = 0.8 / len(names)
    for number, name in enumerate(names):
        own = regimes[regimes["strategy"] == name].set_index("regime").reindex(order)
        place = np.arange(len(order)) - 0.4 + step * (number + 0.5)
        error = None
        if bars_per_year:
            error = 1.96 * own["Volatility (Ann.) [%]"] * np.sqrt(bars_per_year / own["bars"])
        axes.barh(
            place,
            own["Mean Return (Ann.) [%]"].to_numpy(float),
            height=0.9 * step,
            xerr=None if error is None else error.fillna(0.0).to_numpy(float),
            error_kw={"elinewidth": 0.8, "ecolor": "#444444"},
            color=looks[name]["color"],
            alpha=1.0 if number == 0 else 0.65,
            label=str(name),
        )
    axes.axvline(0.0, color="#777777", linewidth=0.9)
    labels = [f"{str(name).replace('_', ' ')}\n{int(bars[name]):,} bars" for name in order]
    axes.set_yticks(range(len(order)), labels)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("mean net return a year, %")
    style.legend_below(figure, axes, width)
    return figure


@style.apply_style
def plot_assets(
    assets: pd.DataFrame,
    figure: str = "Sharpe Ratio",
    *,
    headline: str | None = None,
    title: str = "Each asset traded alone",
    width: float = 9.0,
    most: int = 4,
) -> Figure:
    """Plot a figure of each asset, one mark per strategy; of many assets, its distribution.

    Args:
        assets: one row per strategy and asset: `strategy`, `asset` and the figure.
        figure: which figure to plot, with its units.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    assets, names, looks = _read(assets, headline, most)
    if assets["asset"].nunique() > listing.MOST:
        terms = {"headline": headline, "title": title, "width": width, "most": most}
        return plot_asset_distribution(assets, figure, **terms)
    table = assets.pivot_table(figure, "asset", "strategy", dropna=False, sort=False)
    names = [name for name in names if name in table]
    if not names or not table[names].notna().any(axis=None):
        return style.empty_figure(width, title, f"{figure} is not known")
    table = style.as_floats(table[names]).sort_values(names[0], ascending=False)
    drawn, axes = style.canvas(width, 0.2 * len(table) + 1.4, title)
    place = np.arange(len(table))
    span = table.min(axis="columns"), table.max(axis="columns")
    axes.hlines(place, *span, color="#dddddd", linewidth=1.2, zorder=1)
    for number, name in enumerate(names):
        axes.plot(
            table[name].to_numpy(),
            place,
            "osD^"[number % 4],
            color=looks[name]["color"],
            markersize=7 if number == 0 else 5,
            alpha=1.0 if number == 0 else 0.75,
            label=str(name),
            zorder=5 - number / 10,
        )
    axes.axvline(0.0, color="#999999", linewidth=0.9, zorder=0)
    axes.set_yticks(place, [style.shorten(asset) for asset in table.index])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel(f"{figure} (net)")
    style.legend_below(drawn, axes, width)
    return drawn


@style.apply_style
def plot_asset_distribution(
    assets: pd.DataFrame,
    figure: str = "Sharpe Ratio",
    *,
    headline: str | None = None,
    title: str = "Distribution over assets",
    width: float = 9.0,
    most: int = 4,
) -> Figure:
    """Plot the share of assets with a lower figure, one curve per strategy.

    Args:
        assets: one row per strategy and asset: `strategy`, `asset` and the figure.
        figure: which figure to plot, with its units.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
    """
    assets, names, looks = _read(assets, headline, most)
    known = style.as_floats(assets[[figure]])[figure]
    groups = {name: np.sort(known[assets["strategy"] == name].dropna()) for name in names}
    groups = {name: values for name, values in groups.items() if len(values)}
    if not groups:
        return style.empty_figure(width, title, f"{figure} is not known")
    drawn, axes = style.canvas(width, 0.1 * width + 2.8, title)
    for name, values in groups.items():
        places = np.unique(np.linspace(0, len(values) - 1, 401).round().astype(int))
        label = f"{name}, median {text.format_number(float(np.median(values)))}"
        axes.plot(values[places], 100 * (places + 0.5) / len(values), label=label, **looks[name])
        axes.plot(np.median(values), 50, "o", color=looks[name]["color"], markersize=5, zorder=6)
    axes.axvline(0.0, color="#999999", linewidth=0.9, zorder=1)
    axes.set_xlim(*_clip_axis(np.concatenate([*groups.values()])))
    axes.set_ylim(0, 100)
    axes.set_xlabel(f"{figure} (net)")
    axes.set_ylabel("assets with a lower figure, %")
    style.legend_below(drawn, axes, width)
    return drawn


@style.apply_style
def plot_assets_against(
    assets: pd.DataFrame,
    other: str,
    figure: str = "Sharpe Ratio",
    *,
    headline: str | None = None,
    title: str = "Each asset, two strategies",
    width: float = 9.0,
) -> Figure:
    """Plot a figure of each asset against that of another strategy, one dot per asset.

    Args:
        assets: one row per strategy and asset: `strategy`, `asset` and the figure.
        other: the strategy along the horizontal axis.
        figure: which figure to plot, with its units.
        headline: the strategy along the vertical axis; default the first.
        title: above the axes.
        width: of the figure, in inches.
    """
    assets = style.drop_categories(assets)
    own = next(iter(assets["strategy"]), "") if headline is None else headline
    values = {
        name: assets[assets["strategy"] == name].drop_duplicates("asset").set_index("asset")[figure]
        for name in (other, own)
    }
    table = style.as_floats(pd.DataFrame({"x": values[other], "y": values[own]})).dropna()
    if table.empty:
        return style.empty_figure(width, title, f"no asset has a {figure} for both")
    drawn, axes = style.canvas(width, 0.1 * width + 2.8, title)
    better = (table["y"] > table["x"]).to_numpy()
    for side, colour, what in (
        (better, style.GAIN, "better"),
        (~better, style.QUIET, "not better"),
    ):
        if side.any():
            label = f"{what}: {side.sum():,} assets"
            dots = {"color": colour, "markersize": 3, "alpha": 0.6, "markeredgewidth": 0}
            axes.plot(table["x"][side], table["y"][side], "o", label=label, **dots)
    axes.axline((0, 0), slope=1, color="#666666", linewidth=1.0, linestyle="--", label="equal")
    axes.set_xlim(*_clip_axis(table["x"].to_numpy()))
    axes.set_ylim(*_clip_axis(table["y"].to_numpy()))
    axes.set_xlabel(f"{figure} of {style.shorten(other)}")
    axes.set_ylabel(f"{figure} of {style.shorten(own)}")
    style.legend_below(drawn, axes, width)
    return drawn


def _read(
    table: pd.DataFrame, headline: str | None, most: int
) -> tuple[pd.DataFrame, list, dict[Any, dict[str, Any]]]:
    """Return a table with plain values, the strategies to show, and their styles."""
    table = style.drop_categories(table)
    strategies = list(dict.fromkeys(table["strategy"]))
    names = style.choose(strategies, headline, most)
    return table, names, style.line_styles(strategies, headline)


def _clip_axis(values: np.ndarray) -> tuple[float, float]:
    """Return ends of an axis that holds 99 % of values and 0, so that outliers squash nothing."""
    low, high = np.quantile(values, [0.005, 0.995])
    low, high = min(low, 0.0), max(high, 0.0)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room
