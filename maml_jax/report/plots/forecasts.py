"""Figures of predictions, of their calibration, of adaptation and meta-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from maml_jax.backtest.metrics import pooled_correlation
from maml_jax.errors import DataError
from maml_jax.report.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D")
LEVELS = tuple(n / 20 for n in range(1, 20))


@style.apply_style
def plot_predictions(
    predictions: pd.DataFrame,
    *,
    bins: int = 10,
    overlap: int = 1,
    units: str = "",
    headline: str | None = None,
    title: str = "Predictions and outcomes",
    width: float = 9.0,
    most: int = 3,
    strategies: Sequence[str] | None = None,
) -> Figure:
    """Plot the mean outcome in bins of predictions, with 95 % intervals.

    Args:
        predictions: one row per prediction: `prediction`, `target` (NaN where it is not known),
            `strategy` where there are several, and `timestamp`: as `binned_outcomes` takes it.
        bins: of about as many rows each.
        overlap: bars over which one outcome reaches; outcomes of bars in a row then share prices,
            and intervals are wider by its square root.
        units: of predictions and outcomes.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
        strategies: candidates, in order; default all, as they first appear.

    Raises:
        DataError: if a column is missing.
    """
    every = _strategies(predictions, ("prediction", "target"), strategies)
    binned, agreements = {}, {}
    for name in style.choose(every, headline, most):
        own = _rows(predictions, name, ("prediction", "target"))
        table = binned_outcomes(own, bins, overlap)
        if len(table):
            binned[name] = table
            agreements[name] = pooled_correlation(own[["prediction"]], own[["target"]])
    if not binned:
        return style.empty_figure(width, title, "no prediction has a known outcome")
    figure, axes = style.canvas(width, 0.1 * width + 2.6, title)
    looks = style.line_styles(every, headline)
    for place, (name, table) in enumerate(binned.items()):
        look, agreement = looks[name], agreements[name]
        suffix = "" if np.isnan(agreement) else f", correlation {agreement:.3f}"
        axes.errorbar(
            table["prediction"],
            table["target"],
            yerr=table["high"] - table["target"],
            label=f"{name}{suffix}",
            color=look["color"],
            linewidth=look["linewidth"],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=4,
            capsize=2,
            elinewidth=0.9,
            zorder=look["zorder"],
        )
    ends = np.array(axes.get_xlim())
    low, high = axes.get_ylim()
    axes.plot(
        ends, ends, color="#666666", linewidth=1.0, linestyle="--", label="outcome = prediction"
    )
    axes.set_xlim(*ends)
    axes.set_ylim(low, high)
    if low < 0 < high:
        axes.axhline(0.0, color="#bbbbbb", linewidth=0.8, zorder=1)
    unit = f" ({units})" if units else ""
    axes.set_xlabel(f"mean prediction of the bin{unit}")
    axes.set_ylabel("mean outcome, same units")
    style.legend_below(figure, axes, width)
    return figure


def binned_outcomes(predictions: pd.DataFrame, bins: int = 10, overlap: int = 1) -> pd.DataFrame:
    r"""Return the means of predictions and outcomes of each bin, lowest predictions first.

    Outcomes of one date share its shocks, so rows of a date count together: with $G$ dates and $n$
    rows in a bin and deviations $e$ from its mean, the variance of the mean is

    $$\hat V = \frac{h G}{G - 1} \sum_{d=1}^{G} \Big( \frac1n \sum_{i \in d} e_i \Big)^2$$

    with $h$ the overlap: sums over $h$ bars of independent terms have at most that much more.

    Args:
        predictions: `prediction` and `target`, one row each, and `timestamp`; without it every row
            counts as a date of its own.
        bins: of about as many rows each; fewer where predictions are equal.
        overlap: as for `plot_predictions`.

    Returns:
        One row per bin: `prediction`, `target`, `error` (standard error of the mean outcome, NaN
        for a single date), `rows`, `dates`: how many independent dates would count as much, which
        is less than there are where some hold most of the rows; `low` and `high`: the interval
            of 95 % by a t-distribution with one degree of freedom fewer than those, at least one.

    Reference:
        Liang, Zeger (1986), Longitudinal data analysis using generalized linear models, Biometrika
        73; of dates that count less, Carter, Schnepel, Steigerwald (2017), Asymptotic behavior of a
        t-test robust to cluster heterogeneity, Review of Economics and Statistics 99.
    """
    from scipy.stats import t

    known = style.as_floats(predictions[["prediction", "target"]])
    there = known.notna().all(axis="columns").to_numpy()
    known = known[there]
    if known.empty:
        columns = ["prediction", "target", "error", "rows", "dates", "low", "high"]
        return pd.DataFrame(columns=columns, dtype="float64")
    edges = np.unique(known["prediction"].quantile(np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, known["prediction"].to_numpy(), side="left")
    date = np.arange(len(known))
    if "timestamp" in predictions:
        date = style.positions(pd.Index(predictions["timestamp"]))[there]
    groups = known.groupby(place)
    table, rows = groups.mean(), groups.size()
    off = known["target"] - groups["target"].transform("mean")
    by_date = off.groupby([place, date], dropna=False).agg(["sum", "size"]).groupby(level=0)
    count = by_date.size()
    squares = by_date["sum"].agg(lambda sums: np.square(sums).sum())
    widened = overlap * count / (count - 1).where(count > 1)
    table["error"] = np.sqrt(widened * squares) / rows
    dates = rows**2 / by_date["size"].agg(lambda sizes: np.square(sizes).sum())
    half = t.ppf(0.975, np.maximum(dates - 1, 1)) * table["error"]
    ends = {"low": table["target"] - half, "high": table["target"] + half}
    return table.assign(rows=rows, dates=dates, **ends).reset_index(drop=True)


@style.apply_style
def plot_calibration(
    predictions: pd.DataFrame,
    *,
    headline: str | None = None,
    title: str = "Calibration",
    width: float = 9.0,
    most: int = 4,
    strategies: Sequence[str] | None = None,
) -> Figure:
    """Plot the share of outcomes inside predicted intervals of each nominal coverage.

    Args:
        predictions: one row per prediction: `prediction`, `std` (predicted standard deviation, in
            units of the target), `target`, and `strategy` where there are several.
        headline: the strategy to highlight; default the first.
        title: above the axes.
        width: of the figure, in inches.
        most: strategies to show at most.
        strategies: candidates, in order; default all, as they first appear.

    Raises:
        DataError: if a column is missing.
    """
    from scipy.stats import norm

    columns = ("prediction", "std", "target")
    inside = {}
    for name in _strategies(predictions, columns, strategies):
        table = _rows(predictions, name, columns).dropna()
        if len(table):
            size = (table["target"] - table["prediction"]).abs()
            size /= table["std"].where(table["std"] > 0)
            inside[name] = [(size <= norm.ppf((1 + level) / 2)).mean() for level in LEVELS]
    if not inside:
        return style.empty_figure(width, title, "no prediction with a deviation has an outcome")
    figure, axes = style.canvas(width, 0.1 * width + 2.6, title)
    looks = style.line_styles(list(inside), headline)
    nominal = 100 * np.array([0.0, *LEVELS, 1.0])
    for name in style.choose(list(inside), headline, most):
        observed = inside[name]
        gap = np.mean([abs(o - level) for o, level in zip(observed, LEVELS, strict=True)])
        label = f"{name}, mean gap {100 * gap:.1f} points"
        axes.plot(nominal, [0.0, *(100 * np.array(observed)), 100.0], label=label, **looks[name])
    axes.plot([0, 100], [0, 100], color="#666666", linewidth=1.0, linestyle="--", label="ideal")
    axes.set_xlabel("nominal coverage of the predicted interval, %")
    axes.set_ylabel("outcomes inside, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    style.legend_below(figure, axes, width)
    return figure


@style.apply_style
def plot_training(
    history: pd.DataFrame, *, title: str = "Meta-training", width: float = 9.0
) -> Figure:
    """Plot the query loss over meta-steps, smoothed; one thin line per fold.

    Args:
        history: columns `method`, `step`, `loss`, and `fold` where there are several.
        title: above the axes.
        width: of the figure, in inches.
    """
    history = style.drop_categories(history)
    methods = list(dict.fromkeys(history["method"]))
    if not np.isfinite(history["loss"].to_numpy(float)).any():
        return style.empty_figure(width, title, "no meta-step was taken")
    figure, axes = style.canvas(width, 0.1 * width + 2.0, title)
    looks = style.line_styles(methods)
    late = []
    for method in methods[: style.MOST_LINES]:
        curves = _smooth_losses(history[history["method"] == method])
        look, label = looks[method], str(method)
        if len(curves) > 1:
            look, label = {**look, "linewidth": 0.7}, f"{method}, each of {len(curves)} folds"
        for place, curve in enumerate(curves):
            # Of lines that share a label, the legend names one.
            style.draw_line(axes, style.thin(curve), label=None if place else label, **look)
            # The first steps are far off; the later ones are what one looks at.
            late.append(curve.iloc[len(curve) // 20 :].to_numpy())
    heights = np.concatenate(late)
    heights = heights[np.isfinite(heights)]
    if len(heights) and heights.max() > heights.min():
        room = 0.15 * (heights.max() - heights.min())
        axes.set_ylim(heights.min() - room, heights.max() + room)
    axes.set_xlabel("meta-step")
    axes.set_ylabel("query loss")
    axes.margins(x=0.01)
    style.legend_below(figure, axes, width)
    return figure


def _smooth_losses(history: pd.DataFrame) -> list[pd.Series]:
    """Return a method's losses by step, one series per fold, each the mean of its last fiftieth."""
    folds = (
        [part for _, part in history.groupby("fold", dropna=False)]
        if "fold" in history
        else [history]
    )
    losses = [part.set_index("step")["loss"].astype("float64").sort_index() for part in folds]
    return [loss.rolling(max(1, len(loss) // 50), min_periods=1).mean() for loss in losses]


@style.apply_style
def plot_adaptation(
    errors: pd.DataFrame,
    levels: Mapping[str, float] | None = None,
    *,
    title: str = "Error after adaptation",
    width: float = 9.0,
    height: float = 4.8,
) -> Figure:
    """Plot errors against the number of adaptation steps, on a log axis.

    Args:
        errors: mean squared errors, `[number of steps, learner]`; NaN where a number was not
            tried. The row of 0 steps is before adapting.
        levels: errors of learners that take no steps, drawn as horizontal lines.
        title: above the axes.
        width: of the figure, in inches.
        height: of the figure, in inches.
    """
    from matplotlib.ticker import NullLocator

    levels = levels or {}
    table = style.as_floats(errors)
    table = table.where(table > 0)
    heights = [*table.to_numpy()[table.notna()], *(level for level in levels.values() if level > 0)]
    if not heights:
        return style.empty_figure(width, title, "no error is known")
    figure, axes = style.canvas(width, height, title)
    for place, name in enumerate(table.columns):
        curve = table[name].dropna()
        turn, colour = divmod(place, len(style.COLOURS))
        (line,) = axes.plot(curve.index, curve.to_numpy(), markersize=4, linewidth=1.2, label=name)
        line.set(color=style.COLOURS[colour], marker=_MARKERS[turn % len(_MARKERS)])
    for place, (name, level) in enumerate(levels.items()):
        colour = style.COLOURS[place % len(style.COLOURS)]
        axes.axhline(level, color=colour, linestyle="--", linewidth=1.2, label=name)
    style.growth_axis(axes, min(heights), max(heights))
    if len(table) > 1 and table.index.max() > 20:
        axes.set_xscale("symlog", linthresh=1)  # the first steps matter most, and there may be none
    ticks = list(table.index)
    axes.set_xticks(ticks, [f"{steps:g}" for steps in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("adaptation steps (0: before adapting)")
    axes.set_ylabel("mean squared error (log axis)")
    if width < 7:
        style.legend_below(figure, axes, width)
    else:
        figure.legend(loc="outside right upper")
    return figure


def _strategies(
    table: pd.DataFrame, columns: Sequence[str], strategies: Sequence[str] | None
) -> list:
    """List the strategies of a table of predictions; a placeholder where it names none."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise DataError(f"the table of predictions lacks {missing}; it has {list(table.columns)}")
    if "strategy" not in table:
        return ["predictions"]
    found = list(table["strategy"].dropna().unique())
    return found if strategies is None else [name for name in strategies if name in found]


def _rows(table: pd.DataFrame, strategy: object, columns: Sequence[str]) -> pd.DataFrame:
    """Return some columns of one strategy's rows as floats, and the times of rows as they are.

    One strategy after the other: there may be millions of rows of each.
    """
    read = table[[*columns, *(name for name in ("timestamp",) if name in table)]]
    if "strategy" in table:
        read = read[(table["strategy"] == strategy).to_numpy()]
    found = style.as_floats(read[list(columns)])
    return found.assign(timestamp=read["timestamp"]) if "timestamp" in read else found
