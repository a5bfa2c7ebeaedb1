"""Figures of results, as matplotlib figures that a notebook shows and a report embeds."""

from collections.abc import Mapping

import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from maml_jax.backtest.metrics import drawdown, equity_curve

COLOURS = ("#1f5fa8", "#d1495b", "#7a7a7a", "#c9a227", "#2e8b57", "#8e5aa8", "#00848c", "#a0522d")
_MARKERS = ("o", "s", "^")


def plot_equity(returns: pd.DataFrame, *, title: str = "Equity, net of costs") -> Figure:
    """Plot the growth of 1 of each strategy on a log axis.

    Args:
        returns: net simple returns per bar, `[time, strategy]`.
        title: above the axes.
    """
    equity = returns.apply(equity_curve)
    figure, axes = _axes(3.6)
    for colour, name in zip(_colours(equity), equity.columns, strict=True):
        axes.plot(equity.index, equity[name], color=colour, linewidth=1.2, label=name)
    if (equity > 0).all(axis=None):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        within_a_decade = equity.to_numpy().max() < 10 * equity.to_numpy().min()
        axes.yaxis.set_minor_formatter("{x:g}" if within_a_decade else NullFormatter())
        axes.tick_params(axis="y", which="both", labelsize=8)
    axes.axhline(1.0, color="#bbbbbb", linewidth=0.8)
    axes.set_ylabel("growth of 1")
    return _finish(figure, axes, title)


def plot_drawdown(returns: pd.DataFrame, *, title: str = "Drawdown") -> Figure:
    """Plot how far each strategy's equity lies below its maximum, in per cent.

    Args:
        returns: net simple returns per bar, `[time, strategy]`.
        title: above the axes.
    """
    falls = 100 * returns.apply(drawdown)
    figure, axes = _axes(2.4)
    for colour, name in zip(_colours(falls), falls.columns, strict=True):
        axes.plot(falls.index, falls[name], color=colour, linewidth=1.0, label=name)
    axes.set_ylabel("per cent")
    return _finish(figure, axes, title, legend=False)


def plot_training(history: pd.DataFrame, *, title: str = "Meta-training") -> Figure:
    """Plot the query loss over meta-steps, smoothed.

    Args:
        history: columns `method`, `step`, `loss`.
        title: above the axes.
    """
    figure, axes = _axes(2.4)
    methods = list(dict.fromkeys(history["method"]))
    for colour, method in zip(COLOURS, methods, strict=False):
        loss = history.loc[history["method"] == method].set_index("step")["loss"]
        smooth = loss.rolling(max(1, len(loss) // 50), min_periods=1).mean()
        axes.plot(smooth.index, smooth, color=colour, linewidth=1.2, label=method)
    axes.set_xlabel("meta-step")
    axes.set_ylabel("query loss")
    return _finish(figure, axes, title)


def plot_adaptation(
    errors: pd.DataFrame,
    levels: Mapping[str, float] | None = None,
    *,
    title: str = "Error after adaptation",
) -> Figure:
    """Plot errors against the number of adaptation steps, on a log axis.

    Args:
        errors: mean errors, `[number of steps, learner]`; NaN where a number was not tried.
        levels: errors of learners that take no steps, drawn as level lines.
        title: above the axes.
    """
    figure, axes = _axes(4.8)
    levels = levels or {}
    for place, name in enumerate(errors.columns):
        curve = errors[name].dropna()
        turn, colour = divmod(place, len(COLOURS))
        (line,) = axes.plot(curve.index, curve, markersize=4, linewidth=1.2, label=name)
        line.set(color=COLOURS[colour], marker=_MARKERS[turn % len(_MARKERS)])
    for place, (name, level) in enumerate(levels.items()):
        colour = COLOURS[place % len(COLOURS)]
        axes.axhline(level, color=colour, linestyle="--", linewidth=1.2, label=name)
    axes.set_yscale("log")
    # The first steps matter most, and there may be none.
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks(errors.index, [f"{steps:g}" for steps in errors.index])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("adaptation steps")
    axes.set_ylabel("mean squared error")
    _finish(figure, axes, title, legend=False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, figure.add_subplot()


def _colours(table: pd.DataFrame) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(table.shape[1])]


def _finish(figure: Figure, axes: Axes, title: str, legend: bool = True) -> Figure:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if np.issubdtype(np.asarray(axes.lines[0].get_xdata()).dtype, np.datetime64):
        locator = mdates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.margins(x=0.01)
    if legend:
        axes.legend(frameon=False, fontsize=8, ncols=3)
    return figure
